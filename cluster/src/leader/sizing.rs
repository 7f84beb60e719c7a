//! How many tokens an item gets, and what a refused one is told (quota.md 5). Numbers in, numbers out.
//!
//! Nothing here can break the bound: the ledger clamps every grant to what the bucket holds. What is decided here is
//! who gets how much, how often gateways ask, and so the utilisation and the cost.

use config::quota::Limit;

use super::times::{HOLD_MAX, HOLD_MIN, ns};
use crate::state::ids::Tokens;
use crate::state::shadow::BucketView;

/// Demand is counted in tokens per this many nanoseconds.
const KILOSECOND_NS: u128 = 1_000_000_000_000;
const MS: u64 = 1_000_000;

/// Shortest and longest interval at which a refused gateway asks again on a saturated key.
///
/// What comes in one interval is what a gateway holds when it dies, and is lost with it: 50 ms of the rate.
const POLL_NS: (u64, u64) = (4 * MS, 50 * MS);
/// The same where tokens come so slowly, or are asked for so little, that polling costs nothing.
const POLL_FINE_NS: u64 = MS;
/// Shortest and longest interval at which a gateway reports spends.
const REPORT_NS: (u64, u64) = (10 * MS, 500 * MS);
/// Waiters are held at the gateway when tokens come within half the default waiting time of 50 ms.
const HOLD_WAITERS_NS: u64 = 25 * MS;
/// Waiters are held at most this long for what a recall brings in.
const RECALL_RETRY_NS: u64 = 4 * MS;

/// A bucket as the leader foresees it at the stamp of the entry that it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// The amount in force.
    pub limit: Limit,
    /// Tokens in the bucket; negative: debt.
    pub central: i64,
    /// Tokens in all leases.
    pub out: Tokens,
    /// The fraction of a token that has come: below `limit.per_ns`, one token is `limit.per_ns`.
    pub rem: u64,
}

impl Level {
    /// Of a bucket's copy.
    pub fn of(view: &BucketView) -> Self {
        Self { limit: *view.limit(), central: view.central(), out: view.out_total(), rem: view.rem() }
    }

    /// Whether refill is about to stop because spends are not yet reported, so that reports are urgent.
    pub fn tight(&self) -> bool {
        let room = i128::from(self.limit.burst) - i128::from(self.central) - i128::from(self.out);
        let come = i128::from(2 * report_interval_ns(&self.limit)) * i128::from(self.limit.tokens);
        room.saturating_mul(i128::from(self.limit.per_ns)) < come && self.below_half()
    }

    /// Whether the bucket is at least half full, so that gateways may hold more and ask less.
    pub fn plenty(&self) -> bool {
        !self.below_half() && self.limit.burst >= 8
    }

    fn below_half(&self) -> bool {
        i128::from(self.central) * 2 < i128::from(self.limit.burst)
    }

    /// Time until the bucket holds `tokens`, with the fraction: a refusal rounded to whole tokens would come half a
    /// token late for ever.
    fn until_holds_ns(&self, tokens: Tokens) -> u64 {
        let lacking = i128::from(tokens) - i128::from(self.central);
        let parts = lacking.saturating_mul(i128::from(self.limit.per_ns)) - i128::from(self.rem);
        if parts <= 0 {
            return 0;
        }
        let rate = i128::from(self.limit.tokens.max(1));
        u64::try_from((parts + rate - 1) / rate).unwrap_or(u64::MAX)
    }
}

/// What one gateway wants of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Tokens it holds that stay good.
    pub held: Tokens,
    /// Cost of all its waiters.
    pub need: Tokens,
    /// What its first waiter lacks.
    pub min: Tokens,
    /// What it would like to hold.
    pub want: Tokens,
    /// Its demand, per 1000 s.
    pub demand: u64,
    /// Demand of all gateways, its own included, per 1000 s.
    pub demand_all: u64,
}

impl Wish {
    /// Whether waiters are left after `grant`.
    pub fn is_short(&self, grant: Tokens) -> bool {
        self.need > 0 && self.held.saturating_add(grant) < self.need
    }

    /// Whether the gateways together ask for (almost) as much as comes.
    pub fn saturates(&self, limit: &Limit) -> bool {
        (u128::from(self.demand_all) * u128::from(limit.per_ns)).saturating_mul(100)
            >= u128::from(limit.tokens).saturating_mul(95 * KILOSECOND_NS)
    }
}

/// Tokens for one item out of `level`.
///
/// The base serves waiters, up to the gateway's share by demand; the first waiter gets all or nothing. The extra lets
/// it serve some time without asking: its share of half of what is left, up to `H` of its demand. Where tokens are few
/// the extra leaves half of the bucket for the others: each token that waits for a client at one gateway is one that
/// another gateway must first recall.
pub(crate) fn grant(level: &Level, wish: &Wish) -> Tokens {
    let avail = u64::try_from(level.central).unwrap_or(0);
    if avail < wish.min.max(1) {
        return 0;
    }
    let share_of = |tokens: u64, parts: u64| -> u64 {
        let all = wish.demand_all.max(wish.demand).max(1);
        let scaled = u128::from(tokens) * u128::from(wish.demand) / (u128::from(all) * u128::from(parts));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    // Rounded up, so that a share of less than a token is one.
    let share = share_of(avail, 1).saturating_add(1);
    let base = wish.need.saturating_sub(wish.held).min(wish.min.max(share)).min(avail);
    let holding = wish.held.saturating_add(base);
    let room = holdable(&level.limit, wish).min(wish.want).saturating_sub(holding);
    let rest = avail - base;
    let spare =
        if trickles(&level.limit) { rest.saturating_sub(level.limit.burst.div_ceil(2)) } else { rest };
    base + room.min(share_of(rest, 2)).min(spare)
}

/// `H` of the gateway's demand: what it may hold without waiters.
fn holdable(limit: &Limit, wish: &Wish) -> Tokens {
    let all = u128::from(wish.demand_all.max(1));
    let h_ns = (u128::from(limit.burst) * KILOSECOND_NS / (2 * all))
        .clamp(u128::from(ns(HOLD_MIN)), u128::from(ns(HOLD_MAX)));
    u64::try_from(u128::from(wish.demand) * h_ns / KILOSECOND_NS).unwrap_or(u64::MAX)
}

/// What a gateway whose waiters got too little is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// When tokens may be there, from now; above 0.
    pub retry_after_ns: u64,
    /// Keep the waiters queued.
    pub hold: bool,
}

/// `level` is that after `grant`; `recalled`: another gateway was asked to give back.
pub(crate) fn refusal(level: &Level, wish: &Wish, grant: Tokens, recalled: bool) -> Refusal {
    let next = if grant >= wish.min { 1 } else { wish.min };
    let come_ns = level.until_holds_ns(next);
    let saturated = wish.saturates(&level.limit);
    let retry_after_ns = come_ns.max(poll_ns(&level.limit, saturated));
    if recalled {
        return Refusal { retry_after_ns: retry_after_ns.min(RECALL_RETRY_NS), hold: true };
    }
    Refusal { retry_after_ns, hold: !saturated && come_ns < HOLD_WAITERS_NS }
}

/// What a gateway is told that the log served worse than foreseen: earlier batches of the entry took the tokens.
pub(crate) const OUTRUN: Refusal = Refusal { retry_after_ns: POLL_FINE_NS, hold: true };

fn poll_ns(limit: &Limit, saturated: bool) -> u64 {
    if trickles(limit) || !saturated { POLL_FINE_NS } else { coarse_poll_ns(limit) }
}

fn coarse_poll_ns(limit: &Limit) -> u64 {
    full_in_ns(limit, 4).clamp(POLL_NS.0, POLL_NS.1)
}

/// Whether tokens of a limit are so few, or come so slowly, that each of them counts: fewer than two come between polls.
///
/// One that lies at a gateway without a client is then worth a recall, and worth waiting for.
pub fn trickles(limit: &Limit) -> bool {
    u128::from(limit.tokens) * u128::from(coarse_poll_ns(limit)) < 2 * u128::from(limit.per_ns)
}

fn report_interval_ns(limit: &Limit) -> u64 {
    full_in_ns(limit, 20).clamp(REPORT_NS.0, REPORT_NS.1)
}

/// The `parts`th part of the time in which an empty bucket fills.
fn full_in_ns(limit: &Limit, parts: u64) -> u64 {
    let full = u128::from(limit.burst) * u128::from(limit.per_ns);
    u64::try_from(full / (u128::from(parts) * u128::from(limit.tokens.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn per_second(tokens: u64, burst: u64) -> Limit {
        Limit { tokens, per_ns: SECOND, burst }
    }
    fn level(limit: Limit, central: i64) -> Level {
        Level { limit, central, out: 0, rem: 0 }
    }
    /// A gateway with waiters of cost 1 and the whole demand of the key.
    fn waiting(need: Tokens, per_s: u64) -> Wish {
        let demand = per_s * 1_000;
        Wish { held: 0, need, min: need.min(1), want: u64::MAX, demand, demand_all: demand }
    }

    #[test]
    fn a_lone_gateway_gets_what_its_waiters_need_and_half_of_the_rest() {
        // given a full bucket of 100 and one gateway with 100 per second of demand
        let wish = waiting(4, 100);
        // then it gets 4, and of the other 96 half, which is below H of its demand
        assert_eq!(grant(&level(per_second(100, 100), 100), &wish), 4 + 46);
        // (held in all: B / (2·Σ demand) = 0.5 s of 100 per second)
    }

    #[test]
    fn waiters_are_served_up_to_the_share_of_the_demand() {
        // given 10 tokens and a gateway with a tenth of all demand
        let wish = Wish { demand_all: 10 * 50_000, ..waiting(30, 50) };
        // then it gets a tenth, rounded up
        assert_eq!(grant(&level(per_second(100, 100), 10), &wish), 2);
    }

    #[test]
    fn the_first_waiter_gets_all_or_nothing() {
        // given a waiter of cost 5
        let wish = Wish { need: 5, min: 5, ..waiting(5, 1) };
        // then 4 tokens are not parted with, and of 5 all are
        assert_eq!(grant(&level(per_second(10, 10), 4), &wish), 0);
        assert_eq!(grant(&level(per_second(10, 10), 5), &wish), 5);
        assert_eq!(grant(&level(per_second(10, 10), -3), &wish), 0);
    }

    #[test]
    fn a_prefetch_never_takes_the_last_token_of_a_busy_key() {
        // given one token, wanted by a gateway whose waiters are all served
        let wish = Wish { need: 0, min: 0, held: 3, ..waiting(0, 1_000) };
        // then it stays in the bucket
        assert_eq!(grant(&level(per_second(1_000, 1_000), 1), &wish), 0);
    }

    #[test]
    fn where_tokens_are_few_half_of_the_bucket_is_left_for_the_others() {
        // given gateways that would like to hold all of a bucket of 5 a minute, or of 10 a second
        let five = Limit { tokens: 5, per_ns: 60 * SECOND, burst: 5 };
        let wish = waiting(1, 5);
        // then each gets its token, and one more only while that leaves half
        assert_eq!([5, 4, 3, 1].map(|central| grant(&level(five, central), &wish)), [1 + 1, 1, 1, 1]);
        assert_eq!(
            [10, 7, 6].map(|central| grant(&level(per_second(10, 10), central), &wish)),
            [1 + 4, 1 + 1, 1]
        );
        // and where they flow it gets half of the rest
        assert_eq!(grant(&level(per_second(100, 100), 10), &waiting(1, 5)), 1 + 4);
    }

    #[test]
    fn a_gateway_gets_no_more_than_it_wants_to_hold() {
        let wish = Wish { want: 7, ..waiting(2, 1_000) };
        assert_eq!(grant(&level(per_second(1_000, 1_000), 1_000), &wish), 7);
    }

    #[test]
    fn retry_after_knows_the_fraction_of_the_next_token() {
        // given 5 per minute, an empty bucket and three quarters of the next token
        let limit = Limit { tokens: 5, per_ns: 60 * SECOND, burst: 5 };
        let almost = Level { limit, central: 0, out: 0, rem: 45 * SECOND };
        // then the next token is a quarter of 12 s away
        let told = refusal(&almost, &waiting(1, 1), 0, false);
        assert_eq!(told, Refusal { retry_after_ns: 3 * SECOND, hold: false });
    }

    #[test]
    fn waiters_of_a_saturated_key_are_refused_not_held() {
        // given an empty bucket of 100 per second
        let empty = level(per_second(100, 100), 0);
        // when 500 per second are asked for: refused, for a poll of B / 4r, at most 50 ms
        assert_eq!(
            refusal(&empty, &waiting(9, 500), 0, false),
            Refusal { retry_after_ns: 50 * MS, hold: false }
        );
        // when 50 per second are asked for: held until the next token
        assert_eq!(
            refusal(&empty, &waiting(1, 50), 0, false),
            Refusal { retry_after_ns: 10 * MS, hold: true }
        );
    }

    #[test]
    fn what_a_recall_may_bring_is_worth_waiting_for() {
        let empty = level(per_second(100, 100), 0);
        assert_eq!(
            refusal(&empty, &waiting(9, 500), 0, true),
            Refusal { retry_after_ns: 4 * MS, hold: true }
        );
    }

    #[test]
    fn a_bucket_whose_tokens_are_all_out_is_tight_and_a_half_full_one_is_plenty() {
        // given all of 100 tokens in leases
        let out = Level { out: 100, ..level(per_second(100, 100), 0) };
        assert!(out.tight() && !out.plenty());
        // and a bucket that is half full
        let half = Level { out: 50, ..level(per_second(100, 100), 50) };
        assert!(!half.tight() && half.plenty());
        // and one token that is spent: nothing is out, so nothing to report
        assert!(!level(per_second(1, 1), 0).tight());
        // and one token that is out
        assert!(Level { out: 1, ..level(per_second(1, 1), 0) }.tight());
    }

    #[test]
    fn the_largest_amounts_do_not_overflow() {
        let limit = Limit { tokens: u64::from(u32::MAX), per_ns: 1, burst: Limit::BURST_MAX };
        let slow = Limit { tokens: 1, per_ns: u64::MAX, burst: Limit::BURST_MAX };
        for limit in [limit, slow] {
            for central in [i64::from(i32::MIN), 0, i64::from(u32::MAX)] {
                let at = Level { limit, central, out: Limit::BURST_MAX, rem: 0 };
                let wish = Wish {
                    held: 7,
                    need: u64::MAX,
                    min: 9,
                    want: u64::MAX,
                    demand: u64::MAX,
                    demand_all: u64::MAX,
                };
                assert!(grant(&at, &wish) <= Limit::BURST_MAX);
                assert!(refusal(&at, &wish, 0, false).retry_after_ns > 0);
                let _ = (at.tight(), at.plenty(), wish.saturates(&limit));
            }
        }
    }
}
