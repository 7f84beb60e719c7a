//! The local share of a quota that asks for one: a bucket of rate r/N and burst ⌊B/N⌋, at least 1.
//!
//! It is made empty at the process's start and never reset while the process lives, so that a gateway that comes and goes
//! mints nothing. N is the number of gateways in the last view.

use cluster::world::BootNs;
use config::quota::Limit;

/// One key's local bucket. Counts in token-fractions of `1 / (per_ns · N)`, so nothing is rounded away.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    tokens: u64,
    /// Fraction of a token, in units of 1/(per_ns · N).
    rest: u128,
    at: BootNs,
}

impl Share {
    /// As it stood at the process's start: empty.
    pub fn new(process_start: BootNs) -> Self {
        Self { tokens: 0, rest: 0, at: process_start }
    }

    /// Takes `cost`, or nothing.
    pub fn take(&mut self, cost: u32, now: BootNs, limit: Limit, gateways: u64) -> bool {
        self.refill(now, limit, gateways);
        let left = self.tokens.checked_sub(u64::from(cost));
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }

    /// Puts back what [`Share::take`] took for a request that was not admitted.
    pub fn put_back(&mut self, cost: u32) {
        self.tokens += u64::from(cost);
    }

    /// Whether it is full, as one that was never used would be by now.
    pub fn is_full(&mut self, now: BootNs, limit: Limit, gateways: u64) -> bool {
        self.refill(now, limit, gateways);
        self.tokens == burst(limit, gateways)
    }

    fn refill(&mut self, now: BootNs, limit: Limit, gateways: u64) {
        let per = u128::from(limit.per_ns) * u128::from(gateways.max(1));
        let fresh = u128::from(now.since(self.at)) * u128::from(limit.tokens) + self.rest;
        self.at = self.at.max(now);
        let burst = burst(limit, gateways);
        self.tokens = u64::try_from(fresh / per).unwrap_or(u64::MAX).saturating_add(self.tokens);
        self.rest = fresh % per;
        if self.tokens >= burst {
            (self.tokens, self.rest) = (burst, 0);
        }
    }
}

fn burst(limit: Limit, gateways: u64) -> u64 {
    (limit.burst / gateways.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_share_starts_empty_and_fills_at_its_part_of_the_rate() {
        // given 10 a second with a burst of 10, on 5 gateways, from instant 0
        let limit = Limit { tokens: 10, per_ns: 1_000_000_000, burst: 10 };
        let mut share = Share::new(BootNs(0));
        // when it is asked at once, after half a second, and after a long time
        let at_once = share.take(1, BootNs(0), limit, 5);
        let later = share.take(1, BootNs(500_000_000), limit, 5);
        let full: Vec<bool> = (0..3).map(|_| share.take(1, BootNs(90_000_000_000), limit, 5)).collect();
        // then it gives nothing, one, and never more than B/N
        assert_eq!((at_once, later, full), (false, true, vec![true, true, false]));
    }
}
