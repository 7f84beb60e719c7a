//! A disk that fails ends its node, in words; the others go on, nothing acknowledged is lost, nothing is admitted twice.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use quorumgate_cluster::fatal::Fatal;
use quorumgate_cluster::state::ids::LeaseId;
use quorumgate_cluster::world::{BootNs, BoxFuture, Clock, MonoNs, UnixMs};

use super::faults::{Fault, Faults};
use super::*;

/// r = 5/s, B = 20.
const LIMIT: Limit = Limit { tokens: 5, per_ns: 1_000_000_000, burst: 20 };

fn limited(name: &str) -> Arc<GatewayDocument> {
    let name = QuotaName::parse(name).expect("a good name");
    let also = Quota { name, ..quota() };
    Arc::new(GatewayDocument {
        quotas: vec![Quota { limit: LIMIT, ..quota() }, also],
        ..GatewayDocument::default()
    })
}

/// A gateway that spends every token the instant it gets it.
pub struct Gateway {
    replica: Replica,
    session: SessionId,
    seq: u64,
    lid: Option<LeaseId>,
    spent: u64,
}

impl Gateway {
    pub fn new(replica: Replica, session: SessionId) -> Self {
        Self { replica, session, seq: 0, lid: None, spent: 0 }
    }

    /// Asks for one token; what it got. A batch without an answer counts for nothing.
    pub async fn take(&mut self) -> u64 {
        self.seq += 1;
        let item = AskItem {
            key: bucket(&self.replica.view()),
            lid: self.lid,
            held: 0,
            spent: self.spent,
            need: 1,
            min: 1,
            want: 1,
            demand_per_ks: 1000,
        };
        let ask = Ask { session: self.session, seq: self.seq, items: vec![item] };
        let answer = tokio::time::timeout(Duration::from_secs(1), self.replica.ask(ask)).await;
        let Ok(Ok(reply)) = answer else { return 0 };
        let granted = &reply.items[0];
        if granted.lid != self.lid {
            (self.lid, self.spent) = (granted.lid, 0);
        }
        self.spent += granted.grant;
        granted.grant
    }

    async fn work(mut self, stop: Arc<AtomicBool>) -> u64 {
        let mut admitted = 0;
        while !stop.load(SeqCst) {
            admitted += self.take().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        admitted
    }
}

pub async fn all_equal(replicas: &[Replica]) {
    let began = Instant::now();
    loop {
        let mut digests = Vec::new();
        for replica in replicas {
            digests.push(replica.digest().await);
        }
        if digests.iter().all(|digest| digest.is_some() && *digest == digests[0]) {
            return;
        }
        assert!(began.elapsed() < LONG, "the nodes differ: {digests:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn a_disk_fails(fault: Fault, on_the_leader: bool) {
    // given three nodes that lend
    let nodes = nodes(&["n1", "n2", "n3"]);
    let faults: Vec<Faults> = nodes.iter().map(|_| Faults::default()).collect();
    let (mut replicas, mut fatal) = (Vec::new(), Vec::new());
    for (node, faults) in nodes.iter().zip(&faults) {
        let world = faults.over(world::world(node.dir.path()));
        let started = Replica::start(world, node.file.clone()).await.expect("the node starts");
        replicas.push(started.replica);
        fatal.push(started.fatal);
    }
    replicas[0].found().await.expect("an empty disk can found");
    for replica in &replicas {
        until(replica, "three voters", |view| view.members.iter().filter(|m| m.voter).count() == 3).await;
    }
    replicas[0].apply_document(limited("first"), None).await.expect("a majority runs");
    let leader = leader_of(&replicas).await;
    let victim = if on_the_leader { leader } else { (leader + 1) % 3 };
    let stop = Arc::new(AtomicBool::new(false));
    let mut sessions = Vec::new();
    for (n, replica) in replicas.iter().enumerate() {
        sessions.push((replica.clone(), session(replica, n as u128).await));
    }
    let began = Instant::now();
    let mut gateways = Vec::new();
    for (replica, session) in sessions {
        gateways.push(tokio::spawn(Gateway::new(replica, session).work(stop.clone())));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // when one disk fails while gateways ask
    faults[victim].arm(fault);
    let why = tokio::time::timeout(LONG, fatal[victim].wait_for(Option::is_some)).await;
    // then its node says so, with what to do
    let why = why.expect("it is told in time").expect("the node holds the bell").clone().expect("a reason");
    let words = match fault {
        Fault::Full => ["No space left on device", "make room"],
        Fault::Unsynced => ["Input/output error", "look at the kernel's log"],
    };
    let data = nodes[victim].dir.path().display().to_string();
    for part in words.into_iter().chain([data.as_str(), "writing the log"]) {
        assert!(why.to_string().contains(part), "{part:?} in {why}");
    }
    assert!(matches!(why, Fatal::Storage(_)), "{why:?}");
    // and acknowledges nothing any more, and never tries its disk again
    assert!(replicas[victim].apply_document(limited("lost"), Some(Revision(7))).await.is_err());
    replicas[victim].stop().await;
    assert_eq!(faults[victim].tried_again(), 0, "a failed disk was used again");
    // and the others have a leader and take a change
    let other = &replicas[(victim + 1) % 3];
    until(other, "another leader", |view| {
        view.leader.is_some_and(|leader| Some(leader) != replicas[victim].view().raft_id)
    })
    .await;
    let applied =
        other.apply_document(limited("second"), Some(Revision(1))).await.expect("two are a majority");
    assert_eq!(applied.revision, Revision(2));
    let held_before = began.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, SeqCst);
    let mut admitted = 0;
    for gateway in gateways {
        admitted += gateway.await.expect("no panic");
    }
    // and not one token too many was given out, and tokens went on being given out
    let bound = 20.0 + 5.0 * 1.001 * began.elapsed().as_secs_f64();
    assert!(admitted as f64 <= bound, "{admitted} admitted, at most {bound} allowed");
    assert!(admitted >= 20, "{admitted} admitted in {held_before:?}");
    // when the node starts again on a disk that works
    replicas[victim] = nodes[victim].start().await.replica;
    // then it goes on where it was
    until(&replicas[victim], "the second document", |view| view.revision == Revision(2)).await;
    all_equal(&replicas).await;
    for replica in &replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_full_disk_on_the_leader() {
    a_disk_fails(Fault::Full, true).await;
}

#[tokio::test]
async fn a_full_disk_on_a_follower() {
    a_disk_fails(Fault::Full, false).await;
}

#[tokio::test]
async fn a_disk_that_does_not_sync_on_the_leader() {
    a_disk_fails(Fault::Unsynced, true).await;
}

#[tokio::test]
async fn a_disk_that_does_not_sync_on_a_follower() {
    a_disk_fails(Fault::Unsynced, false).await;
}

/// A clock that counts how often it is read.
struct Counting {
    clock: Arc<dyn Clock>,
    reads: Arc<AtomicU64>,
}

impl Clock for Counting {
    fn mono(&self) -> MonoNs {
        self.clock.mono()
    }
    fn boot(&self) -> BootNs {
        self.reads.fetch_add(1, SeqCst);
        self.clock.boot()
    }
    fn wall(&self) -> UnixMs {
        self.clock.wall()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }
}

#[tokio::test]
async fn a_node_whose_consensus_core_has_died_comes_to_rest() {
    // given a member, alone in its cluster
    let nodes = nodes(&["n1"]);
    let (faults, reads) = (Faults::default(), Arc::new(AtomicU64::new(0)));
    let mut world = faults.over(world::world(nodes[0].dir.path()));
    world.clock = Arc::new(Counting { clock: world.clock, reads: reads.clone() });
    let Started { replica, mut fatal, .. } =
        Replica::start(world, nodes[0].file.clone()).await.expect("the node starts");
    replica.found().await.expect("an empty disk can found");
    until(&replica, "a voter", |view| view.members.iter().any(|member| member.voter)).await;
    // when its core dies, and it is not ended at once
    faults.arm(Fault::Unsynced);
    let asked = replica.clone();
    let lost = tokio::spawn(async move { asked.apply_document(limited("lost"), None).await });
    let why = tokio::time::timeout(LONG, fatal.wait_for(Option::is_some)).await;
    assert!(why.is_ok_and(|why| why.is_ok()), "it is told in time");
    let before = reads.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // then it waits, and looks at its clock no more than timers make it: who spins looks a hundred thousand times
    let looked = reads.load(SeqCst) - before;
    println!("{looked} looks at the clock in a second");
    assert!(looked < 1000, "{looked} looks at the clock in a second");
    replica.stop().await;
    assert!(lost.await.expect("no panic").is_err(), "nothing is acknowledged any more");
}

#[tokio::test]
async fn a_disk_that_is_full_at_start_is_named_at_start() {
    // given a full disk
    let nodes = nodes(&["n1"]);
    let faults = Faults::default();
    faults.arm(Fault::Full);
    // when a node starts on it
    let world = faults.over(world::world(nodes[0].dir.path()));
    let refused = Replica::start(world, nodes[0].file.clone()).await.expect_err("there is no room");
    // then it says so at once
    assert!(matches!(refused, Fatal::Storage(_)), "{refused:?}");
    assert!(refused.to_string().contains("looking for room to write: No space left"), "{refused}");
}

#[tokio::test]
async fn a_damaged_log_is_refused_in_words() {
    // given a node's disk, in which one byte of a document has changed
    let nodes = nodes(&["n1"]);
    let replica = nodes[0].start().await.replica;
    replica.found().await.expect("an empty disk can found");
    replica.apply_document(limited("a-name-to-look-for"), None).await.expect("one is a majority");
    replica.stop().await;
    let path = nodes[0].dir.path().join("raft.redb");
    let mut bytes = std::fs::read(&path).expect("the log is there");
    let needle = b"a-name-to-look-for";
    let mut places: Vec<usize> =
        (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty(), "the document is in the log");
    places.drain(..).for_each(|at| bytes[at] ^= 1);
    std::fs::write(&path, bytes).expect("written");
    // when the node starts
    let world = world::world(nodes[0].dir.path());
    let refused = Replica::start(world, nodes[0].file.clone()).await.expect_err("it is damaged");
    // then it says what is damaged and what to do
    assert!(matches!(refused, Fatal::Storage(_)), "{refused:?}");
    for part in ["the log", "checksum", "move the directory aside"] {
        assert!(refused.to_string().contains(part), "{part:?} in {refused}");
    }
}

#[tokio::test]
async fn a_member_whose_log_is_gone_is_refused_in_words_and_no_log_is_made_in_its_place() {
    // given a member's disk
    let nodes = nodes(&["n1"]);
    let replica = nodes[0].start().await.replica;
    replica.found().await.expect("an empty disk can found");
    replica.stop().await;
    let path = nodes[0].dir.path().join("raft.redb");
    let empty: &dyn Fn() = &|| drop(std::fs::File::create(&path).expect("emptied"));
    let remove: &dyn Fn() = &|| std::fs::remove_file(&path).expect("it was there");
    for lose in [empty, remove] {
        // when its log is lost, and the node starts, once and again
        lose();
        for _ in 0..2 {
            let world = world::world(nodes[0].dir.path());
            let refused = Replica::start(world, nodes[0].file.clone()).await.expect_err("it may vote twice");
            // then it says what is lost and what to do
            assert!(matches!(refused, Fatal::Storage(_)), "{refused:?}");
            for part in ["raft.redb is missing or empty", "start this node with an empty one"] {
                assert!(refused.to_string().contains(part), "{part:?} in {refused}");
            }
        }
        // and the disk is not one to recover from either
        let (world, file) = (world::world(nodes[0].dir.path()), &nodes[0].file);
        let refused = quorumgate_cluster::recover::inspect(&world, file).await.expect_err("it has no log");
        assert!(refused.to_string().contains("raft.redb is missing or empty"), "{refused}");
        assert_eq!(std::fs::metadata(&path).map_or(0, |file| file.len()), 0, "no log was made");
    }
}

#[tokio::test]
async fn a_log_that_was_left_half_made_is_made_anew() {
    // given a disk on which a node ended while it made its log, for which it has no identity yet
    let nodes = nodes(&["n1"]);
    std::fs::write(nodes[0].dir.path().join("raft.redb"), [0; 8192]).expect("written");
    // when the node starts, then it can have a log
    let replica = nodes[0].start().await.replica;
    replica.found().await.expect("what lies there is nobody's");
    replica.stop().await;
}

#[tokio::test]
async fn a_log_whose_identity_is_gone_is_refused_in_words_and_kept() {
    // given a member's disk without the file that says whose it is
    let nodes = nodes(&["n1"]);
    let replica = nodes[0].start().await.replica;
    replica.found().await.expect("an empty disk can found");
    let state = replica.digest().await.expect("it has a state");
    replica.stop().await;
    let identity = nodes[0].dir.path().join("identity");
    let whose = std::fs::read(&identity).expect("it is there");
    std::fs::remove_file(&identity).expect("it was there");
    // when it is to become a node again
    let started = nodes[0].start().await;
    assert!(started.replica.found().await.is_err(), "it would forget what it has acknowledged");
    // then it says what is missing
    let fatal = started.fatal.borrow().clone().expect("it can not go on");
    assert!(
        fatal.to_string().contains("raft.redb holds a log, but the file that says whose it is"),
        "{fatal}"
    );
    started.replica.stop().await;
    // and once that is back, the node is
    std::fs::write(&identity, whose).expect("written");
    let replica = nodes[0].start().await.replica;
    until(&replica, "the log", |view| view.is_leader && view.applied_index > state.0).await;
    replica.stop().await;
}
