//! Slow and idle clients of many kinds, 200 of each at once: each is closed in time, nobody else notices, and nothing of
//! them is left.
#![allow(clippy::disallowed_methods)] // Clients and an upstream of the test's own.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::*;

const OF_EACH: usize = 200;
const LIMITS: &str = "limits: {head_timeout: 2s, idle_timeout: 2s, body_idle_timeout: 2s, tls_handshake_timeout: 2s, \
                      connections_max: 4000}\n";
/// Between two looks at all clients of a kind, and two bytes of those that dribble.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the upstream serves, once or often.
const PIECE: [u8; 1 << 10] = [b'h'; 1 << 10];
const BIG_PIECES: usize = 64 << 10;

/// A kind of client.
struct Kind {
    name: &'static str,
    tls: bool,
    /// What it says at once.
    says: &'static [u8],
    /// What it goes on to say, a byte at a time, over and over.
    dribbles: &'static [u8],
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A preface, and a POST of one stream whose body never comes: `:method: POST`, `:scheme: http`, `:path: /`, and a literal
/// `:authority`.
const STREAM: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x01\x04\0\0\0\x01\x83\x86\x84\x41\x03api";
/// The beginning of a ClientHello.
const HELLO: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";

const KINDS: [Kind; 8] = [
    Kind { name: "silent from the start", tls: false, says: b"", dribbles: b"" },
    Kind {
        name: "a head byte by byte",
        tls: false,
        says: b"GET / HTTP/1.1\r\nhost: api\r\nx: ",
        dribbles: b"a",
    },
    Kind {
        name: "a body byte by byte",
        tls: false,
        says: b"POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 1000000\r\n\r\n",
        dribbles: b"a",
    },
    Kind {
        name: "half a body, then silence",
        tls: false,
        says: b"POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 10\r\n\r\nhello",
        dribbles: b"",
    },
    Kind {
        name: "idle after an answer",
        tls: false,
        says: b"GET / HTTP/1.1\r\nhost: api\r\n\r\n",
        dribbles: b"",
    },
    Kind { name: "half a TLS handshake", tls: true, says: HELLO, dribbles: b"" },
    Kind { name: "HTTP/2 without a request", tls: false, says: PREFACE, dribbles: b"" },
    Kind { name: "HTTP/2 with half a request", tls: false, says: STREAM, dribbles: b"" },
];

/// Serves a piece, once a body has come to its end, and under `/big` more than sockets hold.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    at
}

fn serve(mut stream: TcpStream) {
    let mut came = Vec::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(end) = came.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&came[..end + 4]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if came.len() < whole {
                break;
            }
            came.drain(..whole);
            let pieces = if head.contains(" /big ") { BIG_PIECES } else { 1 };
            let size = pieces * PIECE.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
            let mut said = stream.write_all(answer.as_bytes());
            for _ in 0..pieces {
                said = said.and_then(|()| stream.write_all(&PIECE));
            }
            if said.is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => came.extend_from_slice(&piece[..count]),
        }
    }
}

/// Opens all clients of a kind, and stays until each has been closed. When the first and the last were.
fn besiege(kind: &Kind, to: SocketAddr) -> (Duration, Duration) {
    let begun = Instant::now();
    let mut open: Vec<TcpStream> = (0..OF_EACH)
        .map(|_| {
            let mut client = TcpStream::connect(to).expect("the node listens");
            // If this machine stood still meanwhile, it has been closed already.
            let _ = client.write_all(kind.says);
            client.set_nonblocking(true).expect("a socket");
            client
        })
        .collect();
    let mut first = None;
    for turn in 0.. {
        assert!(begun.elapsed() < PATIENCE, "{}: {} of {OF_EACH} are still open", kind.name, open.len());
        std::thread::sleep(LOOK_EVERY);
        open.retain_mut(|client| {
            let said = match kind.dribbles {
                [] => Ok(()),
                bytes => client.write_all(&bytes[turn % bytes.len()..][..1]),
            };
            let gone = |error: &std::io::Error| error.kind() != ErrorKind::WouldBlock;
            if said.is_err_and(|error| gone(&error)) {
                return false;
            }
            loop {
                match client.read(&mut [0; 4096]) {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(error) => return !gone(&error),
                }
            }
        });
        if open.len() < OF_EACH {
            first.get_or_insert_with(|| begun.elapsed());
        }
        if open.is_empty() {
            break;
        }
    }
    (first.unwrap_or_default(), begun.elapsed())
}

/// Clients that ask for much and read nothing. They see nothing of their end, for it stands behind what they do not read.
fn ask_and_do_not_read(to: SocketAddr) -> Vec<TcpStream> {
    let ask = |_| {
        let mut client = TcpStream::connect(to).expect("the node listens");
        // If this machine stood still meanwhile, it has been closed already.
        let _ = client.write_all(b"GET /big HTTP/1.1\r\nhost: api\r\n\r\n");
        client
    };
    (0..OF_EACH).map(ask).collect()
}

fn descriptors(cluster: &Cluster) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(0))).expect("it runs").count()
}

/// The 99th percentile.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

fn timed(cluster: &Cluster) -> Duration {
    let begun = Instant::now();
    let answer = cluster.get(0, "/", None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    begun.elapsed()
}

#[test]
fn slow_clients_are_closed_in_time_and_harm_nobody() {
    let gateway = format!(
        "upstreams: {{service: {{endpoints: [\"http://{}\"], connections_max: 2000, response_timeout: 60s}}}}\n\
         routes: [{{name: all, match: {{path: /}}, upstream: service, access: public}}]\n",
        upstream()
    );
    let https = loopback(port());
    let settings = format!(
        "https: {{listen: \"{https}\", certificates: [{{certificate: pki/node-1.pem, key: pki/node-1.key}}]}}\n{LIMITS}"
    );
    // given a node that serves
    let cluster = Cluster::start_with(1, &gateway, &settings);
    let calm: Vec<Duration> = (0..300).map(|_| timed(&cluster)).collect();
    let before = descriptors(&cluster);
    // when clients of all kinds come at once, and others go on
    let over = AtomicBool::new(false);
    let during = Mutex::new(Vec::new());
    let unread = ask_and_do_not_read(cluster.nodes[0].http);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let time = timed(&cluster);
                during.lock().expect("no panic").push(time);
            }
        });
        let sieges: Vec<_> = KINDS
            .iter()
            .map(|kind| {
                (
                    kind.name,
                    scope.spawn(|| besiege(kind, if kind.tls { https } else { cluster.nodes[0].http })),
                )
            })
            .collect();
        let ends: Vec<_> = sieges.into_iter().map(|(name, siege)| (name, siege.join())).collect();
        over.store(true, Ordering::Relaxed);
        for (name, end) in ends {
            let (first, last) = end.unwrap_or_else(|_| panic!("{name}: see above"));
            println!("{name}: {OF_EACH} closed, the first after {first:.1?}, the last after {last:.1?}");
        }
    });
    // then each was closed, nobody else was refused, and what they held is free again
    let during = during.into_inner().expect("no panic");
    assert!(during.len() > 20, "others were served meanwhile: {}", during.len());
    let requests = during.len();
    println!("others: {requests} requests, p99 {:.1?} (calm: {:.1?})", p99(during), p99(calm));
    let until = Instant::now() + PATIENCE;
    // Those who do not read have not gone: the node let go of them.
    while descriptors(&cluster) > before + 4 {
        assert!(Instant::now() < until, "{} descriptors, {before} before", descriptors(&cluster));
        std::thread::sleep(LOOK_EVERY);
    }
    drop(unread);
}
