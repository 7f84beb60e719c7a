//! How many buckets there are, and whose: no key space may crowd out the others, or the memory.
//!
//! ```text
//! all buckets            4 Mi     some 120 B each
//! of one quota           a quarter of them
//! of one tenant in it    a quarter of those, where the quota counts by tenant
//! ```
//! At a bound no *new* key gets a bucket; those that are there go on, and each one that is full again makes room. The
//! numbers are part of the replicated state: every node must come to the same decision.

use std::collections::BTreeMap;

use super::ids::{Key, LimitId};
use super::paged::{Paged, Place};

/// Buckets at once, of all quotas together.
pub(super) const BUCKETS_MAX: u64 = 1 << 22;
/// A quota may have this part of them, a tenant this part of its quota's.
const PART: u64 = 4;

/// A tenant's part of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tenant(LimitId, u64);

impl Tenant {
    /// Who is counted for a key; none: the quota does not count by tenant, or by nothing else, so that a tenant has one.
    fn of(key: Key) -> Option<Self> {
        (key.tenant != 0 && key.value != key.tenant).then_some(Self(key.limit, key.tenant))
    }
}

impl Place for Tenant {
    fn number(&self) -> u64 {
        self.0.0 ^ self.1
    }
}

/// Counts of buckets; who has none is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Census {
    most: u64,
    all: u64,
    by_limit: BTreeMap<LimitId, u64>,
    by_tenant: Paged<Tenant, u64>,
}

impl Census {
    /// Of at most `most` buckets in `pages` pages.
    pub fn new(pages: usize, most: u64) -> Self {
        Self { most, all: 0, by_limit: BTreeMap::new(), by_tenant: Paged::new(pages) }
    }

    pub fn all(&self) -> u64 {
        self.all
    }

    pub fn has(&self, limit: LimitId) -> bool {
        self.by_limit.contains_key(&limit)
    }

    /// Whether a key that has no bucket may get one.
    pub fn has_room(&self, key: Key) -> bool {
        let of_limit = self.by_limit.get(&key.limit).copied().unwrap_or(0);
        let of_tenant = self.by_tenant.get(&Tenant(key.limit, key.tenant)).copied().unwrap_or(0);
        self.all < self.most
            && of_limit < (self.most / PART).max(1)
            && of_tenant < (self.most / PART / PART).max(1)
    }

    pub fn add(&mut self, key: Key) {
        self.all += 1;
        *self.by_limit.entry(key.limit).or_default() += 1;
        if let Some(tenant) = Tenant::of(key) {
            let before = self.by_tenant.get(&tenant).copied().unwrap_or(0);
            self.by_tenant.set(tenant, before + 1);
        }
    }

    pub fn remove(&mut self, key: Key) {
        self.all -= 1;
        match self.by_limit.get(&key.limit).expect("what is removed was counted") {
            1 => drop(self.by_limit.remove(&key.limit)),
            count => drop(self.by_limit.insert(key.limit, count - 1)),
        }
        if let Some(tenant) = Tenant::of(key) {
            match self.by_tenant.get(&tenant).expect("what is removed was counted") {
                1 => drop(self.by_tenant.remove(&tenant)),
                count => drop(self.by_tenant.set(tenant, count - 1)),
            }
        }
    }

    /// The counts that these buckets would have.
    pub fn of<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut census = Self::new(self.by_tenant.count(), self.most);
        keys.for_each(|key| census.add(*key));
        census
    }
}
