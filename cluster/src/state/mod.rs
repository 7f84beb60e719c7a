//! The replicated state: pure, synchronous, ordered; no clock, no chance, no float.

pub mod command;
pub mod ids;
