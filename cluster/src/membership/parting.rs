//! A node that leaves: it is told to hand back what it holds, and learns that it was removed.

use std::sync::Arc;

use super::{identity_of, keep};
use crate::fatal::Fatal;
use crate::peer::message::members::MembersAnswerV1;
use crate::replica::core::{Core, Seat};
use crate::replica::standing::Parting;
use crate::state::ids::RaftId;

/// What a disk says whose node was removed.
pub(super) fn removed_text(raft_id: u64, cluster_id: u128) -> String {
    format!(
        "this node (raft id {raft_id}) was removed from cluster {cluster_id:032x}, so its data directory can not be used \
         any more: move it aside and start this node with an empty one, and it joins anew as long as its file names peers"
    )
}

/// The leader tells this node to hand back and finish.
pub(super) fn hand_back(core: &Core, seat: &Seat, from: RaftId, id: u64) -> Result<MembersAnswerV1, String> {
    is_meant(seat, from, id)?;
    core.standing.part(Parting::HandBack);
    let ready = core.standing.is_ready();
    Ok(if ready { MembersAnswerV1::Ready } else { MembersAnswerV1::Draining })
}

/// A member tells this node that it was removed.
pub(super) async fn told(
    core: &Arc<Core>,
    seat: &Seat,
    from: RaftId,
    id: u64,
) -> Result<MembersAnswerV1, String> {
    is_meant(seat, from, id)?;
    removed(core, seat).await;
    Ok(MembersAnswerV1::Ready)
}

/// Such words are obeyed if the leader says them that this node knows, or its own log.
fn is_meant(seat: &Seat, from: RaftId, id: u64) -> Result<(), String> {
    if seat.raft_id != RaftId(id) {
        return Err(format!("this node's raft id is {}, not {id}", seat.raft_id.0));
    }
    let leads = seat.role.borrow().leader == Some(from.0);
    let members = seat.shared.replicated.lock().state.members().operation().cloned();
    if leads || members.and_then(|operation| operation.change.removes()) == Some(seat.raft_id) {
        return Ok(());
    }
    Err(format!("node {} does not lead, and this node's log has no order that removes it", from.0))
}

/// Whether the applied log says that this node was removed. The same while the log is read anew: who is to leave is never
/// let in again under its number.
pub(super) fn is_removed(seat: &Seat) -> bool {
    let replicated = seat.shared.replicated.lock();
    let removes = replicated.state.members().operation().and_then(|operation| operation.change.removes());
    let membership = replicated.membership.membership();
    removes == Some(seat.raft_id)
        && membership.get_joint_config().len() == 1
        && membership.get_node(&seat.raft_id.0).is_none()
}

/// This node is no member any more: nothing may start on its disk again, and it ends.
pub(super) async fn removed(core: &Arc<Core>, seat: &Seat) {
    let _alone = core.membership.lock().await;
    if core.standing.parting() == Parting::Removed {
        return;
    }
    tracing::warn!(raft_id = seat.raft_id.0, "this node was removed from its cluster");
    if let Err(fatal) = keep(core, &identity_of(core, seat, true)).await {
        return core.bell.ring(fatal);
    }
    if core.lease.load(std::sync::atomic::Ordering::Acquire) == 0 && core.standing.parting() == Parting::No {
        // It was removed before this process began.
        core.bell.ring(Fatal::Setup(removed_text(seat.raft_id.0, seat.cluster_id)));
    }
    core.standing.part(Parting::Removed);
}
