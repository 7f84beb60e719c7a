//! How fast things go: a key's demand and the time a batch takes. Integers only.

use std::time::Duration;

/// Demand of one key, smoothed over [`Demand::OVER_NS`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    per_ks: u64,
    at_ns: u64,
}

impl Demand {
    /// The span of the average.
    pub const OVER_NS: u64 = 200_000_000;

    /// `cost` tokens were wanted between the last call and `now_ns`.
    pub fn saw(&mut self, cost: u64, now_ns: u64) {
        let dt = u128::from(now_ns.saturating_sub(self.at_ns));
        let over = u128::from(Self::OVER_NS);
        let sum = u128::from(self.per_ks) * over + u128::from(cost) * 1_000_000_000_000;
        self.per_ks = u64::try_from(sum / (over + dt)).unwrap_or(u64::MAX);
        self.at_ns = self.at_ns.max(now_ns);
    }

    /// Tokens per 1000 s.
    pub fn per_ks(self) -> u64 {
        self.per_ks
    }

    /// Tokens wanted in `span` at this pace.
    pub fn within(self, span: Duration) -> u64 {
        u64::try_from(u128::from(self.per_ks) * span.as_nanos() / 1_000_000_000_000).unwrap_or(u64::MAX)
    }

    /// The time in which `tokens` are wanted, within bounds.
    pub fn time_of(self, tokens: u64, least: Duration, most: Duration) -> Duration {
        let ns = u128::from(tokens) * 1_000_000_000_000 / u128::from(self.per_ks.max(1));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)).clamp(least, most)
    }
}

/// The time from a batch's send to its reply, and what follows from it (decisions.md 3).
#[derive(Clone, Copy, Debug)]
pub struct Cycle(Duration);

impl Cycle {
    /// The longest failover (decisions.md 1).
    pub const FAILOVER_MAX: Duration = Duration::from_millis(2500);

    /// Before anything was measured.
    pub fn new() -> Self {
        Self(Duration::from_millis(250))
    }
    /// A batch was answered after `took`.
    pub fn answered(&mut self, took: Duration) {
        self.0 = (self.0 * 3 + took.min(Self::FAILOVER_MAX)) / 4;
    }
    /// A batch was not answered in time.
    pub fn timed_out(&mut self) {
        self.0 = (self.0 * 2).min(Self::FAILOVER_MAX);
    }
    /// The average.
    pub fn get(self) -> Duration {
        self.0
    }
    /// When a batch is given up.
    pub fn batch_timeout(self) -> Duration {
        (self.0 * 4).clamp(Duration::from_millis(100), Self::FAILOVER_MAX)
    }
    /// How long a request waits for any answer at all, and, where its quota does not say, for a token that another gateway
    /// holds. A question that comes while a batch is under way waits for that batch and then for its own, so anything near
    /// two cycles would call a merely busy leader silent. A token elsewhere is recalled, given back and granted: two
    /// commits and five messages, each of which may come behind a batch or an entry that is already on its way.
    pub fn wait(self) -> Duration {
        (self.0 * 6).clamp(Duration::from_millis(250), Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_follows_a_steady_stream() {
        // given ten tokens a second, seen every 100 ms, for two seconds
        let mut demand = Demand::default();
        (1..=20).for_each(|i| demand.saw(1, i * 100_000_000));
        // then it is close to 10 000 per 1000 s, and fades when nothing comes
        assert!((9_000..=11_000).contains(&demand.per_ks()), "{}", demand.per_ks());
        demand.saw(0, 12_000_000_000);
        assert!(demand.per_ks() < 300);
    }

    #[test]
    fn a_silent_leader_is_waited_for_longer_each_time_up_to_a_failover() {
        // given a fresh pace, when many batches time out
        let mut cycle = Cycle::new();
        (0..9).for_each(|_| cycle.timed_out());
        // then the timeout stands at its bound
        assert_eq!(cycle.batch_timeout(), Cycle::FAILOVER_MAX);
    }
}
