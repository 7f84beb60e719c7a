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
    /// A connection that has switched protocols is closed when nothing came from either side for this long.
    #[serde(default = "tunnel_idle_timeout", skip_serializing_if = "is_tunnel_idle_timeout")]
    pub tunnel_idle_timeout: Duration,
    /// Connections at once, on each data-plane thread.
    pub connections_max: u32,
}

impl Upstream {
    /// The longest timeout that a document may ask for.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

    /// An upstream with the defaults of a document: 1 s to connect, 10 s for a response's head, 30 s of silence,
    /// unused connections kept for 60 s, silent tunnels for 5 min, 256 connections.
    pub fn of(name: UpstreamName, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name,
            endpoints,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            tunnel_idle_timeout: tunnel_idle_timeout(),
            connections_max: 256,
        }
    }
}

fn tunnel_idle_timeout() -> Duration {
    Duration::from_secs(300)
}

fn is_tunnel_idle_timeout(timeout: &Duration) -> bool {
    *timeout == tunnel_idle_timeout()
}
