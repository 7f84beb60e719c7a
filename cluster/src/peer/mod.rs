//! Node to node.

pub mod codec;
pub mod message;
