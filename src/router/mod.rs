//! Received in, routed out: which route takes this request?
//!
//! ```text
//! asked     (pure)   a request in, what routes look at out
//! entry     (pure)   two routes in, the preferred one out
//! table     (pure)   what is asked in, the one route that takes it out
//! explain   (pure)   what is asked in, why each route does or does not take it out
//! split     (pure)   a request of a route with several upstreams in, the one that takes it out
//! partition (pure)  a request of a route whose upstreams hold parts in, the one that holds its part out
//! paths     (pure)   a request's path in, the one that a route puts in its place out
//! lifecycle (pure)   a version and the time in, whether it is over and what answers tell of it out
//! flags     (pure)   a request in, the flags that are on for it out
//! compile   (pure)   a gateway document in, everything that requests read of it out
//! keeper    (actor)  follows the cluster's view, publishes each revision whole
//! ```

pub mod asked;
pub mod compile;
pub mod entry;
pub mod explain;
pub mod flags;
pub mod keeper;
pub mod lifecycle;
pub mod partition;
pub mod paths;
pub mod split;
pub mod table;

pub use asked::Asked;
pub use compile::Published;
pub use keeper::Routes;
pub use table::{NoMatch, Table};
