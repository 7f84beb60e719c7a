//! The bucket that an unknown key has: nobody spends from it, and it lives through every change of amount.
//!
//! Without ghosts a bucket that was forgotten as full would come back full just after a raise, and so with a gift.
//! A quota has one for all keys, and one for each tenant with an amount of its own.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::amounts::{Class, Tables};
use super::bucket::{Bucket, Tally};
use super::census::Census;
use super::digest::Digester;
use super::ids::{Key, LimitId, Tau};

/// All ghosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ghosts {
    pub by_class: BTreeMap<(LimitId, Class), Bucket>,
    pub cursor: Option<(LimitId, Class)>,
}

impl Ghosts {
    /// A table was just added at `tau`: makes ghosts for new quotas (full) and for tenants that have an amount of their
    /// own now (what their keys would have been copied from before), and takes all of them through the change.
    pub fn follow(&mut self, tables: &Tables, tau: Tau) {
        let newest = tables.newest();
        let amounts = &newest.amounts;
        for (limit, class) in amounts.tenant_classes() {
            let before = self.by_class.get(&(limit, Class::Default));
            if let Some(before) = before.filter(|_| !self.by_class.contains_key(&(limit, class))) {
                self.by_class.insert((limit, class), before.clone());
            }
        }
        let defaults = amounts.defaults.keys().map(|limit| (*limit, Class::Default));
        for (limit, class) in defaults.chain(amounts.tenant_classes()) {
            self.by_class.entry((limit, class)).or_insert_with(|| {
                let full =
                    amounts.limit(class.key(limit)).expect("a class of this table has an amount in it");
                Bucket::full(full, tau, newest.revision)
            });
        }
        for ((limit, class), ghost) in &mut self.by_class {
            tables.advance(class.key(*limit), ghost, tau, &mut Tally::default());
        }
    }

    fn class_of(&self, key: Key) -> Class {
        let class = Class::Tenant(key.tenant);
        if self.by_class.contains_key(&(key.limit, class)) { class } else { Class::Default }
    }

    /// What an unknown key has at `tau`; none: the quota never was.
    pub fn copy(&self, tables: &Tables, key: Key, tau: Tau) -> Option<Bucket> {
        let class = self.class_of(key);
        let mut ghost = self.by_class.get(&(key.limit, class))?.clone();
        tables.advance(class.key(key.limit), &mut ghost, tau, &mut Tally::default());
        Some(ghost)
    }

    /// The ghost of a key, advanced in place.
    pub fn advanced(&mut self, tables: &Tables, key: Key, tau: Tau) -> Option<&Bucket> {
        let class = self.class_of(key);
        let ghost = self.by_class.get_mut(&(key.limit, class))?;
        tables.advance(class.key(key.limit), ghost, tau, &mut Tally::default());
        Some(ghost)
    }

    /// Looks at a few ghosts and drops those that make no difference: of a removed quota whose buckets are all gone,
    /// and of a tenant that has the amount and the level of all others.
    pub fn sweep(&mut self, tables: &Tables, tau: Tau, most: usize, census: &Census) {
        let from = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.by_class.range((from, Bound::Unbounded)).take(most);
        let seen: Vec<(LimitId, Class)> = next.map(|(id, _)| *id).collect();
        self.cursor = if seen.len() < most { None } else { seen.last().copied() };
        let amounts = &tables.newest().amounts;
        for (limit, class) in seen {
            let drop = if amounts.has(limit) {
                class != Class::Default && self.is_like_default(tables, limit, class, tau)
            } else {
                !census.has(limit)
            };
            if drop {
                self.by_class.remove(&(limit, class));
            }
        }
    }

    fn is_like_default(&self, tables: &Tables, limit: LimitId, class: Class, tau: Tau) -> bool {
        let at = |class: Class| {
            let mut ghost = self.by_class.get(&(limit, class))?.clone();
            let amount = tables.advance(class.key(limit), &mut ghost, tau, &mut Tally::default());
            Some((amount, ghost.central, ghost.rem))
        };
        at(class) == at(Class::Default)
    }

    pub fn digest(&self, into: &mut Digester) {
        for ((limit, class), ghost) in &self.by_class {
            into.number(limit.0).number(class.key(*limit).tenant);
            ghost.digest(into);
        }
    }
}
