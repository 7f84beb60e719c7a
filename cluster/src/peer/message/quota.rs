//! Messages between a gateway and the leader.

use config::quota::Limit;
use serde::{Deserialize, Serialize};

use super::log::KeyV1;
use crate::lease::{Ask, AskError, AskItem, AskReply, Granted, Push};
use crate::peer::codec::CodecError;
use crate::state::ids::{LeaseId, LimitId, SessionId};

/// [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskV1 {
    /// Whose batch.
    pub session: u64,
    /// Rises.
    pub seq: u64,
    /// At most [`Ask::ITEMS_MAX`].
    pub items: Vec<AskItemV1>,
}

/// [`AskItem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskItemV1 {
    /// Which bucket.
    pub key: KeyV1,
    /// The lease held.
    pub lid: Option<u64>,
    /// Held at the close.
    pub held: u64,
    /// Spent under `lid`.
    pub spent: u64,
    /// Cost of all waiters.
    pub need: u64,
    /// All or nothing.
    pub min: u64,
    /// What it would like to hold.
    pub want: u64,
    /// Tokens in 1000 s.
    pub demand_per_ks: u64,
}

/// The answer to [`AskV1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AskAnswerV1 {
    /// [`AskReply`].
    Reply {
        /// Of the batch.
        session: u64,
        /// Of the batch.
        seq: u64,
        /// One an item.
        items: Vec<GrantedV1>,
    },
    /// None.
    Error(AskErrorV1),
}

/// [`Granted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedV1 {
    /// Which bucket.
    pub key: KeyV1,
    /// What the cell holds stays good.
    pub keep: bool,
    /// The lease.
    pub lid: Option<u64>,
    /// Granted.
    pub grant: u64,
    /// Until the lease ends, in ns.
    pub ttl_ns: u64,
    /// 0: nothing was refused.
    pub retry_after_ns: u64,
    /// Keep waiters.
    pub hold: bool,
    /// Nearly empty.
    pub tight: bool,
    /// Nearly full.
    pub plenty: bool,
    /// Left in the bucket.
    pub left: i64,
    /// The amount in force.
    pub limit: LimitV1,
    /// No such limit.
    pub unknown: bool,
    /// No room for another key.
    pub full: bool,
}

/// [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitV1 {
    /// Tokens that come each `per_ns`.
    pub tokens: u64,
    /// In ns.
    pub per_ns: u64,
    /// The bucket's size.
    pub burst: u64,
}

/// [`AskError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AskErrorV1 {
    /// [`AskError::UnknownSession`].
    UnknownSession,
    /// [`AskError::NotLeader`].
    NotLeader,
    /// [`AskError::Unreachable`].
    Unreachable,
    /// [`AskError::Overloaded`].
    Overloaded,
}

/// A gateway process wants a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterV1 {
    /// Its node.
    pub node: u64,
    /// Random, of this process.
    pub nonce: u128,
}

/// The answer to [`RegisterV1`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterAnswerV1 {
    /// Committed.
    Session(u64),
    /// Not done, or not known to be.
    Error(AskErrorV1),
}

/// [`Push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushV1 {
    /// [`Push::Recall`].
    Recall(KeyV1),
    /// [`Push::Changed`].
    Changed(u64),
}

impl From<&Ask> for AskV1 {
    fn from(ask: &Ask) -> Self {
        let items = ask.items.iter().map(|item| AskItemV1 {
            key: item.key.into(),
            lid: item.lid.map(|lid| lid.0),
            held: item.held,
            spent: item.spent,
            need: item.need,
            min: item.min,
            want: item.want,
            demand_per_ks: item.demand_per_ks,
        });
        Self { session: ask.session.0, seq: ask.seq, items: items.collect() }
    }
}

impl TryFrom<AskV1> for Ask {
    type Error = CodecError;
    fn try_from(ask: AskV1) -> Result<Self, CodecError> {
        if ask.items.len() > Self::ITEMS_MAX {
            let why = format!("{} items, at most {} are allowed", ask.items.len(), Self::ITEMS_MAX);
            return Err(CodecError::Unreadable { wanted: "batch", len: ask.items.len(), why });
        }
        let items = ask.items.into_iter().map(|item| AskItem {
            key: item.key.into(),
            lid: item.lid.map(LeaseId),
            held: item.held,
            spent: item.spent,
            need: item.need,
            min: item.min,
            want: item.want,
            demand_per_ks: item.demand_per_ks,
        });
        Ok(Self { session: SessionId(ask.session), seq: ask.seq, items: items.collect() })
    }
}

impl From<&Result<AskReply, AskError>> for AskAnswerV1 {
    fn from(answer: &Result<AskReply, AskError>) -> Self {
        match answer {
            Ok(reply) => Self::Reply {
                session: reply.session.0,
                seq: reply.seq,
                items: reply.items.iter().map(GrantedV1::from).collect(),
            },
            Err(error) => Self::Error(error.into()),
        }
    }
}

impl From<AskAnswerV1> for Result<AskReply, AskError> {
    fn from(answer: AskAnswerV1) -> Self {
        match answer {
            AskAnswerV1::Reply { session, seq, items } => Ok(AskReply {
                session: SessionId(session),
                seq,
                items: items.into_iter().map(Granted::from).collect(),
            }),
            AskAnswerV1::Error(error) => Err(error.into()),
        }
    }
}

impl From<&Granted> for GrantedV1 {
    fn from(granted: &Granted) -> Self {
        Self {
            key: granted.key.into(),
            keep: granted.keep,
            lid: granted.lid.map(|lid| lid.0),
            grant: granted.grant,
            ttl_ns: granted.ttl_ns,
            retry_after_ns: granted.retry_after_ns,
            hold: granted.hold,
            tight: granted.tight,
            plenty: granted.plenty,
            left: granted.left,
            limit: LimitV1 {
                tokens: granted.limit.tokens,
                per_ns: granted.limit.per_ns,
                burst: granted.limit.burst,
            },
            unknown: granted.unknown,
            full: granted.full,
        }
    }
}

impl From<GrantedV1> for Granted {
    fn from(granted: GrantedV1) -> Self {
        Self {
            key: granted.key.into(),
            keep: granted.keep,
            lid: granted.lid.map(LeaseId),
            grant: granted.grant,
            ttl_ns: granted.ttl_ns,
            retry_after_ns: granted.retry_after_ns,
            hold: granted.hold,
            tight: granted.tight,
            plenty: granted.plenty,
            left: granted.left,
            limit: Limit {
                tokens: granted.limit.tokens,
                per_ns: granted.limit.per_ns,
                burst: granted.limit.burst,
            },
            unknown: granted.unknown,
            full: granted.full,
        }
    }
}

impl From<&AskError> for AskErrorV1 {
    fn from(error: &AskError) -> Self {
        match error {
            AskError::UnknownSession => Self::UnknownSession,
            AskError::NotLeader => Self::NotLeader,
            AskError::Unreachable => Self::Unreachable,
            AskError::Overloaded => Self::Overloaded,
        }
    }
}

impl From<AskErrorV1> for AskError {
    fn from(error: AskErrorV1) -> Self {
        match error {
            AskErrorV1::UnknownSession => Self::UnknownSession,
            AskErrorV1::NotLeader => Self::NotLeader,
            AskErrorV1::Unreachable => Self::Unreachable,
            AskErrorV1::Overloaded => Self::Overloaded,
        }
    }
}

impl From<&Push> for PushV1 {
    fn from(push: &Push) -> Self {
        match push {
            Push::Recall(key) => Self::Recall((*key).into()),
            Push::Changed(limit) => Self::Changed(limit.0),
        }
    }
}

impl From<PushV1> for Push {
    fn from(push: PushV1) -> Self {
        match push {
            PushV1::Recall(key) => Self::Recall(key.into()),
            PushV1::Changed(limit) => Self::Changed(LimitId(limit)),
        }
    }
}
