//! TLS on the data plane: a raw stream in, a stream and what is known of its far end out.
//!
//! One crypto provider, named explicitly; certificates are judged by the world's wall clock.

/// Their certificate files.
pub mod files;
/// Clients' connections.
pub mod listening;

#[cfg(test)]
mod tests;
