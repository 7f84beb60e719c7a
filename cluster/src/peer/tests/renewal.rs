//! Certificates that change while nodes talk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::fixture::*;
use super::strangers::meet;
use crate::peer::trust::{JUDGE_EVERY, Trust};
use crate::peer::{Caller, Door, Lane, Peers, Serve, Target};
use crate::tls::{Certified, Pem, Tls};
use crate::world::{BootNs, BoxFuture, Clock, MonoNs, UnixMs};

const SOON: Duration = Duration::from_secs(20);

/// Answers with the port that the caller's connection comes from, after as many milliseconds as `kind` says.
struct WhereFrom;

impl Serve for WhereFrom {
    fn admits(&self, _: &Caller, _: Lane) -> Result<(), String> {
        Ok(())
    }

    fn serve(&self, from: Caller, _: Lane, kind: u16, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            sleep(Duration::from_millis(kind.into())).await;
            Ok(from.address.port().to_le_bytes().to_vec().into())
        })
    }
}

fn door(tls: watch::Receiver<Tls>) -> (Door, Target) {
    let (me, bell) = (me("n2", Some(1), Some(2)), crate::fatal::Bell::new("/nowhere".into()).0);
    let door = Door::open(&world(), ([127, 0, 0, 1], 0).into(), tls, me, Arc::new(WhereFrom), &bell);
    let door = door.expect("a free port");
    let target = target("n2", door.local_addr());
    (door, target)
}

async fn port(peers: &Peers, to: &Target, lane: Lane, ms: u16) -> u16 {
    let answer = peers.call(to, lane, ms, Bytes::new(), SOON).await.expect("no call fails");
    u16::from_le_bytes([answer[0], answer[1]])
}

/// Calls until the connection is another one; the ports that were seen.
async fn until_made_anew(peers: &Peers, to: &Target, lane: Lane, ms: u16) -> (BTreeSet<u16>, Instant) {
    let mut ports = BTreeSet::new();
    while ports.len() < 2 {
        ports.insert(port(peers, to, lane, ms).await);
    }
    (ports, Instant::now())
}

/// A certificate of `ca` for `node`, trusting `ca` and `also`.
fn trusting(node: &str, ca: &Authority, also: &Authority) -> Tls {
    let mut pem: Pem = ca.pem(&[node], 2040);
    pem.ca.extend(also.pem(&[node], 2040).ca);
    mutual(node, &pem).expect("usable")
}

#[tokio::test(start_paused = true)]
async fn every_lane_is_made_anew_in_its_turn_and_no_call_fails() {
    // given calls without a pause on a lane that serves in order, and several at once on another
    let ca = Authority::new();
    let (of_n1, tls) = watch::channel(ca.tls("n1"));
    let peers = Peers::new(world(), tls, me("n1", Some(1), Some(1)));
    let (_door, to) = door(fixed(ca.tls("n2")));
    let before = (port(&peers, &to, Lane::Raft, 0).await, port(&peers, &to, Lane::Quota, 0).await);
    // when n1 gets a new certificate
    of_n1.send_replace(ca.tls("n1"));
    let (raft, quota, other, long) = tokio::join!(
        until_made_anew(&peers, &to, Lane::Raft, 3),
        until_made_anew(&peers, &to, Lane::Quota, 3),
        until_made_anew(&peers, &to, Lane::Quota, 7),
        // Longer than new calls are held back for it.
        port(&peers, &to, Lane::Quota, 8_000),
    );
    // then each lane's calls go over to a new connection, and nothing that was asked on the old one is lost
    assert!(raft.0.contains(&before.0), "{raft:?} begins with {before:?}");
    assert!(quota.0.contains(&before.1) && quota.0 == other.0, "{quota:?} begins with {before:?}");
    assert_eq!(long, before.1);
    assert!(raft.1 < quota.1, "one lane after another");
    // and the old connection is not used again
    assert_ne!(port(&peers, &to, Lane::Quota, 0).await, before.1);
}

#[tokio::test(start_paused = true)]
async fn while_no_new_connection_can_be_made_the_old_one_goes_on() {
    // given a connection, and n1 with a certificate that n2 does not accept
    let (ca, foreign) = (Authority::new(), Authority::new());
    let (of_n1, tls) = watch::channel(ca.tls("n1"));
    let peers = Peers::new(world(), tls, me("n1", Some(1), Some(1)));
    let (_door, to) = door(fixed(ca.tls("n2")));
    let before = port(&peers, &to, Lane::Raft, 0).await;
    of_n1.send_replace(trusting("n1", &foreign, &ca));
    // when a lane that had no connection needs one, then it has none
    let refused = peers.call(&to, Lane::Quota, 0, Bytes::new(), SOON).await;
    assert!(refused.is_err(), "{refused:?}");
    // but the old connection serves, past the turn of its lane
    for _ in 0..150 {
        assert_eq!(port(&peers, &to, Lane::Raft, 20).await, before);
    }
    // and a good certificate replaces it at last
    of_n1.send_replace(ca.tls("n1"));
    until_made_anew(&peers, &to, Lane::Raft, 20).await;
}

/// A wall clock that is set.
#[derive(Clone, Default)]
struct Set(Arc<AtomicU64>);

impl Clock for Set {
    fn mono(&self) -> MonoNs {
        MonoNs(0)
    }
    fn boot(&self) -> BootNs {
        BootNs(0)
    }
    fn wall(&self) -> UnixMs {
        UnixMs(self.0.load(Ordering::Relaxed))
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(sleep(duration))
    }
}

async fn certified(ca: &Authority, node: &str) -> Certified {
    let (secured, _) = meet(&ca.tls("n1"), &ca.tls(node), node).await;
    secured.expect("secured").into_parts().1
}

#[tokio::test(start_paused = true)]
async fn whoever_was_let_in_is_judged_again_by_the_hour() {
    // given n2, let in while its certificate was good
    let ca = Authority::new();
    let n2 = certified(&ca, "n2").await;
    let clock = Set::default();
    clock.0.store(1_800_000_000_000, Ordering::Relaxed);
    let tls = Tls::mutual(Arc::new(clock.clone()), &name("n1"), &ca.pem(&["n1"], 2060)).expect("usable");
    let begin = Instant::now();
    let mut trust = Trust::new(fixed(tls), n2, begin);
    trust.check(begin + JUDGE_EVERY).expect("it is good until 2040");
    // when it is 2042, then that is seen at the next judgement, and not before
    clock.0.store(2_272_147_200_000, Ordering::Relaxed);
    trust.check(begin + JUDGE_EVERY * 2 - Duration::from_millis(1)).expect("not judged yet");
    let told = trust.check(begin + JUDGE_EVERY * 2).expect_err("it has expired").to_string();
    assert!(told.contains("expired"), "{told}");
    assert_eq!(trust.changed_at(), None);
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_is_gone_lets_nobody_stay() {
    // given n2, let in by the old CA
    let (old, new) = (Authority::new(), Authority::new());
    let n2 = certified(&old, "n2").await;
    let (files, seen) = watch::channel(old.tls("n1"));
    let begin = Instant::now();
    let mut trust = Trust::new(seen, n2, begin);
    // when both are trusted, then it may stay
    files.send_replace(trusting("n1", &old, &new));
    let first = begin + Duration::from_secs(1);
    trust.check(first).expect("time to make it anew");
    assert_eq!(trust.changed_at(), Some(first));
    trust.check(first + JUDGE_EVERY).expect("trusted");
    // when the old one is dropped, then it has the time to come anew, and no more
    files.send_replace(new.tls("n1"));
    let second = first + JUDGE_EVERY + Duration::from_secs(29);
    trust.check(second).expect("time to make it anew");
    trust.check(second + JUDGE_EVERY - Duration::from_millis(1)).expect("still");
    let told = trust.check(second + JUDGE_EVERY).expect_err("not trusted").to_string();
    assert!(told.contains("not signed by this cluster's CA"), "{told}");
}
