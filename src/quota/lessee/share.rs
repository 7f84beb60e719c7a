//! The local share of a quota that asks for one: a bucket of rate r/N and burst ⌊B/N⌋, at least 1.
//!
//! It is made empty at the process's start and never reset while the process lives, so that a gateway that comes and goes
//! mints nothing. N is the number of gateways in the last view.

use std::time::Duration;

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

    /// Until `cost` tokens are there, as of the last [`Share::take`]; none: it never holds so many.
    pub fn wait(&self, cost: u32, limit: Limit, gateways: u64) -> Option<Duration> {
        let cost = u64::from(cost);
        if cost > burst(limit, gateways) {
            return None;
        }
        let per = u128::from(limit.per_ns) * u128::from(gateways.max(1));
        let lacking = u128::from(cost.saturating_sub(self.tokens)) * per;
        let ns = lacking.saturating_sub(self.rest).div_ceil(u128::from(limit.tokens.max(1)));
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
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

    #[test]
    fn an_empty_share_says_when_its_next_token_comes() {
        // given 10 a second with a burst of 10 on 5 gateways: two a second, two at most
        let limit = Limit { tokens: 10, per_ns: 1_000_000_000, burst: 10 };
        let mut share = Share::new(BootNs(0));
        // when it is asked 100 ms after the start
        assert!(!share.take(1, BootNs(100_000_000), limit, 5));
        // then one token comes in 400 ms, two in 900, and three never
        let wait = [1, 2, 3].map(|cost| share.wait(cost, limit, 5));
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(wait, [ms(400), ms(900), None]);
        // and after that time it is there
        assert!(share.take(1, BootNs(500_000_000), limit, 5));
    }

    #[test]
    fn a_burst_smaller_than_the_cluster_leaves_each_gateway_one() {
        let limit = Limit { tokens: 1, per_ns: 1_000_000_000, burst: 2 };
        let mut share = Share::new(BootNs(0));
        let taken: Vec<bool> = (0..2).map(|_| share.take(1, BootNs(90_000_000_000), limit, 3)).collect();
        assert_eq!(taken, [true, false]);
    }
}
