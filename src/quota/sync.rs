//! The atomics of the cell: the standard ones, or loom's when `tests/loom` explores interleavings.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64, Ordering};
