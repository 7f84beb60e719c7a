//! Reservations of one request on all its keys: committed together at one instant, or given back.

use std::ops::Deref;

use cluster::world::BootNs;
use smallvec::SmallVec;

use super::cell::Reserved;
use super::entry::Entry;

/// Reserved tokens. Dropping it gives them back, so that a caller that went away leaks nothing.
#[derive(Debug)]
pub struct Hold<E: Deref<Target = Entry>> {
    parts: SmallVec<[(E, Reserved); 4]>,
}

impl<E: Deref<Target = Entry>> Default for Hold<E> {
    fn default() -> Self {
        Self { parts: SmallVec::new() }
    }
}

impl<E: Deref<Target = Entry>> Hold<E> {
    /// Sets tokens of one more key aside; false if it has too few.
    pub fn reserve(&mut self, entry: E, cost: u32) -> bool {
        let Some(reserved) = entry.cell.reserve(cost) else { return false };
        self.parts.push((entry, reserved));
        true
    }

    /// Whether every lease is alive at `now`, which must have been read after the last reservation.
    pub fn is_alive(&self, now: BootNs) -> bool {
        self.parts.iter().all(|(_, reserved)| now.0 < reserved.deadline_ns)
    }

    /// Spends everything: `now`, read after the last reservation, is the instant of the admission. Calls `low` with the
    /// place of each key whose manager should be woken.
    ///
    /// False: a lease had ended, and the request is not admitted. If one died between the check and its commit, what was
    /// committed before it is lost: the ledger counts it as spent, which is the safe side.
    pub fn commit(mut self, now: BootNs, mut low: impl FnMut(usize)) -> bool {
        if !self.is_alive(now) {
            return false;
        }
        let mut parts = std::mem::take(&mut self.parts).into_iter().enumerate();
        for (place, (entry, reserved)) in parts.by_ref() {
            if !entry.cell.commit(reserved) {
                self.parts.extend(parts.map(|(_, part)| part));
                return false;
            }
            if entry.runs_low(reserved.left, now) {
                low(place);
            }
        }
        true
    }
}

impl<E: Deref<Target = Entry>> Drop for Hold<E> {
    fn drop(&mut self) {
        for (entry, reserved) in self.parts.drain(..) {
            // Died meanwhile: there is nothing to give back.
            let _ = entry.cell.give_back(reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::quota::Limit;

    use super::*;

    fn entry(tokens: u64, deadline_ns: u64) -> Arc<Entry> {
        let entry = Entry::new(Limit { tokens: 1, per_ns: 1, burst: 10 }, Arc::default());
        entry.cell.new_lease(tokens, deadline_ns);
        Arc::new(entry)
    }

    fn hold(entries: &[&Arc<Entry>]) -> Hold<Arc<Entry>> {
        let mut hold = Hold::default();
        assert!(entries.iter().all(|e| hold.reserve(Arc::clone(e), 1)), "tokens are there");
        hold
    }

    #[test]
    fn one_dead_lease_refuses_the_whole_request_and_costs_the_others_nothing() {
        // given two keys, one of whose leases ends at 10
        let (long, short) = (entry(3, 20), entry(3, 10));
        // when both are reserved and the clock reads 10
        let admitted = hold(&[&long, &short]).commit(BootNs(10), |_| {});
        // then nothing is spent
        assert!(!admitted);
        assert_eq!((long.cell.held().tokens, short.cell.held().tokens), (3, 3));
    }

    #[test]
    fn a_hold_that_is_dropped_gives_back() {
        // given a hold on two keys
        let (a, b) = (entry(1, 20), entry(1, 20));
        let held = hold(&[&a, &b]);
        // when its request goes away
        drop(held);
        // then the tokens are free again
        assert_eq!((a.cell.held().tokens, b.cell.held().tokens), (1, 1));
    }

    #[test]
    fn a_lease_that_dies_before_the_commit_admits_nothing() {
        // given a hold on two keys, the second of which dies
        let (a, b) = (entry(1, 20), entry(1, 20));
        let held = hold(&[&a, &b]);
        b.cell.drop_all();
        // when it commits in time
        // then it is not admitted
        assert!(!held.commit(BootNs(5), |_| {}));
    }
}
