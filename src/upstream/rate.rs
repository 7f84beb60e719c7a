//! How long a peer that is slow, but not silent, is waited for. Pure.

use std::time::Duration;

/// What a peer is given before its rate counts, and the most that it can earn.
pub const GRACE: Duration = Duration::from_secs(30);

/// Time that a peer has left: waiting uses it up, bytes earn it back at the lowest rate that is allowed. So a peer that keeps
/// to the rate is waited for without end, and one that does not, for little longer than [`GRACE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// 0: any rate is allowed.
    bytes_per_s: u64,
    left: Duration,
}

impl Credit {
    /// Whoever is slower than `bytes_per_s` runs out of it.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, left: GRACE }
    }

    /// It never ends.
    pub fn endless() -> Self {
        Self::new(0)
    }

    /// How much longer the peer may be waited for, and no longer than `patience`.
    pub fn within(&self, patience: Duration) -> Duration {
        if self.bytes_per_s == 0 { patience } else { self.left.min(patience) }
    }

    /// The peer was waited for, and then so many bytes went.
    pub fn moved(&mut self, waited: Duration, bytes: u64) {
        if let Some(earned_ms) = bytes.saturating_mul(1_000).checked_div(self.bytes_per_s) {
            let left = self.left.saturating_sub(waited).saturating_add(Duration::from_millis(earned_ms));
            self.left = left.min(GRACE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    /// How long a peer is waited for that sends `bytes` each `every`, up to a day.
    fn lasts(credit: Credit, bytes: u64, every: Duration) -> Duration {
        let (mut credit, mut past) = (credit, Duration::ZERO);
        while past < 24 * LONG {
            let left = credit.within(LONG);
            if left < every {
                return past + left;
            }
            credit.moved(every, bytes);
            past += every;
        }
        past
    }

    #[test]
    fn a_peer_at_the_rate_goes_on_and_a_slower_one_does_not() {
        let second = Duration::from_secs(1);
        assert!(lasts(Credit::new(100), 100, second) >= 24 * LONG);
        assert!(lasts(Credit::new(100), 2_900, 29 * second) >= 24 * LONG);
        assert_eq!(lasts(Credit::new(100), 1, 29 * second), Duration::from_millis(30_010));
        assert_eq!(lasts(Credit::new(100), 50, second).as_secs(), 59);
        assert_eq!(lasts(Credit::endless(), 0, 30 * LONG), LONG);
    }

    #[test]
    fn a_fast_beginning_buys_no_more_than_the_grace() {
        let mut credit = Credit::new(100);
        credit.moved(Duration::ZERO, 1 << 40);
        assert_eq!(credit.within(LONG), GRACE);
    }
}
