//! Commands and log entries, as they are written to disk and sent to followers.

use config::ids::NodeName;
use serde::{Deserialize, Serialize};

use crate::peer::codec::CodecError;
use crate::state::command::{Batch, Command, DocumentChange, Item, Member, Register, Stamped};
use crate::state::ids::{Key, LeaseId, LimitId, RaftId, Revision, SessionId, Tau};
use crate::state::members::MemberChange;

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIdV1 {
    /// Term of the leader that wrote it.
    pub term: u64,
    /// From 0.
    pub index: u64,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteV1 {
    /// The term.
    pub term: u64,
    /// For whom.
    pub node: u64,
    /// Whether a majority granted it.
    pub committed: bool,
}

/// A node of a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeV1 {
    /// Its raft id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its address for peers.
    pub address: String,
}

/// A membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipV1 {
    /// One set of voters, or two while it changes; each sorted.
    pub voters: Vec<Vec<u64>>,
    /// All nodes, sorted by id.
    pub nodes: Vec<NodeV1>,
}

/// A log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryV1 {
    /// Where.
    pub id: LogIdV1,
    /// What.
    pub payload: PayloadV1,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadV1 {
    /// A leader's first entry.
    Blank,
    /// One of ours.
    Command(CommandV1),
    /// A change of members.
    Membership(MembershipV1),
}

/// [`Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandV1 {
    /// [`Command::Stamped`].
    Stamped(StampedV1),
    /// [`Command::Found`].
    Found {
        /// Names the cluster.
        cluster_id: u128,
        /// Keys the hashes of quota keys.
        secret: [u8; 16],
        /// The founder.
        founder: MemberV1,
    },
    /// [`Command::Admit`].
    Admit(MemberV1),
    /// [`Command::Begin`].
    Begin(MemberChangeV1),
    /// [`Command::End`].
    End {
        /// Index of its begin.
        operation: u64,
        /// Why nothing came of it.
        failed: Option<String>,
    },
}

/// [`MemberChange`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChangeV1 {
    /// [`MemberChange::Join`].
    Join {
        /// The node's raft id.
        id: u64,
        /// Its address for peers.
        address: String,
    },
    /// [`MemberChange::Leave`]: the member's raft id.
    Leave(u64),
    /// [`MemberChange::Replace`].
    Replace {
        /// Raft id of who goes.
        old: u64,
        /// Raft id of who comes.
        new: u64,
    },
}

/// [`Member`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberV1 {
    /// Its name.
    pub name: String,
    /// Its address for peers.
    pub address: String,
}

/// [`Stamped`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampedV1 {
    /// The term in which it was stamped.
    pub term: u64,
    /// Cluster time in ns.
    pub stamp: u64,
    /// A new document.
    pub document: Option<DocumentChangeV1>,
    /// New sessions: node and nonce.
    pub registers: Vec<(u64, u128)>,
    /// Reports and grants.
    pub batches: Vec<BatchV1>,
}

/// [`DocumentChange`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentChangeV1 {
    /// Canonical JSON.
    pub json: String,
    /// The revision that it replaces.
    pub expected: Option<u64>,
    /// Names the request.
    pub request_id: u128,
}

/// [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchV1 {
    /// Whose.
    pub session: u64,
    /// Rises.
    pub seq: u64,
    /// Reports and grants.
    pub items: Vec<ItemV1>,
}

/// [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyV1 {
    /// Which quota.
    pub limit: u64,
    /// Hash of the tenant, or 0.
    pub tenant: u64,
    /// Hash of the whole value.
    pub value: u64,
}

/// [`Item`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemV1 {
    /// Which bucket.
    pub key: KeyV1,
    /// The lease held.
    pub lid: Option<u64>,
    /// Held at the close.
    pub held: u64,
    /// Spent under `lid`.
    pub spent: u64,
    /// Grant at least this or nothing.
    pub min: u64,
    /// Grant at most this.
    pub max: u64,
    /// Time to live of the lease, in ns.
    pub ttl_ns: u64,
}

impl From<Key> for KeyV1 {
    fn from(key: Key) -> Self {
        Self { limit: key.limit.0, tenant: key.tenant, value: key.value }
    }
}

impl From<KeyV1> for Key {
    fn from(key: KeyV1) -> Self {
        Self { limit: LimitId(key.limit), tenant: key.tenant, value: key.value }
    }
}

/// A name that another node wrote.
pub(crate) fn name(text: &str) -> Result<NodeName, CodecError> {
    NodeName::parse(text).map_err(|bad| CodecError::Unreadable {
        wanted: "node name",
        len: text.len(),
        why: bad.to_string(),
    })
}

impl From<&Member> for MemberV1 {
    fn from(member: &Member) -> Self {
        Self { name: member.name.as_str().to_owned(), address: member.address.clone() }
    }
}

impl TryFrom<MemberV1> for Member {
    type Error = CodecError;
    fn try_from(member: MemberV1) -> Result<Self, CodecError> {
        Ok(Self { name: name(&member.name)?, address: member.address })
    }
}

impl From<&MemberChange> for MemberChangeV1 {
    fn from(change: &MemberChange) -> Self {
        match change {
            MemberChange::Join { id, address } => Self::Join { id: id.0, address: address.clone() },
            MemberChange::Leave { id } => Self::Leave(id.0),
            MemberChange::Replace { old, new } => Self::Replace { old: old.0, new: new.0 },
        }
    }
}

impl From<MemberChangeV1> for MemberChange {
    fn from(change: MemberChangeV1) -> Self {
        match change {
            MemberChangeV1::Join { id, address } => Self::Join { id: RaftId(id), address },
            MemberChangeV1::Leave(id) => Self::Leave { id: RaftId(id) },
            MemberChangeV1::Replace { old, new } => Self::Replace { old: RaftId(old), new: RaftId(new) },
        }
    }
}

impl From<&Command> for CommandV1 {
    fn from(command: &Command) -> Self {
        match command {
            Command::Stamped(stamped) => Self::Stamped(stamped.into()),
            Command::Found { cluster_id, secret, founder } => {
                Self::Found { cluster_id: *cluster_id, secret: *secret, founder: founder.into() }
            }
            Command::Admit(member) => Self::Admit(member.into()),
            Command::Begin(change) => Self::Begin(change.into()),
            Command::End { operation, failed } => Self::End { operation: *operation, failed: failed.clone() },
        }
    }
}

impl TryFrom<CommandV1> for Command {
    type Error = CodecError;
    fn try_from(command: CommandV1) -> Result<Self, CodecError> {
        Ok(match command {
            CommandV1::Stamped(stamped) => Self::Stamped(stamped.into()),
            CommandV1::Found { cluster_id, secret, founder } => {
                Self::Found { cluster_id, secret, founder: founder.try_into()? }
            }
            CommandV1::Admit(member) => Self::Admit(member.try_into()?),
            CommandV1::Begin(change) => Self::Begin(change.into()),
            CommandV1::End { operation, failed } => Self::End { operation, failed },
        })
    }
}

impl From<&Stamped> for StampedV1 {
    fn from(stamped: &Stamped) -> Self {
        Self {
            term: stamped.term,
            stamp: stamped.stamp.0,
            document: stamped.document.as_ref().map(|change| DocumentChangeV1 {
                json: change.json.as_ref().to_owned(),
                expected: change.expected.map(|revision| revision.0),
                request_id: change.request_id,
            }),
            registers: stamped.registers.iter().map(|register| (register.node.0, register.nonce)).collect(),
            batches: stamped.batches.iter().map(BatchV1::from).collect(),
        }
    }
}

impl From<StampedV1> for Stamped {
    fn from(stamped: StampedV1) -> Self {
        Self {
            term: stamped.term,
            stamp: Tau(stamped.stamp),
            document: stamped.document.map(|change| DocumentChange {
                json: change.json.into(),
                expected: change.expected.map(Revision),
                request_id: change.request_id,
            }),
            registers: stamped
                .registers
                .into_iter()
                .map(|(node, nonce)| Register { node: RaftId(node), nonce })
                .collect(),
            batches: stamped.batches.into_iter().map(Batch::from).collect(),
        }
    }
}

impl From<&Batch> for BatchV1 {
    fn from(batch: &Batch) -> Self {
        let items = batch.items.iter().map(|item| ItemV1 {
            key: item.key.into(),
            lid: item.lid.map(|lid| lid.0),
            held: item.held,
            spent: item.spent,
            min: item.min,
            max: item.max,
            ttl_ns: item.ttl_ns,
        });
        Self { session: batch.session.0, seq: batch.seq, items: items.collect() }
    }
}

impl From<BatchV1> for Batch {
    fn from(batch: BatchV1) -> Self {
        let items = batch.items.into_iter().map(|item| Item {
            key: item.key.into(),
            lid: item.lid.map(LeaseId),
            held: item.held,
            spent: item.spent,
            min: item.min,
            max: item.max,
            ttl_ns: item.ttl_ns,
        });
        Self { session: SessionId(batch.session), seq: batch.seq, items: items.collect() }
    }
}
