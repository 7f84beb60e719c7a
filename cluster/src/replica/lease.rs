//! The view lease: how a node knows that its view is not stale, and the leader that a change is seen (decisions.md 21).
//!
//! Every 500 ms, and at each new revision, a node probes the leader: "I show revision r". The leader has a majority
//! confirm it and answers with an index; once the node shows that much, its view is good until 5 s after it *sent* the
//! probe: longer than the longest failover, so that a change of leader turns no request away. A change is seen by all when
//! every member says so, or 5 s after its commit — one that an operation has removed counts until the operation's end: no probe answered before it gives
//! a longer lease, and none answered after it gives one without it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::core::{Core, Seat};
use super::views::publish;
use crate::hooks::panic_point;
use crate::leader::times::FAILOVER_MAX;
use crate::peer::message::control::{ProbeAnswerV1, ProbeV1};
use crate::peer::message::kind;
use crate::peer::{Lane, codec};
use crate::raft::types::ReadPolicy;
use crate::state::ids::Revision;

/// How long a view is good after the probe was sent.
pub const VIEW_LEASE: Duration = FAILOVER_MAX.saturating_mul(2);
const _: () = assert!(
    VIEW_LEASE.as_millis() > (FAILOVER_MAX.as_millis() + PROBE_EVERY.as_millis() + PROBE_WITHIN.as_millis()),
    "a view outlives a failover and the probes around it"
);
const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// Covers the difference in rate of two clocks over a lease, and the reading of them.
const MARGIN: Duration = Duration::from_millis(20);
/// This long after the last probe was answered, no view is good by it any more.
pub(crate) const VIEWS_END_AFTER: Duration = VIEW_LEASE.saturating_add(MARGIN);

/// Renews the lease as long as the seat's consensus core runs.
pub(crate) async fn run(core: Arc<Core>, seat: Arc<Seat>) {
    let mut role = seat.role.clone();
    loop {
        panic_point("view-lease");
        let sent = core.world.clock.boot();
        if let Ok(Some(index)) = timeout(PROBE_WITHIN, probe(&core, &seat)).await {
            let mut applied = seat.shared.applied.clone();
            if let Ok(Ok(_)) = timeout(PROBE_WITHIN, applied.wait_for(|applied| *applied >= index)).await {
                publish(&core, &seat, false);
                core.renew(sent.plus(VIEW_LEASE));
            }
        }
        tokio::select! {
            biased;
            () = seat.changed.notified() => {}
            changed = role.changed() => if changed.is_err() { return },
            () = sleep(PROBE_EVERY) => {}
        }
    }
}

async fn probe(core: &Core, seat: &Seat) -> Option<u64> {
    let (revision, applied) = {
        let view = core.view.borrow();
        (view.revision, view.applied_index)
    };
    let probe = ProbeV1 { node: seat.raft_id.0, revision: revision.0, applied };
    if seat.leads() {
        return match confirm(seat, &probe).await {
            ProbeAnswerV1::UpTo(index) => Some(index),
            ProbeAnswerV1::NotLeader => None,
        };
    }
    let leader = seat.leader()?;
    let payload = Bytes::from(codec::encode(&probe));
    let answer = core.peers.call(&leader, Lane::Control, kind::PROBE, payload, PROBE_WITHIN).await.ok()?;
    match codec::decode(&answer).ok()? {
        ProbeAnswerV1::UpTo(index) => Some(index),
        ProbeAnswerV1::NotLeader => None,
    }
}

/// Answers a probe: notes what the member shows, has a majority confirm this leader, says how far it is.
pub(crate) async fn confirm(seat: &Seat, probe: &ProbeV1) -> ProbeAnswerV1 {
    if !seat.leads() {
        return ProbeAnswerV1::NotLeader;
    }
    seat.shown.lock().insert(probe.node, Revision(probe.revision));
    seat.told.notify_waiters();
    match timeout(PROBE_WITHIN, seat.raft.get_read_log_id(ReadPolicy::ReadIndex)).await {
        Ok(Ok((read, _))) => ProbeAnswerV1::UpTo(read.index()),
        Ok(Err(_)) | Err(_) => ProbeAnswerV1::NotLeader,
    }
}

/// Waits until every member shows `revision`, or can no longer serve what it shows; names those that did not confirm.
///
/// Call it after the revision was applied here.
pub(crate) async fn seen_by_all(core: &Core, seat: &Seat, revision: Revision) -> Vec<String> {
    publish(core, seat, false);
    seat.shown.lock().insert(seat.raft_id.0, revision);
    let silent = |seat: &Seat| -> Vec<String> {
        let shown = seat.shown.lock();
        let behind = |id: &u64| shown.get(id).is_none_or(|shown| *shown < revision);
        seat.members_and_going().into_iter().filter(|(id, _)| behind(id)).map(|(_, name)| name).collect()
    };
    let ended = core.world.clock.boot().plus(VIEWS_END_AFTER);
    loop {
        let told = seat.told.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        let waiting = silent(seat);
        let left = ended.since(core.world.clock.boot());
        if waiting.is_empty() || left == 0 {
            return waiting;
        }
        // Either the lease's end or a word from a member; a clock that sleeps differently only loops once more.
        let _ = timeout(Duration::from_nanos(left).max(Duration::from_millis(1)), told).await;
    }
}
