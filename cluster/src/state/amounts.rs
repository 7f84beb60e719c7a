//! How much each key may have: compiled from a document, kept with the cluster time from which it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::gateway::GatewayDocument;
use config::quota::{KeyPart, Limit};

use super::bucket::{Bucket, Tally};
use super::ids::{Key, LimitId, Revision, Tau};
use super::key::{limit_id, tenant_hash};

/// The keys of a quota that always have one amount: a tenant with an amount of its own, or all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// All keys without an amount of their own.
    Default,
    /// A tenant by its hash.
    Tenant(u64),
}

impl Class {
    /// A key that has the amount of this class.
    pub(super) fn key(self, limit: LimitId) -> Key {
        let tenant = match self {
            Self::Default => 0,
            Self::Tenant(tenant) => tenant,
        };
        Key { limit, tenant, value: 0 }
    }
}

/// One document's amounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub(super) defaults: BTreeMap<LimitId, Limit>,
    pub(super) tenants: BTreeMap<(LimitId, u64), Limit>,
}

impl Amounts {
    /// The amounts of a document: a tenant's own stand over its plan's, these over the quota's.
    ///
    /// # Errors
    /// A text that says which amount can not be.
    pub fn compile(document: &GatewayDocument, secret: &[u8; 16]) -> Result<Self, String> {
        let mut amounts = Self::default();
        let plans: BTreeMap<_, _> = document.plans.iter().map(|plan| (&plan.name, plan)).collect();
        let tenants = document.tenants.iter().map(|tenant| {
            let plan = tenant.plan.as_ref().and_then(|name| plans.get(name));
            (tenant_hash(secret, tenant.id.as_str()), tenant, plan)
        });
        let tenants: Vec<_> = tenants.collect();
        let mut own_amounts = Vec::new();
        for quota in &document.quotas {
            let limit = limit_id(quota);
            amounts.defaults.insert(limit, checked(quota.name.as_str(), quota.limit)?);
            if !quota.key.contains(&KeyPart::Tenant) {
                continue;
            }
            for (hash, tenant, plan) in &tenants {
                let own = tenant.limits.get(&quota.name);
                if let Some(amount) = own.or_else(|| plan.as_ref()?.limits.get(&quota.name)) {
                    own_amounts.push(((limit, *hash), checked(quota.name.as_str(), *amount)?));
                }
            }
        }
        // At once: a map grows faster from a sorted list than one by one.
        amounts.tenants = own_amounts.into_iter().collect();
        Ok(amounts)
    }

    /// The amount for a key; none: no such quota.
    pub fn limit(&self, key: Key) -> Option<&Limit> {
        let default = self.defaults.get(&key.limit)?;
        Some(self.tenants.get(&(key.limit, key.tenant)).unwrap_or(default))
    }

    /// Whether the quota exists.
    pub fn has(&self, limit: LimitId) -> bool {
        self.defaults.contains_key(&limit)
    }

    /// Tenants with amounts of their own.
    pub(super) fn tenant_classes(&self) -> impl Iterator<Item = (LimitId, Class)> {
        self.tenants.keys().map(|(limit, tenant)| (*limit, Class::Tenant(*tenant)))
    }

    fn changed(&self, before: &Self) -> Vec<LimitId> {
        let all: BTreeSet<LimitId> = self.defaults.keys().chain(before.defaults.keys()).copied().collect();
        let of = |amounts: &Self, limit| {
            let from = (limit, 0);
            let tenants = amounts.tenants.range(from..=(limit, u64::MAX));
            (amounts.defaults.get(&limit).copied(), tenants.map(|(k, v)| (*k, *v)).collect::<Vec<_>>())
        };
        all.into_iter().filter(|limit| of(self, *limit) != of(before, *limit)).collect()
    }
}

fn checked(quota: &str, limit: Limit) -> Result<Limit, String> {
    let fits = limit.tokens > 0 && limit.per_ns > 0 && (1..=Limit::BURST_MAX).contains(&limit.burst);
    if fits {
        Ok(limit)
    } else {
        let wanted = "at least 1 token in at least 1 ns, and a burst from 1 to 2^32 - 1";
        Err(format!("quota {quota}: found {limit:?}, wanted {wanted}"))
    }
}

/// Amounts and since when they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The document's revision.
    pub revision: Revision,
    /// Cluster time.
    pub from: Tau,
    /// The amounts.
    pub amounts: Arc<Amounts>,
}

/// Tables in the order of their time, never empty. A document that changes no amount adds none; old ones are dropped
/// when no bucket needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables(pub(super) Vec<Table>);

impl Default for Tables {
    fn default() -> Self {
        Self(vec![Table { revision: Revision(0), from: Tau(0), amounts: Arc::default() }])
    }
}

impl Tables {
    /// The table in force.
    pub fn newest(&self) -> &Table {
        self.0.last().expect("never empty: made with one, and the newest is never dropped")
    }

    /// Adds a table if an amount changed.
    pub(super) fn push(&mut self, revision: Revision, from: Tau, amounts: Amounts) -> bool {
        let changes = *self.newest().amounts != amounts;
        if changes {
            self.0.push(Table { revision, from, amounts: Arc::new(amounts) });
        }
        changes
    }

    /// Drops tables before `floor`: every bucket is advanced with that one or a newer one.
    pub(super) fn drop_before(&mut self, floor: Revision) {
        self.0.retain(|table| table.revision >= floor);
        assert!(!self.0.is_empty(), "the newest table is never dropped");
    }

    /// Limits whose amounts differ between the two newest tables.
    pub(super) fn changed_last(&self) -> Vec<LimitId> {
        match self.0.as_slice() {
            [.., before, newest] => newest.amounts.changed(&before.amounts),
            _ => Vec::new(),
        }
    }

    /// Brings a bucket to `to` through every table since its own: each old amount up to the end of its time, then the
    /// change. Returns the amount in force; none: the quota does not exist now.
    pub(super) fn advance(&self, key: Key, bucket: &mut Bucket, to: Tau, tally: &mut Tally) -> Option<Limit> {
        let first = self.0.partition_point(|table| table.revision <= bucket.revision).saturating_sub(1);
        let mut limit = self.0[first].amounts.limit(key);
        for table in &self.0[first + 1..] {
            let next = table.amounts.limit(key);
            if limit != next {
                bucket.advance(limit, table.from, tally);
                bucket.change(limit, next, tally);
            }
            limit = next;
        }
        bucket.revision = self.newest().revision;
        bucket.advance(limit, to, tally);
        limit.copied()
    }
}
