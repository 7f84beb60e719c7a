//! Calls over real loopback sockets, and what happens to everybody else.

mod calls;
pub(crate) mod fixture;
mod renewal;
mod strangers;
