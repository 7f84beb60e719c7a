//! What callers of the quota room say and hear.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::state::ids::{Key, LimitId};
use cluster::world::BootNs;
use config::ids::QuotaName;
use config::quota::{Limit, OnQuorumLoss};
use smallvec::SmallVec;

/// A quota as the gateway uses it; made once per document revision and shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRule {
    /// Its name in refusals, headers and metrics.
    pub name: QuotaName,
    /// Its number in keys.
    pub limit_id: LimitId,
    /// How long a request may wait for tokens; none: chosen from the measured cycle.
    pub wait: Option<Duration>,
    /// What to do without a quorum.
    pub on_quorum_loss: OnQuorumLoss,
    /// The amount that is shown until the leader has told this key's own.
    pub limit: Limit,
}

/// One quota that a request is charged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Which quota.
    pub quota: Arc<QuotaRule>,
    /// Which of its buckets.
    pub key: Key,
    /// Tokens, 1 to [`Limit::COST_MAX`].
    pub cost: u32,
}

/// Where the keys of one request stand.
pub type Standings = SmallVec<[Standing; 2]>;

/// A request was admitted: the tokens are spent, on every key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The instant of the admission, for all keys at once.
    pub at: BootNs,
    /// One a charge, in their order.
    pub standings: Standings,
}

/// Where a key stands, for the `RateLimit` fields. An estimate: only the decision is exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which quota.
    pub quota: Arc<QuotaRule>,
    /// The amount of this key.
    pub limit: Limit,
    /// Tokens left as far as this node knows, never above the burst.
    pub left: u64,
    /// Seconds until one token is there when none is left; else 0.
    pub reset_s: u64,
}

/// Why a request was not admitted. Nothing was spent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The leader refused, just now or so lately that its refusal still holds: 429.
    #[error("over {} quota(s) for another {retry_after:?}", violated.len())]
    Over {
        /// The quotas that lack tokens, at least one.
        violated: Vec<Violation>,
        /// The longest of theirs.
        retry_after: Duration,
    },
    /// The wait ended without any leader's answer, or this node's local share is used up: 503 `quota-undecided`.
    #[error("no leader answered for {} quota(s)", quotas.len())]
    Undecided {
        /// The quotas that nobody decided, at least one.
        quotas: Vec<Arc<QuotaRule>>,
        /// When the local share has tokens, where it is what lacks them; else [`Refused::ASK_AGAIN`].
        retry_after: Duration,
    },
    /// The quota has as many keys as the ledger takes, and this is another one: 429 `too-many-keys`.
    #[error("no room for another key of {}", quota.name)]
    KeysFull {
        /// The quota.
        quota: Arc<QuotaRule>,
        /// In this time a key that spent one token is full again, and forgotten.
        retry_after: Duration,
    },
    /// Too many requests wait, or too many keys are held: 503.
    #[error("too many requests wait for quotas")]
    Overloaded,
}

impl Refused {
    /// Nobody knows when a leader will answer again; a failover takes a second or two.
    pub const ASK_AGAIN: Duration = Duration::from_secs(1);
}

/// A quota that lacked tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where it stands.
    pub standing: Standing,
    /// When tokens may be there.
    pub retry_after: Duration,
}

/// Figures of this node's quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys held.
    pub cells: u64,
    /// Tokens held in leases that have not run out.
    pub tokens_held: u64,
    /// Requests that wait for tokens now.
    pub waiting: u64,
    /// How long the ledger has left questions without an answer; none: it owes none.
    pub silent: Option<Duration>,
    /// Batches of questions sent to the leader.
    pub asked: u64,
    /// Times that the leader spoke unasked, to recall tokens or to announce a change.
    pub pushed: u64,
    /// By quota.
    pub quotas: BTreeMap<QuotaName, QuotaStats>,
}

/// Figures of one quota since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaStats {
    /// Requests admitted.
    pub admitted: u64,
    /// Requests refused because of this quota.
    pub refused: u64,
    /// Requests undecided because of this quota.
    pub undecided: u64,
    /// Requests that were given tokens of this node's local share, without a leader.
    pub shared: u64,
    /// Requests whose key found no room in the ledger.
    pub turned_away: u64,
}
