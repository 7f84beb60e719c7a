//! A node that stands still for ten seconds and then goes on admits nothing that its leases no longer cover.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Cluster, GATEWAY, PATIENCE};

#[test]
fn a_paused_follower_does_not_spend_leases_that_the_cluster_has_written_off() {
    support::in_calm(|| {
        let statuses = pause(|leader| (leader + 1) % 3);
        // and there was a leader all the time, so requests were decided; a stall of this machine may cost one its answer
        let undecided: usize = statuses.range(500..).map(|(_, count)| count).sum();
        assert!(undecided * 100 <= statuses.values().sum::<usize>(), "{statuses:?}");
    });
}

#[test]
fn a_paused_leader_does_not_lend_what_its_successor_lends() {
    support::in_calm(|| {
        // While nobody leads, a tenant that asks for more than its leases hold is told 503 (quota-undecided), nothing else.
        let statuses = pause(|leader| leader);
        assert!(statuses.keys().all(|status| [200, 429, 503].contains(status)), "{statuses:?}");
    });
}

/// Stops one node for ten seconds under load, has it go on, and holds the cluster to its bound; how many of the requests
/// to the others got each status meanwhile.
fn pause(whom: impl Fn(usize) -> usize) -> BTreeMap<u16, usize> {
    // given a cluster under load, in which every node holds leases of one bucket of 100/s, B = 100
    let cluster = Cluster::start(3, GATEWAY);
    let token = cluster.token("acme", &[]);
    let start = Instant::now();
    let send = |node: usize, count: usize| -> Vec<u16> {
        (0..count).map(|_| cluster.get(node, "/many/1", Some(&token)).status).collect()
    };
    let mut all = BTreeMap::<u16, usize>::new();
    let mut count =
        |statuses: &[u16]| statuses.iter().for_each(|status| *all.entry(*status).or_default() += 1);
    (0..3).for_each(|node| count(&send(node, 20)));
    // when one is stopped for ten seconds, the others go on, and then it goes on
    let paused = whom(cluster.leader());
    cluster.signal(paused, Signal::STOP);
    let mut meanwhile = BTreeMap::new();
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        for node in (0..3).filter(|node| *node != paused) {
            let statuses = send(node, 5);
            count(&statuses);
            for status in statuses {
                *meanwhile.entry(status).or_default() += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.signal(paused, Signal::CONT);
    for _ in 0..20 {
        (0..3).for_each(|node| count(&send(node, 10)));
    }
    // then all together admitted no more than the bound, and did not buy that by admitting little of what there was
    let bound = 100.0 + 100.0 * 1.001 * start.elapsed().as_secs_f64();
    let admitted = all.get(&200).copied().unwrap_or(0);
    println!("admitted {admitted}, bound {bound:.0}, of {all:?}, meanwhile {meanwhile:?}");
    for node in 0..3 {
        cluster
            .log(node)
            .lines()
            .filter(|line| line.contains("quota-undecided"))
            .for_each(|line| println!("{line}"));
    }
    support::always(admitted as f64 <= bound, || format!("admitted {admitted}, bound {bound}"));
    let wanted = bound.min(all.values().sum::<usize>() as f64);
    assert!(admitted as f64 >= wanted / 2.0, "the cluster served only {admitted} of {wanted}");
    // and the node that stood still serves again
    let until = Instant::now() + PATIENCE;
    while send(paused, 1) != [200] {
        assert!(Instant::now() < until, "{}", cluster.log(paused));
        std::thread::sleep(Duration::from_millis(50));
    }
    meanwhile
}
