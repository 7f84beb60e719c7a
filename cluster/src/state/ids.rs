//! Numbers of the replicated state.

use serde::{Deserialize, Serialize};

/// Cluster time in nanoseconds (quota.md 3.1): starts at 0 with the cluster, never falls along the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tau(pub u64);

/// A count of tokens.
pub type Tokens = u64;

/// A gateway process's life, given out by the ledger, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// One life of a lease, given out by the ledger, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// A quota: follows its name and key expression, so that a renamed quota is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitId(pub u64);

/// One bucket: a quota and a hashed key value.
///
/// `tenant` is the hash of the tenant alone (0 when the quota does not count by tenant), so that the ledger can tell a
/// tenant's amount from a key; `value` is the hash of the whole key value. Both SipHash-2-4 under the cluster's secret.
/// Key spaces that anyone can mint (addresses, before authentication) are folded into [`Key::SHARED_SLOTS`] slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Which quota.
    pub limit: LimitId,
    /// Hash of the tenant, or 0.
    pub tenant: u64,
    /// Hash of the whole value.
    pub value: u64,
}

impl Key {
    /// Buckets of one quota whose keys cost nothing to mint.
    pub const SHARED_SLOTS: u64 = 1 << 20;
}

/// A node's number in the consensus group: given out at join, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RaftId(pub u64);

impl RaftId {
    /// Of the node that founds a cluster: it has a place in the group before there is a log that could give it a number.
    pub const FOUNDER: Self = Self(1);
}

/// A gateway document's number, from 1; 0: none was applied yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);
