//! Whether a learner still takes what it is sent. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A learner that takes no entry and no piece of a snapshot for this long has failed to catch up.
pub(super) const STALLED_MAX: Duration = Duration::from_secs(60);

/// What a learner has taken, and when it last took something.
#[derive(Debug)]
pub(super) struct Pace {
    matched: Option<u64>,
    /// Of the snapshot that is being sent to it.
    snapshot_bytes: u64,
    grown: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { matched: None, snapshot_bytes: 0, grown: now }
    }

    /// It has the entries up to `matched`, and `snapshot_bytes` of a snapshot. A transfer that began anew counts once it is
    /// further than the ones before: one that is cut off again and again leads nowhere.
    pub(super) fn saw(&mut self, matched: Option<u64>, snapshot_bytes: u64, now: Instant) {
        if matched > self.matched || snapshot_bytes > self.snapshot_bytes {
            self.grown = now;
        }
        self.matched = self.matched.max(matched);
        self.snapshot_bytes = self.snapshot_bytes.max(snapshot_bytes);
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
            pace.saw(None, pieces << 20, now);
            assert!(!pace.is_stalled(now), "after {pieces} pieces");
        }
        // then it has stalled a minute later, and not before
        assert!(!pace.is_stalled(now + STALLED_MAX));
        let late = now + STALLED_MAX + Duration::from_secs(1);
        pace.saw(None, 12 << 20, late);
        assert!(pace.is_stalled(late));
        // and entries count as well
        pace.saw(Some(7), 0, late);
        assert!(!pace.is_stalled(late));
    }

    #[test]
    fn a_snapshot_that_is_cut_off_at_the_same_place_again_and_again_is_a_stall() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        for turn in 0..4 {
            for pieces in 0..=3 {
                pace.saw(None, pieces << 20, began + Duration::from_secs(turn * 20 + pieces));
            }
        }
        assert!(pace.is_stalled(began + Duration::from_secs(64)));
    }
}
