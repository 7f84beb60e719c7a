//! The times that hold leases and failover together (decisions.md 1), in one place, checked by the compiler.
//!
//! A gateway must be able to live on its leases through a failover, and renews each at half its life; so half a
//! lease's life is at least as long as the longest failover. A leader that dies takes its raft lease (one
//! `ELECTION_MAX`), one more random election timeout and a short refusal with it before another one answers.

use std::time::Duration;

/// How often the leader tells followers that it lives.
pub const HEARTBEAT: Duration = Duration::from_millis(150);
/// Shortest election timeout.
pub const ELECTION_MIN: Duration = Duration::from_millis(500);
/// Longest election timeout.
pub const ELECTION_MAX: Duration = Duration::from_millis(1_000);

/// Longest time without a leader while a majority of the voters lives.
pub const FAILOVER_MAX: Duration = Duration::from_millis(2_500);
/// How long a gateway may spend a lease, from the sending of the batch that granted it, by its own clock.
pub const TTL_NODE: Duration = Duration::from_millis(5_000);
/// How long the ledger counts a lease as out, from the stamp, in cluster time. The margin covers clock rates that
/// differ by more than any clock that is in order.
pub const TTL: Duration = Duration::from_millis(6_250);

/// Demand that a gateway may hold in tokens: at least this long (quota.md 10, `H`).
pub const HOLD_MIN: Duration = Duration::from_millis(250);
/// And at most this long.
pub const HOLD_MAX: Duration = Duration::from_millis(3_000);

/// A duration in nanoseconds.
pub const fn ns(duration: Duration) -> u64 {
    let ns = duration.as_nanos();
    assert!(ns <= u64::MAX as u128, "a duration here is far below 584 years");
    ns as u64
}

const _: () = assert!(HEARTBEAT.as_millis() * 3 < ELECTION_MIN.as_millis(), "three lost heartbeats, not one");
const _: () =
    assert!(FAILOVER_MAX.as_millis() >= 2 * ELECTION_MAX.as_millis() + 500, "lease, election, refusal");
const _: () =
    assert!(TTL_NODE.as_millis() / 2 >= FAILOVER_MAX.as_millis(), "half a lease outlives a failover");
const _: () =
    assert!(TTL.as_millis() * 8 == TTL_NODE.as_millis() * 10, "a gateway's deadline is 0.8 of the ttl");
const _: () =
    assert!(HOLD_MAX.as_millis() <= FAILOVER_MAX.as_millis() + 500, "no more than a failover takes is held");
