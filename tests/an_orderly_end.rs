//! SIGTERM ends a node in order: it hands its leadership over, gives its leases back and ends with exit code 0.

mod support;

use std::time::{Duration, Instant};

use support::{Cluster, GATEWAY};

#[test]
fn a_leader_that_is_told_to_end_hands_over_at_once_and_gives_its_leases_back() {
    // given a cluster in which the leader holds a lease: one token of five is spent through it
    let mut cluster = Cluster::start(3, GATEWAY);
    let token = cluster.token("acme", &["orders:read"]);
    let leader = cluster.leader();
    assert_eq!(cluster.get(leader, "/orders/1", Some(&token)).status, 200);
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
    // and the four tokens that were not spent are there for the others, and not one more
    let survivor = (0..3).find(|node| *node != leader).expect("two are left");
    let statuses: Vec<u16> =
        (0..6).map(|_| cluster.get(survivor, "/orders/1", Some(&token)).status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);
}
