//! The perfect bucket, in integers: what every admission of the cluster is judged by.

use config::quota::Limit;

/// Units of a token: `per_ns` · 1000, so that a rate of r(1 + ε) with ε = 1/1000 is a whole number of units a ns.
pub struct PerfectBucket {
    limit: Limit,
    permille: i128,
    level: i128,
    at: u64,
}

impl PerfectBucket {
    /// `permille` = 1001 for the promise, 1000 for the yardstick of utilisation.
    pub fn full(limit: Limit, permille: i128) -> Self {
        let mut bucket = Self { limit, permille, level: 0, at: 0 };
        bucket.level = bucket.units(limit.burst);
        bucket
    }

    fn units(&self, tokens: u64) -> i128 {
        i128::from(tokens) * i128::from(self.limit.per_ns) * 1_000
    }

    fn refill(&mut self, at: u64) {
        let come = i128::from(at - self.at) * i128::from(self.limit.tokens) * self.permille;
        self.level = (self.level + come).min(self.units(self.limit.burst));
        self.at = at;
    }

    /// Books an admission that was made; how many units the cluster admitted too much.
    pub fn excess(&mut self, at: u64, cost: u64) -> i128 {
        self.refill(at);
        self.level -= self.units(cost);
        (-self.level).max(0)
    }

    /// Whether there is enough in it.
    pub fn holds(&mut self, at: u64, cost: u64) -> bool {
        self.refill(at);
        self.level >= self.units(cost)
    }

    /// Whether the perfect bucket itself would admit.
    pub fn admit(&mut self, at: u64, cost: u64) -> bool {
        let fits = self.holds(at, cost);
        if fits {
            self.level -= self.units(cost);
        }
        fits
    }
}
