//! What an operator can say: text in, complete types or a list of mistakes out.
//!
//! Two documents, both YAML. The *node file* ([`node::NodeFile`]) is local to one process. The *gateway document*
//! ([`gateway::GatewayDocument`]) is replicated: every node of a cluster holds the same revision of it.
//!
//! This crate is pure. It opens no file, reads no environment and knows no clock, so that a document means
//! the same on every node.

pub mod ids;
pub mod units;

pub mod action;
pub mod flag;
pub mod gateway;
pub mod identity;
pub mod lifecycle;
pub mod node;
pub mod path;
pub mod pattern;
pub mod quota;
pub mod route;
pub mod upstream;

pub mod mistake;
pub mod schema;
pub mod spot;
pub mod tree;

mod check;
mod draft;
