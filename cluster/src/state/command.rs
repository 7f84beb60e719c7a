//! What the log holds, and what applying it yields. In-memory forms; the disk's are versioned structs in `peer::codec`'s care.

use config::ids::NodeName;

use super::ids::{Key, LeaseId, RaftId, Revision, SessionId, Tau, Tokens};
use super::members::{Begun, MemberChange};

/// One log entry of ours. Applied in this order: stamp, document, registers, batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Made by the leader's single-flight slot.
    Stamped(Stamped),
    /// Gives the cluster its secret and id; the first command of a cluster.
    Found {
        /// Random, names the cluster for ever.
        cluster_id: u128,
        /// Random, keys the hashes of quota keys.
        secret: [u8; 16],
        /// The founder.
        founder: Member,
    },
    /// Reserves a raft id for a node that joins: the outcome is the id.
    Admit(Member),
    /// Begins a membership operation, unless one is under way.
    Begin(MemberChange),
    /// Ends the membership operation that began at this index.
    End {
        /// Index of its `Begin`.
        operation: u64,
        /// Why nothing came of it; none: it was carried out.
        failed: Option<String>,
    },
}

/// A node as the state knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The operator's name for it.
    pub name: NodeName,
    /// `host:port` for peers.
    pub address: String,
}

/// A stamped entry. Ignored at apply if `term` differs from its log id's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The term in which it was stamped.
    pub term: u64,
    /// Cluster time, read after the batches were closed.
    pub stamp: Tau,
    /// A new gateway document.
    pub document: Option<DocumentChange>,
    /// New sessions.
    pub registers: Vec<Register>,
    /// Reports and grants.
    pub batches: Vec<Batch>,
}

/// A new gateway document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentChange {
    /// Canonical JSON.
    pub json: std::sync::Arc<str>,
    /// Refused unless the present revision is this one; none: whatever it is.
    pub expected: Option<Revision>,
    /// Names the request, so that a retry is not applied twice.
    pub request_id: u128,
}

/// A gateway process asks for a session. The same pair gives the same session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The node.
    pub node: RaftId,
    /// Random, of this process.
    pub nonce: u128,
}

/// One session's items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Whose.
    pub session: SessionId,
    /// Rises.
    pub seq: u64,
    /// In the order of the ask, without those that needed no log.
    pub items: Vec<Item>,
}

/// One key's report and the leader's decision (quota.md 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which bucket.
    pub key: Key,
    /// The lease that the gateway holds.
    pub lid: Option<LeaseId>,
    /// Held at the close.
    pub held: Tokens,
    /// Spent under `lid`.
    pub spent: Tokens,
    /// Grant at least this or nothing.
    pub min: Tokens,
    /// Grant at most this.
    pub max: Tokens,
    /// Time to live of the lease from the stamp, in ns.
    pub ttl_ns: u64,
}

/// What applying a command yielded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of a stamped entry; none where the part was absent or skipped.
    Stamped(StampedOutcome),
    /// The entry's stamp was of another term: nothing was done.
    Fenced,
    /// Of `Found`: whether it was the first.
    Founded(bool),
    /// Of `Admit`.
    Admitted(RaftId),
    /// Of `Begin`.
    Begun(Begun),
    /// Entries without a command (blank, membership).
    None,
}

/// Outcome of a stamped entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StampedOutcome {
    /// Of the document change.
    pub document: Option<Result<Revision, DocumentRefused>>,
    /// One a register.
    pub sessions: Vec<SessionId>,
    /// One a batch.
    pub batches: Vec<BatchOutcome>,
}

/// Why a document change did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentRefused {
    /// Another revision is in force.
    #[error("revision {found:?} is in force, the change expected {expected:?}")]
    Stale {
        /// In force.
        found: Revision,
        /// Expected.
        expected: Revision,
    },
    /// The text is not a document that this version reads.
    #[error("the document is not readable: {0}")]
    Unreadable(String),
}

/// Outcome of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Applied: one outcome an item.
    Applied(Vec<ItemOutcome>),
    /// The session is unknown.
    UnknownSession,
    /// A later batch of the session was applied before: nothing was done.
    Stale,
}

/// Outcome of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemOutcome {
    /// Tokens that the gateway holds stay good.
    pub keep: bool,
    /// The lease, if one is left.
    pub lid: Option<LeaseId>,
    /// Granted.
    pub grant: Tokens,
    /// Lease expiry − stamp, in ns.
    pub ttl_ns: u64,
    /// `central` after the grant.
    pub left: i64,
    /// The document has no such limit.
    pub unknown: bool,
    /// There is no room for another key of it.
    pub full: bool,
}
