//! openraft's types ↔ the versioned structs of `peer::message`.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::types::{Entry, LeaderId, Local, LogId, Membership, PeerNode, TypeConfig, Vote};
use crate::peer::codec::CodecError;
use crate::peer::message::log::{EntryV1, LogIdV1, MembershipV1, NodeV1, PayloadV1, VoteV1};
use crate::peer::message::raft::{
    AppendReplyV1, AppendV1, TransferReplyV1, TransferV1, VoteReplyV1, VoteRequestV1,
};

impl From<LogId> for LogIdV1 {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogIdV1> for LogId {
    fn from(id: LogIdV1) -> Self {
        Self { leader_id: id.term.into(), index: id.index }
    }
}

impl From<Vote> for VoteV1 {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<VoteV1> for Vote {
    fn from(vote: VoteV1) -> Self {
        Self { leader_id: LeaderId { term: vote.term, voted_for: vote.node }, committed: vote.committed }
    }
}

impl From<&Membership> for MembershipV1 {
    fn from(membership: &Membership) -> Self {
        let voters = membership.get_joint_config().iter().map(|set| set.iter().copied().collect());
        let nodes = membership.nodes().map(|(id, node)| NodeV1 {
            id: *id,
            name: node.name.clone(),
            address: node.address.clone(),
        });
        Self { voters: voters.collect(), nodes: nodes.collect() }
    }
}

impl TryFrom<MembershipV1> for Membership {
    type Error = CodecError;
    fn try_from(membership: MembershipV1) -> Result<Self, CodecError> {
        let sets: Vec<BTreeSet<u64>> =
            membership.voters.into_iter().map(|set| set.into_iter().collect()).collect();
        let len = membership.nodes.len();
        let nodes: BTreeMap<u64, PeerNode> = membership
            .nodes
            .into_iter()
            .map(|node| (node.id, PeerNode { name: node.name, address: node.address }))
            .collect();
        Self::new(sets, nodes).map_err(|e| CodecError::Unreadable {
            wanted: "membership",
            len,
            why: e.to_string(),
        })
    }
}

impl From<&Entry> for EntryV1 {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadV1::Blank,
            EntryPayload::Normal(Local(command)) => PayloadV1::Command(command.into()),
            EntryPayload::Membership(membership) => PayloadV1::Membership(membership.into()),
        };
        Self { id: entry.log_id.into(), payload }
    }
}

/// A log entry as it was received or read.
///
/// # Errors
/// If a name or a membership in it breaks its rules.
pub fn entry(entry: EntryV1) -> Result<Entry, CodecError> {
    let payload = match entry.payload {
        PayloadV1::Blank => EntryPayload::Blank,
        PayloadV1::Command(command) => EntryPayload::Normal(Local(command.try_into()?)),
        PayloadV1::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
    };
    Ok(Entry { log_id: entry.id.into(), payload })
}

impl From<&AppendEntriesRequest<TypeConfig>> for AppendV1 {
    fn from(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote.into(),
            prev: request.prev_log_id.map(Into::into),
            commit: request.leader_commit.map(Into::into),
            entries: request.entries.iter().map(EntryV1::from).collect(),
        }
    }
}

impl TryFrom<AppendV1> for AppendEntriesRequest<TypeConfig> {
    type Error = CodecError;
    fn try_from(append: AppendV1) -> Result<Self, CodecError> {
        Ok(Self {
            vote: append.vote.into(),
            prev_log_id: append.prev.map(Into::into),
            leader_commit: append.commit.map(Into::into),
            entries: append.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        })
    }
}

impl From<AppendEntriesResponse<TypeConfig>> for AppendReplyV1 {
    fn from(response: AppendEntriesResponse<TypeConfig>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(id) => Self::Partial(id.map(Into::into)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<AppendReplyV1> for AppendEntriesResponse<TypeConfig> {
    fn from(reply: AppendReplyV1) -> Self {
        match reply {
            AppendReplyV1::Success => Self::Success,
            AppendReplyV1::Partial(id) => Self::PartialSuccess(id.map(Into::into)),
            AppendReplyV1::Conflict => Self::Conflict,
            AppendReplyV1::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<&VoteRequest<TypeConfig>> for VoteRequestV1 {
    fn from(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote.into(),
            last: request.last_log_id.map(Into::into),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<VoteRequestV1> for VoteRequest<TypeConfig> {
    fn from(request: VoteRequestV1) -> Self {
        Self {
            vote: request.vote.into(),
            last_log_id: request.last.map(Into::into),
            leadership_transfer: request.transfer,
        }
    }
}

impl From<VoteResponse<TypeConfig>> for VoteReplyV1 {
    fn from(response: VoteResponse<TypeConfig>) -> Self {
        Self {
            vote: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(Into::into),
        }
    }
}

impl From<VoteReplyV1> for VoteResponse<TypeConfig> {
    fn from(reply: VoteReplyV1) -> Self {
        Self { vote: reply.vote.into(), vote_granted: reply.granted, last_log_id: reply.last.map(Into::into) }
    }
}

impl From<&TransferLeaderRequest<TypeConfig>> for TransferV1 {
    fn from(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        Self {
            from: (*request.from_leader()).into(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(Into::into),
        }
    }
}

impl From<TransferV1> for TransferLeaderRequest<TypeConfig> {
    fn from(transfer: TransferV1) -> Self {
        Self::new(transfer.from.into(), transfer.to, transfer.last.map(Into::into))
    }
}

/// The answer to a transfer as it is sent.
pub fn transfer_reply(response: TransferLeaderResponse<TypeConfig>) -> TransferReplyV1 {
    match response {
        Ok(()) => TransferReplyV1::Taken,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            TransferReplyV1::VoteChanged { expected: expected.into(), actual: actual.into() }
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => TransferReplyV1::LogNotFlushed {
            expected: expected.map(Into::into),
            actual: actual.map(Into::into),
        },
    }
}

/// The answer to a transfer as it was received.
pub fn transfer_response(reply: TransferReplyV1) -> TransferLeaderResponse<TypeConfig> {
    match reply {
        TransferReplyV1::Taken => Ok(()),
        TransferReplyV1::VoteChanged { expected, actual } => {
            Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
        }
        TransferReplyV1::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
            expected: expected.map(Into::into),
            actual: actual.map(Into::into),
        }),
    }
}
