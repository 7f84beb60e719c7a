//! A node whose disk fails ends with exit code 74 and says why; the others go on; on a disk that works it goes on too.

mod support;

use support::{Cluster, GATEWAY};

fn a_disk_fills_up(on_the_leader: bool) {
    // given a tenant that has spent 4 of its 10 tokens of this hour
    let mut cluster = Cluster::start(3, GATEWAY);
    let token = cluster.token("acme", &[]);
    cluster.spend(4, "/hourly", &token);
    let leader = cluster.leader();
    let victim = if on_the_leader { leader } else { (leader + 1) % 3 };
    // when one node's disk is full, while requests come to all
    cluster.take_room_from(victim);
    let ended = cluster.wait_for_end(victim, |cluster| {
        for index in 0..3 {
            // The one that ends may not answer any more.
            let _ = cluster.try_get(index, "/many", Some(&token));
        }
    });
    // then it ends with the exit code of a failed disk, and its last words say what happened where, and what to do
    assert_eq!(ended.code(), Some(74), "{}", cluster.log(victim));
    let log = cluster.log(victim);
    let last = log.lines().last().unwrap_or_default();
    let data = format!("/data/{}", cluster.nodes[victim].name);
    for part in ["quorumgate: data directory ", data.as_str(), "File too large", "make room"] {
        assert!(last.contains(part), "{part:?} in {last:?}\n{log}");
    }
    // and the others have a leader, and take a change
    let survivors = [(victim + 1) % 3, (victim + 2) % 3];
    for survivor in survivors {
        cluster.wait(survivor, "/v1/status", "led by another", |answer| {
            let leader = &answer.json()["leader"]["name"];
            leader.is_string() && *leader != cluster.nodes[victim].name.as_str()
        });
    }
    let applied = cluster.apply(
        &GATEWAY.replace("plenty: {key: tenant, limit: 100/s}", "plenty: {key: tenant, limit: 200/s}"),
    );
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    // when there is room again
    cluster.start_node(victim);
    // then the node goes on with its disk, and has the change
    cluster.wait_until_ready();
    assert_eq!(cluster.status(victim)["revision"], 2);
    // and over all that time, no token of the hour was spent twice
    let before = cluster.upstream.served();
    let after: Vec<u16> = (0..30).map(|n| cluster.get(n % 3, "/hourly", Some(&token)).status).collect();
    let admitted = cluster.upstream.served() - before;
    assert!(admitted <= 6, "4 and {admitted} of 10 were admitted: {after:?}");
}

#[test]
fn a_leader_whose_disk_fills_up_ends_and_the_others_go_on() {
    a_disk_fills_up(true);
}

#[test]
fn a_follower_whose_disk_fills_up_ends_and_the_others_go_on() {
    a_disk_fills_up(false);
}

#[test]
fn a_node_that_starts_on_a_full_disk_says_so_and_one_that_finds_its_port_taken_says_that() {
    // given a node
    let mut cluster = Cluster::start(1, GATEWAY);
    // when a second process is started from its file
    let run = ["run", "--config", "node-1.yaml"];
    let second = support::quorumgate(cluster.folder.path(), &run);
    // then it ends with the exit code of a bad setting
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("choose another address, or end what uses this one"), "{said}");
    // when the first is started again on a full disk
    cluster.terminate(0);
    cluster.start_node_without_room(0);
    let ended = cluster.wait_for_end(0, |_| {});
    // then it ends with the exit code of a failed disk
    assert_eq!(ended.code(), Some(74), "{}", cluster.log(0));
    assert!(cluster.log(0).contains("looking for room to write: File too large"), "{}", cluster.log(0));
}
