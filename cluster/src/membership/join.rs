//! Asking to be let in, and letting in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::plan::VOTERS_MAX;
use super::{parting, propose, take_seat};
use crate::leader::times::FAILOVER_MAX;
use crate::peer::message::control::{JoinAnswerV1, JoinV1};
use crate::peer::message::kind;
use crate::peer::{Lane, Target, codec};
use crate::raft::types::PeerNode;
use crate::replica::core::{Core, Seat};
use crate::replica::standing::Parting;
use crate::state::command::{Command, Member, Outcome};
use crate::state::ids::RaftId;
use crate::state::members::MemberChange;

const ASK_WITHIN: Duration = Duration::from_secs(8);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Who has no leader's word for its view for so long, asks whether it still is a member. Who leads is no sign of contact: a
/// node that nobody talks to goes on believing in the leader that it knew.
const SILENT_MAX: Duration = FAILOVER_MAX;

/// Sees to it that this node is the member that it should be: joins if it belongs to no cluster, has its address changed,
/// takes a voter's place that became free, and asks when it has lost contact. Ends when the node was removed.
pub(crate) async fn tend(core: Arc<Core>) {
    let mut last_said = String::new();
    let mut heard = Instant::now();
    loop {
        if core.standing.parting() == Parting::Removed {
            return;
        }
        let seat = core.seat();
        if let Some(seat) = &seat {
            if parting::is_removed(seat) {
                return parting::removed(&core, seat).await;
            }
            if core.lease.load(Ordering::Acquire) > core.world.clock.boot().0 {
                heard = Instant::now();
            }
            // What has changed up to here is looked at below.
            let mut role = seat.role.clone();
            role.mark_unchanged();
            if is_settled(&core, seat) && heard.elapsed() < SILENT_MAX {
                core.standing.told(None);
                last_said.clear();
                // Either a change, or time to look whether a leader still answers.
                if let Ok(Err(_)) = timeout(ASK_AGAIN, role.changed()).await {
                    // The consensus core has ended, and the node with it.
                    return;
                }
                continue;
            }
            if seat.leads() && !is_settled(&core, seat) {
                // Its own address is all that a leader can want to have changed.
                let change =
                    MemberChange::Join { id: seat.raft_id, address: core.node.cluster.advertise.clone() };
                begin(seat, change).await;
                sleep(ASK_AGAIN).await;
                continue;
            }
        }
        // A founder that has not finished founding has nobody to ask.
        for target in whom_to_ask(&core) {
            let admitted = core.seat().map(|seat| (seat.cluster_id, seat.raft_id.0));
            let join = JoinV1 {
                name: core.node.name.as_str().to_owned(),
                address: core.node.cluster.advertise.clone(),
                admitted,
                forward: true,
            };
            let answer = ask(&core, &target, &join).await;
            // Who says nothing of use leaves the question to the next: all that this node knew may be gone.
            let is_answered = matches!(&answer, Ok(answer) if *answer != JoinAnswerV1::Again);
            let said = match answer {
                Ok(JoinAnswerV1::Admitted { cluster_id, raft_id }) if core.seat().is_none() => {
                    if take_seat(&core, cluster_id, raft_id).await.is_err() {
                        return;
                    }
                    format!("admitted under raft id {raft_id}")
                }
                Ok(JoinAnswerV1::Admitted { .. } | JoinAnswerV1::Underway) => {
                    "admitted, on its way".to_owned()
                }
                Ok(JoinAnswerV1::Member) => "a member".to_owned(),
                Ok(JoinAnswerV1::Refused(reason)) => format!("refused: {reason}"),
                Ok(JoinAnswerV1::Removed) => match core.seat() {
                    Some(seat) => return parting::removed(&core, &seat).await,
                    None => "refused: removed".to_owned(),
                },
                Ok(JoinAnswerV1::Again) => format!("{} knows no leader", target.name),
                Err(reason) => format!("{}: {reason}", target.name),
            };
            if said != last_said {
                tracing::info!(answer = %said, "asked to join");
                core.standing.told(Some(said.clone()));
                last_said = said;
            }
            if is_answered && core.seat().is_some_and(|seat| is_settled(&core, &seat)) {
                break;
            }
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Whether the membership names this node as it is, and as a voter if there is a place for one.
fn is_settled(core: &Core, seat: &Seat) -> bool {
    let role = seat.role.borrow();
    let membership = role.membership.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let named = membership.get_node(&seat.raft_id.0) == Some(&core.myself());
    named && (voters.contains(&seat.raft_id.0) || voters.len() >= VOTERS_MAX)
}

/// The leader, then all that the node file names, then all members, each place once: who has lost contact may know no
/// better, and a member may have moved since the node file was written.
fn whom_to_ask(core: &Core) -> Vec<Target> {
    let seat = core.seat();
    let peers = core.node.cluster.peers.iter().filter(|(name, _)| **name != core.node.name);
    let peers = peers.map(|(name, address)| (name.clone(), address.clone()));
    let members =
        seat.iter().flat_map(|seat| seat.members().into_iter().filter_map(|(id, _)| seat.member(id)));
    let known = seat.as_ref().and_then(|seat| seat.leader()).into_iter();
    let place = |target: Target| (target.name, target.address);
    let all = known.map(place).chain(peers).chain(members.map(place));
    let mut seen = BTreeSet::new();
    // Under whatever number: who lost its disk, and joined again, knows as well.
    let target = |(name, address)| Target { name, address, raft_id: None };
    all.filter(|place| seen.insert(place.clone())).map(target).collect()
}

async fn ask(core: &Core, target: &Target, join: &JoinV1) -> Result<JoinAnswerV1, String> {
    let payload = Bytes::from(codec::encode(join));
    let answer = core.peers.call(target, Lane::Control, kind::JOIN, payload, ASK_WITHIN).await;
    codec::decode(&answer.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

/// A node asks this one to be let in.
pub(crate) async fn asked(core: &Arc<Core>, join: JoinV1) -> JoinAnswerV1 {
    let Some(seat) = core.seat() else { return JoinAnswerV1::Again };
    // Any member knows that, and says so without a leader.
    if let Some((cluster_id, id)) = join.admitted
        && cluster_id == seat.cluster_id
        && seat.is_fenced(RaftId(id))
    {
        return JoinAnswerV1::Removed;
    }
    if !seat.leads() {
        let Some(leader) = seat.leader().filter(|_| join.forward) else { return JoinAnswerV1::Again };
        let join = JoinV1 { forward: false, ..join };
        return ask(core, &leader, &join).await.unwrap_or(JoinAnswerV1::Again);
    }
    let Ok(name) = config::ids::NodeName::parse(&join.name) else {
        return JoinAnswerV1::Refused(format!("{:?} is no node name", join.name));
    };
    if name == core.node.name {
        return JoinAnswerV1::Refused(format!(
            "{name} is the leader's own name: two nodes have one node file"
        ));
    }
    let Some((cluster_id, id)) = join.admitted else {
        let member = Member { name, address: join.address };
        return match propose(&seat, Command::Admit(member)).await {
            Ok(Outcome::Admitted(id)) => {
                tracing::info!(node = %join.name, raft_id = id.0, "admitted");
                JoinAnswerV1::Admitted { cluster_id: seat.cluster_id, raft_id: id.0 }
            }
            Ok(_) | Err(_) => JoinAnswerV1::Again,
        };
    };
    if cluster_id != seat.cluster_id {
        let (found, wanted) = (format!("{cluster_id:032x}"), format!("{:032x}", seat.cluster_id));
        return JoinAnswerV1::Refused(format!("the node's disk is of cluster {found}, this is {wanted}"));
    }
    let known = seat.shared.replicated.lock().state.members().get(RaftId(id)).cloned();
    if known.is_none_or(|member| member.name != name) {
        return JoinAnswerV1::Refused(format!("raft id {id} was not given to {name} by this cluster"));
    }
    let node = PeerNode { name: join.name, address: join.address };
    let present = {
        let role = seat.role.borrow();
        let membership = role.membership.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        membership.get_node(&id) == Some(&node) && (voters.contains(&id) || voters.len() >= VOTERS_MAX)
    };
    if present {
        return JoinAnswerV1::Member;
    }
    begin(&seat, MemberChange::Join { id: RaftId(id), address: node.address }).await;
    JoinAnswerV1::Underway
}

/// Begins a join unless an operation is under way: then the node asks again, and this is done then.
async fn begin(seat: &Seat, change: MemberChange) {
    if seat.shared.replicated.lock().state.members().operation().is_none()
        && let Err(reason) = propose(seat, Command::Begin(change)).await
    {
        tracing::warn!(%reason, "a join was not begun");
    }
}
