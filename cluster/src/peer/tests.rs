//! Calls over real loopback sockets, and what happens to everybody else.

mod calls;
mod fixture;
mod renewal;
mod strangers;
