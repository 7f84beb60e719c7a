//! Received in, routed out: which route takes this request?
//!
//! ```text
//! table    (pure)   host, path and method in, the one route that takes them out
//! compile  (pure)   a gateway document in, everything that requests read of it out
//! keeper   (actor)  follows the cluster's view, publishes each revision whole
//! ```

pub mod compile;
pub mod keeper;
pub mod table;

pub use compile::Published;
pub use keeper::Routes;
pub use table::{NoMatch, Table};
