//! Received in, answered out: the whole gateway as one function.

/// What each step hands to the next.
pub mod evidence;
/// A request as it was received.
pub mod received;
