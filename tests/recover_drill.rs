//! The drill for the day when a majority of the disks is gone, with the README's commands.

mod support;

use support::{Cluster, GATEWAY, quorumgate};

fn run(cluster: &Cluster, args: &[&str]) -> (bool, String) {
    let output = quorumgate(cluster.folder.path(), args);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn one_disk_of_three_is_enough_and_remembers_the_document_and_what_was_spent() {
    // given three nodes at their second document, and a tenant that has spent 4 of the 10 tokens of this hour
    let mut cluster = Cluster::start(3, GATEWAY);
    let changed =
        GATEWAY.replace("plenty: {key: tenant, limit: 100/s}", "plenty: {key: tenant, limit: 200/s}");
    assert!(cluster.apply(&changed).status.success());
    let token = cluster.token("acme", &[]);
    cluster.spend(4, "/hourly", &token);
    let recover = |cluster: &Cluster, what: &str| {
        run(cluster, &["cluster", "recover", "--config", "node-3.yaml", what])
    };
    let (done, said) = recover(&cluster, "--i-have-lost-the-majority");
    assert!(!done && said.contains("must be stopped"), "{said}");
    // when two disks are lost, one of which turns up again later
    (0..3).for_each(|index| cluster.kill(index));
    let data = cluster.folder.path().join("data");
    std::fs::remove_dir_all(data.join("node-1")).expect("removed");
    std::fs::rename(data.join("node-2"), data.join("lost")).expect("moved");
    // then the third is not taken for a cluster by accident
    let (done, said) = run(&cluster, &["cluster", "recover", "--config", "node-3.yaml"]);
    assert!(!done && said.contains("--inspect") && said.contains("--i-have-lost-the-majority"), "{said}");
    // and says what it has
    let (done, said) = recover(&cluster, "--inspect");
    assert!(done && said.contains("last entry term ") && said.contains("revision   2 committed"), "{said}");
    assert_eq!(said.matches("voter").count(), 3, "{said}");
    // when it is recovered, and the nodes start
    let (done, said) = recover(&cluster, "--i-have-lost-the-majority");
    assert!(done && said.contains("document revision 2") && said.contains("before-recovery-1"), "{said}");
    assert!(data.join("node-3/before-recovery-1/raft.redb").exists());
    cluster.start_node(2);
    cluster.wait(2, "/readyz", "ready", |answer| answer.status == 200);
    cluster.start_node(0);
    cluster.start_node(1);
    cluster.wait_until_ready();
    for index in 0..3 {
        cluster.wait(index, "/v1/status", "one of three voters", |answer| {
            let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            members.len() == 3 && members.iter().all(|member| member["voter"] == true)
        });
        assert_eq!(cluster.status(index)["revision"], 2);
    }
    // then what was spent is spent
    let before = cluster.upstream.served();
    let after: Vec<u16> = (0..30).map(|n| cluster.get(n % 3, "/hourly", Some(&token)).status).collect();
    let admitted = cluster.upstream.served() - before;
    assert!(admitted <= 6, "4 and {admitted} of 10 were admitted: {after:?}");
    // when the other old disk turns up again
    cluster.kill(1);
    std::fs::remove_dir_all(data.join("node-2")).expect("removed");
    std::fs::rename(data.join("lost"), data.join("node-2")).expect("moved");
    cluster.start_node(1);
    // then it is kept out, and its log says why and what to do
    cluster.wait(1, "/readyz", "unready", |answer| answer.status == 503);
    let until = std::time::Instant::now() + support::PATIENCE;
    while !cluster.log(1).contains("start the node of the old cluster with an empty data directory") {
        assert!(std::time::Instant::now() < until, "{}", cluster.log(1));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(cluster.status(0)["members"].as_array().map(Vec::len), Some(3));
}
