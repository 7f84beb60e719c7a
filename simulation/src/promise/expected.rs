//! What the plan itself expects, in figures. No promise of the product: its author's. Judged at the end, all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Promise as _;
use super::exact::Exact;
use crate::clock::{MS_NS, TrueNs};
use crate::edition::Target;
use crate::event::{self, Answer, Event, RequestNumber};
use crate::expectation::{Expectation, Figure, Measure};
use crate::plan::Plan;

/// What became of one expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// As a reader says it.
    pub expected: String,
    /// In the same unit.
    pub found: String,
    /// Whether one is in the other.
    pub met: bool,
}

/// Counts what the plan's expectations speak of.
pub struct Expected {
    expectations: Vec<Expectation>,
    for_ns: TrueNs,
    exact: Exact,
    begun: Option<TrueNs>,
    calm: Option<TrueNs>,
    converged: Option<TrueNs>,
    requests: BTreeMap<RequestNumber, Course>,
    /// Requests that their callers could not even send.
    held_back: Vec<Course>,
}

/// One request.
struct Course {
    sent: TrueNs,
    tenant: String,
    client: String,
    target: Arc<Target>,
    admitted: bool,
    done: Option<(TrueNs, Answer)>,
}

impl Expected {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        Self {
            expectations: plan.expect.clone(),
            for_ns: plan.for_ms * MS_NS,
            exact: Exact::new(plan),
            begun: None,
            calm: None,
            converged: None,
            requests: BTreeMap::new(),
            held_back: Vec::new(),
        }
    }

    /// Hears an event.
    pub fn see(&mut self, at: TrueNs, event: &Event) {
        if self.expectations.is_empty() {
            return;
        }
        // Judged elsewhere; here it only keeps the admissions.
        let _ = self.exact.see(at, event);
        match event {
            Event::Sent(request) => {
                self.begun.get_or_insert(at);
                let event::Request { number, tenant, client, route: target, .. } = request.clone();
                let course = Course { sent: at, tenant, client, target, admitted: false, done: None };
                self.requests.insert(number, course);
            }
            Event::HeldBack { route, tenant, client, .. } => {
                let done = Some((at, Answer::Broken));
                let (tenant, client, target) = (tenant.clone(), client.clone(), route.clone());
                self.held_back.push(Course { sent: at, tenant, client, target, admitted: false, done });
            }
            Event::Reached { number, .. } => {
                if let Some(course) = self.requests.get_mut(number) {
                    course.admitted = true;
                }
            }
            Event::Done { number, fate, .. } => {
                if let Some(course) = self.requests.get_mut(number) {
                    course.done = Some((at, fate.answer()));
                }
            }
            Event::Calm => self.calm = Some(at),
            Event::Converged { .. } => self.converged = Some(at),
            _ => {}
        }
    }

    /// Judges all of them, when the run is over.
    ///
    /// - `missed`: what the plan has happen, and did not. Whoever expects something, expects it of what he planned.
    /// - `cut_off`: a promise was broken, so that the run says nothing of the rest.
    pub fn outcomes(&self, missed: &[String], cut_off: bool) -> Vec<Outcome> {
        let outcome =
            |expected: String, found: &str| Outcome { expected, found: found.to_owned(), met: false };
        if cut_off {
            let all = self.expectations.iter();
            return all.map(|it| outcome(it.to_string(), "nothing: a promise was broken before")).collect();
        }
        let judged = |expectation: &Expectation| {
            let figure = self.figure(expectation);
            let bound = &expectation.bound;
            Outcome {
                expected: expectation.to_string(),
                found: figure.map_or("nothing".to_owned(), |figure| bound.show(figure)),
                met: figure.is_some_and(|figure| bound.holds(figure)),
            }
        };
        let missed = missed.iter().filter(|_| !self.expectations.is_empty());
        let missed = missed.map(|what| outcome(format!("{what} happens"), "nobody whom it could befall"));
        self.expectations.iter().map(judged).chain(missed).collect()
    }

    fn figure(&self, it: &Expectation) -> Option<Figure> {
        let begun = self.begun?;
        let from = begun + it.after_ms.unwrap_or(0) * MS_NS;
        let until = it.before_ms.map_or(begun + self.for_ns, |ms| begun + ms * MS_NS);
        let courses = || {
            self.requests.values().chain(&self.held_back).filter(move |course| {
                (from..=until).contains(&course.sent)
                    && it.tenant.as_ref().is_none_or(|tenant| *tenant == course.tenant)
                    && it.client.as_ref().is_none_or(|client| *client == course.client)
                    && it.route.as_ref().is_none_or(|route| *route == course.target.route)
            })
        };
        let requests = |count: usize| Figure { found: count as f64, of: Some(courses().count() as f64) };
        match it.measure {
            Measure::Admitted => Some(requests(courses().filter(|course| course.admitted).count())),
            Measure::Answers(answer) => {
                let such = |course: &&Course| course.done.as_ref().is_some_and(|(_, done)| *done == answer);
                Some(requests(courses().filter(such).count()))
            }
            Measure::Utilisation => {
                let (found, allowed) =
                    self.exact.used(it.quota.as_deref()?, it.tenant.as_deref(), from..=until)?;
                Some(Figure { found, of: Some(allowed) })
            }
            Measure::Latency => {
                let served = courses().filter_map(|course| {
                    let (done, answer) = course.done.as_ref()?;
                    (*answer == Answer::Served).then(|| done - course.sent)
                });
                let mut times: Vec<TrueNs> = served.collect();
                times.sort_unstable();
                // Nearest rank.
                let percentile = usize::try_from(it.percentile.unwrap_or(100)).unwrap_or(100);
                let rank = (times.len() * percentile).div_ceil(100);
                let ns = times.get(rank.saturating_sub(1))?;
                Some(Figure { found: *ns as f64 / MS_NS as f64, of: None })
            }
            Measure::Recovery => {
                let took = self.converged?.saturating_sub(self.calm?);
                Some(Figure { found: took as f64 / MS_NS as f64, of: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answered, limit_second, reached, sent};
    use super::*;
    use crate::event::{Charge, Request, Token};

    const S: TrueNs = 1_000 * MS_NS;

    /// Twelve requests of tenant-1, one a second from the first second on, answered after 100 ms each: six 200, three 429,
    /// 401, 500, and one that was not even sent.
    fn judged(expect: &str) -> Outcome {
        let mut plan = Plan::draw(3, Some(3), 20_000, &[]);
        limit_second(&mut plan, "{rate: 1/s, burst: 2}");
        let text = plan.text().replace("expect: []", &format!("expect: [{expect}]"));
        let plan = Plan::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let mut expected = Expected::new(&plan);
        for number in 0..11 {
            let at = S + number * S;
            let Event::Sent(request) = sent(number, Token::Good) else { unreachable!("it was sent") };
            expected.see(at, &Event::Sent(Request { tenant: "tenant-1".to_owned(), ..request }));
            let Event::Reached { node, upstream, .. } = reached(number, "first") else {
                unreachable!("it did")
            };
            let charge = Charge { quota: "per-tenant".to_owned(), key: "k".to_owned(), cost: 1, at };
            if number < 6 {
                expected.see(at, &Event::Reached { number, node, upstream, charges: vec![charge] });
                expected.see(at + S / 10, &answered(number, 200, Some(number)));
            } else {
                let status = [429, 429, 429, 401, 500][usize::try_from(number - 6).expect("a small number")];
                expected.see(at + S / 10, &answered(number, status, None));
            }
        }
        let Event::Sent(Request { route, client, .. }) = sent(11, Token::Good) else {
            unreachable!("it was sent")
        };
        expected.see(12 * S, &Event::HeldBack { node: 1, route, tenant: "tenant-1".to_owned(), client });
        expected.see(13 * S, &Event::Calm);
        expected.see(15 * S, &Event::Converged { revision: 1, applied: 1 });
        expected.outcomes(&[], false).remove(0)
    }

    #[test]
    fn every_measure_is_measured() {
        for (expect, found) in [
            ("{admitted: 6}", "6 of 12"),
            ("{served: 50%, route: orders}", "50.000% (6 of 12)"),
            ("{refused: 3, after: 5s}", "3 of 7"),
            ("{refused: 0, before: 5.500s}", "0 of 6"),
            ("{refused: 3, client: tenant-0}", "3 of 12"),
            ("{unauthorized: 1}", "1 of 12"),
            ("{failed: 1, after: 10s}", "1 of 2"),
            ("{unanswered: 1}", "1 of 12"),
            ("{utilisation: 27% to 28%, quota: per-tenant, tenant: tenant-1}", "27.273% (6 of 22)"),
            // Full again after a second, and a token each second after it; both ends belong to it.
            (
                "{utilisation: 80%, quota: per-tenant, tenant: tenant-1, after: 1s, before: 4s}",
                "80.000% (4 of 5)",
            ),
            ("{latency: at most 100ms}", "100ms"),
            ("{recovery: 2s}", "2s"),
        ] {
            let outcome = judged(expect);
            assert_eq!(outcome.found, found, "{expect}: {outcome:?}");
            assert!(outcome.met, "{expect}: {outcome:?}");
        }
    }

    #[test]
    fn what_is_not_met_is_found() {
        for expect in
            ["{admitted: at least 7}", "{refused: at most 24%}", "{latency: at most 99ms}", "{recovery: 1s}"]
        {
            assert!(!judged(expect).met, "{expect}");
        }
        for nobody in [
            "{served: 100%, tenant: tenant-3}",
            "{refused: 0, tenant: tenant-3}",
            "{latency: 0s, tenant: tenant-3}",
        ] {
            assert!(!judged(nobody).met, "{nobody}");
        }
        let starved = judged("{utilisation: at least 1%, quota: per-tenant, tenant: tenant-3}");
        assert!(!starved.met && starved.found.starts_with("0.000% (0 of"), "{starved:?}");
    }

    #[test]
    fn what_was_planned_and_did_not_happen_is_not_as_expected_and_a_cut_off_run_says_nothing() {
        let plan = Plan::draw(3, Some(3), 20_000, &[]);
        let missed = ["at 2s kill leader for 5s".to_owned()];
        assert_eq!(Expected::new(&plan).outcomes(&missed, false), vec![], "nothing is expected");
        let plan = Plan::parse(&plan.text().replace("expect: []", "expect: [{recovery: at most 1h}]"))
            .expect("a plan");
        let outcomes = Expected::new(&plan).outcomes(&missed, false);
        assert!(outcomes.iter().any(|it| it.expected == "at 2s kill leader for 5s happens" && !it.met));
        let outcomes = Expected::new(&plan).outcomes(&[], true);
        assert!(outcomes.len() == 1 && !outcomes[0].met);
    }
}
