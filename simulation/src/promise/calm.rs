//! In calm weather nobody is refused who is under its limit, and who asks for more gets what its limit allows.
//!
//! The first caller of every scene is far under its limit. Once the cluster is well, it is answered 200 and nothing else.
//! In a run without any weather, a caller that asks for more than its limit gets most of it. Source: quota.md 9.1; the
//! floor here is lower, for simulated networks and disks are slower than those of its table.

use std::collections::BTreeMap;

use config::quota::Limit;

use super::exact::amount;
use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::{Event, Fate, RequestNumber, Token};
use crate::plan::Plan;
use crate::scene::{Caller, Path, Spread};

/// A node whose connections went silent may be ready when the last one is looked at, and still have to make them anew:
/// 2 s to find out, 2 s to connect, 1 s between two tries.
const SETTLE_NS: TrueNs = 5_000 * crate::clock::MS_NS;
/// Of what a limit allows, in percent.
const FLOOR_PERCENT: u64 = 90;

/// The promise.
pub struct Calm {
    /// By tenant: the limit that it exceeds; only in a run without weather.
    greedy: BTreeMap<String, Limit>,
    for_ns: TrueNs,
    tenants: BTreeMap<RequestNumber, (String, TrueNs)>,
    admitted: BTreeMap<String, u64>,
    well_since: Option<TrueNs>,
}

impl Calm {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        let callers = plan.scene.callers.iter().enumerate();
        let greedy = callers.filter(|_| plan.weather.is_empty()).filter_map(|(number, caller)| {
            let limit = amount(caller.limits.first()?);
            greedy(caller, &limit).then(|| (Caller::tenant(number), limit))
        });
        Self {
            greedy: greedy.collect(),
            for_ns: plan.for_ms * crate::clock::MS_NS,
            tenants: BTreeMap::new(),
            admitted: BTreeMap::new(),
            well_since: plan.weather.is_empty().then_some(0),
        }
    }
}

/// Whether a caller always asks for clearly more than it may have. Who hops finds leases elsewhere; that has a floor of
/// its own in the tests of leases.
fn greedy(caller: &Caller, limit: &Limit) -> bool {
    let asks_per_1000_s = 1_000_000 / caller.every_ms;
    let may_per_1000_s = limit.tokens.saturating_mul(1_000_000_000_000) / limit.per_ns;
    caller.token == Token::Good
        && caller.path != Path::Open
        && !matches!(caller.spread, Spread::HopsEachMs(_))
        && asks_per_1000_s > 2 * may_per_1000_s
}

impl Promise for Calm {
    fn name(&self) -> &'static str {
        "calm"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Converged { .. } => {
                self.well_since.get_or_insert(at + SETTLE_NS);
            }
            Event::Sent(request) => {
                self.tenants.insert(request.number, (request.tenant.clone(), at));
            }
            Event::Done { number, node, fate } => {
                let Some((tenant, sent_at)) = self.tenants.remove(number) else { return Ok(()) };
                let answered = matches!(fate, Fate::Answered { status: 200, .. });
                let well = self.well_since.is_some_and(|well| sent_at > well);
                // A machine that was without power resets what it does not know.
                let forgiven = matches!(fate, Fate::Broken { reused: true });
                if tenant == Caller::tenant(0) && well && !answered && !forgiven {
                    return Err(format!(
                        "{tenant}, far under its limit, had {fate:?} from node {node} in calm weather"
                    ));
                }
                if answered {
                    *self.admitted.entry(tenant).or_default() += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Verdict {
        for (tenant, limit) in &self.greedy {
            let came = u128::from(limit.tokens) * u128::from(self.for_ns) / u128::from(limit.per_ns);
            let floor = (came + u128::from(limit.burst)) * u128::from(FLOOR_PERCENT) / 100;
            let admitted = self.admitted.get(tenant).copied().unwrap_or(0);
            // A token or two are still in leases.
            if u128::from(admitted) + 2 < floor {
                return Err(format!(
                    "{tenant} was admitted {admitted} times, wanted {floor} or more of {limit}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answered, judge, sent};
    use super::*;

    #[test]
    fn a_refusal_under_the_limit_and_a_limit_that_is_not_given_are_found() {
        let plan = Plan::draw(1, Some(3), 9_000, &[]);
        assert!(judge(&mut Calm::new(&plan), &[sent(1, Token::Good), answered(1, 429, None)]).is_err());
        let mut plan = Plan::draw(1, Some(3), 9_000, &["kill"]);
        let stormy = [sent(1, Token::Good), answered(1, 503, None)];
        assert_eq!(judge(&mut Calm::new(&plan), &stormy), Ok(()));
        plan.weather.clear();
        plan.scene.callers[1] = Caller { limits: vec!["10/s".to_owned()], ..plan.scene.callers[1].clone() };
        plan.scene.callers[1].every_ms = 10;
        plan.scene.callers[1].spread = Spread::Turns;
        (plan.scene.callers[1].path, plan.scene.callers[1].token) = (Path::Orders, Token::Good);
        assert!(judge(&mut Calm::new(&plan), &[]).is_err_and(|why| why.contains("tenant-1")));
    }
}
