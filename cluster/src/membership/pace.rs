//! Whether a learner keeps up: it still takes what it is sent, and has what it needs to vote. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A learner that takes no entry and no piece of a snapshot for this long has failed to catch up.
pub(super) const STALLED_MAX: Duration = Duration::from_secs(60);

/// A learner that has what the leader had so long ago is caught up. How many entries that is depends on the load: a
/// leader with much of it is never seen within a fixed number of them.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// What a learner has taken, and when it last took something.
#[derive(Debug)]
pub(super) struct Pace {
    matched: Option<u64>,
    /// Of the snapshot that is being sent to it.
    snapshot_bytes: u64,
    grown: Instant,
    /// The last entry that the leader had, and when.
    goal: Option<(u64, Instant)>,
    caught_up: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { matched: None, snapshot_bytes: 0, grown: now, goal: None, caught_up: false }
    }

    /// It has the entries up to `matched` of `last` and `snapshot_bytes` of a snapshot. A transfer that began anew counts once it is
    /// further than the ones before: one that is cut off again and again leads nowhere.
    pub(super) fn saw(&mut self, matched: Option<u64>, last: u64, snapshot_bytes: u64, now: Instant) {
        if matched > self.matched || snapshot_bytes > self.snapshot_bytes {
            self.grown = now;
        }
        self.matched = self.matched.max(matched);
        self.snapshot_bytes = self.snapshot_bytes.max(snapshot_bytes);
        let (goal, set) = *self.goal.get_or_insert((last, now));
        let in_time = now.duration_since(set) <= BEHIND_MAX;
        let there = matched >= Some(goal);
        self.caught_up |= there && in_time;
        if there || !in_time {
            self.goal = Some((last, now));
        }
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        now.duration_since(self.grown) > STALLED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_many_minutes_is_no_stall_as_long_as_its_pieces_arrive() {
        // given a learner that has nothing
        let began = Instant::now();
        let mut pace = Pace::new(began);
        // when it takes a piece of a snapshot every 50 s for ten minutes, and then no more
        let mut now = began;
        for pieces in 1..=12 {
            now += Duration::from_secs(50);
            pace.saw(None, 100, pieces << 20, now);
            assert!(!pace.is_stalled(now), "after {pieces} pieces");
        }
        // then it has stalled a minute later, and not before
        assert!(!pace.is_stalled(now + STALLED_MAX));
        let late = now + STALLED_MAX + Duration::from_secs(1);
        pace.saw(None, 100, 12 << 20, late);
        assert!(pace.is_stalled(late));
        // and entries count as well
        pace.saw(Some(7), 100, 0, late);
        assert!(!pace.is_stalled(late));
    }

    #[test]
    fn a_snapshot_that_is_cut_off_at_the_same_place_again_and_again_is_a_stall() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        for turn in 0..4 {
            for pieces in 0..=3 {
                pace.saw(None, 100, pieces << 20, began + Duration::from_secs(turn * 20 + pieces));
            }
        }
        assert!(pace.is_stalled(began + Duration::from_secs(64)));
    }

    /// A leader adds an entry each millisecond; a learner is so many of them behind, and seen every 50 ms.
    fn seen(behind: u64) -> Pace {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        for ms in (0..10_000).step_by(50) {
            let last = 1_000_000 + ms;
            pace.saw(Some(last - behind), last, 0, began + Duration::from_millis(ms));
        }
        pace
    }

    #[test]
    fn a_learner_is_caught_up_with_what_a_busy_leader_had_a_second_ago() {
        assert!(seen(0).is_caught_up());
        assert!(seen(900).is_caught_up());
        assert!(!seen(1500).is_caught_up());
        assert!(!seen(1500).is_stalled(Instant::now()));
    }

    #[test]
    fn a_learner_that_has_all_of_a_leader_at_rest_is_caught_up_at_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.saw(None, 7, 0, now);
        assert!(!pace.is_caught_up());
        pace.saw(Some(7), 7, 0, now + Duration::from_secs(9));
        pace.saw(Some(7), 7, 0, now + Duration::from_secs(9));
        assert!(pace.is_caught_up());
    }
}
