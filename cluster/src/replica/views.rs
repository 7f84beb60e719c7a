//! The published view: what the log made of this node, as others read it.

use std::sync::Arc;
use std::time::Duration;

use config::ids::NodeName;
use tokio::time::{MissedTickBehavior, interval};

use super::core::{Core, Seat};
use crate::hooks::panic_point;
use crate::state::ids::RaftId;
use crate::view::{View, ViewMember};

/// A view that differs in its applied index and its counts alone may be this late.
const INDEX_WITHIN: Duration = Duration::from_millis(100);

/// Publishes after each apply and each change of role, as long as the seat's consensus core runs.
pub(crate) async fn run(core: Arc<Core>, seat: Arc<Seat>) {
    let mut applied = seat.shared.applied.clone();
    let mut role = seat.role.clone();
    let mut tick = interval(INDEX_WITHIN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let index_too = tokio::select! {
            biased;
            changed = applied.changed() => { if changed.is_err() { return } false },
            changed = role.changed() => { if changed.is_err() { return } true },
            _ = tick.tick() => true,
        };
        panic_point("views");
        publish(&core, &seat, index_too);
    }
}

/// Publishes the present view if it differs from the last; `index_too`: even if only the applied index does.
pub(crate) fn publish(core: &Core, seat: &Seat, index_too: bool) {
    let next = build(seat);
    let mut new_revision = false;
    core.view.send_if_modified(|held| {
        let index_only = View {
            applied_index: next.applied_index,
            buckets: next.buckets,
            sessions: next.sessions,
            log_entries: next.log_entries,
            ..(**held).clone()
        };
        let differs = !same(&index_only, &next) || (index_too && held.applied_index != next.applied_index);
        if differs {
            new_revision = held.revision != next.revision;
            *held = Arc::new(next);
        }
        differs
    });
    if new_revision {
        seat.changed.notify_one();
    }
}

fn build(seat: &Seat) -> View {
    let role = seat.role.borrow().clone();
    let membership = role.membership.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let members = membership.nodes().filter_map(|(id, node)| {
        Some(ViewMember {
            raft_id: RaftId(*id),
            name: NodeName::parse(&node.name).ok()?,
            address: node.address.clone(),
            voter: voters.contains(id),
        })
    });
    let log_entries = seat.log.count();
    let replicated = seat.shared.replicated.lock();
    let state = &replicated.state;
    View {
        raft_id: Some(seat.raft_id),
        cluster_id: Some(seat.cluster_id),
        revision: state.revision(),
        document: state.document().cloned(),
        secret: state.secret(),
        leader: role.leader.map(RaftId),
        term: role.term,
        is_leader: role.leading.is_some(),
        applied_index: replicated.applied_index(),
        buckets: state.ledger().buckets(),
        sessions: state.sessions().count(),
        log_entries,
        members: members.collect(),
        operation: state.members().operation().cloned(),
        ended: state.members().ended().clone(),
    }
}

fn same(a: &View, b: &View) -> bool {
    // The document follows from the revision.
    (a.raft_id, a.cluster_id, a.revision, a.secret, a.leader, a.term, a.is_leader, a.applied_index)
        == (b.raft_id, b.cluster_id, b.revision, b.secret, b.leader, b.term, b.is_leader, b.applied_index)
        && a.members == b.members
        && a.operation == b.operation
        && a.ended == b.ended
        && a.document.is_some() == b.document.is_some()
}
