//! Replicas in one process, over real loopback sockets and real files.

mod faults;
mod gate;
mod members;
mod over;
mod recover;
mod snapshots;
mod storage;
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use config::gateway::GatewayDocument;
use config::ids::{NodeName, QuotaName};
use config::node::{ClusterFile, HttpFile, Limits, LogFile, NodeFile, SNAPSHOT_AFTER_ENTRIES_DEFAULT};
use config::quota::{KeyPart, Limit, OnQuorumLoss, Quota};
use quorumgate_cluster::lease::{Ask, AskItem, AskReply};
use quorumgate_cluster::replica::{Replica, Started};
use quorumgate_cluster::state::ids::{Key, Revision, SessionId};
use quorumgate_cluster::state::key::{KeyValues, key};
use quorumgate_cluster::view::View;

const LONG: Duration = Duration::from_secs(60);

/// One node's files and address; it may be started again and again.
struct Node {
    file: Arc<NodeFile>,
    dir: tempfile::TempDir,
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("a good name")
}

/// Below the range from which the kernel takes ports for outgoing connections, and no port twice in this process.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::SeqCst);
        let port = 10_000 + (u16::try_from(std::process::id() % 15_000).unwrap_or(0) + offset) % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn nodes(names: &[&str]) -> Vec<Node> {
    let ports: Vec<u16> = names.iter().map(|_| free_port()).collect();
    let peers: BTreeMap<NodeName, String> =
        names.iter().zip(&ports).map(|(n, port)| (name(n), format!("127.0.0.1:{port}"))).collect();
    let node = |(n, port): (&&str, &u16)| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Node { file: Arc::new(file(n, *port, dir.path(), peers.clone())), dir }
    };
    names.iter().zip(&ports).map(node).collect()
}

fn file(n: &str, port: u16, data: &Path, peers: BTreeMap<NodeName, String>) -> NodeFile {
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    NodeFile {
        name: name(n),
        folder: data.to_owned(),
        data: data.to_owned(),
        cluster: ClusterFile {
            listen: local(port),
            advertise: format!("127.0.0.1:{port}"),
            peers,
            tls: None,
        },
        http: HttpFile { listen: None, workers: None, proxy_protocol_from: vec![], trusted_proxies: vec![] },
        https: None,
        admin: local(0),
        limits: Limits::default(),
        log: LogFile { filter: "info".to_owned(), json: false },
        stamp_admissions: false,
        snapshot_after_entries: SNAPSHOT_AFTER_ENTRIES_DEFAULT,
    }
}

impl Node {
    async fn start(&self) -> Started {
        Replica::start(world::world(self.dir.path()), self.file.clone()).await.expect("the node starts")
    }
}

async fn until(replica: &Replica, what: &str, holds: impl Fn(&View) -> bool) -> Arc<View> {
    let mut views = replica.views();
    let seen = tokio::time::timeout(LONG, views.wait_for(|view| holds(view))).await;
    match seen {
        Ok(Ok(view)) => view.clone(),
        _ => panic!("{what} was not seen within {LONG:?}; the view is {:?}", replica.view()),
    }
}

/// Waits until `holds`.
async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Which one leads, once one does: a node that had to wait for its processor may have lost the leadership a moment ago.
async fn leader_of(replicas: &[Replica]) -> usize {
    let mut leader = None;
    let leads = || {
        leader = replicas.iter().position(|replica| replica.view().is_leader);
        leader.is_some()
    };
    wait_for("a leader", leads).await;
    leader.expect("it was waited for")
}

fn quota() -> Quota {
    Quota {
        name: QuotaName::parse("q").expect("a good name"),
        key: vec![KeyPart::Tenant],
        limit: Limit { tokens: 1000, per_ns: 1_000_000_000, burst: 1000 },
        wait: None,
        on_quorum_loss: OnQuorumLoss::Deny,
    }
}

fn document() -> Arc<GatewayDocument> {
    Arc::new(GatewayDocument { quotas: vec![quota()], ..GatewayDocument::default() })
}

fn bucket(view: &View) -> Key {
    let secret = view.secret.expect("the cluster is founded");
    key(&secret, &quota(), &KeyValues { tenant: Some("acme"), ..KeyValues::default() })
}

async fn session(replica: &Replica, nonce: u128) -> SessionId {
    let began = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(2), replica.register(nonce)).await {
            Ok(Ok(session)) => return session,
            other => assert!(began.elapsed() < LONG, "no session: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for one token until somebody answers; every attempt is a new batch.
async fn token(replica: &Replica, session: SessionId, seq: &mut u64) -> AskReply {
    let began = Instant::now();
    loop {
        *seq += 1;
        let item = AskItem {
            key: bucket(&replica.view()),
            lid: None,
            held: 0,
            spent: 0,
            need: 1,
            min: 1,
            want: 1,
            demand_per_ks: 1000,
        };
        let ask = Ask { session, seq: *seq, items: vec![item] };
        match tokio::time::timeout(Duration::from_secs(1), replica.ask(ask)).await {
            Ok(Ok(reply)) => return reply,
            other => assert!(began.elapsed() < LONG, "no token: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_node_founds_a_cluster_of_its_own_lends_and_remembers_all_of_it_after_a_restart() {
    // given a node that founded itself
    let nodes = nodes(&["n1"]);
    let started = nodes[0].start().await;
    let replica = started.replica;
    replica.found().await.expect("an empty disk can found");
    assert!(replica.found().await.is_err(), "a cluster is founded once");
    // when a document is applied, a gateway registers and asks
    let applied = replica.apply_document(document(), None).await.expect("one node is a majority");
    assert_eq!((applied.revision, applied.unconfirmed), (Revision(1), vec![]));
    let view = until(&replica, "the document", |view| view.revision == Revision(1)).await;
    assert_eq!(view.document.as_deref(), Some(&*document()));
    let session = session(&replica, 7).await;
    let reply = token(&replica, session, &mut 0).await;
    // then it gets its token, and the view is known to be fresh
    assert!(reply.items[0].grant >= 1, "{reply:?}");
    wait_for("a view that is known to be fresh", || replica.view_lease().is_some()).await;
    // and after a restart the node has the same state
    let before = replica.digest().await.expect("it has a state");
    replica.stop().await;
    let again = nodes[0].start().await.replica;
    // It is elected anew, and has applied everything once an entry of its new term is in.
    let whole = |view: &View| view.is_leader && view.applied_index > before.0;
    let view = until(&again, "leadership", whole).await;
    assert_eq!((view.revision, view.secret), (Revision(1), replica.view().secret));
    let after = again.digest().await.expect("it has a state");
    assert!(after.0 >= before.0 && after.1 == before.1, "before {before:?}, after {after:?}");
    again.stop().await;
}

#[tokio::test]
async fn a_disk_of_another_node_is_refused_in_words() {
    // given a founded node's disk
    let nodes = nodes(&["n1", "n2"]);
    let replica = nodes[0].start().await.replica;
    replica.found().await.expect("an empty disk can found");
    replica.stop().await;
    // when a node of another name starts on it
    let file = NodeFile { data: nodes[0].dir.path().to_owned(), ..(*nodes[1].file).clone() };
    let refused = Replica::start(world::world(nodes[0].dir.path()), Arc::new(file)).await;
    // then it says whose disk it is
    assert!(refused.expect_err("it is n1's").to_string().contains("\"n1\""));
}

#[tokio::test]
async fn three_nodes_join_lend_survive_their_leader_and_take_it_back() {
    // given a founder and two nodes that ask to join
    let nodes = nodes(&["n1", "n2", "n3"]);
    let mut replicas = Vec::new();
    for node in &nodes {
        replicas.push(node.start().await.replica);
    }
    replicas[0].found().await.expect("an empty disk can found");
    for replica in &replicas {
        until(replica, "three voters", |view| view.members.iter().filter(|m| m.voter).count() == 3).await;
    }
    // when a node that need not lead applies a document
    let applied = replicas[2].apply_document(document(), Some(Revision(0))).await.expect("a majority runs");
    // then all show it already
    assert_eq!((applied.revision, applied.unconfirmed), (Revision(1), vec![]));
    for replica in &replicas {
        assert_eq!(replica.view().revision, Revision(1));
    }
    // and each node's gateway gets tokens
    let mut sessions = Vec::new();
    for (n, replica) in replicas.iter().enumerate() {
        let session = session(replica, n as u128).await;
        let mut seq = 0;
        assert!(token(replica, session, &mut seq).await.items[0].grant >= 1);
        sessions.push((session, seq));
    }
    // when the leader stops
    let leader = leader_of(&replicas).await;
    replicas[leader].stop().await;
    let began = Instant::now();
    let other = (leader + 1) % 3;
    let (session, seq) = &mut sessions[other];
    token(&replicas[other], *session, seq).await;
    // then another answers
    assert!(began.elapsed() < Duration::from_secs(10), "failover took {:?}", began.elapsed());
    // and when it comes back with its disk, it catches up and all are equal
    replicas[leader] = nodes[leader].start().await.replica;
    storage::all_equal(&replicas).await;
    for replica in &replicas {
        replica.stop().await;
    }
}
