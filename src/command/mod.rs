//! One file a command.

pub mod pki;
