//! A quota is exact over all nodes together, however requests are spread.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::{Cluster, GATEWAY, refilled};

#[test]
fn five_a_minute_admits_exactly_five_of_thirty_at_once_over_three_nodes() {
    support::in_calm(|| {
        let cluster = Cluster::start(3, GATEWAY);
        let token = cluster.token("acme", &["orders:read"]);
        let begun = Instant::now();
        let counts = cluster.burst(30, "/orders/1", &token);
        exactly(5, 30, &counts, refilled(begun, Duration::from_secs(12)));
    });
}

#[test]
fn one_in_thirty_seconds_admits_exactly_one_over_two_nodes() {
    support::in_calm(|| {
        let cluster = Cluster::start(2, GATEWAY);
        let token = cluster.token("acme", &[]);
        let begun = Instant::now();
        let counts = cluster.burst(20, "/rare", &token);
        exactly(1, 20, &counts, refilled(begun, Duration::from_secs(30)));
    });
}

/// Of a burst of `asked`, `wanted` are admitted and all others refused; a machine that takes long for it may see `refilled` more.
fn exactly(wanted: usize, asked: usize, counts: &BTreeMap<u16, usize>, refilled: usize) {
    let admitted = counts.get(&200).copied().unwrap_or(0);
    support::always(admitted <= wanted + refilled, || format!("{counts:?}, and {refilled} came meanwhile"));
    let right = |more| *counts == BTreeMap::from([(200, wanted + more), (429, asked - wanted - more)]);
    assert!((0..=refilled).any(right), "{counts:?}, and {refilled} came meanwhile");
}
