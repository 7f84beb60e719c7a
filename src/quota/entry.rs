//! One key as the hot path sees it: its cell, and what its manager publishes beside it.
//!
//! All figures here are hints that steer who asks when, or are shown to clients. The decision is the cell's alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cluster::world::BootNs;
use config::quota::Limit;

use super::cell::Cell;
use super::rule::{Charge, QuotaStats, Standing};

/// Counters of one quota, shared by its keys.
#[derive(Debug, Default)]
pub struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    undecided: AtomicU64,
    shared: AtomicU64,
    turned_away: AtomicU64,
}

impl Counts {
    /// One more admitted.
    pub fn admitted(&self) {
        self.admitted.fetch_add(1, Relaxed);
    }
    /// One more refused.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
    /// One more undecided.
    pub fn undecided(&self) {
        self.undecided.fetch_add(1, Relaxed);
    }
    /// One more was given tokens of the local share.
    pub fn shared(&self) {
        self.shared.fetch_add(1, Relaxed);
    }
    /// One more found no room for its key.
    pub fn turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }
    /// As they stand.
    pub fn read(&self) -> QuotaStats {
        QuotaStats {
            admitted: self.admitted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            undecided: self.undecided.load(Relaxed),
            shared: self.shared.load(Relaxed),
            turned_away: self.turned_away.load(Relaxed),
        }
    }
}

/// One key.
#[derive(Debug)]
pub struct Entry {
    /// The lease.
    pub cell: Cell,
    /// Counters of its quota.
    pub counts: Arc<Counts>,
    /// Requests wait: newcomers queue behind them.
    waiting: AtomicU32,
    /// Cost of requests that found no token, since the manager last looked.
    missed: AtomicU64,
    /// When the last of them came.
    missed_at_ns: AtomicU64,
    /// Fewer tokens than this after a take, not before `wake_from_ns`: wake the manager.
    low: AtomicU32,
    wake_from_ns: AtomicU64,
    /// A wake is on its way.
    woken: AtomicBool,
    /// Deny until then; `retry_at_ns` is when tokens may really be there, which clients are told.
    neg_until_ns: AtomicU64,
    retry_at_ns: AtomicU64,
    /// Central tokens at the last reply.
    left: AtomicI64,
    /// The amount in force; fields may be torn for an instant, which only colours a header.
    limit: [AtomicU64; 3],
}

impl Entry {
    /// A key without a lease.
    pub fn new(limit: Limit, counts: Arc<Counts>) -> Self {
        Self {
            cell: Cell::new(),
            counts,
            waiting: AtomicU32::new(0),
            missed: AtomicU64::new(0),
            missed_at_ns: AtomicU64::new(0),
            low: AtomicU32::new(0),
            wake_from_ns: AtomicU64::new(0),
            woken: AtomicBool::new(false),
            neg_until_ns: AtomicU64::new(0),
            retry_at_ns: AtomicU64::new(0),
            left: AtomicI64::new(0),
            limit: [limit.tokens, limit.per_ns, limit.burst].map(AtomicU64::new),
        }
    }

    /// The amount in force, as far as this node knows.
    pub fn limit(&self) -> Limit {
        let [tokens, per_ns, burst] = [0, 1, 2].map(|i| self.limit[i].load(Relaxed));
        Limit { tokens, per_ns, burst }
    }

    /// Where the key stands, for `RateLimit` (decisions.md 14): `min(B, tokens + last left)`, and when that is none, the time
    /// in which one token comes.
    pub fn standing(&self, charge: &Charge) -> Standing {
        let limit = self.limit();
        let central = u64::try_from(self.left.load(Relaxed)).unwrap_or(0);
        let left = self.cell.held().tokens.saturating_add(central).min(limit.burst);
        let reset_s = if left > 0 { 0 } else { one_token(limit).as_millis().div_ceil(1000) as u64 };
        Standing { quota: Arc::clone(&charge.quota), limit, left, reset_s }
    }

    /// Whether requests wait for this key.
    pub fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// A request found no token at `now`. Demand counts it.
    pub fn missed(&self, cost: u32, now: BootNs) {
        self.missed_at_ns.store(now.0, Relaxed);
        self.missed.fetch_add(u64::from(cost), Relaxed);
    }

    /// How much longer a refusal holds for clients; none: no refusal holds.
    pub fn refused_for(&self, now: BootNs) -> Option<Duration> {
        if now.0 >= self.neg_until_ns.load(Relaxed) {
            return None;
        }
        let at = self.retry_at_ns.load(Relaxed).max(self.neg_until_ns.load(Relaxed));
        Some(Duration::from_nanos(at.saturating_sub(now.0)))
    }

    /// After a take that left `left`: whether the caller is to wake the manager. True once until the manager has looked.
    pub fn runs_low(&self, left: u32, now: BootNs) -> bool {
        left < self.low.load(Relaxed)
            && now.0 >= self.wake_from_ns.load(Relaxed)
            && !self.woken.swap(true, Relaxed)
    }

    /// Manager: the number of waiters.
    pub fn set_waiting(&self, count: usize) {
        self.waiting.store(u32::try_from(count).unwrap_or(u32::MAX), Relaxed);
    }

    /// Manager: cost missed since the last call, and when the last of it was; also lets takers wake it again.
    pub fn look(&self) -> (u64, BootNs) {
        self.woken.store(false, Relaxed);
        (self.missed.swap(0, Relaxed), BootNs(self.missed_at_ns.load(Relaxed)))
    }

    /// Manager: when takers wake it.
    pub fn set_low(&self, low: u64, from: BootNs) {
        self.low.store(u32::try_from(low).unwrap_or(u32::MAX), Relaxed);
        self.wake_from_ns.store(from.0, Relaxed);
    }

    /// Manager: a refusal, or the end of one (both 0).
    pub fn set_refusal(&self, neg_until: BootNs, retry_at: BootNs) {
        self.retry_at_ns.store(retry_at.0, Relaxed);
        self.neg_until_ns.store(neg_until.0, Relaxed);
    }

    /// Manager: what the leader told.
    pub fn set_told(&self, left: i64, limit: Limit) {
        self.left.store(left, Relaxed);
        for (slot, value) in self.limit.iter().zip([limit.tokens, limit.per_ns, limit.burst]) {
            slot.store(value, Relaxed);
        }
    }
}

/// The time in which one token comes.
pub fn one_token(limit: Limit) -> Duration {
    Duration::from_nanos(limit.per_ns.div_ceil(limit.tokens.max(1)))
}
