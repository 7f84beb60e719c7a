//! TLS with those who are no nodes. Between nodes: `cluster::tls`.

/// With upstreams.
pub mod calling;
