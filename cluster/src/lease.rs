//! What a gateway and the leader's quota service say to each other. In-memory forms; the wire's are `peer::message`.
//!
//! `Ask` goes from a gateway to the leader, `AskReply` back; `Push` comes unasked from the leader. The log holds
//! another struct ([`crate::state::command::Item`]), in which the leader has already decided.

use config::quota::Limit;

use crate::state::ids::{Key, LeaseId, LimitId, SessionId, Tokens};

/// One batch of a gateway's session. One is outstanding at a time; a batch that timed out is void for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// From [`crate::replica::Replica::register`].
    pub session: SessionId,
    /// Rises with every batch of the session.
    pub seq: u64,
    /// At most [`Ask::ITEMS_MAX`].
    pub items: Vec<AskItem>,
}

impl Ask {
    /// The most items of one batch: each is applied in some 2 µs, or 7 while a snapshot shares its page, and no entry may
    /// hold up the consensus core for 5 ms (`cargo bench --bench a_million_keys`).
    pub const ITEMS_MAX: usize = 512;
}

/// One key of a batch (quota.md 4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskItem {
    /// Which bucket.
    pub key: Key,
    /// The lease the cell holds; none: nothing held.
    pub lid: Option<LeaseId>,
    /// Tokens and reservations held at the close of the batch.
    pub held: Tokens,
    /// Tokens spent under this `lid` so far.
    pub spent: Tokens,
    /// Cost of all waiting requests; 0: nobody waits.
    pub need: Tokens,
    /// Cost of the first waiter less what is held; all or nothing. 0: nothing is needed.
    pub min: Tokens,
    /// What the gateway would like to hold.
    pub want: Tokens,
    /// Exponentially weighted demand, in tokens per 1000 s.
    pub demand_per_ks: u64,
}

/// The one reply to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskReply {
    /// Of the batch.
    pub session: SessionId,
    /// Of the batch.
    pub seq: u64,
    /// One an item, in the batch's order.
    pub items: Vec<Granted>,
}

/// The answer to one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Which bucket.
    pub key: Key,
    /// Whether tokens that the cell holds stay good; if not, they are dropped before the grant is added.
    pub keep: bool,
    /// The lease after this batch; none: no lease.
    pub lid: Option<LeaseId>,
    /// Tokens granted.
    pub grant: Tokens,
    /// The ledger's time to live of the lease, from the batch's stamp; 0: not renewed by this reply. The gateway's deadline
    /// is `sent + 0.8 · ttl`, never later.
    pub ttl_ns: u64,
    /// 0: nothing was refused. Else: when tokens may be there, in ns from now.
    pub retry_after_ns: u64,
    /// Keep waiters queued and ask again after `retry_after_ns`, instead of refusing them.
    pub hold: bool,
    /// The bucket is nearly empty: report spends at once.
    pub tight: bool,
    /// The bucket is nearly full: hold more, ask less.
    pub plenty: bool,
    /// Tokens left in the bucket after this grant, for `RateLimit`. May be negative (debt).
    pub left: i64,
    /// The amount in force for this key at the leader.
    pub limit: Limit,
    /// The document has no such limit (any more): drop the cell and refuse.
    pub unknown: bool,
    /// The ledger has no room for another key of this limit: drop the cell and turn waiters away.
    pub full: bool,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The ledger does not know the session: drop every cell at its deadline, register anew.
    #[error("the session is unknown, register again")]
    UnknownSession,
    /// The node asked is not a leader that can answer; the batch is void.
    #[error("not the leader")]
    NotLeader,
    /// No leader is known or its link is down; the batch is void.
    #[error("no leader can be reached")]
    Unreachable,
    /// Too many batches wait; the batch is void.
    #[error("the leader is overloaded")]
    Overloaded,
}

/// What the leader sends unasked. Lost messages do no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Another gateway is short: report this key, give back what you can.
    Recall(Key),
    /// The amounts of this limit changed: forget refusals, report its keys.
    Changed(LimitId),
}
