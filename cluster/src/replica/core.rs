//! What the replica's tasks share: the world, the peers, and, once this node belongs to a cluster, its seat in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config::ids::NodeName;
use config::node::NodeFile;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::pushes::Pushes;
use super::slot::{self, QUESTIONS_MAX, Question};
use super::standing::Standing;
use super::{lease, views};
use crate::fatal::{Bell, Fatal};
use crate::hooks::panic_point;
use crate::lease::Push;
use crate::membership::drive::{self, Progress};
use crate::peer::codec;
use crate::peer::message::control::IdentityV1;
use crate::peer::message::kind;
use crate::peer::message::quota::PushV1;
use crate::peer::{Identity, Lane, Peers, Target};
use crate::raft::backend::Redb;
use crate::raft::log::Log;
use crate::raft::machine::{Machine, Raft, Shared};
use crate::raft::network::{Addresses, Network, Transfers, target};
use crate::raft::offline::STORE;
use crate::raft::serve::Service;
use crate::raft::types::{PeerNode, RaftFatal, StoredMembership, TypeConfig, WatchReceiver};
use crate::state::ids::{RaftId, Revision};
use crate::view::View;
use crate::world::{BootNs, BoxFuture, World};

const PUSH_WITHIN: Duration = Duration::from_secs(1);
const PUSHES_AT_ONCE: usize = 64;
/// A voter that was heard of within this can take the leadership.
const RUNS_WITHIN: Duration = Duration::from_secs(1);

/// Shared by all tasks of the replica's domain, and by its door.
pub(crate) struct Core {
    pub world: World,
    pub node: Arc<NodeFile>,
    pub peers: Peers,
    pub identity: Arc<Mutex<Identity>>,
    pub seat: Mutex<Option<Arc<Seat>>>,
    pub view: watch::Sender<Arc<View>>,
    pub lease: Arc<AtomicU64>,
    pub bell: Bell,
    /// The consensus core ends because it was told to.
    pub leaving: AtomicBool,
    pub pushes: Pushes,
    pub standing: Arc<Standing>,
    /// Whoever changes whose disk this is.
    pub membership: Arc<tokio::sync::Mutex<()>>,
    pushing: Arc<Semaphore>,
}

/// The near ends of what the replica's door holds.
pub(crate) struct Ends {
    pub view: watch::Sender<Arc<View>>,
    pub lease: Arc<AtomicU64>,
    pub bell: Bell,
    pub pushes: Pushes,
    pub standing: Arc<Standing>,
}

/// This node's place in its cluster.
pub(crate) struct Seat {
    pub raft_id: RaftId,
    pub cluster_id: u128,
    pub raft: Raft,
    pub log: Log,
    pub shared: Shared,
    pub service: Service,
    pub role: watch::Receiver<Role>,
    pub questions: mpsc::Sender<Question>,
    /// Member → the revision that it last said it shows.
    pub shown: Mutex<BTreeMap<u64, Revision>>,
    /// Rung when `shown` changes.
    pub told: Notify,
    /// Rung when this node shows another revision.
    pub changed: Notify,
    /// How far the membership operation is; none: there is none, or this node does not lead.
    pub progress: Mutex<Option<Progress>>,
    /// How far snapshots have been sent to members.
    pub transfers: Transfers,
    addresses: Addresses,
}

/// What the consensus core says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Role {
    /// The term that this node leads.
    pub leading: Option<u64>,
    /// Who leads.
    pub leader: Option<u64>,
    /// The present term.
    pub term: u64,
    /// The effective membership.
    pub membership: Arc<StoredMembership>,
}

impl Core {
    /// The core of a node that has no seat yet.
    pub fn new(
        world: World,
        node: Arc<NodeFile>,
        peers: Peers,
        identity: Arc<Mutex<Identity>>,
        ends: Ends,
    ) -> Arc<Self> {
        let Ends { view, lease, bell, pushes, standing } = ends;
        Arc::new(Self {
            world,
            node,
            peers,
            identity,
            seat: Mutex::new(None),
            view,
            lease,
            bell,
            leaving: AtomicBool::new(false),
            pushes,
            standing,
            membership: Arc::default(),
            pushing: Arc::new(Semaphore::new(PUSHES_AT_ONCE)),
        })
    }

    /// This node's seat; none: it belongs to no cluster.
    pub fn seat(&self) -> Option<Arc<Seat>> {
        self.seat.lock().clone()
    }

    /// This node as the membership names it.
    pub fn myself(&self) -> PeerNode {
        PeerNode { name: self.node.name.as_str().to_owned(), address: self.node.cluster.advertise.clone() }
    }

    /// Random bytes.
    pub fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        self.world.chance.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }

    /// Takes the seat that `identity` names: recovers log, vote and snapshot, and starts the tasks.
    ///
    /// # Errors
    /// The disk's, or damaged records, or no log: whoever has an identity had one first.
    pub async fn sit(self: &Arc<Self>, identity: &IdentityV1) -> Result<Arc<Seat>, Fatal> {
        let failed = |what| move |error: std::io::Error| self.bell.storage(what, &error);
        let world = self.world.clone();
        let opened =
            crate::raft::log::blocking(&self.world, move || Redb::kept(&world, Path::new(STORE))).await;
        let backend = Arc::new(opened.map_err(failed("opening the log"))?);
        let log =
            Log::open(&self.world, backend, self.bell.clone()).await.map_err(failed("reading the log"))?;
        let (machine, shared) = Machine::open(&self.world, log.clone(), self.bell.clone())
            .await
            .map_err(failed("reading the snapshot"))?;
        let (addresses, transfers) = (Addresses::default(), Transfers::default());
        let network =
            Network::new(self.peers.clone(), addresses.clone(), transfers.clone(), self.world.clone());
        let raft = Raft::new(
            identity.raft_id,
            crate::raft::config(self.node.snapshot_after_entries),
            network,
            log.clone(),
            machine,
        )
        .await
        .map_err(|error| self.fell(&error))?;
        let (role, roles) = watch::channel(Role::default());
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let seat = Arc::new(Seat {
            raft_id: RaftId(identity.raft_id),
            cluster_id: identity.cluster_id,
            service: Service::new(raft.clone(), self.world.clone(), self.bell.clone()),
            raft,
            log,
            shared,
            role: roles,
            questions,
            shown: Mutex::default(),
            told: Notify::new(),
            changed: Notify::new(),
            progress: Mutex::default(),
            transfers,
            addresses,
        });
        {
            let mut me = self.identity.lock();
            me.cluster = Some(identity.cluster_id);
            me.raft_id = Some(seat.raft_id);
        }
        *self.seat.lock() = Some(seat.clone());
        let spawn = |what, task: BoxFuture<'static, ()>| drop(tokio::spawn(self.bell.guard(what, task)));
        spawn("the watch on roles", Box::pin(watch_role(self.clone(), seat.clone(), role)));
        spawn("the leader's membership operations", Box::pin(drive::run(self.clone(), seat.clone())));
        spawn("the leader's slot", Box::pin(slot::run(self.clone(), seat.clone(), asked)));
        spawn("the publisher of views", Box::pin(views::run(self.clone(), seat.clone())));
        spawn("the renewal of the view lease", Box::pin(lease::run(self.clone(), seat.clone())));
        Ok(seat)
    }

    /// Why the consensus core ended, or did not start.
    fn fell(&self, reason: &RaftFatal<TypeConfig>) -> Fatal {
        match reason {
            RaftFatal::StorageError(error) => {
                self.bell.storage("the consensus core", &std::io::Error::other(error.clone()))
            }
            RaftFatal::Panicked | RaftFatal::Stopped => {
                Fatal::Internal(format!("the consensus core has ended: {reason}"))
            }
        }
    }

    /// Sends a push to a member; drops it when too many are on their way.
    pub fn push(self: &Arc<Self>, seat: &Seat, to: RaftId, push: &Push) {
        if to == seat.raft_id {
            return self.pushes.push(push.clone());
        }
        let Some(target) = seat.member(to.0) else { return };
        let Ok(permit) = self.pushing.clone().try_acquire_owned() else { return };
        let payload = Bytes::from(codec::encode(&PushV1::from(push)));
        let peers = self.peers.clone();
        tokio::spawn(async move {
            // A lost push does no harm: leases end by themselves.
            let _ = peers.call(&target, Lane::Quota, kind::PUSH, payload, PUSH_WITHIN).await;
            drop(permit);
        });
    }

    /// Extends the view lease.
    pub fn renew(&self, until: BootNs) {
        self.lease.fetch_max(until.0, Ordering::AcqRel);
    }
}

impl Seat {
    /// A member to call; none: no such member, or this node.
    pub fn member(&self, id: u64) -> Option<Target> {
        let role = self.role.borrow();
        let node = role.membership.membership().get_node(&id)?;
        if id == self.raft_id.0 { None } else { target(id, node) }
    }

    /// The leader to call; none: unknown, or this node.
    pub fn leader(&self) -> Option<Target> {
        let leader = self.role.borrow().leader?;
        self.member(leader)
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.role.borrow().leading.is_some()
    }

    /// Whether the membership knows a node under this number and name.
    pub fn is_member(&self, id: RaftId, name: &NodeName) -> bool {
        let role = self.role.borrow();
        role.membership.membership().get_node(&id.0).is_some_and(|node| same(name, &node.name))
    }

    /// Whether a raft id was taken away, or was never given to anybody: ids are places in the log, so the log has passed
    /// it, and the state knows nobody who holds it.
    pub fn is_fenced(&self, id: RaftId) -> bool {
        let replicated = self.shared.replicated.lock();
        let founded = replicated.state.cluster_id().is_some();
        let members = replicated.state.members();
        if !founded || id.0 > replicated.applied_index() {
            return false;
        }
        let removed = members.operation().and_then(|operation| operation.change.removes()) == Some(id)
            && replicated.membership.membership().get_joint_config().len() == 1
            && replicated.membership.membership().get_node(&id.0).is_none();
        removed || members.get(id).is_none()
    }

    /// The last index of this node's log, and for each member that it leads the last one that is there too.
    pub fn matched(&self) -> (u64, BTreeMap<u64, Option<u64>>) {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let last = now.last_log_index.unwrap_or(0);
        let all = now.replication.iter().flatten().map(|(id, at)| (*id, at.map(|at| at.index)));
        (last, all.collect())
    }

    /// Members that answered this leader within `within`.
    pub fn heard(&self, within: Duration) -> BTreeSet<u64> {
        crate::raft::heard(&self.raft.metrics().borrow_watched(), within)
    }

    /// Gives the leadership to the running voter that is furthest, and waits until it is gone; false: nobody took it.
    pub async fn hand_over(&self, within: Duration) -> bool {
        if !self.leads() {
            return true;
        }
        let Some(next) = self.successor() else { return false };
        tracing::info!(to = next, "hands leadership over");
        if let Err(error) = self.raft.trigger().transfer_leader(next).await {
            tracing::warn!(%error, "leadership was not handed over");
        }
        let mut role = self.role.clone();
        matches!(timeout(within, role.wait_for(|role| role.leading.is_none())).await, Ok(Ok(_)))
    }

    /// Whether anybody but this node votes.
    pub fn has_other_voters(&self) -> bool {
        self.role.borrow().membership.membership().voter_ids().any(|id| id != self.raft_id.0)
    }

    fn successor(&self) -> Option<u64> {
        let voters: BTreeSet<u64> = self.role.borrow().membership.membership().voter_ids().collect();
        let running = self.heard(RUNS_WITHIN);
        let (_, matched) = self.matched();
        let others = matched.iter().filter(|(id, _)| **id != self.raft_id.0 && voters.contains(id));
        others.max_by_key(|(id, at)| (running.contains(id), **at)).map(|(id, _)| *id)
    }

    /// All members, and those whom the operation under way has removed: id and name. Who is gone without a word may believe
    /// in its view until the operation's end.
    pub fn members_and_going(&self) -> BTreeMap<u64, String> {
        let mut all: BTreeMap<u64, String> = {
            let replicated = self.shared.replicated.lock();
            let going = replicated.state.members().going();
            going.map(|(id, member)| (id.0, member.name.as_str().to_owned())).collect()
        };
        all.extend(self.members());
        all
    }

    /// All members: id and name.
    pub fn members(&self) -> Vec<(u64, String)> {
        let role = self.role.borrow();
        role.membership.membership().nodes().map(|(id, node)| (*id, node.name.clone())).collect()
    }
}

/// Turns the consensus core's figures into roles, and its end into the replica's.
async fn watch_role(core: Arc<Core>, seat: Arc<Seat>, role: watch::Sender<Role>) {
    let mut metrics = seat.raft.server_metrics();
    let mut all = seat.raft.metrics();
    loop {
        panic_point("roles");
        let next = {
            let now = metrics.borrow_watched();
            let term = now.vote.leader_id.term;
            Role {
                leading: (now.state.is_leader() && now.vote.committed).then_some(term),
                leader: now.current_leader,
                term,
                membership: now.membership_config.clone(),
            }
        };
        role.send_if_modified(|held| {
            let differs = *held != next;
            if differs {
                seat.addresses.learn(&next.membership);
                *held = next;
            }
            differs
        });
        let dead = all.borrow_watched().running_state.clone().err();
        if let Some(reason) = dead {
            // Who still asks this node is told at once that it leads no more and knows no leader.
            role.send_modify(|role| (role.leading, role.leader) = (None, None));
            if !core.leaving.load(Ordering::Acquire) {
                core.bell.ring(core.fell(&reason));
            }
            return;
        }
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { break },
            changed = all.changed() => if changed.is_err() { break },
        }
    }
    // It may have said why in its last word, which came with its end.
    let last = all.borrow_watched().running_state.clone().err();
    if !core.leaving.load(Ordering::Acquire) {
        core.bell.ring(core.fell(&last.unwrap_or(RaftFatal::Panicked)));
    }
}

/// A name from a certificate and one from a message: they must be the same node's.
pub(crate) fn same(name: &NodeName, said: &str) -> bool {
    name.as_str() == said
}
