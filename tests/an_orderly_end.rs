//! SIGTERM ends a node in order: it hands its leadership over, gives its leases back and ends with exit code 0. So it does
//! while the node leaves its cluster.
#![allow(clippy::disallowed_methods)] // Tests stand outside the product: clients of their own.

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Cluster, GATEWAY, PATIENCE, gateway_with_stock};

#[test]
fn a_leader_that_is_told_to_end_hands_over_at_once_and_gives_its_leases_back() {
    support::in_calm(|| {
        // given a cluster in which the leader holds a lease with more tokens than were spent
        let mut cluster = Cluster::start(3, &gateway_with_stock());
        let token = cluster.token("acme", &[]);
        let leader = cluster.leader();
        let full = Instant::now();
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
        let most = 60 + support::refilled(full, Duration::from_secs(60));
        support::always(spent + left <= most, || format!("{spent} and {left} of {most}"));
        assert!((60..=most).contains(&(spent + left)), "{spent} spent before, {left} after, {most} at most");
    });
}

fn a_node_that_leaves_is_told_to_end_and_can_not_be_removed(told_first: bool) {
    // given a follower that has a request at hand
    let patient = GATEWAY.replace("response_timeout: 1s", "response_timeout: 60s");
    let mut cluster = Cluster::start(3, &patient);
    let token = cluster.token("acme", &[]);
    let leaver = (cluster.leader() + 1) % 3;
    let others = [(leaver + 1) % 3, (leaver + 2) % 3];
    let (http, bearer) = (cluster.nodes[leaver].http, format!("Bearer {token}"));
    let served = cluster.upstream.served();
    let at_hand = std::thread::spawn(move || {
        support::request(http, "GET", "/many/slow", &[("authorization", &bearer)], "")
    });
    let until = Instant::now() + PATIENCE;
    while cluster.upstream.served() == served {
        assert!(Instant::now() < until, "the request did not come through");
        std::thread::sleep(Duration::from_millis(20));
    }
    // when it is told to end and to leave, one after the other, and the others are gone before it has finished
    if told_first {
        cluster.signal(leaver, Signal::TERM);
    }
    let followed = cluster.cluster(leaver, &["leave", "--within", "2s"]);
    println!("{}", String::from_utf8_lossy(&followed.stderr));
    cluster.wait(leaver, "/readyz", "leaving", |answer| answer.body.contains("leaves the cluster"));
    let until = Instant::now() + PATIENCE;
    while !cluster.log(leaver).contains("stopping") {
        assert!(Instant::now() < until, "{}", cluster.log(leaver));
        std::thread::sleep(Duration::from_millis(20));
    }
    others.into_iter().for_each(|other| cluster.kill(other));
    cluster.signal(leaver, Signal::TERM);
    cluster.upstream.let_go();
    // then it ends as a node that was told to, and waits for nobody
    let ended = cluster.wait_for_end(leaver, |_| ());
    assert_eq!(ended.code(), Some(0), "{}", cluster.log(leaver));
    assert!(cluster.log(leaver).contains("told to end before it was removed"), "{}", cluster.log(leaver));
    drop(at_hand.join().expect("no panic"));
}

#[test]
fn a_node_that_leaves_ends_when_it_is_told_to() {
    a_node_that_leaves_is_told_to_end_and_can_not_be_removed(false);
}

#[test]
fn a_node_that_is_ending_does_not_wait_to_be_removed() {
    a_node_that_leaves_is_told_to_end_and_can_not_be_removed(true);
}
