//! Members come and go: joins, leaves, replacements, new addresses, and those who do not belong.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::ids::NodeName;
use config::node::{ClusterFile, NodeFile};
use quorumgate_cluster::fatal::Fatal;
use quorumgate_cluster::peer::message::control::{ApplyV1, JoinAnswerV1, JoinV1, ProbeV1};
use quorumgate_cluster::peer::message::kind;
use quorumgate_cluster::peer::message::members::MembersV1;
use quorumgate_cluster::peer::{Identity, Lane, Peers, Target, codec};
use quorumgate_cluster::replica::{OrderError, Parting, Replica, Report, Started};
use quorumgate_cluster::state::ids::{RaftId, Revision};
use quorumgate_cluster::tls::Tls;
use quorumgate_cluster::view::View;

use crate::storage::all_equal;
use crate::world::world;
use crate::{LONG, Node, document, file, free_port, name, nodes, session, token, until};

/// Replicas that run, and who they are; one that is told to go goes, as the node around it would have it.
struct Town {
    nodes: Vec<Node>,
    running: BTreeMap<usize, Started>,
}

impl Town {
    /// The first `count` of `names`, as voters, with a document.
    async fn new(names: &[&str], count: usize) -> Self {
        let mut town = Self { nodes: nodes(names), running: BTreeMap::new() };
        for index in 0..count {
            town.start(index).await;
        }
        town.at(0).found().await.expect("an empty disk can found");
        town.settle(&names[..count]).await;
        town.at(0).apply_document(document(), None).await.expect("a majority runs");
        town
    }

    async fn start(&mut self, index: usize) {
        self.running.insert(index, self.nodes[index].start().await);
    }

    async fn stop(&mut self, index: usize) {
        self.running.remove(&index).expect("it runs").replica.stop().await;
    }

    fn at(&self, index: usize) -> &Replica {
        &self.running[&index].replica
    }

    fn name(&self, index: usize) -> NodeName {
        self.nodes[index].file.name.clone()
    }

    /// Waits until all that run show exactly these voters, no operation, and one leader among them.
    async fn settle(&self, voters: &[&str]) {
        for started in self.running.values() {
            until(&started.replica, &format!("voters {voters:?}"), |view| {
                let mut found: Vec<&str> = voting(view);
                found.sort_unstable();
                let mut wanted = voters.to_vec();
                wanted.sort_unstable();
                found == wanted && view.operation.is_none() && view.leader.is_some()
            })
            .await;
        }
    }

    async fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            let leads = |started: &&usize| self.at(**started).view().is_leader;
            if let Some(index) = self.running.keys().find(leads) {
                return *index;
            }
            assert!(began.elapsed() < LONG, "nobody leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Begins an order that removes `node`, again while there is no leader to carry it out.
    async fn order(&self, node: &NodeName, order: impl AsyncFn() -> Result<(), OrderError>) {
        let (began, mut may_have_begun) = (Instant::now(), false);
        let ours = format!(" of {node} ");
        loop {
            match order().await {
                Ok(()) => return,
                // Then it has begun, or is over.
                Err(OrderError::Busy(why)) if may_have_begun && why.contains(&ours) => return,
                Err(OrderError::Unknown(_)) if may_have_begun => return,
                Err(OrderError::Unanswered) => may_have_begun = true,
                Err(OrderError::NoLeader | OrderError::Busy(_)) => {}
                Err(other) => panic!("{other}"),
            }
            assert!(began.elapsed() < LONG, "not begun");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the leader knows of the members, once it is reached and `holds`.
    async fn report(&self, asked: usize, holds: impl Fn(&Report) -> bool) -> Report {
        let began = Instant::now();
        loop {
            let report = self.at(asked).members().await;
            if let Some(report) = report.filter(&holds) {
                return report;
            }
            assert!(began.elapsed() < LONG, "no such report");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the node around a replica does when it is told to go: it hands back, waits for its removal, and stops.
    async fn go(&mut self, index: usize) {
        let mut partings = self.at(index).partings();
        let wait = async |partings: &mut tokio::sync::watch::Receiver<Parting>, wanted: Parting| {
            let seen = tokio::time::timeout(LONG, partings.wait_for(|parting| *parting >= wanted)).await;
            assert!(matches!(seen, Ok(Ok(_))), "it is {wanted:?}");
        };
        wait(&mut partings, Parting::HandBack).await;
        let voters = self.at(index).view();
        assert!(voting(&voters).contains(&self.name(index).as_str()), "it keeps its seat until it is ready");
        self.at(index).handed_back();
        wait(&mut partings, Parting::Removed).await;
        self.stop(index).await;
    }

    async fn leave(&mut self, asked: usize, index: usize) {
        let node = self.name(index);
        self.order(&node, async || self.at(asked).leave(&node).await.map(drop)).await;
        self.go(index).await;
    }

    /// All that run have the same state.
    async fn agree(&self) {
        let running: Vec<Replica> = self.running.values().map(|started| started.replica.clone()).collect();
        all_equal(&running).await;
    }

    async fn end(mut self) {
        while let Some((_, started)) = self.running.pop_first() {
            started.replica.stop().await;
        }
    }
}

fn voting(view: &View) -> Vec<&str> {
    view.members.iter().filter(|member| member.voter).map(|member| member.name.as_str()).collect()
}

/// Calls as the member `index` would.
fn ghost(town: &Town, index: usize) -> Peers {
    let view = town.at(index).view();
    let name = town.name(index);
    calls_as(town, index, Identity { name, cluster: view.cluster_id, raft_id: view.raft_id })
}

/// Calls as anybody could whose certificate is of this CA, with the address of the member `index`.
fn calls_as(town: &Town, index: usize, identity: Identity) -> Peers {
    let tls = Tls::plaintext(([127, 0, 0, 1], 0).into(), "127.0.0.1:1").expect("loopback");
    let never_changes = tokio::sync::watch::channel(tls).1;
    Peers::new(world(town.nodes[index].dir.path()), never_changes, Arc::new(move || identity.clone()))
}

/// How the others call the member `index`.
fn target(town: &Town, index: usize) -> Target {
    Target {
        name: town.name(index),
        address: town.nodes[index].file.cluster.advertise.clone(),
        raft_id: town.at(index).view().raft_id,
    }
}

/// Copies the files of a node that does not run.
fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).expect("it is there") {
        let file = file.expect("it can be read");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

async fn refused(node: &Node) -> Fatal {
    match Replica::start(world(node.dir.path()), node.file.clone()).await {
        Err(fatal) => fatal,
        Ok(mut started) => {
            let fatal = tokio::time::timeout(LONG, started.fatal.wait_for(Option::is_some)).await;
            let fatal = fatal.expect("it does not go on").expect("the bell is kept").clone();
            started.replica.stop().await;
            fatal.expect("it rang")
        }
    }
}

const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

#[tokio::test]
async fn a_cluster_grows_from_one_to_five_and_shrinks_to_three_and_its_founder_may_go() {
    // given a cluster of one, whose founder is known to the state under the number that it votes by
    let mut town = Town::new(&FIVE, 1).await;
    let founder = town.at(0).view();
    assert_eq!(founder.raft_id, Some(RaftId::FOUNDER));
    let only = town.name(0);
    let error = town.at(0).leave(&only).await.expect_err("nobody would be left");
    assert!(matches!(&error, OrderError::Unsafe(why) if why.contains("only voter")), "{error}");
    // when it becomes three, then five
    for count in [3, 5] {
        for index in 1..count {
            if !town.running.contains_key(&index) {
                town.start(index).await;
            }
        }
        town.settle(&FIVE[..count]).await;
    }
    let session_of_a_member = session(town.at(4), 4).await;
    assert!(token(town.at(4), session_of_a_member, &mut 0).await.items[0].grant >= 1);
    // and the founder, who leads unless it once had to wait too long for its processor, and then whoever leads leave,
    // asked of a third
    town.leave(2, 0).await;
    town.settle(&FIVE[1..]).await;
    let second = town.leader().await;
    let (name_of_second, asked) = (town.name(second), if second == 2 { 3 } else { 2 });
    town.leave(asked, second).await;
    let left: Vec<&str> = (1..5).filter(|index| *index != second).map(|index| FIVE[index]).collect();
    town.settle(&left).await;
    // then three are left, which agree and lend
    town.agree().await;
    let applied =
        town.at(asked).apply_document(document(), Some(Revision(1))).await.expect("a majority runs");
    assert_eq!((applied.revision, applied.unconfirmed), (Revision(2), vec![]));
    let all_matched = |report: &Report| report.matched.iter().all(|(_, matched)| matched.is_some());
    let report = town.report(asked, all_matched).await;
    assert!(report.operation.is_none());
    let ended = report.ended.last().expect("an operation has ended").clone();
    let named = (ended.kind.as_str(), ended.node.as_str(), ended.failed);
    assert_eq!(named, ("leave", name_of_second.as_str(), None));
    // and nobody starts on the disk of one that left
    for gone in [0, second] {
        let fatal = refused(&town.nodes[gone]).await;
        assert!(
            matches!(&fatal, Fatal::Setup(why) if why.contains("removed") && why.contains("empty")),
            "{fatal}"
        );
    }
    town.end().await;
}

#[tokio::test]
async fn each_founding_node_is_replaced_in_turn_and_the_numbers_of_the_old_ones_are_nobodys() {
    // given three nodes, and three that shall take their places
    let names = ["n1", "n2", "n3", "n4", "n5", "n6"];
    let mut town = Town::new(&names, 3).await;
    let mut given = Vec::new();
    for old in 0..3 {
        let new = old + 3;
        // when the next one is started, it joins by itself
        town.start(new).await;
        town.settle(&names[old..=new]).await;
        given.extend(town.at(new).view().members.iter().map(|member| member.raft_id));
        // and when it replaces an old one, in one change
        let (from, to) = (town.name(old), town.name(new));
        town.order(&from, async || town.at(new).replace(&from, &to).await.map(drop)).await;
        town.go(old).await;
        town.settle(&names[old + 1..=new]).await;
    }
    // then the three new ones are all that is left, under numbers that nobody had before
    town.agree().await;
    let view = town.at(3).view();
    assert_eq!(voting(&view), ["n4", "n5", "n6"]);
    let mut ids: Vec<u64> = given.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "six nodes, six numbers: {ids:?}");
    town.end().await;
}

#[tokio::test]
async fn a_sixth_node_waits_until_a_voter_is_replaced_or_leaves() {
    let names = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
    let mut town = Town::new(&names, 5).await;
    for index in [5, 6] {
        town.start(index).await;
        until(town.at(index), "a learner that waits", |view| {
            let found = view.members.iter().find(|member| Some(member.raft_id) == view.raft_id);
            found.is_some_and(|member| !member.voter) && view.operation.is_none()
        })
        .await;
    }
    // when it replaces a voter
    let (old, new) = (town.name(1), town.name(5));
    town.order(&old, async || town.at(5).replace(&old, &new).await.map(drop)).await;
    town.go(1).await;
    town.settle(&["n1", "n3", "n4", "n5", "n6"]).await;
    // and when a voter leaves, the next one takes its place by itself
    town.leave(0, 2).await;
    town.settle(&["n1", "n4", "n5", "n6", "n7"]).await;
    town.end().await;
}

#[tokio::test]
async fn a_node_with_a_lost_disk_takes_its_old_place_and_its_old_disk_is_refused() {
    let mut town = Town::new(&FIVE[..3], 3).await;
    // given a node that is stopped, and whose disk is replaced by an empty one
    let victim = (town.leader().await + 1) % 3;
    let before = town.at(victim).view().raft_id;
    town.stop(victim).await;
    let fresh = tempfile::tempdir().expect("a temporary directory");
    let node = NodeFile { data: fresh.path().to_owned(), ..(*town.nodes[victim].file).clone() };
    let node = Node { file: Arc::new(node), dir: fresh };
    let old = std::mem::replace(&mut town.nodes[victim], node);
    // when it starts again
    town.start(victim).await;
    let after = until(town.at(victim), "another number", |view| view.raft_id.is_some()).await.raft_id;
    town.settle(&FIVE[..3]).await;
    assert!(after > before, "{after:?} after {before:?}");
    for started in town.running.values() {
        until(&started.replica, "three members", |view| view.members.len() == 3).await;
    }
    town.agree().await;
    // then nobody starts on the old disk
    town.stop(victim).await;
    let fatal = refused(&old).await;
    assert!(matches!(&fatal, Fatal::Setup(why) if why.contains("removed")), "{fatal}");
    town.start(victim).await;
    town.settle(&FIVE[..3]).await;
    town.end().await;
}

#[tokio::test]
async fn a_node_that_comes_back_at_another_address_is_found_there() {
    let mut town = Town::new(&FIVE[..3], 3).await;
    for index in [(town.leader().await + 1) % 3, town.leader().await] {
        // given a node that is stopped and moves
        town.stop(index).await;
        let port = free_port();
        let node = &town.nodes[index].file;
        let cluster = ClusterFile {
            listen: ([127, 0, 0, 1], port).into(),
            advertise: format!("127.0.0.1:{port}"),
            ..node.cluster.clone()
        };
        town.nodes[index].file = Arc::new(NodeFile { cluster, ..(**node).clone() });
        // when it comes back
        town.start(index).await;
        // then all know where it is, and it has what is decided from then on
        for started in town.running.values() {
            until(&started.replica, "the new address", |view| {
                let ours = |address: &str| address.ends_with(&format!(":{port}"));
                view.members.iter().any(|member| ours(&member.address)) && view.operation.is_none()
            })
            .await;
        }
        let applied = town.at(index).apply_document(document(), None).await.expect("a majority runs");
        assert_eq!(applied.unconfirmed, Vec::<String>::new());
        town.agree().await;
    }
    town.end().await;
}

#[tokio::test]
async fn a_removed_node_that_never_heard_of_it_is_fenced_and_learns_it_when_it_asks() {
    let mut town = Town::new(&FIVE[..3], 3).await;
    // given a node that does not run while it is removed; whoever has its certificate and its disk can speak as it would
    let gone = (town.leader().await + 1) % 3;
    let asked = (gone + 1) % 3;
    let ghost = ghost(&town, gone);
    town.stop(gone).await;
    let to = target(&town, asked);
    let says = async |lane, kind| {
        let nothing = Bytes::from_static(&[255]);
        ghost.call(&to, lane, kind, nothing, LONG).await.expect_err("it makes no sense").to_string()
    };
    let words = [
        (Lane::Raft, kind::APPEND),
        (Lane::Raft, kind::VOTE),
        (Lane::Heartbeat, kind::PRE_VOTE),
        (Lane::Snapshot, kind::SNAPSHOT),
        (Lane::Quota, kind::ASK),
        (Lane::Control, kind::PROBE),
        (Lane::Control, kind::MEMBERS),
    ];
    for (lane, kind) in words {
        let error = says(lane, kind).await;
        assert!(!error.contains("removed"), "a member is heard, if not understood: {error}");
    }
    let node = town.name(gone);
    town.order(&node, async || town.at(asked).leave(&node).await.map(drop)).await;
    let left: Vec<&str> = (0..3).filter(|index| *index != gone).map(|index| FIVE[index]).collect();
    town.settle(&left).await;
    // A machine that stands still for a while moves the others, too, so it comes back more than once: what disturbs them
    // disturbs them each time.
    let disk = tempfile::tempdir().expect("a temporary directory");
    copy(town.nodes[gone].dir.path(), disk.path());
    for turn in 1.. {
        let before = (town.leader().await, town.at(asked).view().term);
        // then nothing that it says is heard, neither over the connections that it has nor over new ones
        for (lane, kind) in words {
            let error = says(lane, kind).await;
            assert!(error.contains("removed from this cluster"), "{lane:?} {kind}: {error}");
        }
        // when it comes back with what it has, which says that it is a voter
        let fatal = refused(&town.nodes[gone]).await;
        // then it ends, with what to do, and the others did not notice
        assert!(
            matches!(&fatal, Fatal::Setup(why) if why.contains("removed") && why.contains("empty")),
            "{fatal}"
        );
        let after = (town.leader().await, town.at(asked).view().term);
        if after == before {
            break;
        }
        assert!(turn < 5, "leader and term {before:?}, and then {after:?}");
        copy(disk.path(), town.nodes[gone].dir.path());
    }
    // and the next start does not need anybody to say it
    let Err(Fatal::Setup(why)) =
        Replica::start(world(town.nodes[gone].dir.path()), town.nodes[gone].file.clone()).await
    else {
        panic!("the disk remembers");
    };
    assert!(why.contains("removed"), "{why}");
    town.end().await;
}

#[tokio::test]
async fn a_number_that_nobody_has_gives_no_say_and_only_the_leader_or_the_log_makes_a_member_go() {
    let town = Town::new(&FIVE[..3], 3).await;
    let leader = town.leader().await;
    let (victim, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let view = town.at(leader).view();
    let raft_id = |index: usize| town.at(index).view().raft_id.expect("a member");
    // given a certificate of this CA, and a number that the log has not reached, or that is given out but not yet used
    let cluster = view.cluster_id;
    let made_up = |id| calls_as(&town, other, Identity { name: name("n9"), cluster, raft_id: id });
    let join =
        JoinV1 { name: "n9".to_owned(), address: "127.0.0.1:1".to_owned(), admitted: None, forward: false };
    let call = async |peers: &Peers, to: usize, kind: u16, payload: Vec<u8>| {
        peers.call(&target(&town, to), Lane::Control, kind, Bytes::from(payload), LONG).await
    };
    let answer = call(&made_up(None), leader, kind::JOIN, codec::encode(&join)).await.expect("it may ask");
    let Ok(JoinAnswerV1::Admitted { raft_id: given, .. }) = codec::decode(&answer) else {
        panic!("it is let in: {answer:?}")
    };
    let apply = ApplyV1 { json: document().to_canonical_json(), expected: None, request_id: 9 };
    for id in [1 << 40, given] {
        let stranger = made_up(Some(RaftId(id)));
        // when it speaks as a member would
        let words = [
            (leader, kind::MEMBERS, codec::encode(&MembersV1::Leave(FIVE[other].to_owned()))),
            (victim, kind::MEMBERS, codec::encode(&MembersV1::HandBack(raft_id(victim).0))),
            (victim, kind::MEMBERS, codec::encode(&MembersV1::Removed(raft_id(victim).0))),
            (leader, kind::APPLY, codec::encode(&apply)),
            (leader, kind::PROBE, codec::encode(&ProbeV1 { node: id, revision: 1, applied: 1 })),
        ];
        for (to, kind, payload) in words {
            // then it is not heard
            let error = call(&stranger, to, kind, payload).await.expect_err("no member").to_string();
            assert!(error.contains("n9 is no member here"), "{kind}: {error}");
        }
        // and it asks for no other than itself
        let join = JoinV1 { name: "n8".to_owned(), ..join.clone() };
        let error =
            call(&stranger, leader, kind::JOIN, codec::encode(&join)).await.expect_err("not its name");
        assert!(error.to_string().contains("asks to join as n8"), "{error}");
    }
    // and a member that does not lead can not say that another one was removed
    let ghost = ghost(&town, other);
    for words in [MembersV1::Removed(raft_id(victim).0), MembersV1::HandBack(raft_id(victim).0)] {
        let error =
            call(&ghost, victim, kind::MEMBERS, codec::encode(&words)).await.expect_err("not its to say");
        assert!(error.to_string().contains("no order that removes it"), "{error}");
    }
    assert_eq!(*town.at(victim).partings().borrow(), Parting::No);
    let after = town.at(leader).view();
    assert_eq!((voting(&after).len(), after.operation.is_none(), after.revision), (3, true, view.revision));
    town.end().await;
}

#[tokio::test]
async fn a_change_waits_for_the_view_of_a_member_that_went_without_a_word() {
    let mut town = Town::new(&FIVE[..3], 3).await;
    // given a member that does not answer, and is removed
    let leader = town.leader().await;
    let gone = (leader + 1) % 3;
    let node = town.name(gone);
    town.stop(gone).await;
    town.order(&node, async || town.at(leader).leave(&node).await.map(drop)).await;
    until(town.at(leader), "two members, while its view lasts", |view| {
        view.members.len() == 2 && view.operation.is_some()
    })
    .await;
    // when a document is applied
    let applied = town.at(leader).apply_document(document(), None).await.expect("a majority runs");
    // then its view has ended with the answer: by itself, or as the end of the operation says
    let over = town.report(leader, |_| true).await.operation.is_none();
    assert!(over || applied.unconfirmed == [node.as_str()], "{:?}", applied.unconfirmed);
    town.end().await;
}

#[tokio::test]
async fn a_second_order_waits_and_a_majority_of_running_voters_is_never_given_away() {
    let mut town = Town::new(&FIVE[..3], 3).await;
    let leader = town.leader().await;
    let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let unknown = name("nobody");
    let error = town.at(other).leave(&unknown).await.expect_err("there is no such member");
    assert!(matches!(&error, OrderError::Unknown(why) if why.contains("n1, n2, n3")), "{error}");
    // given a leave that is under way: the node has not finished yet
    let (leader_name, other_name) = (town.name(leader), town.name(other));
    town.order(&other_name, async || town.at(leader).leave(&other_name).await.map(drop)).await;
    // when another one is ordered
    let error = town.at(leader).leave(&leader_name).await.expect_err("one at a time");
    assert!(matches!(&error, OrderError::Busy(why) if why.contains(other_name.as_str())), "{error}");
    let running = town.report(leader, |_| true).await.operation.expect("under way");
    assert_eq!((running.kind.as_str(), running.node.as_str()), ("leave", other_name.as_str()));
    town.go(other).await;
    // and given two voters of which one does not run, neither of the two can be let go but the dead one
    town.stop(dead).await;
    let began = Instant::now();
    loop {
        match town.at(leader).leave(&leader_name).await {
            Err(OrderError::Unsafe(why)) => break assert!(why.contains("0 of 1 voters"), "{why}"),
            // It was heard of a moment ago.
            Err(OrderError::Busy(_) | OrderError::NoLeader | OrderError::Unanswered) => {}
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < LONG, "not refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    town.start(dead).await;
    town.end().await;
}

#[tokio::test]
async fn an_operation_that_a_change_of_leaders_cuts_off_is_carried_to_its_end() {
    let mut town = Town::new(&FIVE[..4], 3).await;
    let leader = town.leader().await;
    let leaver = (leader + 1) % 3;
    // given a leave that waits for the leaver to finish
    let node = town.name(leaver);
    town.order(&node, async || town.at(leader).leave(&node).await.map(drop)).await;
    until(town.at(leaver), "the leave", |view| view.operation.is_some()).await;
    // when the leader goes down in the middle of it
    town.stop(leader).await;
    // then the next one goes on, and says so
    let next = town.leader().await;
    town.report(next, |report| report.operation.is_some()).await;
    town.start(leader).await;
    town.go(leaver).await;
    let left: Vec<&str> = (0..3).filter(|index| *index != leaver).map(|index| FIVE[index]).collect();
    town.settle(&left).await;
    // and a join is carried on as well
    town.start(3).await;
    until(town.at(3), "admission", |view| view.raft_id.is_some()).await;
    let leader = town.leader().await;
    town.stop(leader).await;
    town.start(leader).await;
    let mut all = left.clone();
    all.push("n4");
    town.settle(&all).await;
    town.agree().await;
    town.end().await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_two_processes_on_one_directory_are_too() {
    let town = Town::new(&FIVE[..2], 2).await;
    // given a node with a cluster of its own, whose file names a member of this one
    let dir = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let stranger = |peers| Arc::new(file("n9", port, dir.path(), peers));
    let alone = Replica::start(world(dir.path()), stranger(BTreeMap::new())).await.expect("it starts");
    alone.replica.found().await.expect("an empty disk can found");
    alone.replica.stop().await;
    let peers = BTreeMap::from([(name("n1"), town.nodes[0].file.cluster.advertise.clone())]);
    let started = Replica::start(world(dir.path()), stranger(peers)).await.expect("it starts");
    let view = until(&started.replica, "its own leadership", |view| view.is_leader).await;
    assert_ne!(view.cluster_id, town.at(0).view().cluster_id);
    // when it asks this cluster's leader for a place, under the number of its own cluster or as if it had none yet
    let theirs = (view.cluster_id.expect("founded"), view.raft_id.expect("a member").0);
    let join = JoinV1 {
        name: "n9".to_owned(),
        address: format!("127.0.0.1:{port}"),
        admitted: Some(theirs),
        forward: true,
    };
    let leader = town.leader().await;
    let ask = async |cluster, raft_id| {
        let ghost = calls_as(&town, leader, Identity { name: name("n9"), cluster, raft_id });
        let payload = Bytes::from(codec::encode(&join));
        ghost.call(&target(&town, leader), Lane::Control, kind::JOIN, payload, LONG).await
    };
    // then it is told so at the door, and behind it
    let error = ask(view.cluster_id, view.raft_id).await.expect_err("of another cluster").to_string();
    assert!(error.contains(&format!("belongs to cluster {:032x}", theirs.0)), "{error}");
    let answer = ask(None, None).await.expect("a stranger may ask");
    let Ok(JoinAnswerV1::Refused(why)) = codec::decode(&answer) else { panic!("{answer:?}") };
    assert!(why.contains(&format!("disk is of cluster {:032x}", theirs.0)), "{why}");
    // and stays alone, and nobody here has heard of it
    assert_eq!(voting(&started.replica.view()), ["n9"]);
    assert_eq!(town.at(leader).view().members.len(), 2);
    // and a second process on a directory that is in use is told so
    let Err(Fatal::Setup(why)) = Replica::start(world(dir.path()), stranger(BTreeMap::new())).await else {
        panic!("the directory is taken");
    };
    assert!(why.contains("another process"), "{why}");
    started.replica.stop().await;
    town.end().await;
}
