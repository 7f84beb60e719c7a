//! What a gateway reads of its cluster: an immutable picture, published after each change.

use std::collections::VecDeque;
use std::sync::Arc;

use config::gateway::GatewayDocument;
use config::ids::NodeName;

use crate::state::ids::{RaftId, Revision};
use crate::state::members::{Ended, Operation};

/// What this node knows of the cluster.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// This node's number; none: it has not joined yet.
    pub raft_id: Option<RaftId>,
    /// Names the cluster; none: it has not joined yet.
    pub cluster_id: Option<u128>,
    /// The document's revision.
    pub revision: Revision,
    /// The document in force; none before the first `apply`.
    pub document: Option<Arc<GatewayDocument>>,
    /// Keys the hashes of quota keys; none: not founded yet.
    pub secret: Option<[u8; 16]>,
    /// Leader, as far as this node knows.
    pub leader: Option<RaftId>,
    /// Present term.
    pub term: u64,
    /// Whether this node is the leader.
    pub is_leader: bool,
    /// Last applied log index.
    pub applied_index: u64,
    /// Buckets of the ledger at that index.
    pub buckets: u64,
    /// Its sessions.
    pub sessions: u64,
    /// Entries in this node's log.
    pub log_entries: u64,
    /// All members, sorted by id.
    pub members: Vec<ViewMember>,
    /// The membership operation under way.
    pub operation: Option<Operation>,
    /// The last ones that ended, the newest at the end.
    pub ended: Arc<VecDeque<Ended>>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewMember {
    /// Its number.
    pub raft_id: RaftId,
    /// Its name.
    pub name: NodeName,
    /// Its address for peers.
    pub address: String,
    /// Voter, else learner.
    pub voter: bool,
}
