//! Our names for openraft's types.

// What the replica works with; it names openraft through these alone.
pub use openraft::async_runtime::WatchReceiver;
pub use openraft::errors::Fatal as RaftFatal;
pub use openraft::impls::ProgressResponder;
pub use openraft::{ChangeMembers, ReadPolicy};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::state::command::{Command, Outcome};

openraft::declare_raft_types!(
    /// Textbook terms: one leader a term.
    pub TypeConfig:
        D = Local<Command>,
        R = Local<Outcome>,
        NodeId = u64,
        Node = PeerNode,
        LeaderId = LeaderId,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

/// A term and for whom this node voted in it.
pub type LeaderId = openraft::vote::leader_id_std::LeaderId<u64, u64>;
/// A position in the log.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Who votes, who listens.
pub type Membership = openraft::Membership<u64, PeerNode>;
/// A membership and where the log holds it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot holds.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, super::snapshot::Parcel>;
/// Its figures.
pub type Metrics = openraft::RaftMetrics<TypeConfig>;

/// What became of a write.
pub type Written = openraft::raft::ClientWriteResult<TypeConfig>;

/// A member as the membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerNode {
    /// The operator's name.
    pub name: String,
    /// `host:port` for peers.
    pub address: String,
}

/// A value that never leaves this process as such: openraft wants its serde traits, and we never let openraft's own
/// types near a disk or a wire (`raft::wire` does that).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local<T>(pub T);

impl<T: std::fmt::Debug> std::fmt::Display for Local<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<T> Serialize for Local<T> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this value stays inside the process: use the versioned structs"))
    }
}

impl<'de, T> Deserialize<'de> for Local<T> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("this value stays inside the process: use the versioned structs"))
    }
}

/// The term of a log id.
pub fn term(id: &LogId) -> u64 {
    id.leader_id.term
}
