//! No key is over-admitted: in any interval of true length t, the cluster admits at most B + r·(1 + ε)·t.
//!
//! All admissions of a bucket, in the order of their true instants, are taken from one perfect bucket, which must never
//! fall below zero. The instants are readings of the admitting node's clock, led back to the truth; they come with the
//! request to the upstream, so that admissions whose answer was lost count too. Source: quota.md 1 and 7 (I11).
//!
//! While the document changes, the larger rate and the larger burst of the editions that may be in force hold; the level
//! never rises by a change. A lowered burst is owed until the leases that were lent before have ended (quota.md 6).
//!
//! For clocks within their bound, ε = 1/1000. Those beyond it have a promise of their own, [`beyond`](super::beyond).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use config::quota::OnQuorumLoss;

use super::editions::Editions;
use super::{Promise, Verdict};
use crate::clock::{MS_NS, TrueNs};
use crate::edition::Edition;
use crate::event::{Charge, Event, RequestNumber};
use crate::plan::Plan;
use crate::witness::Counts;

/// What a cluster may do beyond its document.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    /// Rates may be so much higher.
    pub epsilon: f64,
    /// Leases that may be spent after the ledger has booked them, each of a whole bucket at most.
    pub late_leases: u32,
    /// Leases that were lent under an older edition have ended after this.
    pub leases_end_ns: TrueNs,
}

impl Slack {
    /// Of a cluster whose clocks keep the bound.
    pub const NONE: Self = Self { epsilon: 1e-3, late_leases: 0, leases_end_ns: 8_000 * MS_NS };
}

/// The promise.
pub struct Exact {
    gateway: Vec<Edition>,
    unjudged: BTreeMap<String, String>,
    slack: Slack,
    tenants: BTreeMap<RequestNumber, String>,
    /// Quota and bucket → its admissions.
    admissions: BTreeMap<(String, String), Admissions>,
    editions: Editions,
    broken_at: Option<TrueNs>,
}

/// The admissions of one bucket.
struct Admissions {
    /// Whose amount it has.
    tenant: String,
    /// True instant, request, cost. A request that was sent to an upstream twice was admitted once.
    all: BTreeSet<(TrueNs, RequestNumber, u64)>,
}

/// What was left of one bucket over time, for who wants to see it.
pub struct Course {
    pub quota: String,
    pub tenant: String,
    /// The largest burst that was in force.
    pub burst: f64,
    /// True instant, tokens left; before and after each admission.
    pub levels: Vec<(TrueNs, f64)>,
    pub admitted: usize,
}

/// The largest amount that may be in force from an instant on. None: no edition that may be has the quota.
type Amount = Option<(f64, f64)>;

/// The quotas that a run of a plan says nothing of, each with the reason.
pub fn unjudged(plan: &Plan) -> BTreeMap<String, String> {
    let mut unjudged = BTreeMap::new();
    let all = || plan.scene.gateway.iter().flat_map(|edition| &edition.document.quotas);
    for quota in all() {
        if quota.on_quorum_loss == OnQuorumLoss::LocalShare && !plan.weather.is_empty() {
            let why = "on_quorum_loss: local-share lets a node without a quorum admit a share of its own";
            unjudged.insert(quota.name.to_string(), why.to_owned());
        }
        if all().any(|other| other.name == quota.name && other.key != quota.key) {
            let why = "editions count it by different keys, so that its buckets are not the same ones";
            unjudged.insert(quota.name.to_string(), why.to_owned());
        }
    }
    unjudged
}

impl Exact {
    /// Of a plan whose clocks keep the bound.
    pub fn new(plan: &Plan) -> Self {
        Self::held_to(plan, Slack::NONE)
    }

    /// Of a plan, with slack.
    pub fn held_to(plan: &Plan, slack: Slack) -> Self {
        Self {
            gateway: plan.scene.gateway.clone(),
            unjudged: unjudged(plan),
            slack,
            tenants: BTreeMap::new(),
            admissions: BTreeMap::new(),
            editions: Editions::new(slack.leases_end_ns),
            broken_at: None,
        }
    }

    /// The largest amounts that may be in force, from when on, in the order of time.
    fn amounts(&self, quota: &str, tenant: &str) -> Vec<(TrueNs, Amount)> {
        let amount = |at| {
            let held = self.editions.between(at, at);
            let limits = held.filter_map(|number| self.gateway[number].limit(quota, tenant));
            let amounts = limits.map(|it| (it.tokens as f64 / it.per_ns as f64, it.burst as f64));
            let larger = |(rate, burst): (f64, f64), (other_rate, other_burst)| {
                (rate.max(other_rate), burst.max(other_burst))
            };
            amounts.reduce(larger).map(|(rate, burst)| (rate, burst * f64::from(1 + self.slack.late_leases)))
        };
        self.editions.changes().into_iter().map(|at| (at, amount(at))).collect()
    }
}

impl Exact {
    /// Tokens admitted in a time, and those that the quota allows in it at its exact rate: what is left of its buckets
    /// when the time begins, and what comes in. Of one tenant, or of all buckets that anybody was admitted from. None:
    /// the quota is not judged, or nothing is known of it.
    pub fn used(
        &self,
        quota: &str,
        tenant: Option<&str>,
        time: RangeInclusive<TrueNs>,
    ) -> Option<(f64, f64)> {
        if self.unjudged.contains_key(quota) {
            return None;
        }
        let asked = self.admissions.iter().filter(|((held, _), bucket)| {
            held == quota && tenant.is_none_or(|tenant| tenant == bucket.tenant)
        });
        let of_bucket = |bucket: &Admissions| {
            let used =
                bucket.all.iter().filter(|(at, ..)| time.contains(at)).map(|(.., cost)| *cost as f64).sum();
            (used, allowed(&self.amounts(quota, &bucket.tenant), &bucket.all(), &time))
        };
        let all = asked.map(|(_, bucket)| of_bucket(bucket));
        let sum = all.reduce(|(used, may), (more, may_more)| (used + more, may + may_more));
        // Of a tenant that got nothing at all there is no bucket, and all that it might have had.
        sum.or_else(|| Some((0.0, allowed(&self.amounts(quota, tenant?), &[], &time))))
    }

    /// The course of every bucket, against the bound of clocks within theirs.
    pub fn courses(&self) -> Vec<Course> {
        let course = |((quota, _), bucket): (&(String, String), &Admissions)| {
            let amounts = self.amounts(quota, &bucket.tenant);
            let levels = levels(&amounts, self.slack.epsilon, &bucket.all());
            Course {
                quota: quota.clone(),
                tenant: bucket.tenant.clone(),
                burst: amounts.iter().filter_map(|(_, amount)| Some(amount.as_ref()?.1)).fold(0.0, f64::max),
                admitted: levels.len(),
                levels: levels
                    .iter()
                    .flat_map(|(at, before, after)| [(*at, *before), (*at, *after)])
                    .collect(),
            }
        };
        self.admissions.iter().map(course).collect()
    }
}

impl Admissions {
    /// Instants and costs, in the order of time.
    fn all(&self) -> Vec<(TrueNs, u64)> {
        self.all.iter().map(|(at, _, cost)| (*at, *cost)).collect()
    }
}

impl Promise for Exact {
    fn name(&self) -> &'static str {
        "exact"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        self.editions.see(at, event);
        match event {
            Event::Sent(request) => {
                self.tenants.insert(request.number, request.tenant.clone());
            }
            Event::Reached { number, charges, .. } => {
                let tenant = self.tenants.get(number).cloned().unwrap_or_default();
                let judged = |charge: &&Charge| !self.unjudged.contains_key(&charge.quota);
                for Charge { quota, key, cost, at } in charges.iter().filter(judged) {
                    let bucket = self.admissions.entry((quota.clone(), key.clone()));
                    let new = || Admissions { tenant: tenant.clone(), all: BTreeSet::new() };
                    bucket.or_insert_with(new).all.insert((*at, *number, *cost));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Verdict {
        for ((quota, key), bucket) in &self.admissions {
            let amounts = self.amounts(quota, &bucket.tenant);
            if let Some((at, how)) = overdraw(&amounts, self.slack.epsilon, &bucket.all()) {
                self.broken_at = Some(at);
                return Err(format!("{quota} of {}, bucket {key}: {how}", bucket.tenant));
            }
        }
        Ok(())
    }

    fn broken_at(&self) -> Option<TrueNs> {
        self.broken_at
    }

    fn counts(&self) -> Counts {
        let admitted = self.admissions.values().map(|bucket| bucket.all.len() as u64).sum();
        let buckets = self.admissions.len() as u64;
        Counts::from([("admissions judged".to_owned(), admitted), ("buckets judged".to_owned(), buckets)])
    }
}

/// What a perfect bucket holds when a time begins, and what comes into it until its end.
fn allowed(amounts: &[(TrueNs, Amount)], admissions: &[(TrueNs, u64)], time: &RangeInclusive<TrueNs>) -> f64 {
    let (from, until) = (*time.start(), *time.end());
    let before = admissions.iter().copied().take_while(|(at, _)| *at < from);
    let look: Vec<(TrueNs, u64)> = before.chain([(from, 0)]).collect();
    let mut allowed = levels(amounts, 0.0, &look).last().map_or(0.0, |(_, level, _)| level.max(0.0));
    for (index, (begins, amount)) in amounts.iter().enumerate() {
        let ends = amounts.get(index + 1).map_or(TrueNs::MAX, |next| next.0);
        let ns = ends.min(until).saturating_sub((*begins).max(from));
        allowed += ns as f64 * amount.unwrap_or_default().0;
    }
    allowed
}

/// What a perfect bucket has left before and after each admission.
fn levels(
    amounts: &[(TrueNs, Amount)],
    epsilon: f64,
    admissions: &[(TrueNs, u64)],
) -> Vec<(TrueNs, f64, f64)> {
    let Some((mut at, mut amount)) = amounts.first().copied() else { return Vec::new() };
    let (mut rate, mut burst) = amount.unwrap_or_default();
    let mut level = burst;
    let mut changes = amounts[1..].iter().peekable();
    let mut levels = Vec::with_capacity(admissions.len());
    for (instant, cost) in admissions {
        while let Some(change) = changes.next_if(|change| change.0 <= *instant) {
            level = (level + (change.0 - at) as f64 * rate * (1.0 + epsilon)).min(burst);
            // A quota that is new begins with a full bucket; one that is gone, and charged yet, has none.
            let is_new = amount.is_none();
            (at, amount) = *change;
            (rate, burst) = amount.unwrap_or_default();
            level = if is_new { burst } else { level.min(burst) };
        }
        level = (level + instant.saturating_sub(at) as f64 * rate * (1.0 + epsilon)).min(burst);
        at = at.max(*instant);
        let before = level;
        level -= *cost as f64;
        levels.push((*instant, before, level));
    }
    levels
}

/// When and how a perfect bucket is overdrawn; none: it is not.
fn overdraw(
    amounts: &[(TrueNs, Amount)],
    epsilon: f64,
    admissions: &[(TrueNs, u64)],
) -> Option<(TrueNs, String)> {
    // Less than the rounding of a thousand additions.
    let below = |(_, _, level): &&(TrueNs, f64, f64)| *level < -1e-6;
    let levels = levels(amounts, epsilon, admissions);
    let (instant, _, level) = levels.iter().find(below)?;
    let how = format!(
        "overdrawn by {:.3} tokens at {:.3} s of true time, with {} admissions until then",
        -level,
        *instant as f64 / 1e9,
        admissions.iter().filter(|(before, _)| before <= instant).count()
    );
    Some((*instant, how))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{limit_second, sent};
    use super::*;
    use crate::event::Token;

    const S: TrueNs = 1_000 * MS_NS;

    fn tokens(at: TrueNs, per_s: f64, burst: f64) -> (TrueNs, Amount) {
        (at, Some((per_s / 1e9, burst)))
    }

    #[test]
    fn one_token_too_many_in_any_interval_is_found() {
        let amounts = [tokens(0, 10.0, 5.0)];
        let all_at_once = |count| vec![(S, 1); count];
        assert_eq!(overdraw(&amounts, 0.0, &all_at_once(5)), None);
        assert!(overdraw(&amounts, 0.0, &all_at_once(6)).is_some());
        let steady: Vec<(TrueNs, u64)> = (0..100).map(|number| (number * S / 10, 1)).collect();
        assert_eq!(overdraw(&amounts, 0.0, &steady), None);
        let faster: Vec<(TrueNs, u64)> = (0..100).map(|number| (number * S / 11, 1)).collect();
        assert!(overdraw(&amounts, 0.0, &faster).is_some());
        // and a clock that is fast within its bound is forgiven
        let clock: Vec<(TrueNs, u64)> = (0..9_000).map(|number| (number * S * 1_000 / 10_010, 1)).collect();
        assert!(overdraw(&amounts, 0.0, &clock).is_some());
        assert_eq!(overdraw(&amounts, 0.001, &clock), None);
    }

    #[test]
    fn a_free_burst_at_a_raise_is_found_and_the_new_rate_is_not() {
        let amounts = [tokens(0, 10.0, 5.0), tokens(10 * S, 10.0, 100.0)];
        let spent = vec![(10 * S, 1); 5];
        let gift = [spent.clone(), vec![(11 * S, 1); 60]].concat();
        assert!(overdraw(&amounts, 0.0, &gift).is_some());
        let earned = [spent.clone(), vec![(11 * S, 1); 10]].concat();
        assert_eq!(overdraw(&amounts, 0.0, &earned), None);
        // and a quota that is new begins full
        let new = [(0, None), tokens(10 * S, 10.0, 5.0)];
        assert_eq!(overdraw(&new, 0.0, &spent), None);
        assert!(overdraw(&new, 0.0, &[spent, vec![(10 * S, 1)]].concat()).is_some());
    }

    #[test]
    fn what_is_not_judged_is_said() {
        let mut plan = Plan::draw(3, Some(3), 9_000, &["kill"]);
        assert_eq!(unjudged(&plan), BTreeMap::new());
        let shared =
            |text: &str| text.replacen("{key: tenant,", "{on_quorum_loss: local-share, key: tenant,", 1);
        let other = |text: &str| text.replacen("{key: client,", "{key: [client, route],", 1);
        let text = other(&shared(&plan.scene.gateway[1].text));
        plan.scene.gateway[1] = Edition::parse("another", &text).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(unjudged(&plan).into_keys().collect::<Vec<_>>(), ["per-client", "per-tenant"]);
        plan.weather.clear();
        assert_eq!(unjudged(&plan).into_keys().collect::<Vec<_>>(), ["per-client"], "nobody loses a quorum");
    }

    #[test]
    fn the_promise_follows_requests_editions_and_buckets() {
        let mut plan = Plan::draw(3, Some(3), 9_000, &[]);
        limit_second(&mut plan, "{rate: 1/s, burst: 2}");
        let charge = |at| Charge { quota: "per-tenant".to_owned(), key: "k".to_owned(), cost: 1, at };
        let judge = |count: u64| {
            let mut exact = Exact::new(&plan);
            for number in 0..count {
                let Event::Sent(request) = sent(number, Token::Good) else { unreachable!("it was sent") };
                let request = crate::event::Request { tenant: "tenant-1".to_owned(), ..request };
                exact.see(S, &Event::Sent(request)).expect("judged at the end");
                let reached =
                    Event::Reached { number, node: 1, upstream: "first".into(), charges: vec![charge(S)] };
                exact.see(S, &reached).expect("judged at the end");
            }
            (exact.end().is_ok(), exact.broken_at())
        };
        assert_eq!(judge(2), (true, None));
        assert_eq!(judge(3), (false, Some(S)), "when it happened, not when it was judged");
    }
}
