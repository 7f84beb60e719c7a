//! What all nodes of a cluster hold equal, and how they come to.
//!
//! ```text
//! state   (pure)  the replicated state: document, ledger, sessions     apply(entry) -> outcome
//! clock   (pure)  the cluster clock                                     stamps that never run fast
//! leader  (pure)  grant sizing on the leader                            asks -> items
//! raft            the only folder that names openraft                   log, machine, network
//! peer            mutual TLS, frames, messages                          node <-> node
//! credentials     certificate files that change while the node runs     mutual TLS
//! recover         a new cluster from one disk of an old one             the day a majority is gone
//! replica         owns the raft instance                                propose, ask, publish the view
//! fatal           what ends a node                                      the first reason stands
//! ```

/// The target of events that tell a node's history: entries applied, terms led, snapshots installed, batches that got no
/// answer, leases that ended. At debug level; who compares the histories of nodes, or counts what they met, listens to
/// them. An event's message is its kind, in the plural where it is only counted, by its `count` or else by one.
pub const HISTORY: &str = "quorumgate::history";

pub mod fatal;
pub mod hooks;
pub mod warnings;
pub mod world;

pub mod clock;
pub mod leader;
pub mod lease;
pub mod state;

pub mod peer;
pub mod raft;
pub mod tls;

pub mod credentials;
pub mod membership;
pub mod recover;
pub mod replica;
pub mod view;
