//! A copy of a bucket, on which the leader tries an entry before it proposes it.

use config::quota::Limit;

use super::bucket::{Bucket, Given, Lease, Tally};
use super::ids::{LeaseId, SessionId, Tau, Tokens};

/// A bucket as it will be at a stamp. [`BucketView::report`] and [`BucketView::grant`] do what apply will do, with the
/// same code; the names of leases that they create are not those that apply will give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketView {
    pub(super) limit: Limit,
    pub(super) bucket: Bucket,
    pub(super) at: Tau,
    pub(super) next: LeaseId,
}

impl BucketView {
    /// The amount in force.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// The time to which it is advanced.
    pub fn at(&self) -> Tau {
        self.at
    }

    /// Tokens in the ledger's hand; negative: debt.
    pub fn central(&self) -> i64 {
        self.bucket.central()
    }

    /// The started token, in 1/`per_ns` tokens.
    pub fn rem(&self) -> u64 {
        self.bucket.rem()
    }

    /// Tokens out in leases.
    pub fn out_total(&self) -> Tokens {
        self.bucket.out_total()
    }

    /// All leases.
    pub fn leases(&self) -> &[Lease] {
        self.bucket.leases()
    }

    /// The lease of a session.
    pub fn lease(&self, session: SessionId) -> Option<&Lease> {
        self.bucket.lease(session)
    }

    /// Books a report; whether the tokens that the gateway holds stay good.
    pub fn report(&mut self, session: SessionId, lid: Option<LeaseId>, held: Tokens, spent: Tokens) -> bool {
        self.bucket.report(session, lid, held, spent, &mut Tally::default())
    }

    /// Grants at least `min` or nothing, at most `max`, for `ttl_ns` from the stamp.
    pub fn grant(&mut self, session: SessionId, min: Tokens, max: Tokens, ttl_ns: u64) -> Given {
        let exp = Tau(self.at.0.saturating_add(ttl_ns));
        let given = self.bucket.grant(session, min, max, exp, self.next);
        self.next.0 += u64::from(given.lease.is_some_and(|(lid, _)| lid == self.next));
        given
    }
}
