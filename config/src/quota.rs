//! Quotas: how much, for whom, and what happens when nobody can say.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{PlanName, QuotaName, TenantId};

/// A token bucket: `tokens` come every `per_ns`, up to `burst`. Integers only, so that every node computes the same.
///
/// In any interval of true length t the cluster admits at most `burst + tokens/per_ns · (1 + ε) · t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// Tokens that come each `per_ns`, ≥ 1.
    pub tokens: u64,
    /// Nanoseconds in which `tokens` come, ≥ 1.
    pub per_ns: u64,
    /// The bucket's size B in tokens, 1 to [`Limit::BURST_MAX`].
    pub burst: u64,
}

impl Limit {
    /// A lease cell counts in 32 bits.
    pub const BURST_MAX: u64 = u32::MAX as u64;
    /// Tokens one request may cost at most.
    pub const COST_MAX: u64 = 1 << 20;
}

/// One part of what a quota counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPart {
    /// The token's tenant claim.
    Tenant,
    /// The token's client claim.
    Client,
    /// The route's name.
    Route,
    /// The client's address: an IPv4 address, or the /64 of an IPv6 one.
    Address,
}

impl KeyPart {
    /// Whether the part is known only once a token was verified.
    pub fn is_authenticated(self) -> bool {
        matches!(self, Self::Tenant | Self::Client)
    }
}

/// What a gateway does for a quota when no leader has answered for long and its lease has run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnQuorumLoss {
    /// Refuse: the bound stays exact.
    #[default]
    Deny,
    /// Admit from a local bucket of rate r/N and burst B/N; the documented bound is wider.
    LocalShare,
}

/// One quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Its name in refusals, headers and metrics.
    pub name: QuotaName,
    /// What it counts by: sorted, without repetition. Empty: one bucket for the whole quota.
    pub key: Vec<KeyPart>,
    /// The amount where no plan and no override says otherwise.
    pub limit: Limit,
    /// How long a request may wait for tokens; none: chosen from the measured cycle.
    pub wait: Option<Duration>,
    /// What to do without a quorum.
    pub on_quorum_loss: OnQuorumLoss,
}

impl Quota {
    /// Whether it can be checked before authentication: it counts by connection and route facts alone.
    pub fn is_screen(&self) -> bool {
        !self.key.iter().any(|part| part.is_authenticated())
    }
}

/// Amounts for the tenants that subscribe to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: PlanName,
    /// Quota → amount. Every quota named here counts by tenant.
    pub limits: BTreeMap<QuotaName, Limit>,
}

/// A tenant that the document knows by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// As its tokens name it.
    pub id: TenantId,
    /// The plan it is on.
    pub plan: Option<PlanName>,
    /// Amounts of its own; they stand over the plan's.
    pub limits: BTreeMap<QuotaName, Limit>,
}
