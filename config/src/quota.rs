//! Quotas: how much, for whom, and what happens when nobody can say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{PlanName, QuotaName, TenantId};
use crate::units::{AtMost, PER_NS_MAX, Rate, show_duration};

/// A token bucket: `tokens` come every `per_ns`, up to `burst`. Integers only, so that every node computes the same.
///
/// In any interval of true length t the cluster admits at most `burst + tokens/per_ns · (1 + ε) · t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// Tokens that come each `per_ns`, ≥ 1.
    pub tokens: u64,
    /// Nanoseconds in which `tokens` come, ≥ 1.
    pub per_ns: u64,
    /// The bucket's size B in tokens, 1 to [`Limit::BURST_MAX`].
    pub burst: u64,
}

impl Limit {
    /// A lease cell counts in 32 bits.
    pub const BURST_MAX: u64 = u32::MAX as u64;
    /// Tokens one request may cost at most.
    pub const COST_MAX: u64 = 1 << 20;

    /// A bucket of `rate`. Without `burst`: as large as the rate's tokens, so `100/s` may come as 100 at once.
    ///
    /// # Errors
    /// [`BadLimit::Burst`] if `burst` is not 1 to [`Limit::BURST_MAX`].
    pub fn from_rate(rate: Rate, burst: Option<u64>) -> Result<Self, BadLimit> {
        let burst = burst.unwrap_or(rate.tokens);
        if !(1..=Self::BURST_MAX).contains(&burst) {
            return Err(BadLimit::Burst { found: burst, max: Self::BURST_MAX });
        }
        Ok(Self { tokens: rate.tokens, per_ns: rate.per_ns, burst })
    }

    /// The bucket that admits at most N = `bound.tokens` in any interval of W = `bound.width_ns`, clock error
    /// included: B + r·(1 + ε)·W = N with ε = 1/1000, so r = (N − B)·1000 / (1001·W). B: `burst`, else N/2 rounded up.
    ///
    /// # Errors
    /// [`BadLimit::AtMostOne`] if N < 2: one token a bucket can hold, and none would be left to come back.
    /// [`BadLimit::Burst`] if `burst` is not 1 to N − 1.
    pub fn from_at_most(bound: AtMost, burst: Option<u64>) -> Result<Self, BadLimit> {
        if bound.tokens < 2 {
            return Err(BadLimit::AtMostOne { width_ns: bound.width_ns });
        }
        let burst = burst.unwrap_or(bound.burst_default());
        if !(1..bound.tokens).contains(&burst) {
            return Err(BadLimit::Burst { found: burst, max: bound.tokens - 1 });
        }
        Ok(Self { tokens: (bound.tokens - burst) * 1000, per_ns: bound.width_ns * 1001, burst })
    }

    /// The bound that `from_at_most` was given, if the limit looks like its work.
    fn at_most(self) -> Option<AtMost> {
        let made = self.tokens.is_multiple_of(1000) && self.per_ns.is_multiple_of(1001);
        let bound =
            AtMost { tokens: (self.tokens / 1000).checked_add(self.burst)?, width_ns: self.per_ns / 1001 };
        (made && Self::from_at_most(bound, Some(self.burst)) == Ok(self)).then_some(bound)
    }

    /// Whether the numbers are within the bounds that every computation counts on.
    pub fn is_sound(self) -> bool {
        let rate = (1..=Self::BURST_MAX * 1000).contains(&self.tokens);
        let per = (1..=PER_NS_MAX * 2).contains(&self.per_ns) || self.at_most().is_some();
        rate && per && (1..=Self::BURST_MAX).contains(&self.burst)
    }
}

/// The shortest form that a document may use for it: `100/s`, `{rate: 100/s, burst: 50}`,
/// `{at_most: 10 in any 1h}` or `{at_most: 10 in any 1h, burst: 4}`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let burst = self.burst;
        let rate = Rate { tokens: self.tokens, per_ns: self.per_ns };
        match self.at_most() {
            Some(bound) if burst == bound.burst_default() => write!(f, "{{at_most: {bound}}}"),
            Some(bound) => write!(f, "{{at_most: {bound}, burst: {burst}}}"),
            None if burst == self.tokens => write!(f, "{rate}"),
            None => write!(f, "{{rate: {rate}, burst: {burst}}}"),
        }
    }
}

/// Why an amount is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLimit {
    /// The burst does not fit.
    #[error("found burst {found}, wanted 1 to {max}")]
    Burst {
        /// As it was asked for.
        found: u64,
        /// The most that fits.
        max: u64,
    },
    /// `1 in any W`, which no bucket can promise.
    #[error("found 1 in any {}, wanted 2 or more", show_duration(Duration::from_nanos(*width_ns)))]
    AtMostOne {
        /// W.
        width_ns: u64,
    },
}

/// One part of what a quota counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPart {
    /// The token's tenant claim.
    Tenant,
    /// The token's client claim.
    Client,
    /// The route's name.
    Route,
    /// The client's address: an IPv4 address, or the /64 of an IPv6 one.
    Address,
}

impl KeyPart {
    /// Whether the part is known only once a token was verified.
    pub fn is_authenticated(self) -> bool {
        matches!(self, Self::Tenant | Self::Client)
    }
}

/// What a gateway does for a quota when no leader has answered for long and its lease has run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnQuorumLoss {
    /// Refuse: the bound stays exact.
    #[default]
    Deny,
    /// Admit from a local bucket of rate r/N and burst B/N; the documented bound is wider.
    LocalShare,
}

/// One quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Its name in refusals, headers and metrics.
    pub name: QuotaName,
    /// What it counts by: sorted, without repetition. Empty: one bucket for the whole quota.
    pub key: Vec<KeyPart>,
    /// The amount where no plan and no override says otherwise.
    pub limit: Limit,
    /// How long a request may wait for tokens; none: chosen from the measured cycle.
    pub wait: Option<Duration>,
    /// What to do without a quorum.
    pub on_quorum_loss: OnQuorumLoss,
}

impl Quota {
    /// The longest that a request may be told to wait for tokens.
    pub const WAIT_MAX: Duration = Duration::from_secs(10);

    /// Whether it can be checked before authentication: it counts by connection and route facts alone.
    pub fn is_screen(&self) -> bool {
        !self.key.iter().any(|part| part.is_authenticated())
    }
}

/// Amounts for the tenants that subscribe to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: PlanName,
    /// Quota → amount. Every quota named here counts by tenant.
    pub limits: BTreeMap<QuotaName, Limit>,
}

/// A tenant that the document knows by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// As its tokens name it.
    pub id: TenantId,
    /// The plan it is on.
    pub plan: Option<PlanName>,
    /// Amounts of its own; they stand over the plan's.
    pub limits: BTreeMap<QuotaName, Limit>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(rate: &str, burst: Option<u64>) -> Limit {
        Limit::from_rate(Rate::parse(rate).unwrap(), burst).unwrap()
    }

    fn at_most(bound: &str, burst: Option<u64>) -> Result<Limit, BadLimit> {
        Limit::from_at_most(AtMost::parse(bound).unwrap(), burst)
    }

    #[test]
    fn a_rate_is_a_bucket_of_its_own_size() {
        assert_eq!(limit("100/s", None), Limit { tokens: 100, per_ns: 1_000_000_000, burst: 100 });
        assert_eq!(limit("100/s", Some(7)).burst, 7);
        assert!(Limit::from_rate(Rate::parse("1/s").unwrap(), Some(1 << 32)).is_err());
        assert!(Limit::from_rate(Rate::parse("1/s").unwrap(), Some(0)).is_err());
    }

    #[test]
    fn at_most_leaves_room_for_the_clocks() {
        // given the bound of the documentation
        let limit = at_most("10 in any 1h", None).unwrap();
        // then B + r·(1+ε)·W is N exactly
        assert_eq!(limit, Limit { tokens: 5_000, per_ns: 3_600_000_000_000 * 1001, burst: 5 });
        // and bounds that no bucket keeps are refused
        assert_eq!(at_most("1 in any 1h", None), Err(BadLimit::AtMostOne { width_ns: 3_600_000_000_000 }));
        assert_eq!(at_most("10 in any 1h", Some(10)), Err(BadLimit::Burst { found: 10, max: 9 }));
        assert!(at_most("4294967295 in any 31d", None).unwrap().is_sound());
    }

    #[test]
    fn a_limit_is_shown_in_its_shortest_form() {
        assert_eq!(limit("100/s", None).to_string(), "100/s");
        assert_eq!(limit("5 per 1m", None).to_string(), "5/min");
        assert_eq!(limit("3/30s", Some(9)).to_string(), "{rate: 3/30s, burst: 9}");
        assert_eq!(at_most("10 in any 1h", None).unwrap().to_string(), "{at_most: 10 in any 1h}");
        assert_eq!(
            at_most("10 in any 1h", Some(4)).unwrap().to_string(),
            "{at_most: 10 in any 1h, burst: 4}"
        );
    }

    proptest! {
        #[test]
        fn at_most_never_exceeds_its_bound(n in 2..=Limit::BURST_MAX, ms in 1..=PER_NS_MAX / 1_000_000) {
            let bound = AtMost { tokens: n, width_ns: ms * 1_000_000 };
            let limit = Limit::from_at_most(bound, None).unwrap();
            // B + r·(1+ε)·W ≤ N, over the common denominator.
            let come = u128::from(limit.tokens) * 1001 * u128::from(bound.width_ns);
            let room = u128::from(n - limit.burst) * 1000 * u128::from(limit.per_ns);
            prop_assert!(come <= room);
            prop_assert!(limit.is_sound());
        }
    }
}
