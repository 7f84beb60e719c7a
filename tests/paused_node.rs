//! A node that stands still for ten seconds and then goes on admits nothing that its leases no longer cover.

mod support;

use std::time::{Duration, Instant};

use support::{Cluster, GATEWAY};

#[test]
fn a_paused_node_does_not_spend_leases_that_the_cluster_has_written_off() {
    // given a cluster under load, in which every node holds leases of one bucket of 100/s, B = 100
    let cluster = Cluster::start(3, GATEWAY);
    let token = cluster.token("acme", &[]);
    let start = Instant::now();
    let mut admitted = 0;
    let mut send = |node: usize, count: usize| {
        for _ in 0..count {
            admitted += usize::from(cluster.get(node, "/many/1", Some(&token)).status == 200);
        }
    };
    for node in 0..3 {
        send(node, 20);
    }
    // when one is stopped for ten seconds, the others go on, and then it goes on
    let paused = (cluster.leader() + 1) % 3;
    cluster.signal(paused, rustix::process::Signal::STOP);
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        for node in (0..3).filter(|node| *node != paused) {
            send(node, 5);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.signal(paused, rustix::process::Signal::CONT);
    for _ in 0..20 {
        for node in 0..3 {
            send(node, 10);
        }
    }
    // then all together admitted no more than the bound
    let bound = 100.0 + 100.0 * 1.001 * start.elapsed().as_secs_f64();
    assert!(admitted as f64 <= bound, "admitted {admitted}, bound {bound}");
    assert!(admitted > 100, "the cluster served only {admitted}");
}
