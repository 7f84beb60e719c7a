//! What the lender reads of the replicated state, and nothing more.

use std::collections::BTreeSet;

use super::sizing::Level;
use crate::state::ids::{Key, LeaseId, LimitId, RaftId, SessionId, Tau, Tokens};

/// The replicated state, as applied on this node.
pub trait Books {
    /// A copy of a bucket.
    type Bucket: Account;

    /// The state's time.
    fn tau(&self) -> Tau;
    /// The last applied batch of a session; none: the session is unknown.
    fn last_seq(&self, session: SessionId) -> Option<u64>;
    /// Where a session lives; none: the session is unknown.
    fn node_of(&self, session: SessionId) -> Option<RaftId>;
    /// All nodes with sessions.
    fn nodes(&self) -> BTreeSet<RaftId>;
    /// A copy of a bucket (a new one if there is none) advanced to `stamp`; none: the document has no such limit.
    fn shadow(&self, key: Key, stamp: Tau) -> Option<Self::Bucket>;
    /// Limits whose amounts changed with the present document.
    fn changed_limits(&self) -> Vec<LimitId>;
}

/// A copy of a bucket, on which an entry is tried before it is proposed.
pub trait Account {
    /// Its numbers.
    fn level(&self) -> Level;
    /// The lease of a session.
    fn lease(&self, session: SessionId) -> Option<LeaseSeen>;
    /// All leases: whose, and tokens out.
    fn leases(&self) -> Vec<(SessionId, Tokens)>;
    /// Books a report as the ledger will; whether held tokens stay good.
    fn report(&mut self, session: SessionId, lid: Option<LeaseId>, held: Tokens, spent: Tokens) -> bool;
    /// Books a grant of tokens that the bucket has.
    fn grant(&mut self, session: SessionId, tokens: Tokens);
}

/// A lease as the ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Its name.
    pub lid: LeaseId,
    /// Tokens out.
    pub out: Tokens,
    /// When it ends.
    pub exp: Tau,
}
