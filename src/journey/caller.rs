//! Who is at the far end of a client's connection. Known once, and the same for all its requests.

use std::net::SocketAddr;

use config::action::Scheme;
use http::HeaderValue;

/// The far end of one connection.
#[derive(Debug)]
pub struct Caller {
    /// Its address.
    pub peer: SocketAddr,
    /// How it speaks to us.
    pub scheme: Scheme,
    /// What its verified certificate says, for upstreams.
    pub certificate: Option<HeaderValue>,
}

impl Caller {
    /// One that nothing is known of but its address.
    pub fn new(peer: SocketAddr) -> Self {
        Self { peer, scheme: Scheme::Http, certificate: None }
    }
}
