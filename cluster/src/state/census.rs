//! How many buckets there are, and whose: no key space may crowd out the others, or the memory.
//!
//! ```text
//! all buckets            4 Mi     some 200 B each
//! of one quota           a quarter of them
//! of one tenant in it    a quarter of those, where the quota counts by tenant
//! ```
//! At a bound no *new* key gets a bucket; those that are there go on, and each one that is full again makes room. The
//! numbers are part of the replicated state: every node must come to the same decision.

use std::collections::BTreeMap;

use super::ids::{Key, LimitId};

/// Buckets at once, of all quotas together.
pub(super) const BUCKETS_MAX: u64 = 1 << 22;
/// A quota may have this part of them, a tenant this part of its quota's.
const PART: u64 = 4;

/// Counts of buckets; who has none is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Census {
    most: u64,
    all: u64,
    by_limit: BTreeMap<LimitId, u64>,
    by_tenant: BTreeMap<(LimitId, u64), u64>,
}

impl Census {
    pub fn new(most: u64) -> Self {
        Self { most, all: 0, by_limit: BTreeMap::new(), by_tenant: BTreeMap::new() }
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
        let of_tenant = self.by_tenant.get(&(key.limit, key.tenant)).copied().unwrap_or(0);
        self.all < self.most
            && of_limit < (self.most / PART).max(1)
            && of_tenant < (self.most / PART / PART).max(1)
    }

    pub fn add(&mut self, key: Key) {
        self.all += 1;
        *self.by_limit.entry(key.limit).or_default() += 1;
        // 0: not by tenant.
        if key.tenant != 0 {
            *self.by_tenant.entry((key.limit, key.tenant)).or_default() += 1;
        }
    }

    pub fn remove(&mut self, key: Key) {
        self.all -= 1;
        one_less(&mut self.by_limit, key.limit);
        if key.tenant != 0 {
            one_less(&mut self.by_tenant, (key.limit, key.tenant));
        }
    }

    /// The counts that these buckets would have.
    pub fn of<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut census = Self::new(self.most);
        keys.for_each(|key| census.add(*key));
        census
    }
}

fn one_less<K: Ord + Copy>(counts: &mut BTreeMap<K, u64>, of: K) {
    let count = counts.get_mut(&of).expect("what is removed was counted");
    *count -= 1;
    if *count == 0 {
        counts.remove(&of);
    }
}
