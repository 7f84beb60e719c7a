//! What a node holds is bounded by what is asked of it, and goes when that ends.
//!
//! * Buckets: as many as keys that were ever asked for, at most one of each quota for each caller of a tenant.
//! * Sessions: as many as lives of nodes, and one more for each silence of a minute, after which the ledger forgets one.
//! * And once the cluster is well, so that nothing stands still:
//!   requests that wait, no more than were sent to the node a moment ago, for no wait is longer than 2.5 s;
//!   cells, no more than keys that were asked for lately, for an unused one lingers for five seconds;
//!   entries in the log, up to a snapshot's distance and what is kept behind it, and what comes while one is made.
//!
//! Nodes count this themselves and tell the operator. Source: decisions 10 and 20; quota.md 6; `limits:` of the node file
//! are far above, so that they hide nothing. Not here: bytes of a connection that nobody reads, for the simulated network
//! takes no more than a window of them from a writer, as a kernel does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Promise, Verdict};
use crate::clock::{MS_NS, TrueNs};
use crate::event::{Event, Held};
use crate::host::HostNumber;
use crate::plan::Plan;
use crate::weather::{Kind, Trouble};
use crate::witness::Counts;

/// Longer than any wait for tokens, on the slowest clock of a plan, with the way to the operator.
const WAITS_NS: TrueNs = 4_000 * MS_NS;
/// Longer than an unused cell lingers, on the slowest clock, and its last report takes.
const LINGERS_NS: TrueNs = 8_500 * MS_NS;
/// The ledger forgets a session that was silent for so long, and its gateway then begins another.
const SESSION_NS: TrueNs = 60_000 * MS_NS;
/// Entries that a busy cluster appends while a slow disk writes a snapshot.
const WHILE_WRITING: u64 = 600;

/// The promise.
pub struct Bounded {
    snapshot_after: u64,
    /// In all editions; one that counts by another key is another one.
    quotas: u64,
    /// Tenant → how many callers have it, if more than one may.
    callers: BTreeMap<String, u64>,
    lives: u64,
    tenants: BTreeSet<String>,
    /// What was sent to a node, as far back as anything lingers.
    sent: BTreeMap<HostNumber, VecDeque<(TrueNs, String)>>,
    well_since: Option<TrueNs>,
    looks: u64,
}

impl Bounded {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        let quotas = plan.scene.gateway.iter().flat_map(|edition| &edition.document.quotas);
        let quotas: BTreeSet<_> = quotas.map(|quota| (&quota.name, &quota.key)).collect();
        let mut callers = BTreeMap::new();
        for caller in &plan.scene.callers {
            *callers.entry(caller.tenant.clone()).or_default() += 1;
        }
        // Hot keys are asked for by strangers, each with an address of its own.
        let is_hot = |trouble: &&Trouble| matches!(trouble.kind, Kind::HotKey { .. });
        if let Some(last) = plan.scene.callers.last() {
            let strangers = plan.weather.iter().filter(is_hot).count() as u64;
            *callers.entry(last.tenant.clone()).or_default() += strangers;
        }
        Self {
            snapshot_after: plan.scene.snapshot_after,
            quotas: quotas.len() as u64,
            callers,
            lives: 0,
            tenants: BTreeSet::new(),
            sent: BTreeMap::new(),
            well_since: None,
            looks: 0,
        }
    }

    /// The most keys that requests of these tenants can have.
    fn keys<'t>(&self, tenants: impl Iterator<Item = &'t String>) -> u64 {
        tenants.map(|tenant| self.callers.get(tenant).copied().unwrap_or(1) * self.quotas).sum()
    }

    fn judge(&mut self, at: TrueNs, held: &Held) -> Verdict {
        let lives = self.lives + (self.lives + 1) * (at / SESSION_NS);
        below("buckets", held, held.buckets, self.keys(self.tenants.iter()))?;
        below("sessions", held, held.sessions, lives)?;
        let Some(well) = self.well_since else { return Ok(()) };
        let sent = self.sent.entry(held.host).or_default();
        while sent.front().is_some_and(|(then, _)| then + LINGERS_NS < at) {
            sent.pop_front();
        }
        if at > well + WAITS_NS {
            let lately = sent.iter().filter(|(then, _)| then + WAITS_NS >= at).count();
            below("requests that wait", held, held.waiting, lately as u64)?;
            let kept = self.snapshot_after + self.snapshot_after / 4;
            below("entries in the log", held, held.log_entries, kept + WHILE_WRITING)?;
        }
        if at > well + LINGERS_NS {
            self.looks += 1;
            let tenants: BTreeSet<String> = sent.iter().map(|(_, tenant)| tenant.clone()).collect();
            below("cells", held, held.cells, self.keys(tenants.iter()))?;
        }
        Ok(())
    }
}

fn below(what: &str, held: &Held, found: u64, wanted: u64) -> Verdict {
    if found <= wanted {
        return Ok(());
    }
    Err(format!("node {} holds {found} {what}, wanted {wanted} at most: {held:?}", held.host))
}

impl Promise for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Began { host, .. } if *host <= crate::scene::NODES_MAX => self.lives += 1,
            Event::Sent(request) => {
                self.tenants.insert(request.tenant.clone());
                self.sent.entry(request.node).or_default().push_back((at, request.tenant.clone()));
            }
            Event::Converged { .. } => {
                self.well_since.get_or_insert(at);
            }
            Event::Holds(held) => return self.judge(at, held),
            _ => {}
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts::from([("looks at nodes long after all troubles".to_owned(), self.looks)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sent;
    use super::*;
    use crate::event::Token;

    const S: TrueNs = 1_000 * MS_NS;

    /// A node that lives, was sent one request at 30 s, and is looked at a second later, in a cluster that is well.
    fn judge(change: impl FnOnce(&mut Held)) -> Verdict {
        let mut plan = Plan::draw(1, Some(3), 9_000, &[]);
        plan.scene.snapshot_after = 100;
        let mut bounded = Bounded::new(&plan);
        bounded.see(0, &Event::Began { host: 1, life: 1 })?;
        bounded.see(S, &Event::Converged { revision: 1, applied: 1 })?;
        bounded.see(30 * S, &sent(1, Token::Good))?;
        let mut held = Held { host: 1, ..Held::default() };
        change(&mut held);
        bounded.see(31 * S, &Event::Holds(held))
    }

    #[test]
    fn a_node_that_holds_more_than_was_asked_for_is_found() {
        let fits = |held: &mut Held| {
            *held =
                Held { host: 1, cells: 4, waiting: 1, buckets: 4, sessions: 1, log_entries: 125, ..*held };
        };
        assert_eq!(judge(fits), Ok(()));
        assert!(judge(|held| held.cells = 5).is_err());
        assert!(judge(|held| held.waiting = 2).is_err());
        assert!(judge(|held| held.buckets = 5).is_err());
        assert!(judge(|held| held.sessions = 2).is_err());
        assert!(judge(|held| held.log_entries = 126 + WHILE_WRITING).is_err());
    }

    #[test]
    fn a_storm_excuses_what_waits_and_not_what_is_never_forgotten() {
        let plan = Plan::draw(1, Some(3), 9_000, &["pause"]);
        let mut bounded = Bounded::new(&plan);
        let held = |waiting, buckets| Event::Holds(Held { host: 1, waiting, buckets, ..Held::default() });
        assert_eq!(bounded.see(S, &held(7, 0)), Ok(()));
        assert!(bounded.see(S, &held(0, 1)).is_err());
    }
}
