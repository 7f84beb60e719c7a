//! The cluster clock: how a node turns its own clock into cluster time (quota.md 3.1).
//!
//! Cluster time drives every refill, so it must never run fast. What counts is the *rate between consecutive
//! stamps*, not how far a clock is behind: a clock that catches up refills a bucket twice for the same time. So a
//! clock here may lose time (a failover costs some tens of milliseconds of refill) and never gains any.
//!
//! ```text
//! C1  at every apply of a stamped entry: anchor = (its stamp, when this process got it), even if that sets the clock back
//! C2  but not at entries that this process itself stamped in its present leadership: its clock runs on
//! C3  a leader stamps nothing before it has applied all that its log held when it took over
//! C4  the batches of an entry are closed first, the clock is read afterwards   (see `leader::Lender::close`)
//! C5  restart and snapshot install: anchor = (tau of the state, now)
//! ```
//!
//! C1 counts from the receipt, not from the apply. Both are later than the stamping, which is all that the bound needs.
//! But a new leader applies its predecessor's last entry only when it has committed its own, so counting from the apply
//! would lose the whole time without a leader, and with it that much refill of every bucket.

use crate::state::ids::Tau;
use crate::world::MonoNs;

/// One node's reading of cluster time. Lives beside the state machine; every call is made in the log's order.
///
/// All `mono` arguments are readings of [`crate::world::Clock::mono`] of this process.
#[derive(Clone, Debug)]
pub struct ClusterClock {
    anchor: Anchor,
    /// Index of the last applied entry; 0: none.
    applied: u64,
    leading: Option<Leading>,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    tau: Tau,
    mono: MonoNs,
}

/// A leadership of this process.
#[derive(Clone, Copy, Debug)]
struct Leading {
    term: u64,
    /// Nothing is stamped before this index is applied.
    gate: u64,
    /// Whether this process has stamped in this leadership. Until then entries of the same term are those of an
    /// earlier life of this node, and re-anchor like any other's.
    stamped: bool,
}

impl ClusterClock {
    /// C5: the clock of a process that has just recovered its state, whose time is `tau` at index `applied`.
    pub fn restarted(tau: Tau, applied: u64, mono: MonoNs) -> Self {
        Self { anchor: Anchor { tau, mono }, applied, leading: None }
    }

    /// C5: a snapshot replaced the state, whose time is now `tau` at index `applied`.
    pub fn installed(&mut self, tau: Tau, applied: u64, mono: MonoNs) {
        *self = Self::restarted(tau, applied, mono);
    }

    /// An entry was applied: its index and term in the log; `stamp` is the state's time after it, or none if the
    /// entry had no stamp or was fenced off (C1, C2); `mono` is when this process got it, or later. Call it for *every* entry.
    pub fn applied(&mut self, index: u64, term: u64, stamp: Option<Tau>, mono: MonoNs) {
        assert!(index > self.applied, "entry {index} applied after {}: entries come in order", self.applied);
        self.applied = index;
        let ours = self.leading.is_some_and(|lead| lead.stamped && lead.term == term);
        if let (Some(tau), false) = (stamp, ours) {
            self.anchor = Anchor { tau, mono };
        }
    }

    /// This node leads `term`. `gate` is the index of its blank entry of that term or, if the leadership was taken up
    /// again after a restart without a new blank entry, of the last entry its log holds now (C3).
    pub fn lead(&mut self, term: u64, gate: u64) {
        if self.leading.is_none_or(|lead| lead.term != term) {
            self.leading = Some(Leading { term, gate, stamped: false });
        }
    }

    /// This node no longer leads.
    pub fn follow(&mut self) {
        self.leading = None;
    }

    /// Whether this node may stamp entries of `term` (C3).
    pub fn may_stamp(&self, term: u64) -> bool {
        self.leading.is_some_and(|lead| lead.term == term && self.applied >= lead.gate)
    }

    /// Cluster time as this node reads it, without any promise that it may be written anywhere.
    pub fn read(&self, mono: MonoNs) -> Tau {
        Tau(self.anchor.tau.0.saturating_add(mono.since(self.anchor.mono)))
    }

    /// The stamp of an entry of `term`, never below `tau`, the state's time; none while C3 forbids it.
    ///
    /// `mono` must be read after the entry's batches were closed (C4). [`crate::leader::Lender::close`] sees to it;
    /// nobody else stamps.
    pub fn stamp(&mut self, term: u64, tau: Tau, mono: MonoNs) -> Option<Tau> {
        if !self.may_stamp(term) {
            return None;
        }
        if let Some(lead) = &mut self.leading {
            lead.stamped = true;
        }
        Some(self.read(mono).max(tau))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn tau_ms(ms: u64) -> Tau {
        Tau(ms * MS)
    }
    fn mono_ms(ms: u64) -> MonoNs {
        MonoNs(ms * MS)
    }

    #[test]
    fn c1_a_follower_that_applies_late_is_set_back_or_the_next_leader_refills_the_delay_twice() {
        // given a follower whose clock reads 5 s
        let mut clock = ClusterClock::restarted(tau_ms(0), 0, mono_ms(100));
        assert_eq!(clock.read(mono_ms(5_100)), tau_ms(5_000));
        // when it applies an entry stamped at 2 s
        clock.applied(1, 1, Some(tau_ms(2_000)), mono_ms(5_100));
        // then its clock reads 2 s and runs on from there
        assert_eq!(clock.read(mono_ms(5_100)), tau_ms(2_000));
        assert_eq!(clock.read(mono_ms(5_400)), tau_ms(2_300));
    }

    #[test]
    fn c1_a_follower_anchors_at_the_last_stamp_not_at_the_one_that_reads_latest() {
        // given a follower that applied a stamp of 10 s
        let mut clock = ClusterClock::restarted(tau_ms(0), 0, mono_ms(0));
        clock.applied(1, 1, Some(tau_ms(10_000)), mono_ms(1_000));
        // when 9 s later it applies one of 11 s, where its clock already reads 19 s
        clock.applied(2, 1, Some(tau_ms(11_000)), mono_ms(10_000));
        // then the 8 s in between are not made up for
        assert_eq!(clock.read(mono_ms(10_001)), tau_ms(11_001));
    }

    #[test]
    fn c2_a_leader_that_anchored_at_its_own_entries_would_lose_each_commit_time() {
        // given a leader of term 3 that may stamp
        let mut clock = ClusterClock::restarted(tau_ms(0), 0, mono_ms(0));
        clock.lead(3, 1);
        clock.applied(1, 3, None, mono_ms(0));
        // when it applies its own stamp 30 ms after it was made
        let stamp = clock.stamp(3, tau_ms(0), mono_ms(70)).expect("the gate is open");
        clock.applied(2, 3, Some(stamp), mono_ms(100));
        // then its clock has run on
        assert_eq!(clock.read(mono_ms(100)), tau_ms(100));
    }

    #[test]
    fn c2_an_entry_of_another_term_sets_a_deposed_leader_back() {
        // given a leader of term 3 whose clock reads 1 s
        let mut clock = ClusterClock::restarted(tau_ms(0), 0, mono_ms(0));
        clock.lead(3, 1);
        clock.applied(1, 3, None, mono_ms(0));
        assert_eq!(clock.stamp(3, tau_ms(0), mono_ms(500)), Some(tau_ms(500)));
        // when an entry of term 4 comes, before anyone told it that it no longer leads
        clock.applied(2, 4, Some(tau_ms(600)), mono_ms(1_000));
        // then its clock follows the new leader's
        assert_eq!(clock.read(mono_ms(1_000)), tau_ms(600));
    }

    #[test]
    fn c2_entries_stamped_before_a_restart_set_the_clock_though_the_term_is_the_same() {
        // given a node that led term 3, restarted, and leads term 3 again with entries 1 and 2 of its earlier life in its log
        let mut clock = ClusterClock::restarted(tau_ms(0), 0, mono_ms(0));
        clock.lead(3, 2);
        // when it applies them
        clock.applied(1, 3, Some(tau_ms(400)), mono_ms(1_000));
        assert!(!clock.may_stamp(3), "entry 2 is still to come");
        clock.applied(2, 3, Some(tau_ms(500)), mono_ms(1_000));
        // then it starts from the last of them
        assert_eq!(clock.stamp(3, tau_ms(500), mono_ms(1_010)), Some(tau_ms(510)));
    }

    #[test]
    fn c3_a_leader_that_has_not_applied_older_terms_would_stamp_the_downtime_of_a_restart() {
        // given a node that restarted with the state of 1 s, and an entry stamped at 4 s of an earlier term in its log
        let mut clock = ClusterClock::restarted(tau_ms(1_000), 7, mono_ms(0));
        // when it leads term 5, whose blank entry has index 9
        clock.lead(5, 9);
        // then it stamps nothing before it has applied both
        assert_eq!(clock.stamp(5, tau_ms(1_000), mono_ms(60_000)), None);
        clock.applied(8, 4, Some(tau_ms(4_000)), mono_ms(60_000));
        assert_eq!(clock.stamp(5, tau_ms(4_000), mono_ms(60_000)), None);
        clock.applied(9, 5, None, mono_ms(60_001));
        assert_eq!(clock.stamp(5, tau_ms(4_000), mono_ms(60_001)), Some(tau_ms(4_001)));
    }

    #[test]
    fn c3_a_leadership_of_one_term_is_no_licence_to_stamp_in_another() {
        // given a leader of term 3 that may stamp
        let mut clock = ClusterClock::restarted(tau_ms(0), 0, mono_ms(0));
        clock.lead(3, 1);
        clock.applied(1, 3, None, mono_ms(0));
        assert!(clock.may_stamp(3));
        // then not in term 2 or 4, and not after it stepped down
        assert!(!clock.may_stamp(2) && !clock.may_stamp(4));
        clock.follow();
        assert!(!clock.may_stamp(3));
    }

    #[test]
    fn c5_a_restart_starts_from_the_state_for_the_old_process_clock_means_nothing() {
        // given a state of 3 s, recovered by a process whose own clock reads 1 h
        let clock = ClusterClock::restarted(tau_ms(3_000), 42, mono_ms(3_600_000));
        // then cluster time goes on from 3 s
        assert_eq!(clock.read(mono_ms(3_600_250)), tau_ms(3_250));
    }

    #[test]
    fn c5_an_anchor_older_than_a_snapshot_would_add_the_time_it_jumped_over() {
        // given a follower whose clock reads 9 s
        let mut clock = ClusterClock::restarted(tau_ms(0), 0, mono_ms(0));
        // when it installs a snapshot whose time is 5 s
        clock.installed(tau_ms(5_000), 900, mono_ms(9_000));
        // then it reads 5 s, and goes on with the entry after the snapshot
        assert_eq!(clock.read(mono_ms(9_000)), tau_ms(5_000));
        clock.applied(901, 2, Some(tau_ms(5_100)), mono_ms(9_200));
        assert_eq!(clock.read(mono_ms(9_200)), tau_ms(5_100));
    }

    #[test]
    fn a_fenced_entry_moves_no_clock() {
        // given a follower at 1 s
        let mut clock = ClusterClock::restarted(tau_ms(1_000), 0, mono_ms(0));
        // when an entry is applied that the state ignored
        clock.applied(1, 2, None, mono_ms(50));
        // then the clock runs as before
        assert_eq!(clock.read(mono_ms(60)), tau_ms(1_060));
    }

    #[test]
    fn a_stamp_is_never_below_the_state_and_a_clock_that_is_behind_does_not_catch_up() {
        // given a leader whose clock reads less than the state's time
        let mut clock = ClusterClock::restarted(tau_ms(100), 0, mono_ms(0));
        clock.lead(1, 0);
        // then it stamps the state's time until its own has come there
        assert_eq!(clock.stamp(1, tau_ms(150), mono_ms(10)), Some(tau_ms(150)));
        assert_eq!(clock.stamp(1, tau_ms(150), mono_ms(49)), Some(tau_ms(150)));
        assert_eq!(clock.stamp(1, tau_ms(150), mono_ms(60)), Some(tau_ms(160)));
    }

    #[test]
    fn stamps_of_changing_leaders_never_run_faster_than_true_time() {
        // given three nodes with perfect clocks that began at different readings, and a log of stamps in true time
        let mut clocks: Vec<ClusterClock> =
            (0..3).map(|n| ClusterClock::restarted(Tau(0), 0, mono_ms(n * 1_000))).collect();
        let mono = |node: usize, true_ms: u64| mono_ms(node as u64 * 1_000 + true_ms);
        let (mut index, mut tau, mut log) = (0, Tau(0), Vec::new());
        // when the lead goes round, and each entry reaches the others after 7, 20 or 33 ms
        for term in 1..30_u64 {
            let leader = usize::try_from(term % 3).expect("small");
            let taken_over_ms = term * 100;
            index += 1;
            clocks[leader].lead(term, index);
            for (node, clock) in clocks.iter_mut().enumerate() {
                if node != leader {
                    clock.follow();
                }
                clock.applied(index, term, None, mono(node, taken_over_ms));
            }
            for entry in 0..3 {
                let stamped_ms = taken_over_ms + entry * 30;
                let stamp = clocks[leader].stamp(term, tau, mono(leader, stamped_ms)).expect("gate open");
                (index, tau) = (index + 1, stamp);
                log.push((stamped_ms, stamp));
                for (node, clock) in clocks.iter_mut().enumerate() {
                    clock.applied(
                        index,
                        term,
                        Some(stamp),
                        mono(node, stamped_ms + 7 + node as u64 * 13 % 20),
                    );
                }
            }
        }
        // then no two stamps are further apart than the instants at which they were made, and none falls
        for (i, (from_ms, from)) in log.iter().enumerate() {
            for (to_ms, to) in &log[i..] {
                assert!(to >= from && to.0 - from.0 <= (to_ms - from_ms) * MS, "{from:?} {to:?}");
            }
        }
    }
}
