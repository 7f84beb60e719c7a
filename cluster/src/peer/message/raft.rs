//! Messages between the consensus cores.

use serde::{Deserialize, Serialize};

use super::Blob;
use super::log::{EntryV1, LogIdV1, VoteV1};

/// New entries, or a sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendV1 {
    /// The leader's vote.
    pub vote: VoteV1,
    /// What precedes `entries`.
    pub prev: Option<LogIdV1>,
    /// What is committed.
    pub commit: Option<LogIdV1>,
    /// In order, without a gap.
    pub entries: Vec<EntryV1>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendReplyV1 {
    /// All are durable.
    Success,
    /// Those up to this one are.
    Partial(Option<LogIdV1>),
    /// `prev` is not in the follower's log.
    Conflict,
    /// The follower has seen this vote.
    HigherVote(VoteV1),
}

/// A candidate's question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequestV1 {
    /// What it wants.
    pub vote: VoteV1,
    /// Its last entry.
    pub last: Option<LogIdV1>,
    /// A leader told it to.
    pub transfer: bool,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteReplyV1 {
    /// The answering node's vote.
    pub vote: VoteV1,
    /// Whether it is granted.
    pub granted: bool,
    /// The answering node's last entry.
    pub last: Option<LogIdV1>,
}

/// A piece of a snapshot file. Pieces come in order; offset 0 begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunkV1 {
    /// The leader's vote.
    pub vote: VoteV1,
    /// What the snapshot holds.
    pub last: Option<LogIdV1>,
    /// Length of the whole file.
    pub total: u64,
    /// Where `bytes` begin.
    pub offset: u64,
    /// The piece.
    pub bytes: Blob,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotReplyV1 {
    /// The next piece begins here.
    Continue(u64),
    /// All came and was installed, or the receiver has seen this vote.
    Done(VoteV1),
}

/// Leadership is handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferV1 {
    /// The present leader's vote.
    pub from: VoteV1,
    /// The next leader.
    pub to: u64,
    /// What the next leader must have.
    pub last: Option<LogIdV1>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferReplyV1 {
    /// It was taken in.
    Taken,
    /// Another vote is in force here.
    VoteChanged {
        /// The message's.
        expected: VoteV1,
        /// Ours.
        actual: VoteV1,
    },
    /// The log is not there yet.
    LogNotFlushed {
        /// The message's.
        expected: Option<LogIdV1>,
        /// Ours.
        actual: Option<LogIdV1>,
    },
}

/// A snapshot file's head; `state` is the head of the state in its own form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFileV1<S> {
    /// The last entry it holds.
    pub last: Option<LogIdV1>,
    /// The last membership's place.
    pub membership_at: Option<LogIdV1>,
    /// The last membership.
    pub membership: super::log::MembershipV1,
    /// The state.
    pub state: S,
}

/// What follows a snapshot file's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPartV1<P> {
    /// From 1, rising by one.
    pub number: u64,
    /// A part of the state in its own form.
    pub part: P,
}
