//! The node file: what one process needs to know before it meets its cluster.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

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
    /// The clients' side, over TLS.
    pub https: Option<HttpsFile>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpFile {
    /// Where requests come in without TLS; none: only with it.
    pub listen: Option<SocketAddr>,
    /// Data-plane threads, ≥ 1; none: one a core.
    pub workers: Option<u16>,
    /// Whose forwarded fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whose connections begin with a PROXY header.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// The clients' listener for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsFile {
    /// Where requests come in.
    pub listen: SocketAddr,
    /// One or more; the first is for clients that name no host, or one that none of them bears.
    pub certificates: Vec<CertificateFiles>,
    /// Refuses those clients instead.
    pub strict: bool,
    /// CAs of clients' certificates; none: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// Whether a client has to show one.
    pub client_certificate: ClientCertificate,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// A certificate, then intermediates.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It has.
    Required,
    /// It may; one that it shows has to be good.
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
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
    /// Bytes a second, on average, that a client sends of a body and takes of an answer while it is waited for, after 30 s
    /// of grace; 0: any number. What gRPC calls send is not counted.
    pub body_rate_min: u64,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// TLS handshakes at once.
    pub tls_handshakes_max: u32,
    /// Until a TLS handshake is done, its wait for a place included.
    pub tls_handshake_timeout: Duration,
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
    /// HTTP/2 alone.
    pub http2: Http2Limits,
}

/// Explicit limits of one client's HTTP/2 connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Streams at once.
    pub streams_max: u32,
    /// Bytes of a stream's body that a client may send before they are read.
    pub stream_window_bytes: u32,
    /// The same of all streams together: room for the windows of all, so that no stream whose body is not read stops others.
    pub connection_window_bytes: u32,
    /// The longest frame that is taken, 16 KiB or more.
    pub frame_bytes_max: u32,
    /// Bytes of a stream's answer that wait for the client to read.
    pub send_buffer_bytes_max: u32,
    /// Streams that a client resets before they are looked at (CVE-2023-44487), until its connection is closed.
    pub resets_pending_max: u32,
    /// Streams that we reset because of what a client did to them (CVE-2025-8671), until its connection is closed.
    pub resets_local_max: u32,
    /// How often a client is asked whether it is still there.
    pub ping_interval: Duration,
    /// How long it has to answer.
    pub ping_timeout: Duration,
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
            body_rate_min: 100,
            idle_timeout: Duration::from_secs(60),
            tls_handshakes_max: 256,
            tls_handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            waiters_max: 10_000,
            keys_max: 1_000_000,
            tokens_cached_max: 100_000,
            mirrors_max: 64,
            http2: Http2Limits::default(),
        }
    }
}

impl Http2Limits {
    /// The longest window that the protocol has.
    pub const WINDOW_BYTES_MAX: u64 = (1 << 31) - 1;
    /// The shortest and the longest frame that a peer may be told to keep to.
    pub const FRAME_BYTES: std::ops::RangeInclusive<u64> = (16 << 10)..=(1 << 24) - 1;
}

/// A connection that does its worst costs some 13 MiB: a full window and a full answer of each stream.
impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window_bytes: 64 << 10,
            connection_window_bytes: 100 * (64 << 10),
            frame_bytes_max: 16 << 10,
            send_buffer_bytes_max: 64 << 10,
            resets_pending_max: 20,
            resets_local_max: 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// `info`, as text.
impl Default for LogFile {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}
