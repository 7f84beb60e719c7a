//! One key under management: what its lease was given, who waits, what to report and when (quota.md 4.3, 4.4).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster::HISTORY;
use cluster::lease::{AskItem, Granted};
use cluster::state::ids::{Key, LeaseId, Tokens};
use cluster::world::BootNs;
use config::quota::OnQuorumLoss;

use super::pace::{Cycle, Demand};
use super::share::Share;
use super::waiter::WaiterId;
use crate::quota::entry::Entry;
use crate::quota::rule::QuotaRule;

/// The longest time that a refusal is believed without asking again: a limit may be raised meanwhile.
const REFUSAL_MAX: Duration = Duration::from_secs(1);
const PREFETCH_GAP: Duration = Duration::from_millis(10);
/// The leader recalls at most this often. A gateway that is asked for tokens keeps what it spends until it is asked again.
const RECALL_EVERY: Duration = Duration::from_millis(20);
const PLENTY_GAP: Duration = Duration::from_millis(100);
/// A key that nobody asked for this long, and that holds nothing, is forgotten.
const LINGER: Duration = Duration::from_secs(5);

/// One key.
#[derive(Debug)]
pub struct Managed {
    pub(super) entry: Arc<Entry>,
    pub(super) rule: Arc<QuotaRule>,
    /// Waiters that lack tokens of this key, oldest first.
    pub(super) queue: BTreeSet<WaiterId>,
    /// Waiting requests that are charged to this key, whether they lack its tokens or another's.
    pub(super) wanted_by: u32,
    /// Cost of the queue.
    pub(super) queued_cost: Tokens,
    pub(super) share: Option<Share>,
    /// Its entry in the lessee's timers.
    pub(super) check_at: Option<BootNs>,
    pub(super) recalled: bool,
    pub(super) must_report: bool,
    lid: Option<LeaseId>,
    /// Tokens given under `lid` less those that were returned or died: what is not held of them is spent.
    issued: Tokens,
    spent_reported: Tokens,
    ttl_node: Duration,
    demand: Demand,
    free_seen: Tokens,
    last_wanted: BootNs,
    last_report: BootNs,
    ask_at: BootNs,
    prefetch_from: BootNs,
    renew_from: BootNs,
    tight: bool,
    plenty: bool,
}

/// What a reply means for the waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing was refused.
    Fine,
    /// Refused, but tokens are near: keep waiting.
    HoldOn(Duration),
    /// Refused.
    Refused(Duration),
}

impl Managed {
    /// A key without a lease.
    pub(super) fn new(entry: Arc<Entry>, rule: Arc<QuotaRule>, now: BootNs) -> Self {
        Self {
            entry,
            rule,
            queue: BTreeSet::new(),
            wanted_by: 0,
            queued_cost: 0,
            share: None,
            check_at: None,
            recalled: false,
            must_report: false,
            lid: None,
            issued: 0,
            spent_reported: 0,
            ttl_node: Duration::ZERO,
            demand: Demand::default(),
            free_seen: 0,
            last_wanted: now,
            last_report: now,
            ask_at: BootNs(0),
            prefetch_from: BootNs(0),
            renew_from: BootNs(0),
            tight: false,
            plenty: false,
        }
    }

    /// Whether the lease may still be spent.
    pub(super) fn is_alive(&self, now: BootNs) -> bool {
        now.0 < self.entry.cell.deadline_ns()
    }

    /// Whether the ledger may think that this node holds a lease.
    pub(super) fn has_lease(&self) -> bool {
        self.lid.is_some()
    }

    /// Whether the local share may be spent, given since when no leader has answered.
    pub(super) fn is_cut_off(&self, now: BootNs, silent: Option<BootNs>) -> bool {
        self.rule.on_quorum_loss == OnQuorumLoss::LocalShare
            && silent.is_some_and(|since| now >= since.plus(Cycle::FAILOVER_MAX))
            && !self.is_alive(now)
    }

    fn spent(&self) -> Tokens {
        let held = self.entry.cell.held().total();
        self.issued.checked_sub(held).expect("a cell holds only what it was given")
    }

    /// How much the key would like to hold for a failover: H · demand.
    fn horizon(&self) -> Duration {
        let burst = self.entry.limit().burst;
        self.demand.time_of(burst.div_ceil(2), Duration::from_millis(250), Duration::from_secs(3))
    }

    fn report_interval(&self) -> Duration {
        let limit = self.entry.limit();
        let ns = u128::from(limit.burst) * u128::from(limit.per_ns) / (20 * u128::from(limit.tokens.max(1)));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
            .clamp(Duration::from_millis(10), Duration::from_millis(500))
    }

    fn idle_return(&self) -> Duration {
        Duration::from_millis(if self.plenty {
            1000
        } else if self.tight {
            50
        } else {
            500
        })
    }

    /// Looks at what takers did since the last look, and sets when they wake us.
    pub(super) fn observe(&mut self, now: BootNs, cycle: Cycle) {
        let (missed, missed_at) = self.entry.look();
        let taken = self.free_seen.saturating_sub(self.entry.cell.held().total());
        // What was taken was taken since the last look, which is short for a key with tokens. Refusals that nobody heard of may
        // be seen much later: a key is not to linger for them from then on.
        if taken > 0 {
            self.last_wanted = now;
        } else if missed > 0 {
            self.last_wanted = self.last_wanted.max(missed_at);
        }
        self.demand.saw(taken + missed, now.0);
        self.free_seen = self.entry.cell.held().total();
        let from = if self.tight { BootNs(0) } else { self.prefetch_from };
        let low = if self.tight { self.low(cycle).max(1) } else { self.low(cycle) };
        self.entry.set_low(low, from);
    }

    fn low(&self, cycle: Cycle) -> Tokens {
        if self.plenty {
            // Survivors take over a dead node's share of the demand, so the least that a lease holds must last longer
            // than a failover at their old pace.
            (self.demand.within(self.horizon()) / 4 * 3).max(2)
        } else {
            self.demand.within(cycle.get() * 2)
        }
    }

    /// Closes this key for a batch; none if there is nothing to say.
    pub(super) fn close(
        &mut self,
        key: Key,
        first_cost: Tokens,
        now: BootNs,
        cycle: Cycle,
        drain: bool,
    ) -> Option<AskItem> {
        self.observe(now, cycle);
        let cell = &self.entry.cell;
        if !self.is_alive(now) && cell.held().total() > 0 {
            let died = cell.drop_all().total();
            tracing::debug!(target: HISTORY, count = died, "tokens that died at their deadline");
            self.issued -= died;
            self.must_report = true;
        }
        let held = self.entry.cell.held();
        let quiet = u128::from(now.since(self.last_wanted));
        let idle = held.tokens > 0 && quiet >= self.idle_return().as_nanos();
        let need = if now >= self.ask_at && !drain { self.queued_cost } else { 0 };
        let prefetch = !drain
            && !idle
            && held.tokens < self.low(cycle)
            && now >= self.prefetch_from
            && quiet < Duration::from_millis(500).as_nanos();
        let fresh = self.spent() != self.spent_reported;
        let aged = u128::from(now.since(self.last_report)) >= self.report_interval().as_nanos();
        let report = fresh && (aged || self.tight && held.total() == 0);
        let renew = held.tokens > 0
            && !idle
            && now >= self.renew_from
            && u128::from(self.entry.cell.deadline_ns().saturating_sub(now.0)) < self.ttl_node.as_nanos() / 2;
        let draining = drain && self.lid.is_some();
        if !(need > 0 || prefetch || idle || report || renew || draining || self.recalled || self.must_report)
        {
            return None;
        }
        let burst = self.entry.limit().burst;
        let rest = self.demand.time_of(4, Duration::from_millis(1), Duration::from_millis(30));
        let keep = match () {
            () if drain || idle => 0,
            () if self.recalled && quiet > rest.as_nanos() => 0,
            () if self.recalled => {
                let until_next = self.demand.within(RECALL_EVERY + cycle.get() * 2);
                until_next.min(held.tokens / 2)
            }
            () => burst,
        };
        let (returned, held) = self.entry.cell.close(keep);
        self.issued -= returned;
        let spent = self.issued.checked_sub(held.total()).expect("a cell holds only what it was given");
        self.free_seen = held.total();
        let asks = need > 0 || prefetch;
        let wish = self.demand.within(self.horizon()).max(held.total() + need);
        let want = if asks { wish.min(burst.max(first_cost)) } else { held.total() };
        let min = if need > 0 { first_cost.saturating_sub(held.tokens) } else { 0 };
        if prefetch {
            self.prefetch_from = now.plus(if self.plenty { PLENTY_GAP } else { PREFETCH_GAP });
        }
        self.ask_at = if need > 0 { now.plus(Duration::from_millis(1)) } else { self.ask_at };
        self.renew_from = now.plus(self.ttl_node / 8);
        (self.spent_reported, self.last_report) = (spent, now);
        (self.recalled, self.must_report) = (false, false);
        let demand_per_ks = self.demand.per_ks();
        Some(AskItem { key, lid: self.lid, held: held.total(), spent, need, min, want, demand_per_ks })
    }

    /// Takes the reply to an item of a batch that was sent at `sent`.
    pub(super) fn take(&mut self, item: &AskItem, reply: &Granted, sent: BootNs, now: BootNs) -> Told {
        if !reply.keep {
            tracing::debug!(target: HISTORY, "leases taken away");
            self.issued -= self.entry.cell.drop_all().total();
        }
        // Four fifths of the ledger's time, from the send and never from the reply: a slow reply gives no time.
        let ttl_node = Duration::from_nanos(reply.ttl_ns / 5 * 4);
        let deadline = sent.plus(ttl_node);
        if reply.ttl_ns > 0 && reply.lid != self.lid {
            let grant = if reply.lid.is_some() { reply.grant } else { 0 };
            self.entry.cell.new_lease(grant, if reply.lid.is_some() { deadline.0 } else { 0 });
            (self.lid, self.issued, self.spent_reported) = (reply.lid, grant, 0);
        } else if reply.ttl_ns > 0 && reply.lid.is_some() {
            self.entry.cell.renew(deadline.0);
            self.entry.cell.add(reply.grant);
            self.issued += reply.grant;
        } else if reply.lid.is_none() && (!reply.keep || item.held == 0) {
            self.entry.cell.new_lease(0, 0);
            (self.lid, self.issued, self.spent_reported) = (None, 0, 0);
        }
        if reply.ttl_ns > 0 {
            self.ttl_node = ttl_node;
        }
        self.free_seen = self.entry.cell.held().total();
        self.entry.set_told(reply.left, reply.limit);
        (self.tight, self.plenty) = (reply.tight, reply.plenty);
        if self.entry.cell.held().tokens > reply.limit.burst {
            self.must_report = true;
        }
        if reply.retry_after_ns == 0 {
            // The answer to a report that asked for nothing takes no refusal back, unless it shows tokens: with the refusal
            // gone, requests would wait for a question that is not asked before it ends.
            if item.need > 0 || reply.left > 0 {
                self.entry.set_refusal(BootNs(0), BootNs(0));
                self.ask_at = self.ask_at.min(now.plus(Duration::from_millis(1)));
            }
            return Told::Fine;
        }
        let retry = Duration::from_nanos(reply.retry_after_ns);
        let capped = retry.min(REFUSAL_MAX);
        self.prefetch_from = now.plus(capped.max(PREFETCH_GAP));
        if item.need == 0 {
            return Told::Fine;
        }
        self.ask_at = now.plus(capped.max(Duration::from_millis(1)));
        if reply.hold {
            return Told::HoldOn(capped);
        }
        self.entry.set_refusal(now.plus(capped), now.plus(retry));
        Told::Refused(retry)
    }

    /// The limit changed: refusals under the old amount mean nothing now.
    pub(super) fn changed(&mut self) {
        self.entry.set_refusal(BootNs(0), BootNs(0));
        (self.prefetch_from, self.ask_at, self.must_report) = (BootNs(0), BootNs(0), true);
    }

    /// A waiter got its tokens. If demand counted it when it came, its take is not counted again.
    pub(super) fn served(&mut self, cost: u32, counted: bool) {
        if counted {
            self.free_seen = self.free_seen.saturating_sub(u64::from(cost));
        }
    }

    /// Tokens die, and are reported as unspent.
    pub(super) fn drop_tokens(&mut self) {
        let died = self.entry.cell.drop_all().total();
        self.issued -= died;
        self.free_seen = 0;
        self.must_report |= died > 0;
    }

    /// Everything dies: the session is gone, or its ledger's limit is.
    pub(super) fn forget_lease(&mut self) {
        self.entry.cell.new_lease(0, 0);
        (self.lid, self.issued, self.spent_reported, self.free_seen) = (None, 0, 0, 0);
    }

    /// Nothing to report, nobody waits, nobody came for long.
    pub(super) fn is_forgettable(&self, now: BootNs) -> bool {
        self.queue.is_empty()
            && self.entry.cell.held().total() == 0
            && self.spent() == self.spent_reported
            && !self.must_report
            && u128::from(now.since(self.last_wanted)) >= LINGER.as_nanos()
    }

    /// When to look again, after a look that found nothing to say.
    pub(super) fn next_look(&self, now: BootNs) -> BootNs {
        let mut at = self.last_wanted.plus(LINGER).max(now.plus(Duration::from_millis(10)));
        if self.entry.cell.held().total() > 0 || self.spent() != self.spent_reported {
            at = at.min(now.plus(self.report_interval().min(self.idle_return())));
        }
        if !self.queue.is_empty() {
            at = at.min(self.ask_at.max(now.plus(Duration::from_millis(1))));
        }
        at
    }
}
