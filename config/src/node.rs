//! The node file: what one process needs to know before it meets its cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::ids::NodeName;

/// A complete, checked node file. Relative paths were joined to the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// This node.
    pub name: NodeName,
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
}

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
}

/// How much is logged, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// A filter: `info`, or `info,quorumgate=debug`.
    pub filter: String,
    /// JSON lines, else text.
    pub json: bool,
}
