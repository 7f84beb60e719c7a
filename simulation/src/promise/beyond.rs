//! Clocks that break their bound do bounded damage: in any interval of true length t, the cluster admits at most
//! B + r·(1 + p)·t, with p the rate error of its fastest clock; and in addition, if some lease can be spent after the ledger
//! has booked it, one lease of each node that can be so late, which is B at most.
//!
//! Source: quota.md 1: "tokens of an expired lease are booked as spent, never handed out again, so the excess is at most
//! that node's lease, once; a fast leader clock raises r by its error". A node holds its lease for 0.8 of the ledger's
//! time (decisions 1), so none is late as long as (1 + fastest) / (1 − slowest) is at most 1.25. In any interval a node has
//! one lease of a key that is late at its beginning, if any: whatever it has next was given later. That all tokens
//! together are no more than were given is [`conserved`](super::conserved), whatever clocks do.

use super::exact::{Exact, Slack};
use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::Event;
use crate::plan::Plan;
use crate::scene::NODES_MAX;
use crate::weather::Kind;
use crate::witness::Counts;

/// How much longer the ledger keeps a lease than its node does.
const MARGIN: f64 = 1.25;

/// The promise. In its place, clocks that keep their bound have [`Exact`].
pub struct Beyond(Exact);

/// The rate errors of a plan's clocks, as parts of one.
fn errors(plan: &Plan) -> impl Iterator<Item = f64> + '_ {
    plan.weather.iter().filter_map(|trouble| match trouble.kind {
        Kind::ClockRate { ppm, .. } | Kind::ClockRunaway { ppm, .. } => Some(ppm as f64 / 1e6),
        _ => None,
    })
}

/// Whether some clock of a plan does.
pub fn breaks_the_bound(plan: &Plan) -> bool {
    errors(plan).any(|error| error.abs() > Slack::NONE.epsilon)
}

/// What is allowed to the clocks of a plan.
fn slack(plan: &Plan) -> Slack {
    let least = Slack::NONE.epsilon;
    let fastest = errors(plan).fold(least, f64::max);
    let slowest = errors(plan).fold(-least, f64::min);
    let is_late = |error: f64| (1.0 + fastest) / (1.0 + error) > MARGIN;
    // A fast leader outruns everybody. Else each time that a clock became so slow may have been another node's.
    let late_leases = if is_late(-least) {
        u32::from(NODES_MAX)
    } else {
        errors(plan).filter(|error| is_late(*error)).map(|_| 1).sum::<u32>().min(NODES_MAX.into())
    };
    let leases_end_ns = (Slack::NONE.leases_end_ns as f64 / (1.0 + slowest)) as TrueNs;
    Slack { epsilon: fastest, late_leases, leases_end_ns }
}

impl Beyond {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        Self(Exact::held_to(plan, slack(plan)))
    }
}

impl Promise for Beyond {
    fn name(&self) -> &'static str {
        "beyond"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        self.0.see(at, event)
    }

    fn end(&mut self) -> Verdict {
        self.0.end()
    }

    fn broken_at(&self) -> Option<TrueNs> {
        self.0.broken_at()
    }

    fn counts(&self) -> Counts {
        let mut counts = self.0.counts();
        let admitted = counts.get("admissions judged").copied().unwrap_or(0);
        counts.insert("admissions judged under clocks beyond their bound".to_owned(), admitted);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{limit_second, sent};
    use super::*;
    use crate::clock::MS_NS;
    use crate::event::{Charge, Request, Token};
    use crate::weather::{Trouble, Whom};

    const S: TrueNs = 1_000 * MS_NS;

    fn plan(ppms: &[i64]) -> Plan {
        let mut plan = Plan::draw(3, Some(3), 9_000, &[]);
        limit_second(&mut plan, "{rate: 10/s, burst: 5}");
        plan.weather = ppms
            .iter()
            .map(|ppm| Kind::ClockRunaway { whom: Whom::Leader, ppm: *ppm })
            .map(|kind| Trouble { at_ms: 0, for_ms: 0, kind })
            .collect();
        plan
    }

    /// Lets the second caller be admitted at these instants.
    fn judge(plan: &Plan, instants: impl IntoIterator<Item = TrueNs>) -> Verdict {
        let mut beyond = Beyond::new(plan);
        for (number, at) in (1..).zip(instants) {
            let Event::Sent(request) = sent(number, Token::Good) else { unreachable!("it was sent") };
            let sent = Request { tenant: "tenant-1".to_owned(), ..request };
            beyond.see(at, &Event::Sent(sent))?;
            let charge = Charge { quota: "per-tenant".to_owned(), key: "k".to_owned(), cost: 1, at };
            beyond.see(
                at,
                &Event::Reached { number, node: 1, upstream: "first".into(), charges: vec![charge] },
            )?;
        }
        beyond.end()
    }

    #[test]
    fn a_plan_has_one_of_the_two_promises() {
        assert!(!breaks_the_bound(&plan(&[1_000, -1_000])));
        assert!(breaks_the_bound(&plan(&[500, -2_000])));
    }

    #[test]
    fn a_fast_clock_raises_the_rate_by_its_error_and_no_more() {
        let steady = |per_1000_s| (0..2_000_u64).map(move |number| S + number * 1_000 * S / per_1000_s);
        assert_eq!(judge(&plan(&[50_000]), steady(10_500)), Ok(()));
        assert!(judge(&plan(&[50_000]), steady(10_600)).is_err());
        assert!(judge(&plan(&[-50_000]), steady(10_100)).is_err(), "a slow one does not raise it");
    }

    #[test]
    fn a_burst_more_is_found_unless_a_lease_can_be_late() {
        let at_once = |count| vec![S; count];
        assert_eq!(judge(&plan(&[-50_000, 50_000]), at_once(5)), Ok(()));
        assert!(judge(&plan(&[-50_000, 50_000]), at_once(6)).is_err());
        assert_eq!(judge(&plan(&[-250_000]), at_once(10)), Ok(()));
        assert!(judge(&plan(&[-250_000]), at_once(11)).is_err(), "one node's lease, once");
        assert!(judge(&plan(&[-250_000]), [at_once(10), vec![S + S / 2; 6]].concat()).is_err());
    }
}
