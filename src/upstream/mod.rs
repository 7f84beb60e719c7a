//! Admitted in, reply out.

/// Bodies on their way through.
pub mod body;
