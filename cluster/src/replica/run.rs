//! The replica's domain, from start to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::node::NodeFile;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::core::{Core, Ends, Seat};
use super::pushes::Pushes;
use super::service::Desk;
use super::standing::Standing;
use super::{Applied, ProposeError, ask, change};
use crate::credentials::{CertificateStanding, Credentials};
use crate::fatal::{Bell, Fatal};
use crate::hooks::panic_point;
use crate::lease::{Ask, AskError, AskReply, Push};
use crate::membership::{self, order::OrderError};
use crate::peer::message::members::{MembersV1, ReportV1};
use crate::peer::{Door, Identity, Me, Peers};
use crate::raft::log::blocking;
use crate::recover;
use crate::state::command::DocumentChange;
use crate::state::ids::{RaftId, Revision, SessionId};
use crate::tls::Tls;
use crate::view::View;
use crate::world::World;

/// Requests that are being worked on at once; more are refused.
const AT_ONCE: usize = 256;
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
const SHUT_WITHIN: Duration = Duration::from_secs(5);
/// Written and removed at start: a node whose disk is full says so then, and not in the middle of its first write.
const ROOM: &str = "room";
const ROOM_BYTES: usize = 1 << 20;

/// From the door.
pub(crate) enum Request {
    /// [`super::Replica::found`].
    Found(oneshot::Sender<Result<(), String>>),
    /// [`super::Replica::apply_document`].
    Change {
        /// Canonical JSON.
        json: Arc<str>,
        /// The revision it replaces.
        expected: Option<Revision>,
        /// To the door.
        reply: oneshot::Sender<Result<Applied, ProposeError>>,
    },
    /// [`super::Replica::register`].
    Register(u128, oneshot::Sender<Result<SessionId, AskError>>),
    /// [`super::Replica::ask`].
    Ask(Ask, oneshot::Sender<Result<AskReply, AskError>>),
    /// [`super::Replica::leave`] and [`super::Replica::replace`].
    Order(MembersV1, oneshot::Sender<Result<ReportV1, OrderError>>),
    /// [`super::Replica::members`].
    Members(oneshot::Sender<Option<ReportV1>>),
    /// [`super::Replica::digest`].
    Digest(oneshot::Sender<Option<(u64, u64)>>),
    /// [`super::Replica::stop`].
    Stop,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

/// The domain's ends of what the door holds.
pub(crate) struct Wiring {
    pub view: watch::Sender<Arc<View>>,
    pub lease: Arc<AtomicU64>,
    pub certificate: watch::Sender<CertificateStanding>,
    pub asked: mpsc::Receiver<Request>,
    pub pushed: mpsc::Sender<Push>,
    pub standing: Arc<Standing>,
    pub bell: Bell,
    pub ready: oneshot::Sender<Result<Box<dyn Send + Sync>, Fatal>>,
}

/// The domain's main.
pub(crate) async fn run(world: World, node: Arc<NodeFile>, wiring: Wiring) {
    let Wiring { view, lease, certificate, mut asked, pushed, standing, bell, ready } = wiring;
    let pushes = Pushes::default();
    let ends = Ends { view, lease, bell: bell.clone(), pushes: pushes.clone(), standing };
    let begun = begin(world, node, ends, certificate).await;
    let (core, door, lock) = match begun {
        Ok(begun) => begun,
        Err(reason) => {
            // Whoever started it may have given up.
            let _ = ready.send(Err(reason));
            return;
        }
    };
    if ready.send(Ok(lock)).is_err() {
        return;
    }
    tokio::spawn(bell.guard("the delivery of pushes", pushes.deliver(pushed)));
    tokio::spawn(bell.guard("the joining of the cluster", membership::join::tend(core.clone())));
    serve(&core, &mut asked).await;
    core.leaving.store(true, Ordering::Release);
    if let Some(seat) = core.seat() {
        leave(&seat).await;
    }
    drop(door);
}

type Begun = (Arc<Core>, Door, Box<dyn Send + Sync>);

async fn begin(
    world: World,
    node: Arc<NodeFile>,
    ends: Ends,
    certificate: watch::Sender<CertificateStanding>,
) -> Result<Begun, Fatal> {
    let lock = world.disk.lock(&node.data).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Fatal::Setup(format!(
            "the data directory {} can not be taken: {error}; does another process use it?",
            node.data.display()
        )),
        _ => ends.bell.storage("taking it", &error),
    })?;
    let disk = world.disk.clone();
    let room = blocking(&world, move || {
        disk.write(Path::new(ROOM), &vec![0; ROOM_BYTES])?;
        disk.remove(Path::new(ROOM))
    });
    room.await.map_err(|error| ends.bell.storage("looking for room to write", &error))?;
    let (disk, files) = (world.clone(), node.clone());
    let (tls, unfinished, kept) = blocking(&world, move || {
        let tls = secure(&disk, &files, certificate);
        let unfinished = disk.disk.read(&Path::new(recover::FOLDER).join(recover::IDENTITY))?.is_some();
        Ok((tls, unfinished, membership::identity(&disk, files.name.as_str())?))
    })
    .await
    .map_err(|error| ends.bell.storage("reading who it belongs to", &error))?;
    if unfinished {
        return Err(Fatal::Setup(format!(
            "a recovery of the data directory {} was cut off: run `quorumgate cluster recover` once more",
            node.data.display()
        )));
    }
    let (tls, credentials) = tls.map_err(Fatal::Setup)?;
    let kept = kept.map_err(Fatal::Setup)?;
    let identity = Arc::new(Mutex::new(Identity {
        name: node.name.clone(),
        cluster: kept.as_ref().map(|kept| kept.cluster_id),
        raft_id: kept.as_ref().map(|kept| RaftId(kept.raft_id)),
    }));
    let said = identity.clone();
    let me: Me = Arc::new(move || said.lock().clone());
    let peers = Peers::new(world.clone(), tls.clone(), me.clone());
    let core = Core::new(world.clone(), node.clone(), peers, identity, ends);
    if let Some(kept) = &kept {
        core.sit(kept).await?;
    }
    let listen = node.cluster.listen;
    let door = Door::open(&world, listen, tls, me, Arc::new(Desk(Arc::downgrade(&core))), &core.bell)
        .map_err(|e| Fatal::Setup(format!("peers can not be listened for on {listen}: {e}")))?;
    if let Some(credentials) = credentials {
        tokio::spawn(core.bell.guard("the watch on certificate files", credentials.keep()));
    }
    Ok((core, door, lock))
}

/// How connections to peers are secured, and who looks after the files of it.
type Secured = (watch::Receiver<Tls>, Option<Credentials>);

fn secure(
    world: &World,
    node: &NodeFile,
    certificate: watch::Sender<CertificateStanding>,
) -> Result<Secured, String> {
    let Some(files) = &node.cluster.tls else {
        let tls = Tls::plaintext(node.cluster.listen, &node.cluster.advertise).map_err(|e| e.to_string())?;
        return Ok((watch::channel(tls).1, None));
    };
    let credentials = Credentials::read(world, &node.name, files, certificate)?;
    Ok((credentials.tls(), Some(credentials)))
}

/// Works on requests until one says stop.
async fn serve(core: &Arc<Core>, asked: &mut mpsc::Receiver<Request>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(request) = asked.recv().await {
        panic_point("replica");
        if let Request::Stop = request {
            return;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse(request);
            continue;
        };
        let core = core.clone();
        tokio::spawn(async move {
            work(&core, request).await;
            drop(place);
        });
    }
}

/// A caller that stopped waiting for an answer does not take it: that is its right.
async fn work(core: &Arc<Core>, request: Request) {
    match request {
        Request::Found(reply) => drop(reply.send(membership::found(core).await)),
        Request::Change { json, expected, reply } => {
            let change = DocumentChange { json, expected, request_id: core.random() };
            drop(reply.send(change::propose(core, change).await));
        }
        Request::Register(nonce, reply) => drop(reply.send(ask::register(core, nonce).await)),
        Request::Ask(batch, mut reply) => {
            let answer = tokio::select! {
                biased;
                () = reply.closed() => return,
                answer = ask::ask(core, batch) => answer,
            };
            drop(reply.send(answer));
        }
        Request::Order(order, reply) => drop(reply.send(membership::order::order(core, order).await)),
        Request::Members(reply) => drop(reply.send(membership::order::report(core).await)),
        Request::Digest(reply) => {
            let digest = core.seat().map(|seat| {
                let replicated = seat.shared.replicated.lock();
                (replicated.applied_index(), replicated.state.digest())
            });
            let _ = reply.send(digest);
        }
        Request::Stop => {}
    }
}

fn refuse(request: Request) {
    match request {
        Request::Found(reply) => drop(reply.send(Err("the replica is overloaded: try again".to_owned()))),
        Request::Change { reply, .. } => drop(reply.send(Err(ProposeError::NoLeader))),
        Request::Register(_, reply) => drop(reply.send(Err(AskError::Overloaded))),
        Request::Ask(_, reply) => drop(reply.send(Err(AskError::Overloaded))),
        Request::Order(_, reply) => drop(reply.send(Err(OrderError::NoLeader))),
        Request::Members(reply) => drop(reply),
        Request::Digest(reply) => drop(reply),
        Request::Stop => {}
    }
}

/// Hands leadership over, then ends the consensus core.
async fn leave(seat: &Seat) {
    if seat.has_other_voters() && !seat.hand_over(HAND_OVER_WITHIN).await {
        tracing::warn!(within = ?HAND_OVER_WITHIN, "no other node took the leadership");
    }
    match timeout(SHUT_WITHIN, seat.raft.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the consensus core did not end well"),
        Err(_) => tracing::warn!(within = ?SHUT_WITHIN, "the consensus core did not end"),
    }
}
