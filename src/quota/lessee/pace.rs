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
pub struct Cycle {
    /// What the next batch is thought to take: longer with each that was left unanswered.
    expected: Duration,
    /// What answered ones took.
    took: Duration,
}

impl Cycle {
    /// The longest failover (decisions.md 1).
    pub const FAILOVER_MAX: Duration = Duration::from_millis(2500);

    /// Before anything was measured.
    pub fn new() -> Self {
        let guess = Duration::from_millis(250);
        Self { expected: guess, took: guess }
    }
    /// A batch was answered after `took`.
    pub fn answered(&mut self, took: Duration) {
        let took = took.min(Self::FAILOVER_MAX);
        for average in [&mut self.expected, &mut self.took] {
            *average = (*average * 3 + took) / 4;
        }
    }
    /// A batch was not answered in time.
    pub fn timed_out(&mut self) {
        self.expected = (self.expected * 2).min(Self::FAILOVER_MAX);
    }
    /// The average.
    pub fn get(self) -> Duration {
        self.expected
    }
    /// When a batch is given up.
    pub fn batch_timeout(self) -> Duration {
        (self.expected * 4).clamp(Duration::from_millis(100), Self::FAILOVER_MAX)
    }
    /// How long a request waits for any answer at all, and, where its quota does not say, for a token that another gateway
    /// holds. A question that comes while a batch is under way waits for that batch and then for its own, so anything near
    /// two cycles would call a merely busy leader silent. A token elsewhere is recalled, given back and granted: two
    /// commits and five messages, each of which may come behind a batch or an entry that is already on its way.
    ///
    /// Nodes that are far from each other make it long; a leader that does not answer at all does not.
    pub fn wait(self) -> Duration {
        (self.took * 6).clamp(Duration::from_millis(250), Self::FAILOVER_MAX)
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

    #[test]
    fn requests_wait_longer_where_answers_take_longer_and_not_where_none_come() {
        // given a fresh pace, and a leader that falls silent
        let mut cycle = Cycle::new();
        let at_first = cycle.wait();
        (0..9).for_each(|_| cycle.timed_out());
        assert_eq!(cycle.wait(), at_first);
        // when it answers, from far away
        (0..20).for_each(|_| cycle.answered(Duration::from_millis(400)));
        // then two batches and the entries before them have time, and a failover stays the most
        assert!(cycle.wait() > Duration::from_millis(2_300), "{:?}", cycle.wait());
        (0..20).for_each(|_| cycle.answered(Duration::from_secs(9)));
        assert_eq!(cycle.wait(), Cycle::FAILOVER_MAX);
    }
}
