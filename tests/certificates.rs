//! Certificates and their CA are replaced while the cluster serves: no leader is lost, no request fails, and what is not
//! good never comes into force.
#![allow(clippy::disallowed_methods)] // An operator stands outside the product: clocks and files of its own.

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, Issuer, KeyPair};
use support::*;

const DAY: Duration = Duration::from_secs(86_400);
/// Both ends of a connection judge each other again within this; see the README.
const JUDGED_WITHIN: Duration = Duration::from_secs(40);

fn pki(cluster: &Cluster, folder: &str, file: &str) -> PathBuf {
    cluster.folder.path().join(folder).join(file)
}

fn run_pki(cluster: &Cluster, args: &[&str]) {
    let made = quorumgate(cluster.folder.path(), args);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Where each node's log ends now.
fn marks(cluster: &Cluster) -> Vec<usize> {
    (0..cluster.nodes.len()).map(|node| cluster.log(node).len()).collect()
}

/// Waits until each node has logged all of `wanted` since `marks`.
fn wait_for_log(cluster: &Cluster, marks: &[usize], wanted: impl Fn(usize) -> Vec<String>) {
    let until = Instant::now() + PATIENCE;
    for (node, mark) in marks.iter().enumerate() {
        for wanted in wanted(node) {
            while !cluster.log(node)[*mark..].contains(&wanted) {
                assert!(
                    Instant::now() < until,
                    "node {node} lacks {wanted:?}:\n{}",
                    &cluster.log(node)[*mark..]
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn in_force(_: usize) -> Vec<String> {
    vec!["new certificate files are in force".to_owned()]
}

/// The lanes that always carry something: the leader's to its followers, and theirs to it.
fn made_anew(cluster: &Cluster, leader: usize) -> impl Fn(usize) -> Vec<String> {
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let line = |node: &str, lane: &str| format!("connection to peer made anew node={node} lane={lane}");
    move |node| {
        if node == leader {
            let followers = names.iter().filter(|name| **name != names[leader]);
            followers.flat_map(|name| ["Raft", "Heartbeat"].map(|lane| line(name, lane))).collect()
        } else {
            ["Quota", "Control"].map(|lane| line(&names[leader], lane)).to_vec()
        }
    }
}

/// What `node` says of its certificate on `/readyz`, once it says `wanted`.
fn wait_for_certificate(cluster: &Cluster, node: usize, status: &str, wanted: &str) -> String {
    let mut told = String::new();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let readyz = cluster.admin(node, "/readyz");
        assert_eq!(readyz.status, 200, "a certificate takes no node out: {}", readyz.body);
        let certificate = readyz.json()["components"]["certificate"].clone();
        told = certificate.to_string();
        if certificate["status"] == status && told.contains(wanted) {
            return told;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!(
        "node {node} says {told} of its certificate, wanted {status} with {wanted:?}\n{}",
        cluster.log(node)
    );
}

fn expires_in(cluster: &Cluster, node: usize) -> Duration {
    let metrics = cluster.admin(node, "/metrics").body;
    let line = metrics.lines().find(|line| line.starts_with("quorumgate_certificate_expires_seconds "));
    let seconds = line.expect("the metric").rsplit(' ').next().expect("a value").parse().expect("seconds");
    Duration::from_secs(seconds)
}

#[test]
fn certificates_and_their_ca_are_replaced_without_a_lost_leader_or_a_failed_request() {
    support::in_calm(|| {
        // given three nodes under light load
        let cluster = Cluster::start(3, GATEWAY);
        let token = cluster.token("acme", &[]);
        let leader = cluster.leader();
        let terms = || -> Vec<u64> {
            (0..3).map(|node| cluster.status(node)["term"].as_u64().expect("a term")).collect()
        };
        let before = terms();
        let stop = AtomicBool::new(false);
        let (asked, failed) = std::thread::scope(|scope| {
            let load = scope.spawn(|| cluster.ask_all("/many", &token, &stop));
            let rotation =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rotate(&cluster, leader)));
            stop.store(true, Ordering::SeqCst);
            let ended = load.join().expect("no panic");
            if let Err(panic) = rotation {
                std::panic::resume_unwind(panic);
            }
            ended
        });
        // then no request failed, nobody was elected, and no connection was ended for its certificate
        println!("{asked} requests, {} failed; terms {before:?} -> {:?}", failed.len(), terms());
        assert!(asked > 0 && failed.is_empty(), "{} of {asked} failed: {failed:?}", failed.len());
        assert_eq!(terms(), before, "no election");
        for node in 0..3 {
            let log = cluster.log(node);
            assert!(!log.contains("not believed any more"), "node {node}:\n{log}");
            assert!(!log.contains("can not be made anew"), "node {node}:\n{log}");
        }
    });
}

fn rotate(cluster: &Cluster, leader: usize) {
    let names = ["node-1", "node-2", "node-3"];
    // when every node's certificate is renewed
    let began = Instant::now();
    let mark = marks(cluster);
    run_pki(cluster, &["pki", "--out", "pki", "--renew", "node-1", "node-2", "node-3"]);
    wait_for_log(cluster, &mark, in_force);
    wait_for_log(cluster, &mark, made_anew(cluster, leader));
    println!("new certificates: every lane made anew {:?} after the command", began.elapsed());

    // and the CA is replaced: first all trust both
    run_pki(cluster, &["pki", "--out", "pki-2", "node-1", "node-2", "node-3"]);
    let new_ca = std::fs::read(pki(cluster, "pki-2", "ca.pem")).expect("made");
    let both = [std::fs::read(pki(cluster, "pki", "ca.pem")).expect("made"), new_ca.clone()].concat();
    let mark = marks(cluster);
    std::fs::write(pki(cluster, "pki", "ca.pem"), both).expect("written");
    wait_for_log(cluster, &mark, in_force);
    wait_for_log(cluster, &mark, made_anew(cluster, leader));
    // then each bears a certificate of the new one
    let mark = marks(cluster);
    for name in names {
        for file in [format!("{name}.key"), format!("{name}.pem")] {
            std::fs::copy(pki(cluster, "pki-2", &file), pki(cluster, "pki", &file)).expect("copied");
        }
    }
    wait_for_log(cluster, &mark, in_force);
    wait_for_log(cluster, &mark, made_anew(cluster, leader));
    // then nobody trusts the old one
    let mark = marks(cluster);
    std::fs::write(pki(cluster, "pki", "ca.pem"), new_ca).expect("written");
    wait_for_log(cluster, &mark, in_force);
    wait_for_log(cluster, &mark, made_anew(cluster, leader));
    // and every connection is judged by it: nothing must happen, so there is nothing to wait for but the time
    std::thread::sleep(JUDGED_WITHIN);
}

#[test]
fn files_that_are_not_good_are_refused_by_name_and_an_end_that_is_near_is_told() {
    // given a node that serves, with a certificate for two years
    let cluster = Cluster::start(1, GATEWAY);
    let certificate = pki(&cluster, "pki", "node-1.pem");
    let good = std::fs::read(&certificate).expect("made");
    wait_for_certificate(&cluster, 0, "ready", "");
    assert!(expires_in(&cluster, 0) > DAY * 700);
    let path = certificate.display().to_string();

    // when its file is half written, then the file is named, and the one before stays in force
    std::fs::write(&certificate, &good[..good.len() / 2]).expect("written");
    let told = wait_for_certificate(&cluster, 0, "degraded", &path);
    assert!(told.contains("the files before stay in force until this is mended"), "{told}");
    assert!(expires_in(&cluster, 0) > DAY * 700);
    assert!(cluster.log(0).contains("new certificate files are refused"), "{}", cluster.log(0));
    // when it does not fit its key, then the key is named
    run_pki(&cluster, &["pki", "--out", "other", "node-1"]);
    std::fs::copy(pki(&cluster, "other", "node-1.pem"), &certificate).expect("copied");
    wait_for_certificate(&cluster, 0, "degraded", "node-1.key: ");
    // when both are of a CA that the node does not trust, then that is told
    std::fs::copy(pki(&cluster, "other", "node-1.key"), pki(&cluster, "pki", "node-1.key")).expect("copied");
    wait_for_certificate(&cluster, 0, "degraded", "no CA of the CA file has signed it");

    // when it is good again, but ends in ten days, then it is in force, and the end is told
    let read = |file: &str| std::fs::read_to_string(pki(&cluster, "pki", file)).expect("made");
    let ca_key = KeyPair::from_pem(&read("ca.key")).expect("a key");
    let ca = Issuer::from_ca_cert_pem(&read("ca.pem"), ca_key).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["node-1".to_owned()]).expect("a DNS name");
    params.not_after = (SystemTime::now() + DAY * 10).into();
    let short = params.signed_by(&key, &ca).expect("signed").pem();
    std::fs::write(pki(&cluster, "pki", "node-1.key"), key.serialize_pem()).expect("written");
    std::fs::write(&certificate, short).expect("written");
    wait_for_certificate(&cluster, 0, "degraded", "expires in 9 days 23 h");
    let left = expires_in(&cluster, 0);
    assert!(left > DAY * 9 && left <= DAY * 10, "{left:?}");

    // when it is renewed, then all is well
    run_pki(&cluster, &["pki", "--out", "pki", "--renew", "node-1"]);
    wait_for_certificate(&cluster, 0, "ready", "");
    assert!(expires_in(&cluster, 0) > DAY * 700);
}
