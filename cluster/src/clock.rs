//! The cluster clock.
