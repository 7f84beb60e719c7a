//! Snapshots: who is far behind gets one while the others go on; a restart reads one and the log; a bad one is refused.

use std::sync::atomic::AtomicU64;

use config::ids::TenantId;
use config::quota::Tenant;
use quorumgate_cluster::fatal::{Bell, Fatal};
use quorumgate_cluster::peer::message::Blob;
use quorumgate_cluster::peer::message::log::VoteV1;
use quorumgate_cluster::peer::message::raft::SnapshotChunkV1;
use quorumgate_cluster::raft::incoming::{Incoming, Taken};
use quorumgate_cluster::raft::offline;
use quorumgate_cluster::raft::snapshot::{Content, Shelf, encode};
use quorumgate_cluster::raft::types::{SnapshotMeta, StoredMembership};

use super::gate::Gate;
use super::storage::{Gateway, all_equal};
use super::*;

const FILE: &str = "raft.snapshot";

/// Nodes that make a snapshot every `after` entries.
fn nodes_with(names: &[&str], after: u64) -> Vec<Node> {
    let mut nodes = nodes(names);
    for node in &mut nodes {
        node.file = Arc::new(NodeFile { snapshot_after_entries: after, ..(*node.file).clone() });
    }
    nodes
}

/// With amounts of their own for so many tenants that a snapshot with some of these documents is sent in several pieces.
fn large(turn: u64) -> Arc<GatewayDocument> {
    let own = |n: u64| Tenant {
        id: TenantId::parse(&format!("tenant-{n:06}")).expect("a good name"),
        plan: None,
        limits: [(quota().name, Limit { burst: 2 + turn, ..quota().limit })].into(),
    };
    let tenants = (0..2000).map(own).collect();
    Arc::new(GatewayDocument { tenants, quotas: vec![quota()], ..GatewayDocument::default() })
}

async fn three_voters(nodes: &[Node]) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for node in nodes {
        replicas.push(node.start().await.replica);
    }
    replicas[0].found().await.expect("an empty disk can found");
    for replica in &replicas {
        until(replica, "three voters", |view| view.members.iter().filter(|m| m.voter).count() == 3).await;
    }
    replicas
}

/// Takes a token `times` times, each in a batch of its own; how many came.
async fn take(gateway: &mut Gateway, times: u64) -> u64 {
    let mut taken = 0;
    for _ in 0..times {
        taken += gateway.take().await;
    }
    taken
}

/// Three nodes with a large state, of which a follower was stopped and is now so far behind that only a snapshot helps;
/// the leader, the other, and the one that is behind.
async fn one_far_behind(nodes: &[Node]) -> (Vec<Replica>, [usize; 3]) {
    let replicas = three_voters(nodes).await;
    for turn in 0..10 {
        replicas[0].apply_document(large(turn), None).await.expect("a majority runs");
    }
    let leader = leader_of(&replicas).await;
    let [other, behind] = [(leader + 1) % 3, (leader + 2) % 3];
    replicas[behind].stop().await;
    let at = replicas[leader].digest().await.expect("it has a state").0;
    let session = session(&replicas[leader], 7).await;
    let mut gateway = Gateway::new(replicas[leader].clone(), session);
    let began = Instant::now();
    // Both: either may lead when the one that is behind comes back.
    let lacks = |replica: &Replica| {
        let view = replica.view();
        view.applied_index > at + 100 && view.applied_index - view.log_entries > at
    };
    while !lacks(&replicas[leader]) || !lacks(&replicas[other]) {
        // A hundred entries, each of which two disks must sync.
        assert!(began.elapsed() < LONG * 3, "the log does not grow, or is not purged");
        take(&mut gateway, 10).await;
    }
    (replicas, [leader, other, behind])
}

#[tokio::test]
async fn a_node_that_is_far_behind_gets_a_snapshot_while_the_others_go_on() {
    // given a node that lacks entries which the others' logs no longer hold
    let nodes = nodes_with(&["n1", "n2", "n3"], 16);
    let (mut replicas, [leader, other, behind]) = one_far_behind(&nodes).await;
    // when it starts again, and the snapshot stands still after its first piece
    let gate = Gate::default();
    gate.close_after(1);
    let world = gate.over(world::world(nodes[behind].dir.path()));
    let started = Replica::start(world, nodes[behind].file.clone()).await.expect("the node starts");
    replicas[behind] = started.replica;
    wait_for("the second piece", || gate.held_up() == 1).await;
    assert_eq!(gate.begun(), 1, "it is the leader's snapshot, not one of its own");
    // then the others go on: every batch is answered, on both
    for (nonce, node) in [(8, leader), (9, other)] {
        let session = session(&replicas[node], nonce).await;
        let mut seq = 0;
        // A machine or a disk that stands still for a second makes a batch late, too; but not one in each twenty.
        for turn in 1.. {
            let before = seq;
            for _ in 0..20 {
                token(&replicas[node], session, &mut seq).await;
            }
            if seq == before + 20 {
                break;
            }
            assert!(turn < 5, "of each twenty batches some had to be sent again: {seq} were sent");
        }
    }
    // The leader may have lost its patience, and have begun once more.
    assert!(gate.held_up() >= 1, "the snapshot still stands still");
    assert!(started.fatal.borrow().is_none());
    // and when it comes through, all are equal
    gate.open();
    all_equal(&replicas).await;
    for replica in &replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_snapshot_cut_off_by_a_change_of_leader_begins_anew() {
    // given a node that is far behind, and a snapshot that stands still half-way to it
    let nodes = nodes_with(&["n1", "n2", "n3"], 16);
    let (mut replicas, [leader, other, behind]) = one_far_behind(&nodes).await;
    let gate = Gate::default();
    gate.close_after(1);
    let world = gate.over(world::world(nodes[behind].dir.path()));
    let started = Replica::start(world, nodes[behind].file.clone()).await.expect("the node starts");
    replicas[behind] = started.replica;
    wait_for("the second piece", || gate.held_up() == 1).await;
    // when the leader, which may be another one than a while ago, stops
    let (leader, other) = if replicas[other].view().is_leader { (other, leader) } else { (leader, other) };
    replicas[leader].stop().await;
    until(&replicas[other], "leadership", |view| view.is_leader).await;
    gate.open();
    // then the next leader's snapshot comes through, without which nothing could be committed
    let session = session(&replicas[other], 8).await;
    token(&replicas[other], session, &mut 0).await;
    assert!(gate.begun() >= 2, "it began anew");
    all_equal(&[replicas[other].clone(), replicas[behind].clone()]).await;
    assert!(started.fatal.borrow().is_none());
    // and the old leader comes back to the same state
    replicas[leader] = nodes[leader].start().await.replica;
    all_equal(&replicas).await;
    for replica in &replicas {
        replica.stop().await;
    }
}

/// A node alone that has spent `tokens` or a few more, stopped; its last digest. If it made snapshots, its log goes on
/// after the last one.
async fn alone(node: &Node, tokens: u64) -> (u64, u64) {
    let replica = node.start().await.replica;
    replica.found().await.expect("an empty disk can found");
    replica.apply_document(document(), None).await.expect("one node is a majority");
    let mut gateway = Gateway::new(replica.clone(), session(&replica, 7).await);
    let (began, mut taken) = (Instant::now(), 0);
    while taken < tokens || !goes_on_after_its_snapshot(node, &replica, tokens).await {
        assert!(began.elapsed() < LONG, "{taken} of {tokens} tokens, or no snapshot with entries after it");
        taken += gateway.take().await;
    }
    let digest = replica.digest().await.expect("it has a state");
    replica.stop().await;
    digest
}

/// Whether a node that makes snapshots, as it spends `tokens`, holds one that is not of all its entries and will not be
/// followed by one that is. How many entries a snapshot holds depends on how long its making waits for the processor.
async fn goes_on_after_its_snapshot(node: &Node, replica: &Replica, tokens: u64) -> bool {
    let after = node.file.snapshot_after_entries;
    if after >= tokens / 2 {
        return true;
    }
    let kept = Shelf::new(world::world(node.dir.path())).load().await.expect("it is whole");
    let Some(last) = kept.and_then(|content| content.meta.last_log_id) else { return false };
    let applied = replica.digest().await.expect("it has a state").0;
    (last.index + 1..last.index + after).contains(&applied)
}

/// The digest of a node that starts again, once it has applied its log of `entries`, which it has not when it leads.
async fn digest_of(node: &Node, entries: u64) -> (u64, u64) {
    let replica = node.start().await.replica;
    let whole = |view: &View| view.is_leader && view.applied_index > entries && view.revision == Revision(1);
    until(&replica, "the whole log", whole).await;
    let digest = replica.digest().await.expect("it has a state");
    replica.stop().await;
    digest
}

#[tokio::test]
async fn a_restart_from_a_snapshot_and_the_log_after_it_gives_the_same_state() {
    // given a node with a snapshot, whose log goes on after it and no longer begins at the beginning
    let nodes = nodes_with(&["n1"], 16);
    let before = alone(&nodes[0], 60).await;
    let world = world::world(nodes[0].dir.path());
    let content = Shelf::new(world.clone()).load().await.expect("it is whole").expect("it is there");
    let snapshot = content.meta.last_log_id.expect("it holds entries").index;
    assert!(snapshot > 16 && snapshot < before.0, "the snapshot holds {snapshot} of {} entries", before.0);
    // when it starts again, then it has what it had
    let after = digest_of(&nodes[0], before.0).await;
    assert_eq!(after.1, before.1, "before {before:?}, after {after:?}");
}

#[tokio::test]
async fn a_crash_between_a_durable_snapshot_and_the_purge_loses_and_doubles_nothing() {
    // given a node whose log holds everything, and a copy of its disk
    let nodes = nodes_with(&["n1"], 1_000_000);
    let before = alone(&nodes[0], 30).await;
    let world = world::world(nodes[0].dir.path());
    let held = offline::read(&world).await.expect("it is whole");
    let last = held.last.expect("it holds entries");
    let membership = StoredMembership::new(Some(last), held.membership.clone());
    // when a snapshot of all of it is durable, and the log is not purged, and the node starts
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: membership };
    let content = Content { meta, state: held.state };
    Shelf::new(world.clone()).store(content).await.expect("it is written");
    // then it has what it had
    let after = digest_of(&nodes[0], before.0).await;
    assert_eq!(after.1, before.1, "before {before:?}, after {after:?}");
    // and so it has when its log ends long before the snapshot, as that of a new member that just got one
    std::fs::remove_file(nodes[0].dir.path().join(offline::STORE)).expect("removed");
    offline::create(&world).expect("an empty log is made");
    let after = digest_of(&nodes[0], before.0).await;
    assert_eq!(after.1, before.1, "before {before:?}, after {after:?}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_in_words() {
    // given a node's disk with a snapshot
    let nodes = nodes_with(&["n1"], 16);
    let before = alone(&nodes[0], 60).await;
    let path = nodes[0].dir.path().join(FILE);
    let good = std::fs::read(&path).expect("it is there");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damaged in [flipped, good[..good.len() - 1].to_vec(), Vec::new()] {
        std::fs::write(&path, damaged).expect("written");
        // when the node starts
        let world = world::world(nodes[0].dir.path());
        let refused = Replica::start(world, nodes[0].file.clone()).await.expect_err("it is damaged");
        // then it says what is damaged, where, and what to do
        assert!(matches!(refused, Fatal::Storage(_)), "{refused:?}");
        for part in ["reading the snapshot", "damaged at byte", "move the directory aside"] {
            assert!(refused.to_string().contains(part), "{part:?} in {refused}");
        }
    }
    // and it starts once the file is whole again
    std::fs::write(&path, good).expect("written");
    assert_eq!(digest_of(&nodes[0], before.0).await.1, before.1);
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("it is there").count()
}

/// `bytes` in three pieces.
fn pieces(vote: VoteV1, bytes: &[u8]) -> Vec<SnapshotChunkV1> {
    let total = bytes.len() as u64;
    let mut offset = 0;
    let chunk = |piece: &[u8]| {
        let chunk = SnapshotChunkV1 { vote, last: None, total, offset, bytes: Blob(piece.to_vec()) };
        offset += piece.len() as u64;
        chunk
    };
    bytes.chunks(bytes.len().div_ceil(3)).map(chunk).collect()
}

#[tokio::test]
async fn a_transfer_that_stands_still_is_freed_and_one_that_begins_anew_takes_its_place() {
    // given a snapshot in three pieces
    let mut bytes = Vec::new();
    let add = |record: &[u8]| {
        bytes.extend_from_slice(record);
        Ok(())
    };
    encode(&Content::default(), add).expect("memory does not fail");
    let vote = |term| VoteV1 { term, node: 1, committed: true };
    let (old, new) = (pieces(vote(1), &bytes), pieces(vote(2), &bytes));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (bell, fatal) = Bell::new(dir.path().to_owned());
    let incoming = Incoming::new(world::world(dir.path()), bell.clone(), Duration::from_millis(200));
    // when a piece has come and no other does
    assert!(matches!(incoming.take(old[0].clone()).await, Ok(Taken::Next(n)) if n == old[1].offset));
    assert_eq!(files(dir.path()), 1);
    // then it is freed, and the sender must begin anew
    wait_for("the draft's end", || files(dir.path()) == 0).await;
    let late = incoming.take(old[1].clone()).await.expect_err("it has ended");
    assert!(late.contains("begin"), "{late}");
    // when a leader's transfer runs, then an old leader's does not disturb it, and pieces in another order end it
    let incoming = Incoming::new(world::world(dir.path()), bell, LONG);
    assert!(matches!(incoming.take(new[0].clone()).await, Ok(Taken::Next(_))));
    let refused = incoming.take(old[0].clone()).await.expect_err("a newer one runs");
    assert!(refused.contains("a snapshot is coming"), "{refused}");
    let refused = incoming.take(new[2].clone()).await.expect_err("the second is missing");
    assert!(refused.contains("wanted it to begin at 0"), "{refused}");
    wait_for("the draft's end", || files(dir.path()) == 0).await;
    // and one that comes whole is whole, and leaves nothing if nobody wants it
    for (n, piece) in new.iter().enumerate() {
        match incoming.take(piece.clone()).await.expect("a good piece") {
            Taken::Next(next) => assert_eq!(next, new[n + 1].offset),
            Taken::Whole(_, received) => assert_eq!((n, received.meta()), (2, &SnapshotMeta::default())),
        }
    }
    wait_for("the draft's end", || files(dir.path()) == 0).await;
    // and a damaged one is refused without an alarm
    let mut damaged = new[0].clone();
    damaged.bytes.0[0] ^= 1;
    let refused = incoming.take(damaged).await.expect_err("it is damaged");
    assert!(refused.contains("damaged at byte 0"), "{refused}");
    wait_for("the draft's end", || files(dir.path()) == 0).await;
    assert!(fatal.borrow().is_none());
}

#[tokio::test]
async fn a_snapshot_that_nobody_waits_for_any_more_stops_in_the_middle_and_leaves_nothing() {
    // given a snapshot that is being written
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gate = Gate::default();
    gate.close_after(1);
    let shelf = Shelf::new(gate.over(world::world(dir.path())));
    let building = tokio::spawn({
        let shelf = shelf.clone();
        async move { shelf.store(Content::default()).await.map(drop) }
    });
    wait_for("the second record", || gate.held_up() == 1).await;
    // when its node stops
    building.abort();
    assert!(building.await.expect_err("it was aborted").is_cancelled());
    gate.open();
    // then nothing of it is left
    wait_for("the draft's end", || files(dir.path()) == 0).await;
    assert!(shelf.current().is_none());
    // and who only looks does not wait for who writes
    gate.close_after(1);
    let writing = AtomicU64::new(0);
    let content = Content::default();
    let (stored, ()) = tokio::join!(shelf.store(content), async {
        wait_for("the second record", || gate.held_up() == 1).await;
        assert!(shelf.current().is_none());
        writing.store(1, Ordering::SeqCst);
        gate.open();
    });
    stored.expect("it is written");
    assert!(writing.load(Ordering::SeqCst) == 1 && shelf.current().is_some());
}
