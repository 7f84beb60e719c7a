//! One data-plane thread: a listener, its connections, its upstream connections, its figures.

use std::sync::Arc;
use std::time::Duration;

use cluster::world::{BoxFuture, World};
use config::node::NodeFile;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

use super::restarts::{Restart, Restarts};
use crate::auth::Tokens;
use crate::journey::Gateway;
use crate::journey::freshness::Freshness;
use crate::journey::received::RequestIds;
use crate::listener::{Budget, Door, GaveUp, Listener};
use crate::quota::Keeper;
use crate::router::Routes;
use crate::telemetry::Telemetry;
use crate::upstream::mirror::Mirrors;
use crate::upstream::pool::Pool;

/// What all workers of a node share.
#[derive(Clone)]
pub struct Parts {
    /// The node's.
    pub world: World,
    /// The node's.
    pub file: Arc<NodeFile>,
    /// The node's.
    pub freshness: Arc<Freshness>,
    /// The node's.
    pub routes: Routes,
    /// The node's.
    pub tokens: Tokens,
    /// The node's.
    pub keeper: Keeper,
    /// The node's.
    pub telemetry: Telemetry,
}

/// Starts worker `number` on a domain of its own. It ends after `drain` says how long its connections have to end, and
/// they have, or when its listener fails too often: then with an error.
pub fn spawn(
    parts: &Parts,
    number: usize,
    doors: Vec<Door>,
    budget: Budget,
    drain: watch::Receiver<Option<Duration>>,
) -> BoxFuture<'static, Result<(), String>> {
    let (told, why) = oneshot::channel();
    let parts_of_worker = parts.clone();
    let main = async move {
        let ended = work(parts_of_worker, doors, budget, drain).await;
        // The node may be gone already; then nobody asks.
        let _ = told.send(ended);
    };
    let ended = parts.world.domains.spawn(&format!("worker-{number}"), Box::pin(main));
    Box::pin(async move {
        ended.await?;
        why.await.unwrap_or_else(|_| Err("it ended without a word".to_owned()))
    })
}

async fn work(
    parts: Parts,
    doors: Vec<Door>,
    budget: Budget,
    mut drain: watch::Receiver<Option<Duration>>,
) -> Result<(), String> {
    let (pool, recorder) =
        (Pool::new(parts.world.clone(), parts.file.folder.clone()), parts.telemetry.recorder());
    let mirrors_max = parts.file.limits.mirrors_max;
    let gateway = Arc::new(Gateway {
        limits: parts.file.limits.clone(),
        stamp_admissions: parts.file.stamp_admissions,
        routes: Arc::new(parts.routes),
        freshness: parts.freshness,
        tokens: parts.tokens,
        keeper: parts.keeper,
        mirrors: Mirrors::new(mirrors_max, pool.clone(), recorder.clone()),
        pool,
        recorder,
        warnings: Default::default(),
        ids: RequestIds::new(&parts.world),
        world: parts.world.clone(),
    });
    let (listening, listener) = watch::channel(None);
    let (ended, mut why) = oneshot::channel();
    let worker = Worker {
        world: parts.world,
        doors,
        gateway,
        budget,
        restarts: Restarts::default(),
        listening,
        ended: Some(ended),
    };
    let (supervisor, _) = Actor::spawn(None, WorkerActor, worker)
        .await
        .map_err(|error| format!("starting a listener: {error}"))?;
    let patience = tokio::select! {
        biased;
        // An error says that the node is gone, which is a reason to drain as well.
        patience = drain.wait_for(Option::is_some) => patience.ok().and_then(|patience| *patience).unwrap_or_default(),
        why = &mut why => return Err(why.unwrap_or_else(|_| "its supervisor has ended".to_owned())),
    };
    let running: Option<Listener> = listener.borrow().clone();
    if let Some(running) = running {
        let cut = running.drain(patience).await;
        if cut > 0 {
            warn!(cut, "connections were cut at the end of their time to finish");
        }
    }
    supervisor.stop(None);
    Ok(())
}

/// Arguments and state of a worker's supervisor.
struct Worker {
    world: World,
    doors: Vec<Door>,
    gateway: Arc<Gateway>,
    budget: Budget,
    restarts: Restarts,
    /// The slot that is refilled at each restart.
    listening: watch::Sender<Option<Listener>>,
    ended: Option<oneshot::Sender<String>>,
}

impl Worker {
    async fn listen(&self, me: &ActorRef<()>) -> Result<(), SpawnErr> {
        let listener =
            Listener::start(self.doors.clone(), self.gateway.clone(), self.budget.clone(), me.get_cell())
                .await?;
        self.listening.send_replace(Some(listener));
        Ok(())
    }

    /// Whether `id` is the listener of now, and not one that was replaced.
    fn is_current(&self, id: ActorId) -> bool {
        self.listening.borrow().as_ref().is_some_and(|listener| listener.cell().get_id() == id)
    }
}

struct WorkerActor;

impl Actor for WorkerActor {
    type Msg = ();
    type State = Worker;
    type Arguments = Worker;

    async fn pre_start(&self, me: ActorRef<()>, worker: Worker) -> Result<Worker, ActorProcessingErr> {
        worker.listen(&me).await?;
        Ok(worker)
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<()>,
        event: SupervisionEvent,
        worker: &mut Worker,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(child, reason) = event else { return Ok(()) };
        if !worker.is_current(child.get_id()) {
            return Ok(());
        }
        let again = match worker.restarts.ask(worker.world.clock.boot()) {
            _ if reason.is::<GaveUp>() => Err(reason),
            Restart::Allowed => {
                warn!(%reason, "listener failed, started again; its connections are gone");
                worker.listen(&me).await.map_err(ActorProcessingErr::from)
            }
            Restart::Exhausted => Err(format!("the listener failed too often, last: {reason}").into()),
        };
        if let Err(why) = &again {
            error!(%why, "a data-plane thread cannot go on");
            if let Some(ended) = worker.ended.take() {
                // The node may be stopping already, and then asks no more.
                let _ = ended.send(why.to_string());
            }
        }
        again
    }
}
