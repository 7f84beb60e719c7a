use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn network() -> Network {
    Network::new(Chance::new(7, "network"), (1, 3))
}

/// Lets true time pass until `work` is done.
fn run<T>(network: &Network, now: &mut TrueNs, ms: u64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..=ms {
        if let Poll::Ready(done) = work.as_mut().poll(&mut cx) {
            return Some(done);
        }
        *now += MS_NS;
        network.run_until(*now);
    }
    None
}

fn connected(network: &Network, now: &mut TrueNs) -> (SimStream, SimStream) {
    let listener = network.listen(2, 80).expect("a free port");
    let both = async { tokio::join!(network.connect(1, 2, 80), listener.accept()) };
    let (made, (accepted, host, _)) = run(network, now, 20, both).expect("in time");
    assert_eq!(host, 1);
    (made.expect("somebody listens"), accepted)
}

#[test]
fn bytes_arrive_in_order_after_a_delay_and_an_end_is_heard() {
    let (network, mut now) = (network(), 0);
    let (mut one, mut other) = connected(&network, &mut now);
    let sent = async {
        for byte in 0..200_u8 {
            one.write_all(&[byte]).await.expect("written");
        }
        one.shutdown().await.expect("ended");
    };
    run(&network, &mut now, 0, sent).expect("at once");
    let mut text = Vec::new();
    assert!(run(&network, &mut now, 0, other.read_to_end(&mut text)).is_none(), "nothing arrives at once");
    run(&network, &mut now, 20, other.read_to_end(&mut text)).expect("in time").expect("no reset");
    assert_eq!(text, (0..200).collect::<Vec<u8>>());
}

#[test]
fn a_blocked_link_holds_what_was_sent_and_two_troubles_end_one_by_one() {
    let (network, mut now) = (network(), 0);
    let (mut one, mut other) = connected(&network, &mut now);
    let mut byte = [0; 1];
    // given a link that is blocked twice, in one direction, while something is on its way
    run(&network, &mut now, 0, one.write_all(b"a")).expect("at once").expect("written");
    network.block(1, 2);
    network.block(1, 2);
    run(&network, &mut now, 0, one.write_all(b"b")).expect("at once").expect("written");
    network.unblock(1, 2);
    assert!(run(&network, &mut now, 1000, other.read_exact(&mut byte)).is_none());
    // when both troubles have ended, then all arrives, in order; the other direction was never blocked
    run(&network, &mut now, 0, other.write_all(b"c")).expect("at once").expect("written");
    run(&network, &mut now, 20, one.read_exact(&mut byte)).expect("in time").expect("read");
    network.unblock(1, 2);
    let mut both = [0; 2];
    run(&network, &mut now, 1000, other.read_exact(&mut both)).expect("in time").expect("read");
    assert_eq!((&byte, &both), (b"c", b"ab"));
}

#[test]
fn a_lossy_link_leaves_the_connection_silent_for_good() {
    let (network, mut now) = (network(), 0);
    let (mut one, mut other) = connected(&network, &mut now);
    network.lose(1, 2);
    run(&network, &mut now, 10, one.write_all(b"a")).expect("at once").expect("written");
    assert!(run(&network, &mut now, 10, other.read_u8()).is_none());
    network.find(1, 2);
    run(&network, &mut now, 10, one.write_all(b"b")).expect("at once").expect("written");
    assert!(run(&network, &mut now, 1000, other.read_u8()).is_none());
    assert_eq!(network.seen().lost, 1);
}

#[test]
fn a_process_that_ends_is_heard_and_a_machine_without_power_is_not() {
    let (network, mut now) = (network(), 0);
    let (mut one, other) = connected(&network, &mut now);
    drop(other);
    let end = run(&network, &mut now, 20, one.read_u8()).expect("in time");
    assert_eq!(end.expect_err("an end").kind(), io::ErrorKind::UnexpectedEof);

    let (mut one, other) = connected(&network, &mut now);
    network.power_off(2);
    drop(other);
    run(&network, &mut now, 0, one.write_all(b"a")).expect("at once").expect("written");
    assert!(run(&network, &mut now, 1000, one.read_u8()).is_none());
    // when it is back, it does not know the connection
    network.power_on(2);
    run(&network, &mut now, 0, one.write_all(b"b")).expect("at once").expect("written");
    let reset = run(&network, &mut now, 20, one.read_u8()).expect("in time");
    assert_eq!(reset.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn nobody_listens_is_an_answer_and_a_dark_machine_gives_none() {
    let (network, mut now) = (network(), 0);
    let refused = run(&network, &mut now, 20, network.connect(1, 2, 81)).expect("in time");
    assert_eq!(refused.err().expect("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    network.power_off(2);
    assert!(run(&network, &mut now, 1000, network.connect(1, 2, 81)).is_none());
}

#[test]
fn what_makes_a_connection_is_sent_again() {
    let (network, mut now) = (network(), 0);
    let _listener = network.listen(2, 80).expect("free");
    network.lose(1, 2);
    let mut connect = Box::pin(network.connect(1, 2, 80));
    assert!(run(&network, &mut now, 1_500, &mut connect).is_none());
    network.find(1, 2);
    assert!(run(&network, &mut now, 2_000, &mut connect).is_some_and(|made| made.is_ok()));
}

#[test]
fn a_reader_that_does_not_read_stops_its_writer() {
    let (network, mut now) = (network(), 0);
    let (mut one, mut other) = connected(&network, &mut now);
    let much = vec![7; 3 * WINDOW_BYTES];
    {
        let mut write = pin!(one.write_all(&much));
        assert!(run(&network, &mut now, 1000, write.as_mut()).is_none());
        let mut text = vec![0; much.len()];
        let both = async { tokio::join!(write, other.read_exact(&mut text)) };
        run(&network, &mut now, 1000, both).expect("in time").0.expect("written");
        assert_eq!(text, much);
    }
}

#[test]
fn a_narrow_link_takes_its_time() {
    let (network, mut now) = (network(), 0);
    let (mut one, mut other) = connected(&network, &mut now);
    network.narrow(1, 2, 10_000);
    let begun = now;
    run(&network, &mut now, 0, one.write_all(&[1; 5_000])).expect("at once").expect("written");
    let mut text = vec![0; 5_000];
    run(&network, &mut now, 2_000, other.read_exact(&mut text)).expect("in time").expect("read");
    assert!((500..520).contains(&((now - begun) / MS_NS)), "{} ms", (now - begun) / MS_NS);
    network.widen(1, 2, 10_000);
}

#[test]
fn a_reset_ends_the_connections_between_two_hosts_alone() {
    let (network, mut now) = (network(), 0);
    let (mut one, _other) = connected(&network, &mut now);
    network.reset_between(1, 3);
    assert!(run(&network, &mut now, 20, one.read_u8()).is_none());
    network.reset_between(2, 1);
    let reset = run(&network, &mut now, 0, one.read_u8()).expect("at once");
    assert_eq!(reset.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
}
