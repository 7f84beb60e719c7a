//! Judges a drive: replays admissions, in the order of true time, through one perfect token bucket.
//!
//! The promise (README): in any interval of true length t the cluster admits at most `B + r·(1+ε)·t`. That is the
//! same as saying that one perfect bucket of size B, refilled at r·(1+ε), never falls below zero when all admissions
//! are taken from it. Integers only: a level is held in units of 1/(per_ns · 1000) tokens.

use config::quota::Limit;

/// ε as a fraction: the bound on the rate error of a node's clock.
const EPSILON_PER_MILLE: u128 = 1;

/// How a set of admissions compares with one perfect bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Tokens admitted.
    pub admitted: u64,
    /// Tokens that the bound allows from the first to the last admission, rounded down.
    pub bound: u64,
    /// Most tokens by which any interval exceeded the bound, rounded up; 0: the promise held.
    pub over: u64,
}

/// Replays `admissions` (instant in ns, cost in tokens; any order) against `limit` with the clock-rate bound.
pub fn judge(limit: Limit, admissions: &[(u64, u64)]) -> Judged {
    let mut sorted = admissions.to_vec();
    sorted.sort_unstable();
    let mut bucket = Perfect::new(limit, EPSILON_PER_MILLE);
    let mut over_units = 0;
    for &(at_ns, cost) in &sorted {
        bucket.refill_to(at_ns);
        bucket.level -= bucket.units(cost);
        over_units = over_units.max(-bucket.level);
    }
    let span_ns = match (sorted.first(), sorted.last()) {
        (Some(first), Some(last)) => last.0 - first.0,
        _ => 0,
    };
    let bound_units = bucket.units(limit.burst) + bucket.refill_units(span_ns);
    Judged {
        admitted: sorted.iter().map(|(_, cost)| cost).sum(),
        bound: to_u64(bound_units / bucket.unit),
        over: to_u64((over_units + bucket.unit - 1) / bucket.unit),
    }
}

/// Tokens that one perfect bucket (rate r, no ε) would have admitted of these arrivals (instant in ns, cost), counting those
/// from `from_ns` on.
pub fn perfect_admits(limit: Limit, arrivals: &[(u64, u64)], from_ns: u64) -> u64 {
    let mut sorted = arrivals.to_vec();
    sorted.sort_unstable();
    let mut bucket = Perfect::new(limit, 0);
    let mut admitted = 0;
    for &(at_ns, cost) in &sorted {
        bucket.refill_to(at_ns);
        if bucket.level >= bucket.units(cost) {
            bucket.level -= bucket.units(cost);
            admitted += if at_ns >= from_ns { cost } else { 0 };
        }
    }
    admitted
}

/// One token bucket without error, full at its first instant.
struct Perfect {
    limit: Limit,
    /// Units in one token.
    unit: i128,
    /// Units that come each nanosecond.
    per_ns: i128,
    level: i128,
    at_ns: Option<u64>,
}

impl Perfect {
    fn new(limit: Limit, epsilon_per_mille: u128) -> Self {
        let unit = i128::from(limit.per_ns) * 1000;
        let per_ns = i128::from(limit.tokens) * i128::try_from(1000 + epsilon_per_mille).unwrap_or(i128::MAX);
        Self { limit, unit, per_ns, level: i128::from(limit.burst) * unit, at_ns: None }
    }

    fn units(&self, tokens: u64) -> i128 {
        i128::from(tokens) * self.unit
    }

    fn refill_units(&self, span_ns: u64) -> i128 {
        i128::from(span_ns) * self.per_ns
    }

    fn refill_to(&mut self, at_ns: u64) {
        let span_ns = at_ns - self.at_ns.unwrap_or(at_ns);
        self.at_ns = Some(at_ns);
        self.level = (self.level + self.refill_units(span_ns)).min(self.units(self.limit.burst));
    }
}

fn to_u64(value: i128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const TEN_PER_SECOND: Limit = Limit { tokens: 10, per_ns: SECOND, burst: 10 };

    #[test]
    fn a_burst_and_the_refill_after_it_are_allowed() {
        // given a full burst at once, and one second's refill at the end of that second
        let mut admissions: Vec<(u64, u64)> = (0..10).map(|_| (0, 1)).collect();
        admissions.extend((0..10).map(|_| (SECOND, 1)));
        // when they are judged
        let judged = judge(TEN_PER_SECOND, &admissions);
        // then nothing is over the bound
        assert_eq!(judged, Judged { admitted: 20, bound: 20, over: 0 });
    }

    #[test]
    fn one_token_more_than_the_bound_is_found_wherever_it_hides() {
        // given a long calm time, then eleven at once in the middle
        let mut admissions = vec![(0, 1), (100 * SECOND, 1)];
        admissions.extend((0..11).map(|_| (50 * SECOND, 1)));
        // when they are judged, then the eleventh is over although the total is far below the bound
        let judged = judge(TEN_PER_SECOND, &admissions);
        assert_eq!(judged.over, 1);
        assert!(judged.admitted < judged.bound);
    }

    #[test]
    fn a_clock_that_runs_fast_within_its_bound_is_no_violation() {
        // given a cluster that refills 0.1 % too fast for 1000 s
        let admissions: Vec<(u64, u64)> = (0..10_010).map(|i| (i * (SECOND / 10) * 1000 / 1001, 1)).collect();
        // when they are judged, then the clock-rate bound covers it
        assert_eq!(judge(TEN_PER_SECOND, &admissions).over, 0);
    }

    #[test]
    fn the_perfect_bucket_refuses_what_it_has_not_got() {
        // given 30 arrivals at once and 30 a second later
        let arrivals: Vec<(u64, u64)> = (0..60).map(|i| ((i / 30) * SECOND, 1)).collect();
        // when a perfect bucket decides, then it admits the burst and one second's refill
        assert_eq!(perfect_admits(TEN_PER_SECOND, &arrivals, 0), 20);
        assert_eq!(perfect_admits(TEN_PER_SECOND, &arrivals, SECOND), 10);
    }

    #[test]
    fn costs_count_in_tokens() {
        let judged = judge(TEN_PER_SECOND, &[(0, 6), (0, 6)]);
        assert_eq!((judged.admitted, judged.over), (12, 2));
    }
}
