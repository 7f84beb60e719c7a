//! In calm weather nobody is refused who is under its limit, and who asks for more gets what its limit allows.
//!
//! Callers that are far under every limit that counts them, as the first one of every drawn scene is, are answered 200 and
//! nothing else once the cluster is well. In a run without any weather, a caller that asks for more than its limit gets
//! most of it. Source: quota.md 9.1; the floor here is lower, for simulated networks and disks are slower than those of
//! its table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::ids::UpstreamName;
use config::quota::{KeyPart, Limit};
use config::route::Access;
use config::upstream::Upstream;

use super::{Promise, Verdict};
use crate::clock::{MS_NS, TrueNs};
use crate::edition::Edition;
use crate::event::{Event, Fate, RequestNumber, Token};
use crate::plan::Plan;
use crate::scene::{Caller, Scene, Spread};

/// A node whose connections went silent may be ready when the last one is looked at, and still have to make them anew:
/// 2 s to find out, 2 s to connect, 1 s between two tries.
const SETTLE_NS: TrueNs = 5_000 * MS_NS;
/// Of what a limit allows, in percent.
const FLOOR_PERCENT: u64 = 90;
/// Far under a limit: a sixth of its rate, and the burst is what comes in 12 s, and sixty times what comes at once. Then what
/// is lent to nodes that ask for nothing, or are gone, is no reason to refuse anything.
const PART_OF_RATE: f64 = 6.0;
const BURST_LASTS_S: f64 = 12.0;
const BURST_AT_ONCE: u64 = 60;
/// Quotas that let nobody wait, upstreams that have no time and networks that take long may cost an answer.
const WAIT_MIN: Duration = Duration::from_millis(200);
const TIMEOUT_MIN: Duration = Duration::from_millis(500);
const DELAY_MS_MAX: u64 = 50;

/// Whose requests they are, as far as an event says: tenant and route.
type Who = (String, String);

/// The promise.
pub struct Calm {
    /// Those who are far under their limits.
    modest: BTreeSet<Who>,
    /// Limits that are exceeded, each with a request's cost; only in a run without weather.
    greedy: BTreeMap<Who, Vec<(Limit, u64)>>,
    for_ns: TrueNs,
    open: BTreeMap<RequestNumber, (Who, TrueNs)>,
    admitted: BTreeMap<Who, u64>,
    well_since: Option<TrueNs>,
}

impl Calm {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        let scene = &plan.scene;
        let who = |caller: &Caller| (caller.tenant.clone(), caller.route.clone());
        let all = || scene.callers.iter().enumerate();
        let is_modest = |number| scene.gateway.iter().all(|edition| is_modest(scene, edition, number));
        // Events do not tell two callers apart that have tenant and route in common.
        let immodest: BTreeSet<Who> =
            all().filter(|(number, _)| !is_modest(*number)).map(|(_, caller)| who(caller)).collect();
        let modest = all().map(|(_, caller)| who(caller)).filter(|who| !immodest.contains(who)).collect();
        let alone = |caller: &Caller| all().filter(|(_, other)| who(other) == who(caller)).count() == 1;
        let greedy = all().filter(|(_, caller)| plan.weather.is_empty() && alone(caller)).filter_map(
            |(number, caller)| Some((who(caller), greed(scene, scene.gateway.first()?, number)?)),
        );
        Self {
            modest,
            greedy: greedy.collect(),
            for_ns: plan.for_ms * MS_NS,
            open: BTreeMap::new(),
            admitted: BTreeMap::new(),
            well_since: plan.weather.is_empty().then_some(0),
        }
    }
}

/// A bucket that a caller's requests are charged to.
struct Charged {
    limit: Limit,
    cost: u64,
    wait: Option<Duration>,
    /// The callers that are charged to it, by number.
    sharers: Vec<usize>,
}

/// The buckets that the requests of caller `number` are charged to. None: no route takes them.
fn charged(scene: &Scene, edition: &Edition, number: usize) -> Option<Vec<Charged>> {
    let buckets = |number: usize| {
        let caller = &scene.callers[number];
        let route = edition.document.routes.iter().find(|route| route.name.as_str() == caller.route)?;
        let bucket = |charge: &config::route::Charge| {
            let quota = edition.quota(charge.quota.as_str())?;
            let part = |part: &KeyPart| match part {
                KeyPart::Tenant => caller.tenant.clone(),
                KeyPart::Client => caller.client().to_owned(),
                KeyPart::Route => caller.route.clone(),
                KeyPart::Address => number.to_string(),
            };
            let values: Vec<String> = quota.key.iter().map(part).collect();
            Some((quota, charge.cost, values))
        };
        Some(route.charges.iter().filter_map(bucket).collect::<Vec<_>>())
    };
    let all: Vec<_> = (0..scene.callers.len()).map(buckets).collect();
    let own = all[number].as_ref()?.iter().map(|(quota, cost, values)| {
        let same = |other: usize| {
            all[other]
                .iter()
                .flatten()
                .any(|(held, _, held_values)| held.name == quota.name && held_values == values)
        };
        Charged {
            limit: edition.limit(quota.name.as_str(), &scene.callers[number].tenant).unwrap_or(quota.limit),
            cost: *cost,
            wait: quota.wait,
            sharers: (0..all.len()).filter(|other| same(*other)).collect(),
        }
    });
    Some(own.collect())
}

fn per_s(caller: &Caller) -> f64 {
    caller.rate.tokens as f64 * 1e9 / caller.rate.per_ns as f64
}

/// Whether a caller is far under every limit, and nothing else is scarce.
fn is_modest(scene: &Scene, edition: &Edition, number: usize) -> bool {
    let caller = &scene.callers[number];
    let Some(charges) = charged(scene, edition, number) else { return false };
    let routes = &edition.document.routes;
    let Some(route) = routes.iter().find(|route| route.name.as_str() == caller.route) else { return false };
    let upstreams = &edition.document.upstreams;
    let named = |name: &UpstreamName| upstreams.iter().find(|it| it.name == *name);
    // Any branch of a split may get all of it.
    let Some(all) = route.upstreams().map(named).collect::<Option<Vec<_>>>() else { return false };
    let welcome = route.access == Access::Public || caller.token == Token::Good;
    let at_once: u64 = scene.callers.iter().map(|caller| caller.at_once).sum();
    let is_roomy = |upstream: &Upstream| {
        u64::from(upstream.connections_max) >= at_once
            && upstream.connect_timeout >= TIMEOUT_MIN
            && route.timeout.unwrap_or(upstream.response_timeout) >= TIMEOUT_MIN
    };
    let roomy = !all.is_empty() && all.into_iter().all(is_roomy) && scene.delay_ms.1 <= DELAY_MS_MAX;
    welcome
        && roomy
        && charges.iter().all(|Charged { limit, cost, wait, sharers }| {
            let sharers = || sharers.iter().map(|sharer| &scene.callers[*sharer]);
            let demand = sharers().map(|it| per_s(it) * *cost as f64).sum::<f64>();
            let at_once = sharers().map(|it| it.at_once * cost).sum::<u64>();
            limit.tokens as f64 * 1e9 / limit.per_ns as f64 >= PART_OF_RATE * demand
                && limit.burst as f64 >= BURST_LASTS_S * demand
                && limit.burst >= BURST_AT_ONCE * at_once
                && wait.is_none_or(|wait| wait >= WAIT_MIN)
        })
}

/// The limits of a caller that always asks for clearly more than it may have, and shares them with nobody. Who hops finds
/// leases elsewhere; that has a floor of its own in the tests of leases.
fn greed(scene: &Scene, edition: &Edition, number: usize) -> Option<Vec<(Limit, u64)>> {
    let caller = &scene.callers[number];
    let charges = charged(scene, edition, number)?;
    let route = edition.document.routes.iter().find(|route| route.name.as_str() == caller.route)?;
    let may = |it: &Charged| it.limit.tokens as f64 * 1e9 / it.limit.per_ns as f64 / it.cost as f64;
    let least = charges.iter().map(may).reduce(f64::min)?;
    let fits = caller.token == Token::Good
        && route.access != Access::Public
        && !matches!(caller.spread, Spread::HopsEachMs(_))
        && charges.iter().all(|it| it.sharers == [number])
        && per_s(caller) > 2.0 * least;
    fits.then(|| charges.iter().map(|it| (it.limit, it.cost)).collect())
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
                let who = (request.tenant.clone(), request.route.route.clone());
                self.open.insert(request.number, (who, at));
            }
            Event::Done { number, node, fate } => {
                let Some((who, sent_at)) = self.open.remove(number) else { return Ok(()) };
                let answered = matches!(fate, Fate::Answered { status: 200, .. });
                let well = self.well_since.is_some_and(|well| sent_at > well);
                // A machine that was without power resets what it does not know.
                let forgiven = matches!(fate, Fate::Broken { reused: true });
                if self.modest.contains(&who) && well && !answered && !forgiven {
                    let (tenant, route) = who;
                    return Err(format!(
                        "{tenant}, far under its limits on {route}, had {fate:?} from node {node} in calm weather"
                    ));
                }
                if answered {
                    *self.admitted.entry(who).or_default() += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Verdict {
        for (who, limits) in &self.greedy {
            let allowed = |(limit, cost): &(Limit, u64)| {
                let came = u128::from(limit.tokens) * u128::from(self.for_ns) / u128::from(limit.per_ns);
                (came + u128::from(limit.burst)) / u128::from(*cost)
            };
            let floor = limits.iter().map(allowed).min().unwrap_or(0) * u128::from(FLOOR_PERCENT) / 100;
            let admitted = self.admitted.get(who).copied().unwrap_or(0);
            // A token or two are still in leases.
            if u128::from(admitted) + 2 < floor {
                let (tenant, route) = who;
                let limits: Vec<String> = limits.iter().map(|(limit, _)| limit.to_string()).collect();
                return Err(format!(
                    "{tenant} was admitted {admitted} times on {route}, wanted {floor} or more of {}",
                    limits.join(" and ")
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
        plan.scene.callers[1] = Caller {
            route: "orders".to_owned(),
            rate: crate::scene::every(4),
            spread: Spread::Turns,
            token: Token::Good,
            ..plan.scene.callers[1].clone()
        };
        assert!(judge(&mut Calm::new(&plan), &[]).is_err_and(|why| why.contains("tenant-1")));
    }

    #[test]
    fn of_drawn_callers_the_first_alone_is_far_under_its_limits() {
        for seed in 0..200 {
            let calm = Calm::new(&Plan::draw(seed, None, 9_000, &["kill"]));
            assert_eq!(
                calm.modest,
                BTreeSet::from([("tenant-0".to_owned(), "orders".to_owned())]),
                "seed {seed}"
            );
        }
    }
}
