//! A quota is exact over all nodes together, however requests are spread.

mod support;

use std::collections::BTreeMap;

use support::{Cluster, GATEWAY};

#[test]
fn five_a_minute_admits_exactly_five_of_thirty_at_once_over_three_nodes() {
    let cluster = Cluster::start(3, GATEWAY);
    let token = cluster.token("acme", &["orders:read"]);
    let counts = cluster.burst(30, "/orders/1", &token);
    assert_eq!(counts, BTreeMap::from([(200, 5), (429, 25)]));
}

#[test]
fn one_in_thirty_seconds_admits_exactly_one_over_two_nodes() {
    let cluster = Cluster::start(2, GATEWAY);
    let token = cluster.token("acme", &[]);
    let counts = cluster.burst(20, "/rare", &token);
    assert_eq!(counts, BTreeMap::from([(200, 1), (429, 19)]));
}
