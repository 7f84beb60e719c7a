//! Who is at the far end of a client's connection. Known once, and the same for all its requests.

use std::net::SocketAddr;

/// The far end of one connection.
#[derive(Debug)]
pub struct Caller {
    /// Its address.
    pub peer: SocketAddr,
}

impl Caller {
    /// One that nothing is known of but its address.
    pub fn new(peer: SocketAddr) -> Self {
        Self { peer }
    }
}
