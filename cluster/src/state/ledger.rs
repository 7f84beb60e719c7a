//! The ledger: who may spend how much. Applied batch by batch, item by item (quota.md 3).

use std::collections::BTreeSet;

use config::quota::Limit;

use super::amounts::{Amounts, Tables};
use super::bucket::{Bucket, Tally};
use super::census::{BUCKETS_MAX, Census};
use super::command::{Batch, BatchOutcome, Item, ItemOutcome, Register};
use super::digest::Digester;
use super::ghosts::Ghosts;
use super::ids::{Key, LeaseId, LimitId, Revision, SessionId, Tau};
use super::pages::{PAGES, Pages};
use super::rules::{Rule, all_hold, holds};
use super::sessions::Sessions;
use super::shadow::BucketView;

/// Buckets that an entry sweeps beyond two for each of its items, so that the sweep outruns new keys.
const SWEEP_BUCKETS: usize = 8;
/// Pages that an entry sweeps at most beyond one for each of its items, most of them empty.
pub(super) const SWEEP_PAGES: usize = PAGES / 128;
const SWEEP_SESSIONS: usize = 2;
const SWEEP_GHOSTS: usize = 2;

/// Where the sweep is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    pub page: usize,
    /// The last bucket seen of that page.
    pub after: Option<Key>,
    /// The newest table when this pass began: at its end every bucket has been advanced with it.
    pub floor: Revision,
}

/// Buckets, leases, sessions, amounts, cluster time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    pub(super) tau: Tau,
    pub(super) next_lid: u64,
    pub(super) sessions: Sessions,
    pub(super) tables: Tables,
    pub(super) ghosts: Ghosts,
    pub(super) pages: Pages,
    pub(super) census: Census,
    pub(super) tally: Tally,
    pub(super) sweep: Sweep,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_bounds(PAGES, BUCKETS_MAX)
    }
}

impl Ledger {
    /// An empty ledger whose buckets lie in `pages` pages, at most `buckets_max` of them.
    pub(super) fn with_bounds(pages: usize, buckets_max: u64) -> Self {
        Self {
            tau: Tau(0),
            next_lid: 0,
            sessions: Sessions::default(),
            tables: Tables::default(),
            ghosts: Ghosts::default(),
            pages: Pages::new(pages),
            census: Census::new(pages, buckets_max),
            tally: Tally::default(),
            sweep: Sweep::default(),
        }
    }

    /// Cluster time: the newest applied stamp.
    pub fn tau(&self) -> Tau {
        self.tau
    }

    /// All sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Where all tokens came from and went.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Tokens that gateways may have spent: those booked as spent, and those out in leases.
    pub fn given(&self) -> u64 {
        let booked = self.tally.spent + self.tally.deemed_spent;
        u64::try_from(booked).expect("tokens are only ever booked as spent") + self.pages.out()
    }

    /// Number of buckets.
    pub fn buckets(&self) -> u64 {
        self.census.all()
    }

    pub(super) fn begin(&mut self, stamp: Tau) {
        self.tau = self.tau.max(stamp);
    }

    pub(super) fn amounts(&mut self, revision: Revision, amounts: Amounts) {
        if self.tables.push(revision, self.tau, amounts) {
            self.ghosts.follow(&self.tables, self.tau);
        }
    }

    pub(super) fn register(&mut self, register: &Register) -> SessionId {
        self.sessions.register(register, self.tau)
    }

    pub(super) fn batch(&mut self, batch: &Batch) -> BatchOutcome {
        let tau = self.tau;
        let Some(session) = self.sessions.get_mut(batch.session) else {
            return BatchOutcome::UnknownSession;
        };
        if batch.seq <= session.last_seq && holds(Rule::SeqRises) {
            return BatchOutcome::Stale;
        }
        session.last_seq = batch.seq;
        session.heard = tau;
        let mut seen = BTreeSet::new();
        let outcomes = batch.items.iter().map(|item| self.item(batch.session, item, seen.insert(item.key)));
        BatchOutcome::Applied(outcomes.collect())
    }

    /// One item. The second of a key in one batch, which no correct gateway sends, voids the lease.
    fn item(&mut self, session: SessionId, item: &Item, first: bool) -> ItemOutcome {
        let mut tally = Tally::default();
        let Some((mut bucket, limit)) = self.open(item.key, &mut tally) else {
            let full = self.limit(item.key).is_some();
            return ItemOutcome {
                keep: false,
                lid: None,
                grant: 0,
                ttl_ns: 0,
                left: 0,
                unknown: !full,
                full,
            };
        };
        let keep = if first {
            self.report(&mut bucket, &limit, session, item, &mut tally)
        } else {
            bucket.void(session, &mut tally);
            false
        };
        let left = bucket.central;
        let mut outcome =
            ItemOutcome { keep, lid: None, grant: 0, ttl_ns: 0, left, unknown: false, full: false };
        // A claim that voided the lease gets nothing; a gateway whose lease expired here does.
        if first {
            let next = LeaseId(self.next_lid + 1);
            let exp = Tau(self.tau.0.saturating_add(item.ttl_ns));
            let max = if item.min > item.max { 0 } else { item.max };
            let given = bucket.grant(session, item.min, max, exp, next);
            outcome.grant = given.grant;
            outcome.left = bucket.central;
            if let Some((lid, exp)) = given.lease {
                self.next_lid += u64::from(lid == next);
                outcome.lid = Some(lid);
                outcome.ttl_ns = exp.0 - self.tau.0;
                let known = self.sessions.get_mut(session).expect("the batch's session was found above");
                known.leases_end = known.leases_end.max(exp);
            }
        }
        bucket.check(Some(&limit));
        self.pages.set(item.key, bucket);
        self.tally.add(&tally);
        outcome
    }

    /// The amount in force for a key; none: no such limit.
    pub fn limit(&self, key: Key) -> Option<Limit> {
        self.tables.newest().amounts.limit(key).copied()
    }

    /// The bucket of a key at this entry's time, without the last refill if a test took out that rule. None: no such
    /// limit, or no room for another key.
    fn open(&mut self, key: Key, tally: &mut Tally) -> Option<(Bucket, Limit)> {
        let limit = self.limit(key)?;
        if let Some(mut bucket) = self.pages.get(&key).cloned() {
            if holds(Rule::RefillBeforeReport) {
                self.tables.advance(key, &mut bucket, self.tau, tally);
            }
            return Some((bucket, limit));
        }
        if !self.census.has_room(key) {
            return None;
        }
        let bucket = self.ghosts.copy(&self.tables, key, self.tau)?;
        tally.opened += i128::from(bucket.total());
        self.census.add(key);
        Some((bucket, limit))
    }

    fn report(
        &self,
        bucket: &mut Bucket,
        limit: &Limit,
        session: SessionId,
        item: &Item,
        tally: &mut Tally,
    ) -> bool {
        let keep = bucket.report(session, item.lid, item.held, item.spent, tally);
        if !holds(Rule::RefillBeforeReport) {
            bucket.advance(Some(limit), self.tau, tally);
        }
        keep
    }

    /// A copy of a bucket as it will be at `stamp` (or now, if that is later); none: no such limit, or no room for another
    /// key. Touches nothing.
    pub fn shadow(&self, key: Key, stamp: Tau) -> Option<BucketView> {
        let to = self.tau.max(stamp);
        let limit = self.limit(key)?;
        let bucket = match self.pages.get(&key) {
            Some(bucket) => {
                let mut bucket = bucket.clone();
                self.tables.advance(key, &mut bucket, to, &mut Tally::default());
                bucket
            }
            None if !self.census.has_room(key) => return None,
            None => self.ghosts.copy(&self.tables, key, to)?,
        };
        Some(BucketView { limit, bucket, at: to, next: LeaseId(self.next_lid + 1) })
    }

    /// Limits whose amounts changed with the newest table.
    pub(super) fn changed_last(&self) -> Vec<LimitId> {
        self.tables.changed_last()
    }

    /// The end of every entry: looks at a few buckets, sessions and ghosts, and forgets what makes no difference.
    /// Returns how many buckets it looked at: at most two for each of the entry's `items`, and a few.
    pub(super) fn sweep(&mut self, items: usize) -> usize {
        self.sessions.sweep(self.tau, SWEEP_SESSIONS);
        self.ghosts.sweep(&self.tables, self.tau, SWEEP_GHOSTS, &self.census);
        let most = SWEEP_BUCKETS + 2 * items;
        let mut left = most;
        // A large entry passes over as many pages as it must to look at its share of buckets.
        for _ in 0..(SWEEP_PAGES + items).min(self.pages.count()) {
            let chunk = self.pages.chunk(self.sweep.page, self.sweep.after, left);
            left -= chunk.len();
            for (key, bucket) in &chunk {
                self.sweep_bucket(*key, bucket);
            }
            if left == 0 {
                self.sweep.after = chunk.last().map(|(key, _)| *key).or(self.sweep.after);
                break;
            }
            self.sweep.after = None;
            self.sweep.page += 1;
            if self.sweep.page == self.pages.count() {
                self.sweep.page = 0;
                self.tables.drop_before(self.sweep.floor);
                self.sweep.floor = self.tables.newest().revision;
            }
        }
        self.check();
        most - left
    }

    /// Forgets a bucket that a new one would equal; writes it back only if it lags behind a table or an expiry.
    fn sweep_bucket(&mut self, key: Key, before: &Bucket) {
        let mut bucket = before.clone();
        let mut tally = Tally::default();
        let limit = self.tables.advance(key, &mut bucket, self.tau, &mut tally);
        let same = match limit {
            None => true,
            Some(_) => self
                .ghosts
                .advanced(&self.tables, key, self.tau)
                .is_some_and(|ghost| (ghost.central, ghost.rem) == (bucket.central, bucket.rem)),
        };
        if bucket.leases.is_empty() && same {
            tally.forgotten += i128::from(bucket.total());
            self.pages.remove(&key);
            self.census.remove(key);
        } else if bucket.revision != before.revision || bucket.leases != before.leases {
            self.pages.set(key, bucket);
        } else {
            return;
        }
        self.tally.add(&tally);
    }

    /// What can be asserted after every entry without a look at every bucket.
    fn check(&self) {
        debug_assert!(self.sweep.page < self.pages.count(), "the sweep stands on a page");
        debug_assert!(
            self.tables.0.is_sorted_by(|a, b| a.revision < b.revision && a.from <= b.from),
            "tables are in the order of their time"
        );
        debug_assert!(self.sessions.last >= self.sessions.by_id.keys().last().map_or(0, |id| id.0));
    }

    /// All invariants over all buckets: I1, I2, I8, I12, the kept sums and counts.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_all(&self) {
        if !all_hold() {
            return;
        }
        let mut total = 0_i128;
        let mut lids = BTreeSet::new();
        for (key, bucket) in self.pages.iter() {
            total += i128::from(bucket.total());
            let mut bucket = bucket.clone();
            let limit = self.tables.advance(*key, &mut bucket, self.tau, &mut Tally::default());
            bucket.verify(limit.as_ref());
            for lease in &bucket.leases {
                assert!(lease.lid.0 <= self.next_lid && lids.insert(lease.lid), "a lease's name is its own");
            }
            if let (Some(_), Some(ghost)) = (limit, self.ghosts.copy(&self.tables, *key, self.tau)) {
                let level = |bucket: &Bucket| (bucket.total(), bucket.rem);
                assert!(
                    level(&bucket) <= level(&ghost),
                    "I12: no bucket above its ghost: {bucket:?} {ghost:?}"
                );
            }
        }
        assert_eq!(total, self.tally.expected(), "I8: every token is accounted for: {:?}", self.tally);
        let keys = self.pages.iter().map(|(key, _)| key);
        assert_eq!(self.census.of(keys), self.census, "buckets are counted");
        assert!(self.pages.sums_are_true(), "the kept digest and the tokens out are those of the buckets");
        self.check();
    }

    pub(super) fn digest(&self, into: &mut Digester) {
        into.number(self.tau.0).number(self.next_lid);
        self.sessions.digest(into);
        for table in &self.tables.0 {
            into.number(table.revision.0).number(table.from.0);
        }
        self.ghosts.digest(into);
        self.pages.digest(into);
        into.number(self.sweep.page as u64).number(self.sweep.floor.0);
    }
}
