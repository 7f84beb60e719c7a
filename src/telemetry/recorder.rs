//! One data-plane thread's figures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::world::UnixMs;
use config::ids::{RouteName, TenantId, UpstreamName, VersionName};
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::Summary;
use super::callers::Callers;

/// An answer, as far as figures care.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// None: the request met no route.
    pub route: Option<&'a RouteName>,
    /// Its status.
    pub status: u16,
    /// The upstream that was chosen, where the route has several; none: it has not, or the request came not so far.
    pub branch: Option<&'a UpstreamName>,
    /// `Refusal::slug`; none: the upstream answered, or the route itself.
    pub refusal: Option<&'static str>,
    /// From the complete head to the answer's head.
    pub total: Duration,
    /// Of that: waiting for the upstream; none: it was not asked.
    pub upstream: Option<Duration>,
}

/// One data-plane thread's figures. Shared with readers; written by that thread alone.
#[derive(Debug)]
pub struct Recorder {
    received: AtomicU64,
    admitted: AtomicU64,
    connections_opened: AtomicU64,
    connections_closed: AtomicU64,
    connections_refused: AtomicU64,
    tunnels_opened: AtomicU64,
    tunnels_closed: AtomicU64,
    tunnel_up_bytes: AtomicU64,
    tunnel_down_bytes: AtomicU64,
    tally: Mutex<Tally>,
}

/// Answers of one route, or of none.
pub(super) type Answers = BTreeMap<Outcome, u64>;

/// Answers of one route by the upstream that was chosen, and by the first digit of their status.
pub(super) type Branches = BTreeMap<UpstreamName, [u64; 6]>;

/// What is counted of a route's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Outcome {
    /// 1 to 5.
    pub(super) class: u16,
    pub(super) refusal: Option<&'static str>,
}

/// Figures of one recorder, or the sum of several.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) received: u64,
    pub(super) admitted: u64,
    pub(super) connections_opened: u64,
    pub(super) connections_closed: u64,
    pub(super) connections_refused: u64,
    pub(super) tunnels_opened: u64,
    pub(super) tunnels_closed: u64,
    /// From clients, of tunnels that have ended.
    pub(super) tunnel_up_bytes: u64,
    /// From upstreams, likewise.
    pub(super) tunnel_down_bytes: u64,
    /// Reason → connections; bounded by the reasons that there are.
    pub(super) connections_failed: BTreeMap<&'static str, u64>,
    /// Bounded by the document's routes; those of old revisions stay.
    pub(super) routes: BTreeMap<RouteName, Answers>,
    /// Of routes with several upstreams; bounded likewise.
    pub(super) branches: BTreeMap<RouteName, Branches>,
    /// Copies of requests by what became of them; bounded likewise.
    pub(super) mirrors: BTreeMap<RouteName, BTreeMap<&'static str, u64>>,
    /// Who calls the versions of routes that have one; bounded likewise.
    pub(super) callers: BTreeMap<(RouteName, VersionName), Callers>,
    /// Requests that met no route.
    pub(super) elsewhere: Answers,
    pub(super) upstream: Latency,
    pub(super) added: Latency,
}

/// Durations in µs, to two digits, up to an hour.
#[derive(Debug)]
pub(super) struct Latency {
    pub(super) histogram: Histogram<u64>,
    pub(super) sum_us: u64,
}

const LATENCY_US_MAX: u64 = 3_600_000_000;

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 2);
        Self {
            histogram: histogram.expect("1 < max and two digits are within the crate's bounds"),
            sum_us: 0,
        }
    }
}

impl Latency {
    fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(LATENCY_US_MAX);
        self.histogram.saturating_record(us.max(1));
        self.sum_us = self.sum_us.saturating_add(us);
    }

    fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            connections_opened: AtomicU64::new(0),
            connections_closed: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            tunnels_opened: AtomicU64::new(0),
            tunnels_closed: AtomicU64::new(0),
            tunnel_up_bytes: AtomicU64::new(0),
            tunnel_down_bytes: AtomicU64::new(0),
            tally: Mutex::default(),
        }
    }

    /// A request's head is complete.
    pub fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was debited, whatever becomes of it.
    pub fn admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection was taken.
    pub fn connection_opened(&self) {
        self.connections_opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection has ended.
    pub fn connection_closed(&self) {
        self.connections_closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection was closed at once: too many.
    pub fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A client and an upstream have switched protocols.
    pub fn tunnel_opened(&self) {
        self.tunnels_opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Their tunnel has ended, after so many bytes from the client and from the upstream.
    pub fn tunnel_closed(&self, up_bytes: u64, down_bytes: u64) {
        self.tunnel_up_bytes.fetch_add(up_bytes, Ordering::Relaxed);
        self.tunnel_down_bytes.fetch_add(down_bytes, Ordering::Relaxed);
        self.tunnels_closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection was closed before its first request, for this reason.
    pub fn connection_failed(&self, why: &'static str) {
        *self.tally.lock().connections_failed.entry(why).or_default() += 1;
    }

    /// A request was answered.
    pub fn answered(&self, answer: &Answer<'_>) {
        let class = answer.status / 100;
        let mut tally = self.tally.lock();
        *tally.answers(answer.route).entry(Outcome { class, refusal: answer.refusal }).or_default() += 1;
        if let Some((route, branch)) = answer.route.zip(answer.branch) {
            tally.branch(route, branch)[usize::from(class.min(5))] += 1;
        }
        if let Some(upstream) = answer.upstream {
            tally.upstream.record(upstream);
        }
        tally.added.record(answer.total.saturating_sub(answer.upstream.unwrap_or_default()));
    }

    /// A version was called, and the request admitted.
    pub fn called(&self, route: &RouteName, version: &VersionName, tenant: Option<&TenantId>, now: UnixMs) {
        let key = (route.clone(), version.clone());
        self.tally.lock().callers.entry(key).or_default().record(tenant, now);
    }

    /// A copy of a request has ended, or was not made.
    ///
    /// - `outcome`: the class of its answer, or why there is none.
    pub fn mirrored(&self, route: &RouteName, outcome: &'static str) {
        *self.tally.lock().mirror(route).entry(outcome).or_default() += 1;
    }

    pub(super) fn add_to(&self, sum: &mut Tally) {
        sum.received += self.received.load(Ordering::Relaxed);
        sum.admitted += self.admitted.load(Ordering::Relaxed);
        // Closed before opened: a connection that opens in between must not make the difference negative.
        sum.connections_closed += self.connections_closed.load(Ordering::Relaxed);
        sum.connections_opened += self.connections_opened.load(Ordering::Relaxed);
        sum.connections_refused += self.connections_refused.load(Ordering::Relaxed);
        sum.tunnels_closed += self.tunnels_closed.load(Ordering::Relaxed);
        sum.tunnels_opened += self.tunnels_opened.load(Ordering::Relaxed);
        sum.tunnel_up_bytes += self.tunnel_up_bytes.load(Ordering::Relaxed);
        sum.tunnel_down_bytes += self.tunnel_down_bytes.load(Ordering::Relaxed);
        let tally = self.tally.lock();
        for (why, count) in &tally.connections_failed {
            *sum.connections_failed.entry(why).or_default() += count;
        }
        for (route, answers) in tally.by_route() {
            let sums = sum.answers(route);
            for (outcome, count) in answers {
                *sums.entry(*outcome).or_default() += count;
            }
        }
        for (route, branches) in &tally.branches {
            for (branch, counts) in branches {
                let sums = sum.branch(route, branch);
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        for (version, callers) in &tally.callers {
            sum.callers.entry(version.clone()).or_default().add(callers);
        }
        for (route, outcomes) in &tally.mirrors {
            let sums = sum.mirror(route);
            outcomes.iter().for_each(|(outcome, count)| *sums.entry(outcome).or_default() += count);
        }
        sum.upstream.add(&tally.upstream);
        sum.added.add(&tally.added);
    }
}

impl Tally {
    /// Answers of `route`; its name is copied once.
    fn answers(&mut self, route: Option<&RouteName>) -> &mut Answers {
        let Some(route) = route else { return &mut self.elsewhere };
        if !self.routes.contains_key(route) {
            self.routes.insert(route.clone(), Answers::new());
        }
        self.routes.get_mut(route).expect("it was just put there")
    }

    /// Answers of one of `route`'s upstreams; names are copied once.
    fn branch(&mut self, route: &RouteName, branch: &UpstreamName) -> &mut [u64; 6] {
        if !self.branches.contains_key(route) {
            self.branches.insert(route.clone(), Branches::new());
        }
        let branches = self.branches.get_mut(route).expect("it was just put there");
        if !branches.contains_key(branch) {
            branches.insert(branch.clone(), [0; 6]);
        }
        branches.get_mut(branch).expect("it was just put there")
    }

    /// Copies of `route`'s requests; its name is copied once.
    fn mirror(&mut self, route: &RouteName) -> &mut BTreeMap<&'static str, u64> {
        if !self.mirrors.contains_key(route) {
            self.mirrors.insert(route.clone(), BTreeMap::new());
        }
        self.mirrors.get_mut(route).expect("it was just put there")
    }

    /// Every route's answers; first those of none.
    pub(super) fn by_route(&self) -> impl Iterator<Item = (Option<&RouteName>, &Answers)> {
        let routes = self.routes.iter().map(|(route, answers)| (Some(route), answers));
        std::iter::once((None, &self.elsewhere)).chain(routes)
    }

    pub(super) fn summary(&self) -> Summary {
        let count = |wanted: &dyn Fn(&Outcome) -> bool| {
            let all = self.by_route().flat_map(|(_, answers)| answers);
            all.filter(|(outcome, _)| wanted(outcome)).map(|(_, count)| count).sum::<u64>()
        };
        let class = |class: u16| count(&|outcome| outcome.class == class);
        let refusal = |slug: &str| count(&|outcome| outcome.refusal == Some(slug));
        Summary {
            received: self.received,
            answered_2xx: class(2),
            answered_3xx: class(3),
            answered_4xx: class(4),
            answered_5xx: class(5),
            admitted: self.admitted,
            refused_over_quota: refusal("over-quota"),
            undecided: refusal("quota-undecided"),
            upstream_failed: count(&|outcome| {
                outcome.refusal.is_some_and(|slug| slug.starts_with("upstream-"))
            }),
            connections: self.connections_opened.saturating_sub(self.connections_closed),
        }
    }
}
