//! One node: starts the tree, restarts what fails, drains in reverse.
//!
//! ```text
//! run ── replica (domains of its own)
//!     ├─ tree (actor): keeper of quotas, keeper of routes          the calling domain
//!     ├─ operators' door                                           the calling domain
//!     └─ worker 0 … n (actor each): listener ─ connections         a domain each
//! ```

pub mod probe;
pub mod restarts;
mod tree;
mod worker;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster::fatal::Fatal;
use cluster::replica::{Parting, Replica, Started};
use cluster::world::{Share, World};
use config::node::NodeFile;
use futures_util::FutureExt;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::admin;
use crate::auth::Tokens;
use crate::connection::Entrance;
use crate::journey::caller::Proxies;
use crate::journey::freshness::Freshness;
use crate::listener::{Budget, Door};
use crate::quota::Keeper;
use crate::router::Routes;
use crate::telemetry::Telemetry;
use crate::tls::files::Files;
use probe::Probe;

/// Longest wait for leases to be handed back, and for leadership to be handed over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);
/// Longest wait of a node that has finished for its removal.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);
/// How long the operators' door of a removed node stays open.
const FAREWELL: Duration = Duration::from_secs(1);
/// Longest time that requests at hand have to finish in a node that cannot go on.
const FAILED_DRAIN_WITHIN: Duration = Duration::from_secs(3);

/// Runs one node until `stop` yields or its cluster removes it, then lets requests finish, hands leases and leadership
/// back, and returns.
///
/// # Errors
/// Why the node could not start, or could not go on: a text for the operator. The process then has to end; its
/// supervisor may start it again with the same disk.
pub async fn run(world: World, file: NodeFile, stop: impl Future<Output = ()>) -> Result<(), Fatal> {
    let file = Arc::new(file);
    // It is listened to twice, and what was heard the first time stays heard.
    let stop = stop.shared();
    // Sockets first: a taken port is said before anything else is started.
    let operators = world
        .net
        .bind(file.admin, Share::Alone)
        .map_err(|error| taken("admin.listen", file.admin, &error))?;
    let files = certificates(&world, &file)?;
    let doors = doors(&world, &file, files.as_ref())?;
    let Started { replica, pushes, mut fatal } = Replica::start(world.clone(), file.clone()).await?;

    let telemetry = Telemetry::new();
    let tokens = Tokens::new(file.limits.tokens_cached_max);
    let routes = Routes::new(world.clone(), file.folder.clone(), replica.views());
    let keeper = Keeper::new(world.clone(), Arc::new(replica.clone()), replica.views(), pushes, &file.limits);
    let lease = replica.clone();
    let freshness = Arc::new(Freshness::new(world.clone(), Box::new(move || lease.view_lease())));
    let probe = Probe::new(world.clone(), replica.clone(), routes.clone(), keeper.clone(), freshness.clone());
    let (tree, mut tree_ended) = tree::start(world.clone(), keeper.clone(), routes.clone())
        .await
        .map_err(|error| Fatal::Internal(format!("starting the keepers: {error}")))?;
    let door = admin::Door {
        name: file.name.clone(),
        replica: replica.clone(),
        keeper: keeper.clone(),
        routes: routes.clone(),
        telemetry: telemetry.clone(),
        probe: probe.clone(),
        folder: file.folder.clone(),
        world: world.clone(),
    };
    let mut operators = tokio::spawn(admin::serve(door, operators));

    let parts = worker::Parts {
        world: world.clone(),
        file: file.clone(),
        freshness,
        routes,
        tokens,
        keeper: keeper.clone(),
        telemetry,
    };
    let budget = Budget::new(file.limits.connections_max);
    let (draining, drain) = watch::channel(None);
    let mut workers = tokio::task::JoinSet::new();
    for (number, doors) in doors.into_iter().enumerate() {
        for door in &doors {
            info!(node = %file.name, worker = number, address = %door.address(), tls = door.is_tls(), "listening");
        }
        let ended = worker::spawn(&parts, number, doors, budget.clone(), drain.clone());
        workers.spawn(ended);
    }

    let mut looking = tokio::spawn(async move {
        match files {
            Some(files) => files.keep().await,
            None => std::future::pending().await,
        }
    });
    let mut partings = replica.partings();
    let ended = tokio::select! {
        biased;
        () = stop.clone() => Ok(()),
        // The replica's sender lives as long as the replica.
        _ = partings.wait_for(|parting| *parting != Parting::No) => Ok(()),
        why = wait_for_reason(&mut fatal) => Err(why),
        why = &mut tree_ended => {
            let why = why.unwrap_or_else(|error| error.to_string());
            Err(Fatal::Internal(format!("the keepers cannot go on: {why}")))
        }
        Some(why) = workers.join_next() => {
            probe.data_plane_broke();
            let why = why.map_err(|error| error.to_string()).and_then(|ended| ended).err();
            let why = why.unwrap_or_else(|| "nobody told it to".to_owned());
            Err(Fatal::Internal(format!("a data-plane thread has ended: {why}")))
        }
        ended = &mut looking => Err(Fatal::Internal(format!("nobody looks after certificates any more: {ended:?}"))),
        ended = &mut operators => Err(Fatal::Internal(format!("the operators' door has ended: {ended:?}"))),
    };
    match &ended {
        Ok(()) => info!(node = %file.name, "stopping"),
        Err(why) => error!(node = %file.name, %why, "stopping"),
    }
    probe.drain();
    let patience = match &ended {
        Ok(()) => file.limits.drain_timeout,
        Err(_) => file.limits.drain_timeout.min(FAILED_DRAIN_WITHIN),
    };
    // Nobody listens any more if all workers have ended, which is what this asks for.
    let _ = draining.send(Some(patience));
    let drained = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(patience + HAND_OVER_WITHIN, drained).await.is_err() {
        warn!(node = %file.name, "connections were cut");
    }
    // A replica that cannot go on reaches nobody, and nobody listens to one that was removed: its leases count as spent.
    let parting = *partings.borrow();
    let reachable = fatal.borrow().is_none() && parting != Parting::Removed;
    hand_back(&keeper, reachable).await;
    let removed = match parting {
        Parting::No => Ok(()),
        Parting::HandBack | Parting::Removed => be_removed(&replica, &mut partings, &mut fatal, stop).await,
    };
    hand_over(&replica).await;
    tree.stop(None);
    operators.abort();
    looking.abort();
    // A disk that failed is what ended the node, whatever came after.
    let failed = fatal.borrow().clone().map_or(Ok(()), Err);
    ended.and(failed).and(removed)
}

/// Says that this node has finished, and waits until it is no member any more, or need not wait: it was told to end, or can
/// not go on.
async fn be_removed(
    replica: &Replica,
    partings: &mut watch::Receiver<Parting>,
    fatal: &mut watch::Receiver<Option<Fatal>>,
    stop: impl Future<Output = ()>,
) -> Result<(), Fatal> {
    replica.handed_back();
    tokio::select! {
        biased;
        // The replica's sender lives as long as the replica.
        _ = partings.wait_for(|parting| *parting == Parting::Removed) => {}
        why = wait_for_reason(fatal) => return Err(why),
        () = stop => {
            info!("told to end before it was removed: it is a member until the operation has ended");
            return Ok(());
        }
        () = tokio::time::sleep(REMOVED_WITHIN) => {
            return Err(Fatal::Internal(format!(
                "not removed from the cluster within {REMOVED_WITHIN:?}: does a majority of the others run? Start this node \
                 again: it is a member until the operation has ended"
            )));
        }
    }
    info!("removed from the cluster");
    // Whoever follows this node's farewell at its own door shall see the end of it.
    tokio::time::sleep(FAREWELL).await;
    Ok(())
}

/// The certificate files of the clients' side, if it has any.
fn certificates(world: &World, file: &NodeFile) -> Result<Option<Files>, Fatal> {
    let read = file.https.as_ref().map(|https| Files::read(world, https));
    read.transpose().map_err(|reason| Fatal::Setup(format!("https.certificates: {reason}")))
}

/// The doors of each worker: one at each port. A port's first is bound alone, so that one taken by another process is an
/// error and not a share.
fn doors(world: &World, file: &NodeFile, files: Option<&Files>) -> Result<Vec<Vec<Door>>, Fatal> {
    let workers = file.http.workers.unwrap_or_else(|| world.domains.parallelism()).max(1);
    let limits = &file.limits;
    let tls = files.map(|files| files.listening(limits.tls_handshakes_max, limits.tls_handshake_timeout));
    let plain = Entrance { proxies: Arc::new(Proxies::new(&file.http)), ..Entrance::default() };
    let secure = Entrance { tls, ..plain.clone() };
    let ports = [
        ("http.listen", file.http.listen, plain),
        ("https.listen", file.https.as_ref().map(|https| https.listen), secure),
    ];
    let mut doors: Vec<Vec<Door>> = (0..workers).map(|_| Vec::new()).collect();
    for (setting, address, entrance) in ports {
        let Some(mut address) = address else { continue };
        for doors in &mut doors {
            let share = if workers == 1 { Share::Alone } else { Share::OneOfMany };
            let socket = world.net.bind(address, share).map_err(|error| taken(setting, address, &error))?;
            // Port 0 was resolved by the first.
            address = socket.local_addr();
            doors.push(Door::new(socket, entrance.clone()));
        }
    }
    Ok(doors)
}

fn taken(setting: &str, address: std::net::SocketAddr, error: &std::io::Error) -> Fatal {
    Fatal::Setup(format!("{setting} {address}: {error}; choose another address, or end what uses this one"))
}

async fn wait_for_reason(fatal: &mut watch::Receiver<Option<Fatal>>) -> Fatal {
    let reason = fatal.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    reason.unwrap_or_else(|| Fatal::Internal("the replica's thread has ended".to_owned()))
}

/// While there is a leader to give them to.
async fn hand_back(keeper: &Keeper, reachable: bool) {
    if reachable && tokio::time::timeout(HAND_OVER_WITHIN, keeper.drain()).await.is_err() {
        warn!("leases were not handed back; they count as spent");
    }
}

async fn hand_over(replica: &Replica) {
    if tokio::time::timeout(HAND_OVER_WITHIN, replica.stop()).await.is_err() {
        warn!("leadership was not handed over; the others will elect");
    }
}
