//! Members: found, join, catch up, vote.
//!
//! ```text
//! a new node                          any node ──▶ the leader
//! join (no raft id) ────────────────▶ Admit in the log ─▶ a raft id, never reused
//! identity durable, core started
//! join (raft id) ───────────────────▶ learner ─▶ caught up ─▶ voter, one operation at a time
//! ```
//!
//! A cluster is founded by one explicit order, never by an empty disk. A node whose disk was lost joins again under its
//! name with a new raft id and replaces the old one: added first, then swapped in one joint change. A node that comes
//! back at another address has it changed before it counts on it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::fatal::Fatal;
use crate::peer::codec::{self, Kind};
use crate::peer::message::control::{IdentityV1, JoinAnswerV1, JoinV1};
use crate::peer::message::kind;
use crate::peer::{Lane, Target};
use crate::raft::log::blocking;
use crate::raft::types::{ChangeMembers, Local, PeerNode, WatchReceiver};
use crate::replica::core::{Core, Seat};
use crate::state::command::{Command, Member, Outcome};
use crate::state::ids::RaftId;
use crate::world::World;

/// The file that makes a directory a node's.
pub const IDENTITY: &str = "identity";
const FOUNDER: u64 = 1;
const VOTERS_MAX: usize = 5;
const PROPOSE_WITHIN: Duration = Duration::from_secs(5);
const LEAD_WITHIN: Duration = Duration::from_secs(10);
const JOIN_WITHIN: Duration = Duration::from_secs(8);
const JOIN_AGAIN: Duration = Duration::from_millis(500);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(120);
/// A learner this close to the leader's end is caught up.
const BEHIND_MAX: u64 = 64;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who this disk belongs to; none: nobody yet. Blocks.
///
/// # Errors
/// The disk's; within, a text for the operator, if the disk is another node's.
pub(crate) fn identity(world: &World, name: &str) -> io::Result<Result<Option<IdentityV1>, String>> {
    let Some(record) = world.disk.read(Path::new(IDENTITY))? else { return Ok(Ok(None)) };
    let identity: IdentityV1 = codec::decode_stored(codec::open(Kind::Identity, &record)?)?;
    if identity.name != name {
        return Ok(Err(format!(
            "the data directory belongs to node {:?}, the node file says {name:?}: use the directory of this node",
            identity.name
        )));
    }
    Ok(Ok(Some(identity)))
}

async fn keep(core: &Core, identity: &IdentityV1) -> Result<(), Fatal> {
    let written = write_identity(&core.world, identity).await;
    written.map_err(|error| core.bell.storage("writing whose it is", &error))
}

/// Makes it durable whose disk this is.
pub(crate) async fn write_identity(world: &World, identity: &IdentityV1) -> io::Result<()> {
    let disk = world.disk.clone();
    let record = codec::seal(Kind::Identity, &codec::encode(identity));
    blocking(world, move || disk.write(Path::new(IDENTITY), &record)).await
}

/// Founds a cluster of this node alone, or finishes a founding that was cut off.
pub(crate) async fn found(core: &Arc<Core>) -> Result<(), String> {
    let _alone = core.membership.lock().await;
    let seat = match core.seat() {
        Some(seat) => seat,
        None => {
            let name = core.node.name.as_str().to_owned();
            let identity = IdentityV1 { cluster_id: core.random(), raft_id: FOUNDER, name };
            sit(core, &identity).await.map_err(|fatal| fatal.to_string())?
        }
    };
    let founded = seat.shared.replicated.lock().state.cluster_id();
    if seat.raft_id != RaftId(FOUNDER) || founded.is_some() {
        return Err(format!("this node already belongs to cluster {:032x}", seat.cluster_id));
    }
    let initialized = seat.raft.is_initialized().await.map_err(|e| e.to_string())?;
    if !initialized {
        let members = BTreeMap::from([(FOUNDER, core.myself())]);
        seat.raft.initialize(members).await.map_err(|e| e.to_string())?;
    }
    let mut role = seat.role.clone();
    let leads = timeout(LEAD_WITHIN, role.wait_for(|role| role.leading.is_some())).await;
    leads
        .map_err(|_| "this node did not come to lead itself in time: try again")?
        .map_err(|e| e.to_string())?;
    let command = Command::Found {
        cluster_id: seat.cluster_id,
        secret: core.random().to_le_bytes(),
        founder: Member { name: core.node.name.clone(), address: core.node.cluster.advertise.clone() },
    };
    match propose(&seat, command).await? {
        Outcome::Founded(_) => {
            tracing::info!(cluster = format!("{:032x}", seat.cluster_id), "cluster founded");
            Ok(())
        }
        other => Err(format!("founding was answered with {other:?}")),
    }
}

async fn propose(seat: &Seat, command: Command) -> Result<Outcome, String> {
    let end = Instant::now() + PROPOSE_WITHIN;
    loop {
        // A leader that a majority has not yet answered refuses; it takes some milliseconds.
        let error = match timeout(PROPOSE_WITHIN, seat.raft.client_write(Local(command.clone()))).await {
            Ok(Ok(response)) => return Ok(response.data.0),
            Ok(Err(error)) if !seat.leads() => return Err(error.to_string()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => return Err(format!("not committed within {PROPOSE_WITHIN:?}")),
        };
        if Instant::now() >= end {
            return Err(error);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Goes on until this node is the member that it should be: joins if it belongs to no cluster.
pub(crate) async fn settle(core: Arc<Core>) {
    let mut last_said = String::new();
    loop {
        if settled(&core) {
            return;
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
            let said = match ask(&core, &target, &join).await {
                Ok(JoinAnswerV1::Admitted { cluster_id, raft_id }) if core.seat().is_none() => {
                    if take_seat(&core, cluster_id, raft_id).await.is_err() {
                        return;
                    }
                    "admitted".to_owned()
                }
                Ok(JoinAnswerV1::Admitted { .. } | JoinAnswerV1::Underway) => "underway".to_owned(),
                Ok(JoinAnswerV1::Member) => "member".to_owned(),
                Ok(JoinAnswerV1::Refused(reason)) => format!("refused: {reason}"),
                Ok(JoinAnswerV1::Again) => format!("{} knows no leader", target.name),
                Err(reason) => format!("{}: {reason}", target.name),
            };
            if said != last_said {
                tracing::info!(answer = %said, "asked to join");
                last_said = said;
            }
            if settled(&core) {
                return;
            }
        }
        sleep(JOIN_AGAIN).await;
    }
}

/// Whether the membership names this node as it is.
fn settled(core: &Core) -> bool {
    let Some(seat) = core.seat() else { return false };
    let role = seat.role.borrow();
    let membership = role.membership.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let named = membership.get_node(&seat.raft_id.0) == Some(&core.myself());
    named && (voters.contains(&seat.raft_id.0) || voters.len() >= VOTERS_MAX)
}

fn whom_to_ask(core: &Core) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    if let Some(seat) = core.seat() {
        targets.extend(seat.leader());
    }
    for (name, address) in &core.node.cluster.peers {
        if *name != core.node.name {
            targets.push(Target { name: name.clone(), address: address.clone(), raft_id: None });
        }
    }
    targets
}

async fn ask(core: &Core, target: &Target, join: &JoinV1) -> Result<JoinAnswerV1, String> {
    let payload = Bytes::from(codec::encode(join));
    let answer = core.peers.call(target, Lane::Control, kind::JOIN, payload, JOIN_WITHIN).await;
    codec::decode(&answer.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

async fn take_seat(core: &Arc<Core>, cluster_id: u128, raft_id: u64) -> Result<(), Fatal> {
    let _alone = core.membership.lock().await;
    if core.seat().is_some() {
        return Ok(());
    }
    let identity = IdentityV1 { cluster_id, raft_id, name: core.node.name.as_str().to_owned() };
    sit(core, &identity).await?;
    Ok(())
}

/// Makes the identity durable and takes its seat. A node that fails at this ends.
async fn sit(core: &Arc<Core>, identity: &IdentityV1) -> Result<Arc<Seat>, Fatal> {
    let seated = match keep(core, identity).await {
        Ok(()) => core.sit(identity).await,
        Err(fatal) => Err(fatal),
    };
    seated.inspect_err(|fatal| core.bell.ring(fatal.clone()))
}

/// A node asks this one to be let in.
pub(crate) async fn asked_to_join(core: &Arc<Core>, join: JoinV1) -> JoinAnswerV1 {
    let Some(seat) = core.seat() else { return JoinAnswerV1::Again };
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
    let known = seat.shared.replicated.lock().state.members().get(&RaftId(id)).cloned();
    // The founder's number was not given out by the log.
    if id != FOUNDER && known.is_none_or(|member| member.name != name) {
        return JoinAnswerV1::Refused(format!("raft id {id} was not given to {name} by this cluster"));
    }
    let node = PeerNode { name: join.name, address: join.address };
    let present = {
        let role = seat.role.borrow();
        let membership = role.membership.membership();
        membership.get_node(&id) == Some(&node) && membership.voter_ids().any(|voter| voter == id)
    };
    if present {
        return JoinAnswerV1::Member;
    }
    if let Ok(alone) = core.membership.clone().try_lock_owned() {
        tokio::spawn(async move {
            match promote(&seat, id, &node).await {
                Ok(()) => tracing::info!(node = %node.name, raft_id = id, "is a member"),
                Err(reason) => tracing::warn!(node = %node.name, raft_id = id, %reason, "not yet a member"),
            }
            drop(alone);
        });
    }
    JoinAnswerV1::Underway
}

/// Makes a node a learner, waits until it has caught up, makes it a voter in place of another of its name.
async fn promote(seat: &Seat, id: u64, node: &PeerNode) -> Result<(), String> {
    let membership = seat.role.borrow().membership.membership().clone();
    match membership.get_node(&id) {
        Some(held) if held == node => {}
        Some(_) => {
            let moved = ChangeMembers::SetNodes(BTreeMap::from([(id, node.clone())]));
            change(seat, moved, true).await?;
            tracing::info!(node = %node.name, address = %node.address, "has another address");
        }
        None => {
            change(seat, ChangeMembers::AddNodes(BTreeMap::from([(id, node.clone())])), true).await?;
            tracing::info!(node = %node.name, raft_id = id, "listens");
        }
    }
    catch_up(seat, id).await?;
    let membership = seat.role.borrow().membership.membership().clone();
    let mut voters: BTreeSet<u64> = membership.voter_ids().collect();
    let old: BTreeSet<u64> = membership
        .nodes()
        .filter(|(other, held)| **other != id && held.name == node.name)
        .map(|(other, _)| *other)
        .collect();
    voters.retain(|voter| !old.contains(voter));
    if voters.contains(&id) && old.is_empty() {
        return Ok(());
    }
    if voters.len() >= VOTERS_MAX {
        tracing::info!(node = %node.name, "stays a learner: the cluster has {VOTERS_MAX} voters");
        return Ok(());
    }
    voters.insert(id);
    change(seat, ChangeMembers::ReplaceAllVoters(voters), false).await?;
    let listening: BTreeSet<u64> = {
        let role = seat.role.borrow();
        role.membership.membership().learner_ids().filter(|id| old.contains(id)).collect()
    };
    if !listening.is_empty() {
        change(seat, ChangeMembers::RemoveNodes(listening), false).await?;
    }
    Ok(())
}

async fn change(seat: &Seat, members: ChangeMembers<u64, PeerNode>, retain: bool) -> Result<(), String> {
    let end = Instant::now() + PROPOSE_WITHIN;
    loop {
        let written = timeout(PROPOSE_WITHIN, seat.raft.change_membership(members.clone(), retain)).await;
        let error = match written {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not committed within {PROPOSE_WITHIN:?}"),
        };
        // An earlier change may still be on its way.
        if Instant::now() >= end || !seat.leads() {
            return Err(error);
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn catch_up(seat: &Seat, id: u64) -> Result<(), String> {
    let metrics = seat.raft.metrics();
    let end = Instant::now() + CATCH_UP_WITHIN;
    loop {
        let (last, matched) = {
            let now = metrics.borrow_watched();
            let matched =
                now.replication.as_ref().and_then(|all| all.get(&id)).and_then(|id| id.map(|id| id.index));
            (now.last_log_index.unwrap_or(0), matched)
        };
        if matched.is_some_and(|matched| matched + BEHIND_MAX >= last) {
            return Ok(());
        }
        if Instant::now() >= end || !seat.leads() {
            return Err(format!("has entry {matched:?} of {last}"));
        }
        sleep(LOOK_AGAIN).await;
    }
}
