//! The node file: what one process needs to know before it meets its cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ids::NodeName;
use crate::mistake::{Parsed, conclude};
use crate::spot::Notes;
use crate::tree;

/// Where operators are listened to when the file does not say.
pub const ADMIN_LISTEN_DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9101));

/// Reads a node file: YAML, or JSON of the same shape. Nothing on disk is looked at.
///
/// - `dir`: the file's folder, to which relative paths are joined.
///
/// `config/schema/node.schema.json` describes the shape, `config/examples/single.yaml` shows it.
///
/// # Errors
/// Every mistake in the file, in its order; broken YAML alone.
pub fn parse(text: &str, dir: &Path) -> Parsed<NodeFile> {
    let tree = tree::read(text).map_err(|mistake| vec![mistake])?;
    let mut notes = Notes::default();
    let file = crate::draft::node::read(&tree, dir, &mut notes);
    conclude(notes.mistakes, file)
}

/// A complete, checked node file. Relative paths were joined to the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// This node.
    pub name: NodeName,
    /// The file's folder: relative secret files of the gateway document are looked for here.
    pub folder: PathBuf,
    /// Everything this node keeps; one process at a time.
    pub data: PathBuf,
    /// The cluster side.
    pub cluster: ClusterFile,
    /// The clients' side.
    pub http: HttpFile,
    /// The operators' side: a loopback address.
    pub admin: SocketAddr,
    /// Process limits.
    pub limits: Limits,
    /// Logs.
    pub log: LogFile,
    /// Adds the admission instant (CLOCK_BOOTTIME, ns) to requests for the upstream, as `quorumgate-admitted-ns`.
    pub stamp_admissions: bool,
    /// Log entries after which a snapshot is made, and those before it are purged but for a quarter as many.
    pub snapshot_after_entries: u64,
}

/// For a file that does not say: some 20 MB of log at most.
pub const SNAPSHOT_AFTER_ENTRIES_DEFAULT: u64 = 20_000;

/// How a node meets its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    /// Where peers' connections are accepted.
    pub listen: SocketAddr,
    /// `host:port` under which peers reach this node.
    pub advertise: String,
    /// Other nodes → `host:port`: where a new node asks to join.
    pub peers: BTreeMap<NodeName, String>,
    /// Mutual TLS; none: plaintext, which the file had to ask for and which allows loopback addresses alone.
    pub tls: Option<TlsFiles>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's CA.
    pub ca: PathBuf,
    /// This node's certificate; its DNS name is the node's name.
    pub certificate: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

/// The clients' listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFile {
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Data-plane threads, ≥ 1; none: one a core.
    pub workers: Option<u16>,
}

/// Explicit limits of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once.
    pub connections_max: u32,
    /// A request's head, in bytes, 8 KiB or more.
    pub head_bytes_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// A request's body, in bytes.
    pub body_bytes_max: u64,
    /// Until a request's head is complete.
    pub head_timeout: Duration,
    /// Longest silence of a client inside its body.
    pub body_idle_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// How long connections may finish at shutdown.
    pub drain_timeout: Duration,
    /// Requests that wait for quota tokens at once.
    pub waiters_max: u32,
    /// Lease cells held at once.
    pub keys_max: u32,
    /// Verified tokens remembered at once.
    pub tokens_cached_max: u32,
    /// Copies of requests that are under way to mirrors at once, on each data-plane thread; any more are not made.
    pub mirrors_max: u32,
}

/// How much is logged, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// A filter: `info`, or `info,quorumgate=debug`.
    pub filter: String,
    /// JSON lines, else text.
    pub json: bool,
}

impl Limits {
    /// Any smaller and requests that others accept would fail.
    pub const HEAD_BYTES_LEAST: u64 = 8 << 10;
}

/// What a file that is silent about its limits gets; sized for a machine with a few cores and 1 GiB to spare.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_bytes_max: 16 << 10,
            headers_max: 100,
            body_bytes_max: 16 << 20,
            head_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            waiters_max: 10_000,
            keys_max: 1_000_000,
            tokens_cached_max: 100_000,
            mirrors_max: 64,
        }
    }
}

/// `info`, as text.
impl Default for LogFile {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}
