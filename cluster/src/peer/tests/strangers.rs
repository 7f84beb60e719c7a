//! Whoever does not belong: told why, and harming nobody.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::ids::NodeName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::fixture::*;
use crate::peer::door::GREET_WITHIN;
use crate::peer::frame::{Decoder, Frame, MAGIC, VERSION};
use crate::peer::handshake::HelloV1;
use crate::peer::wire::{FRAME_WITHIN, WRITE_STALL_MAX, Wire, WireError};
use crate::peer::{CallError, Identity, Lane};
use crate::tls::{Secured, Tls, TlsError};
use crate::world::Share;

const SOON: Duration = Duration::from_secs(5);

/// Both ends' verdicts on a handshake where `caller` wants `server_name`.
pub async fn meet(
    caller: &Tls,
    server: &Tls,
    server_name: &str,
) -> (Result<Secured, TlsError>, Result<Secured, TlsError>) {
    let (here, there) = duplex(64 << 10);
    let wanted = name(server_name);
    let client = async {
        let mut secured = caller.connect(Box::new(here), "127.0.0.1", &wanted).await?;
        // In TLS 1.3 the server's verdict on us comes with its first byte.
        match timeout(SOON, secured.stream.read_u8()).await.expect("in time") {
            Ok(_) => Ok(secured),
            Err(error) => Err(TlsError::Handshake(error.to_string())),
        }
    };
    let server = async {
        let mut secured = server.accept(Box::new(there), ([127, 0, 0, 1], 9).into()).await?;
        // The client may have gone already.
        let _ = secured.stream.write_u8(1).await;
        let _ = secured.stream.flush().await;
        Ok(secured)
    };
    tokio::join!(client, server)
}

fn reason(verdict: Result<Secured, TlsError>) -> String {
    verdict.expect_err("no entry").to_string()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_bears_out_its_own_name_and_no_other() {
    let ca = Authority::new();
    let (client, server) = meet(&ca.tls("n1"), &ca.tls("n2"), "n2").await;
    let certified = |end: &Secured, node: &NodeName| end.certified(node);
    let (client, server) = (client.expect("secured"), server.expect("secured"));
    assert!(certified(&client, &name("n2")) && !certified(&client, &name("n1")));
    assert!(certified(&server, &name("n1")) && !certified(&server, &name("n2")));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_with_another_ca_learns_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // A node that is called does not speak to a foreign caller, nor does a caller speak to a foreign node.
    let (client, server) = meet(&theirs.tls("n1"), &ours.tls("n2"), "n2").await;
    let (client, server) = (reason(client), reason(server));
    assert!(client.contains("not signed by this cluster's CA"), "{client}");
    assert!(server.contains("does not accept this node's certificate"), "{server}");
    // A caller that trusts us while we do not trust it: our CA, its own certificate.
    let mut pem = theirs.pem(&["n1"], 2040);
    pem.ca = ours.pem(&["x"], 2040).ca;
    let (client, server) = meet(&mutual("n1", &pem).expect("usable"), &ours.tls("n2"), "n2").await;
    let (client, server) = (reason(client), reason(server));
    assert!(server.contains("not signed by this cluster's CA"), "{server}");
    assert!(client.contains("alert"), "{client}"); // Read after the handshake, hence in the library's words.
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_judged_by_the_worlds_clock() {
    // given a world in which it is 2027, and a certificate that ended with 2026
    let ca = Authority::new();
    let old = mutual("n1", &ca.pem(&["n1"], 2027)).expect("the peers judge expiry");
    let (_, server) = meet(&old, &ca.tls("n2"), "n2").await;
    let told = reason(server);
    assert!(told.contains("expired"), "{told}");
    let old = mutual("n2", &ca.pem(&["n2"], 2027)).expect("the peers judge expiry");
    let (client, _) = meet(&ca.tls("n1"), &old, "n2").await;
    let told = reason(client);
    assert!(told.contains("expired"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_node_is_told_with_both_names() {
    let ca = Authority::new();
    let (client, _) = meet(&ca.tls("n1"), &ca.tls("n3"), "n2").await;
    let told = reason(client);
    assert!(told.contains("n2") && told.contains("n3"), "{told}");
}

#[test]
fn a_node_does_not_start_with_a_certificate_that_lacks_its_name() {
    let ca = Authority::new();
    let told = |names: &[&str]| mutual("n1", &ca.pem(names, 2040)).expect_err("not its name").to_string();
    for (names, wanted) in [(&[][..], "this node is n1"), (&["n2"], "n2")] {
        let told = told(names);
        assert!(told.starts_with("certificate: ") && told.contains(wanted), "{told}");
    }
    let mut pem = ca.pem(&["n1"], 2040);
    pem.key = ca.pem(&["n1"], 2040).key;
    let told = mutual("n1", &pem).expect_err("another key").to_string();
    assert!(told.starts_with("key: "), "{told}");
    pem.certificate = b"nonsense".to_vec();
    let told = mutual("n1", &pem).expect_err("no certificate").to_string();
    assert_eq!(told, "certificate: found no certificate, wanted a PEM CERTIFICATE");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_declares_another_nodes_name_is_refused() {
    // given n3's certificate in the hands of somebody who says to be n1
    let ca = Authority::new();
    let (_door, to) = n2(ca.tls("n2"));
    let liar = n1(ca.tls("n3"));
    // when it calls
    let refused = liar.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await.expect_err("a liar");
    // then it is told that the certificate says otherwise
    let CallError::Refused(told) = refused else { panic!("{refused:?}") };
    assert!(told.starts_with("the peer calls itself n1, but "), "{told}");
}

#[tokio::test(start_paused = true)]
async fn plaintext_is_for_loopback_alone() {
    let loopback = ([127, 0, 0, 1], 1).into();
    let told = Tls::plaintext(([0, 0, 0, 0], 1).into(), "localhost:1").expect_err("reachable").to_string();
    assert!(told.contains("found 0.0.0.0:1"), "{told}");
    let told = Tls::plaintext(loopback, "n1.example:1").expect_err("reachable").to_string();
    assert!(told.contains("found n1.example:1"), "{told}");

    let plain = Tls::plaintext(loopback, "[::1]:1").expect("loopback");
    let stream = || Box::new(duplex(1).0);
    let out = plain.connect(stream(), "10.0.0.7", &name("n2")).await;
    assert!(matches!(out, Err(TlsError::NotLoopback { found }) if found == "10.0.0.7"));
    let into = plain.accept(stream(), ([10, 0, 0, 7], 5).into()).await;
    assert!(matches!(into, Err(TlsError::NotLoopback { found }) if found == "10.0.0.7:5"));
}

fn wire() -> (DuplexStream, Wire) {
    let (here, there) = duplex(64 << 10);
    (here, Wire::new(Box::new(there)))
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_frame_end_the_connection_with_their_reason() {
    let oversized = [MAGIC, VERSION, 1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    for (bytes, wanted) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "found first byte 0x47, wanted 0xb7"),
        (&oversized, "found a frame of 4294967295 bytes, wanted at most 1024"),
        (&[MAGIC, VERSION, 1, 0, 4, 0], "stream ended 6 bytes short of a whole frame"),
    ] {
        let (mut peer, mut wire) = wire();
        peer.write_all(bytes).await.expect("room");
        drop(peer);
        let told = wire.next().await.expect_err("no frame").to_string();
        assert!(told.contains(wanted), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_inside_a_frame_is_found_out() {
    // given a frame that has begun
    let (mut peer, mut wire) = wire();
    let mut frame = BytesMut::new();
    Frame::Hello(Bytes::from_static(b"half")).encode(&mut frame).expect("small");
    peer.write_all(&frame[..9]).await.expect("room");
    assert!(timeout(Duration::from_millis(1), wire.next()).await.is_err(), "not whole");
    // when its rest does not come
    assert!(wire.check(Instant::now(), SOON).is_ok(), "not yet");
    let later = Instant::now() + FRAME_WITHIN;
    // then the connection is given up
    assert!(matches!(wire.check(later, SOON), Err(WireError::StuckInFrame)));
    // and a rest that comes in time would have been good
    peer.write_all(&frame[9..]).await.expect("room");
    assert_eq!(wire.next().await.expect("whole"), Frame::Hello(Bytes::from_static(b"half")));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_found_out_and_holds_no_more_memory() {
    // given answers for a peer that reads nothing
    let (_peer, mut wire) = wire();
    let answer = Frame::Answer { id: 0, payload: Bytes::from(vec![0; 300 << 10]) };
    while wire.has_room() {
        wire.push(&answer).expect("fits");
        let _ = timeout(Duration::from_millis(1), wire.next()).await;
    }
    // when it goes on so
    let later = Instant::now() + WRITE_STALL_MAX;
    // then the connection is given up
    assert!(matches!(wire.check(later, SOON), Err(WireError::NotReading)));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_peer_costs_its_own_calls_their_deadline_and_nobody_else() {
    // given a peer that greets and then is silent, and n2
    let plain = Tls::plaintext(([127, 0, 0, 1], 0).into(), "localhost:1").expect("loopback");
    let mut listener = world().net.bind(([127, 0, 0, 1], 0).into(), Share::Alone).expect("a free port");
    let stalled = target("n3", listener.local_addr());
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a caller");
        let mut decoder = Decoder::new(1024);
        while decoder.next_frame().expect("a hello").is_none() {
            stream.read_buf(decoder.room()).await.expect("bytes");
        }
        let n3 = Identity { name: name("n3"), cluster: Some(1), raft_id: None };
        let mut hello = BytesMut::new();
        Frame::Hello(HelloV1::of(&n3, Lane::Raft).encode()).encode(&mut hello).expect("small");
        stream.write_all(&hello).await.expect("room");
        // Until the caller gives the connection up.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let (_door, to) = n2(plain.clone());
    let peers = n1(plain);
    // when both are called
    let short = Duration::from_millis(200);
    let stuck = peers.call(&stalled, Lane::Raft, 0, Bytes::new(), short);
    let good = peers.call(&to, Lane::Raft, 0, Bytes::new(), SOON);
    let (stuck, good) = tokio::join!(stuck, good);
    // then the one ends at its deadline, the other is answered, and the silent connection is dropped
    assert_eq!(stuck, Err(CallError::Timeout));
    assert_eq!(good, Ok(Bytes::new()));
    timeout(SOON, silent).await.expect("dropped by the caller").expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn garbage_at_the_door_harms_no_node() {
    // given n2, and strangers who send garbage, half a frame, or nothing
    let ca = Authority::new();
    let (door, to) = n2(ca.tls("n2"));
    let (mut strangers, begin) = (Vec::new(), Instant::now());
    for bytes in [&b"\0\0\0\0garbage"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b""] {
        let mut stream = connect(door.local_addr().port()).expect("listens");
        stream.write_all(bytes).await.expect("room");
        strangers.push(stream);
    }
    // when a node calls, then it is served
    let peers = n1(ca.tls("n1"));
    assert_eq!(peers.call(&to, Lane::Quota, 0, Bytes::new(), SOON).await, Ok(Bytes::new()));
    // and every stranger is shown out within the greeting's deadline
    for mut stranger in strangers {
        let mut rest = Vec::new();
        // Closed or reset: it is out.
        let _ = timeout(SOON, stranger.read_to_end(&mut rest)).await.expect("shown out");
    }
    assert!(begin.elapsed() <= GREET_WITHIN, "{:?}", begin.elapsed());
}
