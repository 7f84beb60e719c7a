//! The only folder that names openraft.
