//! Nodes that belong together.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::fixture::*;
use crate::peer::{CallError, Lane, PAYLOAD_BYTES_MAX, Target};
use crate::state::ids::RaftId;
use crate::tls::Tls;

const SOON: Duration = Duration::from_secs(5);

fn plaintext() -> Tls {
    Tls::plaintext(([127, 0, 0, 1], 0).into(), "localhost:1").expect("loopback")
}

#[tokio::test(start_paused = true)]
async fn two_nodes_of_a_cluster_call_over_mutual_tls_on_every_lane() {
    // given n1 and n2 with certificates of one CA
    let ca = Authority::new();
    let (_door, to) = n2(ca.tls("n2"));
    let peers = n1(ca.tls("n1"));
    for lane in Lane::ALL {
        // when n1 calls, with little and with as much as fits
        let small = peers.call(&to, lane, 0, Bytes::from_static(b"hello"), SOON).await;
        let large = Bytes::from(vec![7; PAYLOAD_BYTES_MAX]);
        let echoed = peers.call(&to, lane, 0, large.clone(), SOON).await;
        let refused = peers.call(&to, lane, 13, Bytes::new(), SOON).await;
        // then n2 answers, or says why not, to the name of the certificate
        assert_eq!(small, Ok(Bytes::from_static(b"hello")));
        assert!(echoed == Ok(large), "the largest message comes back");
        assert_eq!(refused, Err(CallError::Refused(format!("n1 may not do that on {lane:?}"))));
    }
    let too_large = Bytes::from(vec![7; PAYLOAD_BYTES_MAX + 1]);
    let error = peers.call(&to, Lane::Control, 0, too_large, SOON).await.expect_err("too large");
    assert!(error.to_string().contains("wanted at most"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_raft_lane_serves_in_order_and_the_others_side_by_side() {
    let (_door, to) = n2(plaintext());
    let peers = n1(plaintext());
    let order_on = async |lane| {
        // given a slow call before a fast one
        let started = Instant::now();
        let call = async |ms: u16| {
            peers.call(&to, lane, ms, Bytes::new(), SOON).await.expect("answered");
            started.elapsed()
        };
        // when both are sent at once
        tokio::join!(call(200), call(1))
    };
    // then the fast one waits its turn on the Raft lane alone
    let (slow, fast) = order_on(Lane::Raft).await;
    assert!(fast >= slow, "{fast:?} after {slow:?}");
    let (slow, fast) = order_on(Lane::Quota).await;
    assert!(fast < slow, "{fast:?} before {slow:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_lane_says_so_at_once_and_other_lanes_go_on() {
    // given as many calls without an answer as the lane may have
    let (_door, to) = n2(plaintext());
    let peers = n1(plaintext());
    let lane = Lane::Snapshot;
    let stuck = join_all(
        (0..lane.calls_max()).map(|_| peers.call(&to, lane, 99, Bytes::new(), Duration::from_millis(500))),
    );
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // when one more comes
        let more = peers.call(&to, lane, 0, Bytes::new(), SOON).await;
        // then it is told at once, and the heartbeat lane does not notice
        assert_eq!(more, Err(CallError::Overloaded));
        assert_eq!(peers.call(&to, Lane::Heartbeat, 0, Bytes::new(), SOON).await, Ok(Bytes::new()));
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    // and the callers that got no answer are told at their deadline
    assert!(stuck.iter().all(|end| *end == Err(CallError::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn calls_to_what_a_node_was_and_to_what_it_is_never_disturb_each_other() {
    // given n2 under its number
    let (_door, to) = n2(plaintext());
    let peers = n1(plaintext());
    let now = Target { raft_id: Some(RaftId(2)), ..to.clone() };
    let before = Target { raft_id: Some(RaftId(9)), ..to };
    let mut ways = Vec::new();
    for _ in 0..5 {
        // when it is called in turn by its number and by one that it had before
        ways.push(peers.call(&now, Lane::Raft, 77, Bytes::new(), SOON).await.expect("answered"));
        let error =
            peers.call(&before, Lane::Raft, 0, Bytes::new(), SOON).await.expect_err("not n2 as it is");
        assert!(matches!(error, CallError::Refused(_)), "{error}");
    }
    // then all calls to the right one came over one connection, in their order
    assert!(ways.iter().all(|way| *way == ways[0]), "{ways:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_is_called_again() {
    // given a connection to n2
    let (door, to) = n2(plaintext());
    let peers = n1(plaintext());
    peers.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await.expect("answered");
    // when n2 ends
    drop(door);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let gone = peers.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await.expect_err("gone");
    assert!(matches!(gone, CallError::Unreachable(_)), "{gone:?}");
    // and is there again at another address
    let (_door, to) = n2(plaintext());
    // then calls reach it
    assert_eq!(peers.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await, Ok(Bytes::new()));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_the_one_that_was_meant_is_not_called() {
    let (_door, mut to) = n2(plaintext());
    let peers = n1(plaintext());
    to.raft_id = Some(RaftId(9));
    let other_life = peers.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await.expect_err("another id");
    assert!(other_life.to_string().contains("node n2 has raft id Some(2), wanted 9"), "{other_life}");
    to.raft_id = None;
    to.name = name("n3");
    let other_node = peers.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await.expect_err("another node");
    assert!(other_node.to_string().contains("leads to node n2, wanted n3"), "{other_node}");
    // A node that calls its own address is turned away by its own door.
    let oneself = crate::peer::Peers::new(world(), fixed(plaintext()), me("n2", Some(1), Some(2)));
    to.name = name("n2");
    let refused = oneself.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await.expect_err("itself");
    assert!(refused.to_string().contains("an address leads to itself"), "{refused}");
    let foreign = crate::peer::Peers::new(world(), fixed(plaintext()), me("n1", Some(77), Some(1)));
    let refused = foreign.call(&to, Lane::Raft, 0, Bytes::new(), SOON).await.expect_err("another cluster");
    assert!(refused.to_string().contains("belongs to cluster"), "{refused}");
}
