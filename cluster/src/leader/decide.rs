//! What becomes of the items of one entry: foreseen on copies of the touched buckets, before anything is proposed.

use std::collections::BTreeMap;

use config::quota::Limit;

use super::demand::{Demands, Recalled};
use super::sizing::{self, Level, Wish};
use super::times::{TTL, ns};
use crate::lease::{AskItem, Granted, Push};
use crate::state::State;
use crate::state::command::Item;
use crate::state::ids::{Key, RaftId, SessionId, Tau, Tokens};
use crate::state::shadow::BucketView;
use crate::world::MonoNs;

/// A gateway unheard for this long on a key whose tokens are needed is asked even if it should have spent its own.
const SILENT_NS: u64 = 15_000_000;
/// A lease is renewed in the log when a quarter of its life is over; sooner it is long enough.
const RENEWED_BELOW_NS: u64 = ns(TTL) / 4 * 3;
const KILOSECOND_NS: u128 = 1_000_000_000_000;

/// What an item's report does to its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    /// Tokens that the gateway holds stay good.
    keep: bool,
    /// It frees tokens, ends a lease or must tell the gateway that its own is void: the log has to know.
    moves: bool,
    /// The lease should live longer.
    renew: bool,
}

/// The decision on one item.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    /// The answer if it needs no log; otherwise its volatile part.
    pub granted: Granted,
    /// What the log gets; none: nothing.
    pub item: Option<Item>,
    /// Waiters' cost.
    pub need: Tokens,
    /// Held by the gateway.
    pub held: Tokens,
}

/// The sizing of one entry.
pub(crate) struct Sizing<'a> {
    state: &'a State,
    demands: &'a mut Demands,
    stamp: Tau,
    now: MonoNs,
    /// Copies of the touched buckets at the stamp; none: no such limit, or no room for another key.
    shadows: BTreeMap<Key, Option<BucketView>>,
    /// To be sent now.
    pub recalls: Vec<(RaftId, Push)>,
}

impl<'a> Sizing<'a> {
    pub fn new(state: &'a State, demands: &'a mut Demands, stamp: Tau, now: MonoNs) -> Self {
        Self { state, demands, stamp, now, shadows: BTreeMap::new(), recalls: Vec::new() }
    }

    /// Books the report of an item. All reports of an entry come before its first grant; none: there is no bucket.
    pub fn report(&mut self, session: SessionId, item: &AskItem) -> Option<Reported> {
        let (state, stamp) = (self.state, self.stamp);
        let shadow =
            self.shadows.entry(item.key).or_insert_with(|| state.shadow(item.key, stamp)).as_mut()?;
        let before = shadow.lease(session).cloned();
        let keep = shadow.report(session, item.lid, item.held, item.spent);
        let (moves, renew) = match before {
            Some(lease) if Some(lease.lid) == item.lid => {
                let left_ns = lease.exp.0.saturating_sub(stamp.0);
                (lease.out != item.held, item.held > 0 && left_ns < RENEWED_BELOW_NS)
            }
            Some(_) => (true, false),
            // Only through the log: another leader might still count that lease.
            None => (item.held > 0 || item.lid.is_some(), false),
        };
        Some(Reported { keep, moves, renew })
    }

    /// Decides on an item whose report is booked.
    pub fn decide(&mut self, session: SessionId, item: &AskItem, reported: Option<Reported>) -> Decided {
        let Some(reported) = reported else { return self.no_bucket(item) };
        let held = if reported.keep { item.held } else { 0 };
        let wish = Wish {
            held,
            need: item.need,
            min: item.min,
            want: item.want.max(item.need),
            demand: item.demand_per_ks,
            demand_all: self.demands.total_per_ks(item.key, self.now).max(item.demand_per_ks),
        };
        let Some(Some(shadow)) = self.shadows.get_mut(&item.key) else { return self.no_bucket(item) };
        let grant = sizing::grant(&Level::of(shadow), &wish);
        if grant > 0 {
            shadow.grant(session, grant, grant, ns(TTL));
        }
        let level = Level::of(shadow);

        let others: Vec<(SessionId, Tokens)> = if wish.is_short(grant) {
            shadow.leases().iter().map(|lease| (lease.session, lease.out)).collect()
        } else {
            Vec::new()
        };
        let refused = wish.is_short(grant).then(|| {
            let urgent = level.tight() || !wish.saturates(&level.limit) || sizing::trickles(&level.limit);
            let recalled = self.recall(item.key, session, &others, urgent);
            sizing::refusal(&level, &wish, grant, recalled)
        });
        let granted = Granted {
            key: item.key,
            keep: reported.keep,
            lid: item.lid,
            grant: 0,
            ttl_ns: 0,
            retry_after_ns: refused.map_or(0, |told| told.retry_after_ns),
            hold: refused.is_some_and(|told| told.hold),
            tight: level.tight(),
            plenty: level.plenty(),
            left: level.central,
            limit: level.limit,
            unknown: false,
            full: false,
        };
        let logged = grant > 0 || reported.moves || reported.renew;
        let item = logged.then(|| Item {
            key: item.key,
            lid: item.lid,
            held: item.held,
            spent: item.spent,
            min: if grant > 0 { item.min.min(grant) } else { 0 },
            max: grant,
            ttl_ns: ns(TTL),
        });
        Decided { granted, item, need: wish.need, held }
    }

    /// Asks others that should have tokens to spare; whether any is expected to answer.
    fn recall(&mut self, key: Key, asker: SessionId, leases: &[(SessionId, Tokens)], urgent: bool) -> bool {
        let mut awaited = false;
        for &(session, out) in leases.iter().filter(|(session, _)| *session != asker) {
            let (age_ns, demand) = self.demands.last(key, session, self.now).unwrap_or((u64::MAX, 0));
            let spent = u128::from(demand).saturating_mul(u128::from(age_ns));
            let spare =
                u128::from(out) * KILOSECOND_NS * 2 > spent.saturating_mul(2).saturating_add(KILOSECOND_NS);
            if !(spare || (urgent && age_ns >= SILENT_NS)) {
                continue;
            }
            let Some(info) = self.state.sessions().get(session) else { continue };
            match self.demands.recall(key, session, self.now) {
                Recalled::Now => {
                    self.recalls.push((info.node, Push::Recall(key)));
                    awaited = true;
                }
                Recalled::Before => awaited = true,
                Recalled::Dead => {}
            }
        }
        awaited
    }

    /// The document has no such limit, or the ledger no room for another key of it.
    fn no_bucket(&self, item: &AskItem) -> Decided {
        let limit = self.state.limit(item.key);
        let granted = Granted {
            key: item.key,
            keep: false,
            lid: item.lid,
            grant: 0,
            ttl_ns: 0,
            retry_after_ns: 0,
            hold: false,
            tight: false,
            plenty: false,
            left: 0,
            // Without one, the gateway looks at `unknown` first.
            limit: limit.unwrap_or(Limit { tokens: 1, per_ns: 1, burst: 1 }),
            unknown: limit.is_none(),
            full: limit.is_some(),
        };
        Decided { granted, item: None, need: item.need, held: 0 }
    }
}
