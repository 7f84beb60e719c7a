//! Node to node.
