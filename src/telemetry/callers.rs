//! Who calls a version most, in bounded memory. Pure; the time is an argument.
//!
//! When all places are taken, a new caller gets that of the one with the fewest calls, and its count, for it may have been
//! there before. So counts are never too low; each says by how much it may be too high, and whoever made more calls than the
//! floor is there. Source: Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements
//! in data streams", 2005, "space saving"; merged as in Agarwal and others, "Mergeable summaries", 2012.

use std::collections::BTreeMap;

use cluster::world::UnixMs;
use config::ids::TenantId;

/// Callers of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// None: callers without a tenant.
    calls: BTreeMap<Option<TenantId>, Calls>,
    /// Of all callers.
    total: u64,
    /// Who is not there made no more calls than so many.
    floor: u64,
}

/// Of one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Never too low.
    pub count: u64,
    /// By how much the count may be too high.
    pub over: u64,
    /// When the last one came, by the wall clock.
    pub last: UnixMs,
}

impl Callers {
    /// How many callers are told apart.
    pub const LEN_MAX: usize = 128;

    /// One more call.
    pub fn record(&mut self, tenant: Option<&TenantId>, now: UnixMs) {
        self.total += 1;
        let tenant = tenant.cloned();
        if !self.calls.contains_key(&tenant) && self.calls.len() >= Self::LEN_MAX {
            let fewest = self.calls.iter().min_by_key(|(_, calls)| (calls.count, calls.last));
            if let Some((gone, calls)) = fewest.map(|(tenant, calls)| (tenant.clone(), *calls)) {
                self.calls.remove(&gone);
                self.floor = self.floor.max(calls.count);
            }
        }
        let new = Calls { count: self.floor, over: self.floor, last: now };
        let calls = self.calls.entry(tenant).or_insert(new);
        calls.count += 1;
        calls.last = calls.last.max(now);
    }

    /// Adds what another thread has counted. The sum holds the callers of both.
    pub fn add(&mut self, other: &Self) {
        let absent = |floor| Calls { count: floor, over: floor, last: UnixMs(0) };
        for (tenant, calls) in &mut self.calls {
            let more = other.calls.get(tenant).copied().unwrap_or(absent(other.floor));
            *calls = calls.plus(more);
        }
        let floor = self.floor;
        for (tenant, calls) in &other.calls {
            self.calls.entry(tenant.clone()).or_insert_with(|| absent(floor).plus(*calls));
        }
        self.total += other.total;
        self.floor += other.floor;
    }

    /// Of all callers; exact.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The most calls first, at most [`Callers::LEN_MAX`]; who is not among them made no more calls than the number beside.
    pub fn top(&self) -> (Vec<(Option<&TenantId>, Calls)>, u64) {
        let mut all: Vec<_> = self.calls.iter().map(|(tenant, calls)| (tenant.as_ref(), *calls)).collect();
        all.sort_by_key(|(tenant, calls)| (std::cmp::Reverse(calls.count), *tenant));
        // A sum may hold more than are shown.
        let others = all.get(Self::LEN_MAX).map_or(self.floor, |(_, calls)| calls.count.max(self.floor));
        all.truncate(Self::LEN_MAX);
        (all, others)
    }
}

impl Calls {
    fn plus(self, more: Self) -> Self {
        let (count, over) = (self.count + more.count, self.over + more.over);
        Self { count, over, last: self.last.max(more.last) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(number: usize) -> Option<TenantId> {
        TenantId::parse(&format!("tenant-{number}")).ok()
    }

    #[test]
    fn a_few_callers_are_counted_exactly() {
        let mut callers = Callers::default();
        for (at, number) in [3, 1, 3, 2, 3, 1].into_iter().enumerate() {
            callers.record(tenant(number).as_ref(), UnixMs(at as u64));
        }
        callers.record(None, UnixMs(9));
        let (top, others) = callers.top();
        let top = top.into_iter().map(|(who, calls)| (who.cloned(), calls.count, calls.over, calls.last.0));
        let wanted = [(tenant(3), 3, 0, 4), (tenant(1), 2, 0, 5), (None, 1, 0, 9), (tenant(2), 1, 0, 3)];
        assert_eq!(top.collect::<Vec<_>>(), wanted);
        assert_eq!((callers.total(), others), (7, 0));
    }

    #[test]
    fn callers_that_a_sum_holds_and_does_not_show_are_among_the_others() {
        // given two threads with as many callers each as are told apart, all of three calls
        let mut threads = [Callers::default(), Callers::default()];
        for (thread, callers) in threads.iter_mut().enumerate() {
            for number in 0..3 * Callers::LEN_MAX {
                let number = thread * Callers::LEN_MAX + number % Callers::LEN_MAX;
                callers.record(tenant(number).as_ref(), UnixMs(1));
            }
        }
        // when they are merged, then those that are not shown made three calls, too
        let [mut sum, other] = threads;
        sum.add(&other);
        let (top, others) = sum.top();
        assert_eq!((top.len(), others), (Callers::LEN_MAX, 3));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

        /// Few callers that come often, and many that do not, over several threads.
        #[test]
        fn counts_are_never_too_low_and_say_by_how_much_they_are_too_high(
            calls in proptest::collection::vec((0..3_usize, prop_oneof![0..20_usize, 0..1_000_usize]), 0..6_000)
        ) {
            let mut threads = vec![Callers::default(); 3];
            let mut exact: BTreeMap<Option<TenantId>, u64> = BTreeMap::new();
            for (at, (thread, number)) in calls.iter().enumerate() {
                threads[*thread].record(tenant(*number).as_ref(), UnixMs(at as u64));
                *exact.entry(tenant(*number)).or_default() += 1;
            }
            prop_assert!(threads.iter().all(|it| it.calls.len() <= Callers::LEN_MAX));
            let mut sum = Callers::default();
            threads.iter().for_each(|thread| sum.add(thread));
            prop_assert_eq!(sum.total(), calls.len() as u64);
            for (who, count) in &exact {
                match sum.calls.get(who) {
                    Some(calls) => prop_assert!(*count <= calls.count && calls.count - calls.over <= *count),
                    None => prop_assert!(*count <= sum.floor),
                }
            }
            // and so does what is shown of it
            let (top, others) = sum.top();
            let shown: BTreeMap<_, _> = top.into_iter().collect();
            for (who, count) in &exact {
                prop_assert!(shown.contains_key(&who.as_ref()) || *count <= others);
            }
        }
    }
}
