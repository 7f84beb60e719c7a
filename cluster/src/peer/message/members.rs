//! Messages about who is a member: what operators order, what the leader knows, what it tells a node that leaves.

use serde::{Deserialize, Serialize};

/// A question about members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersV1 {
    /// To the leader: what is under way, and how far everybody is.
    Report,
    /// To the leader, from an operator: the member of this name is to leave.
    Leave(String),
    /// To the leader, from an operator: a member is to be replaced.
    Replace {
        /// Who goes.
        old: String,
        /// Who comes.
        new: String,
    },
    /// From the leader to the member that leaves: hand leases back, finish requests. The member's raft id.
    HandBack(u64),
    /// From a member to the node that has left: its raft id is no member's any more.
    Removed(u64),
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersAnswerV1 {
    /// What the leader knows.
    Report(Box<ReportV1>),
    /// An order was not begun.
    Refused(RefusalV1, String),
    /// The node that leaves has not finished yet.
    Draining,
    /// The node that leaves holds no lease any more and serves nobody; or it knows that it was removed.
    Ready,
    /// The node asked does not lead.
    NotLeader,
}

/// Why an order was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalV1 {
    /// Another operation is under way.
    Busy,
    /// No member has this name.
    Unknown,
    /// The cluster would be worse off than the operator may think.
    Unsafe,
}

/// What the leader knows of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportV1 {
    /// The operation under way.
    pub operation: Option<ProgressV1>,
    /// The last ones that ended, the newest at the end.
    pub ended: Vec<EndedV1>,
    /// The one that the order which this answers has begun.
    pub begun: Option<u64>,
    /// Last index of the leader's log.
    pub last_index: u64,
    /// Member → up to which index its log is the leader's; none: not known yet.
    pub matched: Vec<(u64, Option<u64>)>,
}

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressV1 {
    /// Its number.
    pub id: u64,
    /// `join`, `leave` or `replace`.
    pub kind: String,
    /// The node that joins, leaves, or is replaced.
    pub node: String,
    /// By whom it is replaced.
    pub by: Option<String>,
    /// What is being done.
    pub step: String,
    /// For how long this leader has known of it, in ms.
    pub since_ms: u64,
    /// The entry that a node which catches up has, and the one it needs.
    pub entries: Option<(u64, u64)>,
}

/// An operation that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedV1 {
    /// Its number.
    pub id: u64,
    /// `join`, `leave` or `replace`.
    pub kind: String,
    /// The node that joined, left, or was replaced.
    pub node: String,
    /// By whom it was replaced.
    pub by: Option<String>,
    /// Why nothing came of it; none: it was carried out.
    pub failed: Option<String>,
}
