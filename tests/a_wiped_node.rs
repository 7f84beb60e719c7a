//! A node whose data directory is gone joins anew under its name and is brought up by a snapshot, while the others serve.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{AtEnd, Cluster, GATEWAY, PATIENCE};

#[test]
fn a_wiped_node_comes_back_by_a_snapshot_and_the_others_serve_all_the_time() {
    support::in_calm(|| {
        // given three nodes whose logs are short, and a tenant that has spent 4 of the 10 tokens of this hour
        let mut cluster = Cluster::start_with(3, GATEWAY, "debug: {snapshot_after_entries: 16}\n");
        let token = cluster.token("acme", &[]);
        cluster.spend(4, "/hourly", &token);
        let wiped = (cluster.leader() + 1) % 3;
        let others = [(wiped + 1) % 3, (wiped + 2) % 3];
        let name = cluster.nodes[wiped].name.clone();
        let data = cluster.folder.path().join("data").join(&name);
        let id = |cluster: &Cluster| {
            let status = cluster.status(others[0]);
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let mut ids = members.iter().filter(|member| member["name"] == name.as_str());
            (ids.next().map(|member| member["raft_id"].clone()), ids.count())
        };
        let before = id(&cluster);
        let applied = |cluster: &Cluster| cluster.status(others[0])["applied_index"].as_u64().unwrap_or(0);
        // when it stops, and is started with nothing, under light load on the others
        let stop = AtomicBool::new(false);
        let tallies = std::thread::scope(|scope| {
            let _end = AtEnd(|| stop.store(true, Ordering::SeqCst));
            cluster.terminate(wiped);
            let requests: Vec<_> = others
                .iter()
                .map(|node| (cluster.nodes[*node].http, format!("Bearer {token}")))
                .map(|(to, bearer)| {
                    let stop = &stop;
                    scope.spawn(move || {
                        let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
                        while !stop.load(Ordering::SeqCst) {
                            let headers = [("authorization", bearer.as_str())];
                            let answer = support::request(to, "GET", "/many/1", &headers, "");
                            *statuses.entry(answer.map_or(0, |answer| answer.status)).or_default() += 1;
                            std::thread::sleep(Duration::from_millis(40));
                        }
                        statuses
                    })
                })
                .collect();
            let at = applied(&cluster);
            let until = Instant::now() + PATIENCE;
            while applied(&cluster) < at + 48 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
            }
            std::fs::remove_dir_all(&data).expect("removed");
            cluster.start_node(wiped);
            cluster.wait_until_ready();
            cluster.wait(others[0], "/v1/status", "three voters", |answer| {
                let members = answer.json()["members"].as_array().cloned().unwrap_or_default();
                members.len() == 3 && members.iter().all(|member| member["voter"] == true)
            });
            stop.store(true, Ordering::SeqCst);
            requests.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        // then not one request failed
        println!("statuses on the two others: {tallies:?}");
        assert!(tallies.iter().all(|statuses| statuses.keys().eq([&200])), "{tallies:?}");
        // and the node has another number under its old name, and came up by a snapshot
        let after = id(&cluster);
        assert!(
            after.0 != before.0 && after.0.is_some() && after.1 == 0,
            "before {before:?}, after {after:?}"
        );
        assert!(cluster.log(wiped).contains("goes on from a snapshot"), "{}", cluster.log(wiped));
        // and serves, and what was spent is spent
        assert_eq!(cluster.get(wiped, "/many/1", Some(&token)).status, 200);
        let served = cluster.upstream.served();
        let statuses: Vec<u16> =
            (0..30).map(|n| cluster.get(n % 3, "/hourly", Some(&token)).status).collect();
        let admitted = cluster.upstream.served() - served;
        support::always(admitted <= 6, || format!("4 and {admitted} of 10 were admitted: {statuses:?}"));
    });
}
