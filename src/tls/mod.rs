//! TLS with those who are no nodes: a raw stream in, a stream and what is known of its far end out. Between nodes:
//! `cluster::tls`.
//!
//! One crypto provider, named explicitly; certificates are judged by the world's wall clock.

/// With upstreams.
pub mod calling;
/// Our certificate files.
pub mod files;
/// With clients.
pub mod listening;
mod places;

#[cfg(test)]
mod tests;
