//! A panic in each part of a node in turn: what starts again, what clients see. Needs a test build
//! (`--features test-hooks`), for no other build has a way to make a node panic.

mod support;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Cluster, GATEWAY, PATIENCE, request};

fn arm(cluster: &Cluster, index: usize, part: &str, times: u32) {
    let path = format!("/v1/test/panic/{part}/{times}");
    let armed = request(cluster.nodes[index].admin, "POST", &path, &[], "").expect("the node runs");
    assert_eq!(armed.status, 200, "{}", armed.body);
}

/// What gives every part something to do: requests of new tenants and old ones, peers that come, operators that ask.
fn traffic(cluster: &Cluster, index: usize, token: &str, seen: &mut BTreeMap<String, usize>) {
    let saw = match cluster.try_get(index, "/many", Some(token)) {
        Ok(answer) => answer.status.to_string(),
        Err(_) => "connection closed".to_owned(),
    };
    *seen.entry(saw).or_default() += 1;
    // Whether they are answered is not what is asked here.
    let _ = TcpStream::connect(cluster.nodes[index].peers);
    let _ = request(cluster.nodes[index].admin, "GET", "/livez", &[], "");
    for other in 0..cluster.nodes.len() {
        let _ = cluster.try_get(other, "/many", Some(token));
    }
}

/// Runs traffic until `part` has panicked `times` times, or the process has ended.
fn panic_in(cluster: &mut Cluster, index: usize, part: &str, times: usize, token: &str) -> Option<i32> {
    let said = format!("{part} was told to panic");
    let count =
        |cluster: &Cluster| cluster.log(index).lines().filter(|line| line.contains("panicked at")).count();
    let before = count(cluster);
    arm(cluster, index, part, u32::try_from(times).expect("few"));
    let mut seen = BTreeMap::new();
    let until = Instant::now() + PATIENCE;
    while count(cluster) < before + times {
        if let Some(status) = cluster.ended(index) {
            println!("{part:<14} x{times}: clients saw {seen:?}, exit code {:?}", status.code());
            return status.code();
        }
        assert!(Instant::now() < until, "{part} did not panic\n{}", cluster.log(index));
        traffic(cluster, index, token, &mut seen);
    }
    assert!(cluster.log(index).contains(&said), "{said}");
    println!("{part:<14} x{times}: clients saw {seen:?}");
    None
}

#[test]
fn parts_that_start_again_leave_the_node_serving() {
    // given three nodes, and a tenant that has spent some of its ten tokens of this hour
    let mut cluster = Cluster::start(3, GATEWAY);
    let token = cluster.token("acme", &[]);
    cluster.spend(4, "/hourly", &token);
    let before = cluster.upstream.served();
    let mut others = 0;
    for part in ["quotas", "listener", "connection", "peer", "link", "routes", "routes-watch"] {
        for index in [cluster.leader(), (cluster.leader() + 1) % 3] {
            // when one part panics twice
            let begun = cluster.upstream.served();
            if part.starts_with("routes") {
                // It has something to do only when the document changes.
                arm(&cluster, index, part, 1);
                let rate = 200 + others;
                assert!(cluster.apply(&GATEWAY.replace("100/s", &format!("{rate}/s"))).status.success());
                let until = Instant::now() + PATIENCE;
                while !cluster.log(index).contains(&format!("{part} was told to panic")) {
                    assert!(Instant::now() < until, "{part} did not panic\n{}", cluster.log(index));
                    std::thread::sleep(Duration::from_millis(20));
                }
            } else {
                let code = panic_in(&mut cluster, index, part, 2, &token);
                assert_eq!(code, None, "{part} ended the node\n{}", cluster.log(index));
            }
            // then the node is ready, and serves
            cluster.wait_until_ready();
            let until = Instant::now() + PATIENCE;
            while cluster.try_get(index, "/many", Some(&token)).map_or(0, |answer| answer.status) != 200 {
                assert!(Instant::now() < until, "{part}: no answer\n{}", cluster.log(index));
            }
            others += cluster.upstream.served() - begun;
        }
    }
    // and after all of that not one token of the hour was spent twice
    let after: Vec<u16> = (0..30).map(|n| cluster.get(n % 3, "/hourly", Some(&token)).status).collect();
    let admitted = cluster.upstream.served() - before - others;
    assert!(admitted <= 6, "4 and {admitted} of 10 were admitted: {after:?}");
}

#[test]
fn parts_that_a_node_cannot_do_without_end_it_with_exit_code_70() {
    // given three nodes
    let mut cluster = Cluster::start(3, GATEWAY);
    let token = cluster.token("acme", &[]);
    for part in ["slot", "roles", "views", "view-lease", "log", "apply", "replica", "operators", "door"] {
        // when a part that there is one of panics (on the leader, for there alone all of them work)
        let index = cluster.leader();
        assert_eq!(
            panic_in(&mut cluster, index, part, 1, &token).or_else(|| end_of(&mut cluster, index)),
            Some(70),
            "{part}"
        );
        // then its node ends, says why, and starts again as it was
        let log = cluster.log(index);
        let last = log.lines().rfind(|line| line.starts_with("quorumgate: ")).unwrap_or_default();
        assert!(last.contains(&format!("{part} was told to panic")), "{part}: {last}\n{log}");
        println!("{part:<14} said: {last}");
        cluster.start_node(index);
        cluster.wait_until_ready();
    }
}

#[test]
fn a_part_that_starts_again_too_often_ends_its_node_with_exit_code_70() {
    // given a node
    let mut cluster = Cluster::start(1, GATEWAY);
    let token = cluster.token("acme", &[]);
    for part in ["quotas", "listener"] {
        // when a part panics six times in a minute
        let code = panic_in(&mut cluster, 0, part, 6, &token).or_else(|| end_of(&mut cluster, 0));
        // then its node ends
        assert_eq!(code, Some(70), "{part}\n{}", cluster.log(0));
        cluster.start_node(0);
        cluster.wait_until_ready();
    }
}

fn end_of(cluster: &mut Cluster, index: usize) -> Option<i32> {
    cluster.wait_for_end(index, |_| {}).code()
}
