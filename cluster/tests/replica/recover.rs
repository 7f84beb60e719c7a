//! A majority of disks is gone: the third becomes a new cluster that has forgotten nothing it knew, and keeps the old out.

use quorumgate_cluster::fatal::Fatal;
use quorumgate_cluster::recover::{FOLDER, IDENTITY, inspect, recover};

use super::storage::{Gateway, all_equal};
use super::*;

/// Ten tokens in a time that no test sees the end of.
fn ten() -> Arc<GatewayDocument> {
    let limit = Limit { tokens: 1, per_ns: 3_600_000_000_000_000, burst: 10 };
    Arc::new(GatewayDocument { quotas: vec![Quota { limit, ..quota() }], ..GatewayDocument::default() })
}

#[tokio::test]
async fn one_disk_of_three_is_enough_to_go_on_and_nothing_is_admitted_twice() {
    // given three nodes with a second document, of whose ten tokens some are spent
    let nodes = nodes(&["n1", "n2", "n3"]);
    let mut replicas = Vec::new();
    for node in &nodes {
        replicas.push(node.start().await.replica);
    }
    replicas[0].found().await.expect("an empty disk can found");
    for replica in &replicas {
        until(replica, "three voters", |view| view.members.iter().filter(|m| m.voter).count() == 3).await;
    }
    replicas[0].apply_document(document(), None).await.expect("a majority runs");
    replicas[0].apply_document(ten(), None).await.expect("a majority runs");
    let mut admitted = 0;
    for (n, replica) in replicas.iter().enumerate() {
        let session = session(replica, n as u128).await;
        let mut gateway = Gateway::new(replica.clone(), session);
        admitted += gateway.take().await + gateway.take().await;
    }
    let before = admitted;
    assert!(before > 0, "somebody got a token");
    // Two of three are a majority: what the third lacks would be lost with their disks, and it is the one that is left.
    all_equal(&replicas).await;
    let running = inspect(&world::world(nodes[2].dir.path()), &nodes[2].file).await;
    assert!(running.expect_err("it runs").to_string().contains("must be stopped"));
    for replica in &replicas {
        replica.stop().await;
    }
    // when the disks of two are lost, and the third is looked at
    let held = inspect(&world::world(nodes[2].dir.path()), &nodes[2].file).await.expect("it is whole");
    // then it says what it has
    assert_eq!((held.name.as_str(), held.members.len(), held.revisions.1), ("n3", 3, Revision(2)));
    // It may have voted for the one that took over from the stopping leader, whose first entry it then never saw.
    assert!(held.last.expect("its log has entries").0 <= held.vote.expect("it voted").0);
    // when it is recovered
    let fresh = tempfile::tempdir().expect("a temporary directory");
    let (from, into) = (world::world(nodes[2].dir.path()), world::world(fresh.path()));
    let anew = recover(&from, &into, &nodes[2].file, fresh.path()).await.expect("two of three are lost");
    assert_eq!((anew.old_cluster_id, anew.revision), (held.cluster_id, Revision(2)));
    assert_ne!(anew.cluster_id, held.cluster_id);
    assert!(held.members.iter().all(|member| member.raft_id != anew.raft_id), "{anew:?}");
    // and starts on its new disk, and the others on empty ones
    let file = NodeFile { data: fresh.path().to_owned(), ..(*nodes[2].file).clone() };
    let third = Replica::start(world::world(fresh.path()), Arc::new(file.clone())).await.expect("it starts");
    until(&third.replica, "leadership", |view| view.is_leader).await;
    let empty = tempfile::tempdir().expect("a temporary directory");
    let first = NodeFile { data: empty.path().to_owned(), ..(*nodes[0].file).clone() };
    let first = Replica::start(world::world(empty.path()), Arc::new(first)).await.expect("it starts");
    // then they are one cluster with the document
    let together = [first.replica, third.replica];
    for replica in &together {
        until(replica, "two voters of the new cluster", |view| {
            view.cluster_id == Some(anew.cluster_id)
                && view.members.iter().filter(|member| member.voter).count() == 2
                && view.revision == Revision(2)
        })
        .await;
    }
    all_equal(&together).await;
    // and of the ten tokens none is spent twice
    for (n, replica) in together.iter().enumerate() {
        let session = session(replica, 100 + n as u128).await;
        let mut gateway = Gateway::new(replica.clone(), session);
        for _ in 0..10 {
            admitted += gateway.take().await;
        }
    }
    assert!(admitted > before && admitted <= 10, "{before} of ten before, {admitted} in all");
    // and a node with a disk of the old cluster is kept out, in words
    let old = nodes[1].start().await.replica;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(old.view().cluster_id, Some(held.cluster_id));
    assert_eq!(old.view_lease(), None, "nobody confirms what it shows");
    assert!(together.iter().all(|replica| replica.view().members.len() == 2));
    for replica in together.iter().chain([&old]) {
        replica.stop().await;
    }
    // and there is nothing more to recover
    let spare = tempfile::tempdir().expect("a temporary directory");
    let (from, into) = (world::world(empty.path()), world::world(spare.path()));
    let again = recover(&from, &into, &nodes[2].file, spare.path()).await.expect_err("it is n1's");
    assert!(matches!(again, Fatal::Setup(_)), "{again:?}");
}

#[tokio::test]
async fn a_disk_that_is_a_majority_or_nobodys_is_not_recovered() {
    // given a cluster of one, and an empty disk
    let nodes = nodes(&["n1", "n2"]);
    let replica = nodes[0].start().await.replica;
    replica.found().await.expect("an empty disk can found");
    replica.stop().await;
    for (node, why) in [(&nodes[0], "no majority is lost"), (&nodes[1], "belongs to no cluster")] {
        // when it is recovered
        let spare = tempfile::tempdir().expect("a temporary directory");
        let (from, into) = (world::world(node.dir.path()), world::world(spare.path()));
        let refused = recover(&from, &into, &node.file, spare.path()).await.expect_err("there is no need");
        // then it says why there is no need
        assert!(refused.to_string().contains(why), "{refused}");
    }
}

#[tokio::test]
async fn a_directory_whose_recovery_was_cut_off_is_not_started_on() {
    // given a directory in which a new beginning waits to be moved into its place
    let nodes = nodes(&["n1"]);
    let folder = nodes[0].dir.path().join(FOLDER);
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(folder.join(IDENTITY), "").expect("written");
    // when a node starts on it
    let world = world::world(nodes[0].dir.path());
    let refused = Replica::start(world, nodes[0].file.clone()).await.expect_err("it is unfinished");
    // then it says what to do
    assert!(refused.to_string().contains("run `quorumgate cluster recover` once more"), "{refused}");
}
