//! An API gateway cluster whose cluster-wide quotas are exact.
//!
//! Modules in the order that a request meets them.

/// Screened in, authenticated out.
pub mod auth;
/// Accepted connection in, requests out; one actor a connection.
pub mod connection;
/// Admitted in, answered without an upstream out.
pub mod direct;
/// Header fields that a route changes.
pub mod edits;
/// Field values that are made for each request.
mod fields;
/// Received in, answered out: the whole gateway as one function.
pub mod journey;
/// Socket in, accepted connections out.
pub mod listener;
/// Authenticated in, admitted out.
pub mod quota;
/// Why the gateway answered in the upstream's place.
pub mod refusal;
/// Reply or refusal in, answered out.
pub mod response;
/// Received in, routed out.
pub mod router;
/// Answered in, figures out.
pub mod telemetry;
/// Admitted in, reply out.
pub mod upstream;

/// The operators' door.
pub mod admin;
/// One node: starts the tree, restarts, drains.
pub mod node;
/// Streams that nobody else can read.
pub mod tls;
/// The real world.
pub mod world;

/// One file a command.
pub mod command;
