//! Messages between replicas: documents, joining, view leases.

use serde::{Deserialize, Serialize};

/// A document for the leader. The same `request_id` may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyV1 {
    /// Canonical JSON.
    pub json: String,
    /// Refused unless this revision is in force.
    pub expected: Option<u64>,
    /// Names the request.
    pub request_id: u128,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyAnswerV1 {
    /// It is in force everywhere, but for those named.
    Applied {
        /// Its revision.
        revision: u64,
        /// Members that have not confirmed it.
        unconfirmed: Vec<String>,
    },
    /// It was refused.
    Refused(String),
    /// The node asked does not lead, or could not commit in time: send it again.
    Again,
}

/// A node wants to be a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinV1 {
    /// Its name.
    pub name: String,
    /// Its address for peers.
    pub address: String,
    /// What it was told before: the cluster, and its raft id in it.
    pub admitted: Option<(u128, u64)>,
    /// The node asked may send it on to the leader.
    pub forward: bool,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswerV1 {
    /// The raft id is reserved: make it durable, start with it, ask again.
    Admitted {
        /// The cluster.
        cluster_id: u128,
        /// The raft id.
        raft_id: u64,
    },
    /// It is being made a member; look at the membership that arrives, or ask again.
    Underway,
    /// It is a voter.
    Member,
    /// Refused for good.
    Refused(String),
    /// No leader here: ask another, or later.
    Again,
    /// Its raft id was taken from it: its disk can not be used any more.
    Removed,
}

/// A member reports what it has and asks how far it must have applied to be up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeV1 {
    /// Who.
    pub node: u64,
    /// The document's revision in its published view.
    pub revision: u64,
    /// Its last applied index.
    pub applied: u64,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeAnswerV1 {
    /// A majority confirmed the leader after the probe came: whoever has applied this index is up to date.
    UpTo(u64),
    /// The node asked does not lead.
    NotLeader,
}

/// Which node of which cluster keeps this disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityV1 {
    /// The cluster.
    pub cluster_id: u128,
    /// Its number.
    pub raft_id: u64,
    /// Its name.
    pub name: String,
    /// It was removed from the cluster: nothing may start on this disk.
    pub removed: bool,
}
