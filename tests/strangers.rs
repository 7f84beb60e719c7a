//! The door for peers, abused in every way we could think of: a reason in the log, and nothing else harmed.
#![allow(clippy::disallowed_methods)] // A stranger stands outside the product: clients and clocks of its own.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use support::*;

/// Strangers that keep the door busy at once, and how often each comes.
const HAMMERS: usize = 8;
const BLOWS: usize = 50;
/// More than the door has places for.
const SILENT: usize = 2_000;
/// Growth that is no leak: caches, allocators that keep what they had.
const MEMORY_SLACK_KB: u64 = 48 << 10;

const HELLO: u8 = 1;
const REQUEST: u8 = 3;
const ANSWER: u8 = 4;
const PING: u8 = 7;

/// What the stranger has to show.
struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// A certificate of `issuer` for `names`, valid from 2020 up to, not including, the year `until`.
fn certificate(issuer: &Issuer<'_, KeyPair>, names: &[&str], until: i32) -> Credentials {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("DNS names");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, issuer).expect("signed");
    Credentials {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key"),
    }
}

/// The cluster's own CA.
fn cluster_ca(cluster: &Cluster) -> Issuer<'static, KeyPair> {
    let read =
        |file: &str| std::fs::read_to_string(cluster.folder.path().join("pki").join(file)).expect("made");
    let key = KeyPair::from_pem(&read("ca.key")).expect("a key");
    Issuer::from_ca_cert_pem(&read("ca.pem"), key).expect("a CA")
}

/// A CA that only looks like it.
fn foreign_ca() -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "quorumgate cluster CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    Issuer::new(params, KeyPair::generate().expect("a key"))
}

/// A stream that remembers what was written to it.
struct Recorded {
    stream: TcpStream,
    written: Vec<u8>,
}

impl Read for Recorded {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(bytes)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

type Tls = StreamOwned<ClientConnection, Recorded>;

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xB7, 1, kind, 0];
    frame.extend((body.len() as u32).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame);
    crc.update(body);
    frame.extend(crc.finalize().to_le_bytes());
    frame.extend(body);
    frame
}

/// What a node that wants to join says first, on the control lane.
fn hello(name: &str) -> Vec<u8> {
    hello_of_member(name, None)
}

fn hello_of_member(name: &str, raft_id: Option<u64>) -> Vec<u8> {
    let mut body = vec![1, 1, 0, 1, 0, 5];
    body.extend([0; 1 + 16]); // No cluster.
    body.push(raft_id.is_some().into());
    body.extend(raft_id.unwrap_or(0).to_le_bytes());
    body.push(name.len() as u8);
    body.extend(name.as_bytes());
    frame(HELLO, &body)
}

/// The node that is abused, and what it was like before.
struct Victim<'a> {
    cluster: &'a Cluster,
    index: usize,
}

impl Victim<'_> {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.cluster.nodes[self.index].peers).expect("it listens");
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).expect("a timeout");
        }
        stream
    }

    fn config(&self, credentials: &Credentials) -> Arc<ClientConfig> {
        let ca = std::fs::read(self.cluster.folder.path().join("pki/ca.pem")).expect("made");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca).expect("a certificate")).expect("a CA");
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
            .expect("they belong together");
        Arc::new(config)
    }

    /// The node's verdict on us comes after our last word of the handshake.
    fn tls(&self, credentials: &Credentials) -> Tls {
        self.tls_with(self.config(credentials))
    }

    fn tls_with(&self, config: Arc<ClientConfig>) -> Tls {
        let name = ServerName::try_from(self.cluster.nodes[self.index].name.clone()).expect("a name");
        let client = ClientConnection::new(config, name).expect("a connection");
        StreamOwned::new(client, Recorded { stream: self.connect(), written: Vec::new() })
    }

    /// A node that was let in.
    fn greeted(&self, credentials: &Credentials, name: &str) -> Tls {
        Self::greet(self.tls(credentials), name)
    }

    fn greet(mut tls: Tls, name: &str) -> Tls {
        tls.write_all(&hello(name)).expect("sent");
        let mut head = [0; 12];
        tls.read_exact(&mut head).expect("an answer");
        assert_eq!(head[2], HELLO, "{name} was let in");
        let mut body = vec![0; head[4].into()];
        tls.read_exact(&mut body).expect("its rest");
        tls
    }

    /// Attacks until the log has the reason, for it has only a line a second for each kind; returns that line.
    fn logs(&self, wanted: &str, attack: impl Fn()) -> String {
        let from = self.cluster.log(self.index).len();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            attack();
            let look_until = Instant::now() + Duration::from_secs(1);
            while Instant::now() < look_until {
                let log = self.cluster.log(self.index);
                if let Some(line) = log[from..].lines().find(|line| line.contains(wanted)) {
                    return line.to_owned();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("{wanted:?} was not logged:\n{}", &self.cluster.log(self.index)[from..]);
    }

    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.cluster.pid(self.index));
        std::fs::read_dir(folder).expect("it runs").count()
    }

    fn memory_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.cluster.pid(self.index)));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("resident memory");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    }
}

/// Sends, and waits until it is shown out: an end or an error, whatever else it was told.
fn shown_out(mut stream: impl Read + Write, bytes: &[u8]) {
    // It may be gone before all was sent.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Sends, then ends in order.
fn end_after(mut tls: Tls, bytes: &[u8]) {
    let _ = tls.write_all(bytes);
    tls.conn.send_close_notify();
    let _ = tls.flush();
    let _ = tls.sock.stream.shutdown(std::net::Shutdown::Write);
    let _ = tls.read_to_end(&mut Vec::new());
}

#[test]
fn whoever_abuses_the_door_for_peers_is_logged_and_harms_nothing() {
    support::in_calm(|| {
        // given three nodes under light load, and what their leader is like
        let cluster = Cluster::start(3, GATEWAY);
        let token = cluster.token("acme", &[]);
        let victim = Victim { cluster: &cluster, index: cluster.leader() };
        let ca = cluster_ca(&cluster);
        let node_9 = certificate(&ca, &["node-9"], 2090);
        // What the first strangers cost once (buffers of the TLS library, the allocator's arenas) is no harm.
        drop(victim.greeted(&node_9, "node-9"));
        let terms = || -> Vec<u64> {
            (0..3).map(|node| cluster.status(node)["term"].as_u64().expect("a term")).collect()
        };
        let (terms_before, descriptors_before, memory_before) =
            (terms(), victim.descriptors(), victim.memory_kb());
        let stop = AtomicBool::new(false);

        let (asked, failed) = std::thread::scope(|scope| {
            let load = scope.spawn(|| cluster.ask_all("/many", &token, &stop));
            // The load ends also when an assertion fails.
            let attacks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                abuse(&victim, &ca, &node_9);
            }));
            stop.store(true, Ordering::SeqCst);
            let ended = load.join().expect("no panic");
            if let Err(panic) = attacks {
                std::panic::resume_unwind(panic);
            }
            ended
        });

        // then no request failed, nobody was elected, and everything was given back
        assert!(asked > 0 && failed.is_empty(), "{} of {asked} failed: {failed:?}", failed.len());
        assert_eq!(terms(), terms_before, "no election");
        let until = Instant::now() + PATIENCE;
        let is_back = || {
            victim.descriptors() <= descriptors_before + 4
                && victim.memory_kb() <= memory_before + MEMORY_SLACK_KB
        };
        while !is_back() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
        let (descriptors, memory) = (victim.descriptors(), victim.memory_kb());
        println!(
            "{asked} requests, none failed; descriptors {descriptors_before} -> {descriptors}, \
         memory {memory_before} -> {memory} kB"
        );
        assert!(descriptors <= descriptors_before + 4, "descriptors {descriptors_before} -> {descriptors}");
        assert!(memory <= memory_before + MEMORY_SLACK_KB, "memory {memory_before} -> {memory} kB");
    });
}

fn abuse(victim: &Victim<'_>, ca: &Issuer<'_, KeyPair>, node_9: &Credentials) {
    let said = |what: &str, line: String| println!("{what}\n    {}", line.trim());

    // when certificates are not what they should be
    let foreign = certificate(&foreign_ca(), &["node-2"], 2090);
    let line = victim.logs("the peer's certificate is not signed by this cluster's CA", || {
        shown_out(victim.tls(&foreign), &hello("node-2"));
    });
    said("wrong CA", line);
    let expired = certificate(ca, &["node-2"], 2024);
    let line = victim.logs("certificate expired", || shown_out(victim.tls(&expired), &hello("node-2")));
    said("expired certificate", line);
    let line = victim.logs("the peer calls itself node-2, but", || {
        shown_out(victim.tls(node_9), &hello("node-2"));
    });
    assert!(line.contains("node-9"), "{line}");
    said("another node's certificate", line);
    let member = (victim.index + 1) % 3;
    let raft_id = victim.cluster.status(member)["node"]["raft_id"].as_u64();
    let line = victim.logs(&format!("which is node {}'s", victim.cluster.nodes[member].name), || {
        shown_out(victim.tls(node_9), &hello_of_member("node-9", raft_id));
    });
    said("its own certificate, another node's number", line);
    let nameless = certificate(ca, &[], 2090);
    let line = victim.logs("the peer calls itself node-7, but", || {
        shown_out(victim.tls(&nameless), &hello("node-7"));
    });
    said("certificate without a name", line);

    // when bytes are not what they should be
    let line = victim.logs("the peer does not speak TLS", || {
        shown_out(victim.connect(), b"GET / HTTP/1.1\r\n\r\n");
    });
    said("garbage", line);
    let line = victim.logs("found first byte 0x47, wanted 0xb7", || {
        shown_out(victim.tls(node_9), b"GET / HTTP/1.1\r\n\r\n");
    });
    said("garbage inside TLS", line);
    let huge = [0xB7, 1, HELLO, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    let line = victim.logs("found a frame of 4294967295 bytes, wanted at most 1024", || {
        shown_out(victim.tls(node_9), &huge);
    });
    said("oversized hello", line);
    let line = victim.logs("found a frame of 4294967295 bytes, wanted at most 4194304", || {
        shown_out(victim.greeted(node_9, "node-9"), &huge);
    });
    said("oversized frame of a node", line);
    let request = frame(REQUEST, &[0; 40]);
    let line = victim.logs("stream ended 32 bytes short of a whole frame", || {
        end_after(victim.greeted(node_9, "node-9"), &request[..20]);
    });
    said("truncated frame", line);
    let line = victim.logs("found a frame before the hello", || {
        shown_out(victim.tls(node_9), &frame(PING, &[]));
    });
    said("a frame before the hello", line);

    // when what was said once is said again
    let line = victim.logs("found a second hello where the protocol has none", || {
        shown_out(victim.greeted(node_9, "node-9"), &hello("node-9"));
    });
    said("the hello twice", line);
    let line = victim.logs("found a frame that only a server sends", || {
        shown_out(victim.greeted(node_9, "node-9"), &frame(ANSWER, &[0; 9]));
    });
    said("an answer to no request", line);
    let config = victim.config(node_9);
    for _ in 0..2 {
        let tls = Victim::greet(victim.tls_with(config.clone()), "node-9");
        assert_eq!(tls.conn.handshake_kind(), Some(HandshakeKind::Full), "a certificate is shown each time");
    }
    let captured = victim.greeted(node_9, "node-9").sock.written;
    let line = victim.logs("decrypt", || shown_out(victim.connect(), &captured));
    said("a captured connection, sent again byte for byte", line);

    // when somebody stalls
    let line = victim.logs("no greeting within 2s", || shown_out(victim.tls(node_9), &hello("node-9")[..20]));
    said("stalled inside its hello", line);
    let line = victim.logs("the peer stopped inside a frame for 10s", || {
        shown_out(victim.greeted(node_9, "node-9"), &request[..20]);
    });
    said("stalled inside a frame", line);
    let pings = frame(PING, &[]).repeat(4096);
    let line = victim.logs("the peer read nothing for 5s", || {
        let mut tls = victim.greeted(node_9, "node-9");
        while tls.write_all(&pings).is_ok() {}
    });
    said("sends and never reads", line);
    let line = victim.logs("node node-9 has 8 connections on lane Control already", || {
        let _many: Vec<Tls> = (0..8).map(|_| victim.greeted(node_9, "node-9")).collect();
        shown_out(victim.tls(node_9), &hello("node-9"));
    });
    said("one node, many connections", line);

    // when many make it work
    let line = victim.logs("the peer's certificate is not signed by this cluster's CA", || {
        std::thread::scope(|scope| {
            for _ in 0..HAMMERS {
                scope.spawn(|| (0..BLOWS).for_each(|_| shown_out(victim.tls(&foreign), &hello("node-2"))));
            }
        });
    });
    said("hundreds of handshakes with another CA", line);

    // when thousands come and say nothing, then a node still gets in
    let line = victim.logs("its place was needed for a newer connection", || {
        let _silent: Vec<TcpStream> = (0..SILENT).map(|_| victim.connect()).collect();
        drop(victim.greeted(node_9, "node-9"));
    });
    said("thousands of silent connections", line);
}
