//! Upstreams: where requests go.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::UpstreamName;

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// A port, ≥ 1.
    pub port: u16,
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1: a connection serves one request at a time.
    #[default]
    Http1,
    /// HTTP/2, which the endpoints are known to speak: a connection serves many requests at once.
    Http2,
}

/// How connections to an upstream are secured. Files are those of each node, relative to the node file's folder unless
/// absolute; the document never holds what is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// PEM file of the certificates that are trusted to sign endpoints'.
    pub ca: String,
    /// The name that endpoints' certificates must bear; none: the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// PEM files of the gateway's own certificate and its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientFiles>,
}

/// A certificate that the gateway shows to an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFiles {
    /// The certificate, then intermediates.
    pub certificate: String,
    /// Its private key.
    pub key: String,
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
    /// Longest silence inside a body, either way, and how long the upstream may take nothing of a request's.
    pub body_idle_timeout: Duration,
    /// An unused connection is closed after this.
    pub idle_timeout: Duration,
    /// A connection that has switched protocols is closed when nothing came from either side for this long.
    #[serde(default = "tunnel_idle_timeout", skip_serializing_if = "is_tunnel_idle_timeout")]
    pub tunnel_idle_timeout: Duration,
    /// Connections at once, on each data-plane thread.
    pub connections_max: u32,
    /// What is spoken to all endpoints.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Requests at once on one HTTP/2 connection.
    #[serde(default = "streams_max", skip_serializing_if = "is_streams_max")]
    pub streams_max: u32,
    /// None: endpoints are spoken to in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
}

impl Upstream {
    /// The longest timeout that a document may ask for.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
    /// What a timeout may be.
    pub const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Self::TIMEOUT_MAX;
    /// Endpoints of one upstream.
    pub const ENDPOINTS_MAX: usize = 1_000;
    /// What `connections_max` may be.
    pub const CONNECTIONS: RangeInclusive<u32> = 1..=65_536;
    /// What `streams_max` may be.
    pub const STREAMS: RangeInclusive<u32> = 1..=1_000;

    /// An upstream with the defaults of a document: 1 s to connect, 10 s for a response's head, 30 s of silence,
    /// unused connections kept for 60 s, silent tunnels for 5 min, 256 connections of HTTP/1.1, or of 100 requests each of HTTP/2.
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
            protocol: Protocol::Http1,
            streams_max: streams_max(),
            tls: None,
        }
    }
}

fn tunnel_idle_timeout() -> Duration {
    Duration::from_secs(300)
}

fn is_tunnel_idle_timeout(timeout: &Duration) -> bool {
    *timeout == tunnel_idle_timeout()
}

fn streams_max() -> u32 {
    100
}

fn is_streams_max(count: &u32) -> bool {
    *count == streams_max()
}

fn is_default(protocol: &Protocol) -> bool {
    *protocol == Protocol::default()
}
