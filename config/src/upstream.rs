//! Upstreams: where requests go.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::UpstreamName;

/// One address of an upstream. Plain HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// A port, ≥ 1.
    pub port: u16,
}

/// A set of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name in routes, logs and metrics.
    pub name: UpstreamName,
    /// At least one; requests take turns.
    pub endpoints: Vec<Endpoint>,
    /// Until a new connection is up.
    pub connect_timeout: Duration,
    /// From the request's last byte until the response's head.
    pub response_timeout: Duration,
    /// Longest silence inside a body, either way.
    pub body_idle_timeout: Duration,
    /// An unused connection is closed after this.
    pub idle_timeout: Duration,
    /// Connections at once, on each data-plane thread.
    pub connections_max: u32,
}
