//! SIGTERM ends a node in order: it hands its leadership over, gives its leases back and ends with exit code 0.

mod support;

use std::time::{Duration, Instant};

use support::{Cluster, gateway_with_stock};

#[test]
fn a_leader_that_is_told_to_end_hands_over_at_once_and_gives_its_leases_back() {
    // given a cluster in which the leader holds a lease with more tokens than were spent
    let mut cluster = Cluster::start(3, &gateway_with_stock());
    let token = cluster.token("acme", &[]);
    let leader = cluster.leader();
    let spent = cluster.hold_some_stock(leader, &token);
    // when it gets SIGTERM
    let start = Instant::now();
    let ended = cluster.terminate(leader);
    let took = start.elapsed();
    // then it ends well and promptly, and another leads sooner than an election of its own would need
    assert_eq!(ended.code(), Some(0), "{}", cluster.log(leader));
    assert!(took < Duration::from_secs(5), "it took {took:?} to end\n{}", cluster.log(leader));
    let heir = cluster.leader();
    assert_ne!(heir, leader);
    assert!(start.elapsed() < took + Duration::from_secs(2), "nobody led for {:?}", start.elapsed());
    // and what was not spent is there for the others, and not one more
    let survivor = (0..3).find(|node| *node != leader).expect("two are left");
    let left = cluster.rest_of_stock(survivor, &token);
    // A minute brings another one.
    assert!((60..=61).contains(&(spent + left)), "{spent} spent before, {left} after");
}
