//! Follows the cluster's view and publishes each revision of the gateway document, compiled and whole.
//!
//! Requests read what is published and never ask. A revision that this node cannot serve (a secret is missing, or differs
//! from the cluster's) is refused: the last good one stays, the reason is in the log and in the node's readiness, and the
//! revision is tried again every few seconds, so that putting the secret in place is all there is to do.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use cluster::fatal::panic_text;
use cluster::hooks::panic_point;
use cluster::view::View;
use cluster::world::World;
use futures_util::FutureExt;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

use super::asked::Asked;
use super::compile::{Published, Source, compile};
use super::entry::Entry;
use crate::auth::{AccessRule, Bearer, secrets};
use crate::journey;
use crate::journey::evidence::RouteRule;
use crate::journey::received::Received;
use crate::refusal::Refusal;

/// How long a refused revision waits for its next try.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Compiling takes milliseconds; longer means that a disk hangs.
const COMPILE_WITHIN: Duration = Duration::from_secs(30);

/// The door to the routes in force. Cheap to clone; stays good when its actor is restarted.
#[derive(Clone)]
pub struct Routes {
    shared: Arc<Shared>,
}

struct Shared {
    world: World,
    /// Where relative secret files are.
    secrets: PathBuf,
    views: watch::Receiver<Arc<View>>,
    published: ArcSwapOption<Published>,
    problem: ArcSwapOption<String>,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let revision = self.load().map(|published| published.revision);
        f.debug_struct("Routes").field("revision", &revision).finish_non_exhaustive()
    }
}

impl Routes {
    /// A door without an actor behind it: until [`Routes::start`] nothing is published. `secrets` is the folder of relative
    /// secret files.
    pub fn new(world: World, secrets: PathBuf, views: watch::Receiver<Arc<View>>) -> Self {
        let (published, problem) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        Self { shared: Arc::new(Shared { world, secrets, views, published, problem }) }
    }

    /// Starts the actor under `supervisor`, on the calling runtime, or starts it again after it failed; what was published
    /// stays.
    ///
    /// # Errors
    /// If the actor can not be spawned.
    pub async fn start(&self, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let shared = Arc::clone(&self.shared);
        let (actor, _) = Actor::spawn_linked(None, RoutesActor, shared, supervisor).await?;
        Ok(actor.get_cell())
    }

    /// The revision in force on this node. None: there is none yet, or this node can not serve any.
    pub fn load(&self) -> Option<Arc<Published>> {
        self.shared.published.load_full()
    }

    /// Why the cluster's revision is not in force here, and what to do. None: it is, or is being compiled.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem.load_full().map(|problem| problem.as_ref().clone())
    }
}

impl journey::Routes for Routes {
    fn find(&self, received: &Received, bearer: &mut Bearer<'_>) -> Result<Arc<RouteRule>, Refusal> {
        let published = self.shared.published.load();
        let published = published.as_ref().ok_or(Refusal::NoConfiguration)?;
        let (method, path) = (received.method(), received.path());
        let agrees = |entry: &Entry<Arc<RouteRule>>| {
            let AccessRule::Token(rule) = &entry.value().access else { return false };
            let identity = bearer.look(&rule.verifiers).identity().ok().filter(|who| rule.knows(who));
            identity.is_some_and(|who| entry.unmet_claim(|claim, text| who.has(claim, text)).is_none())
        };
        let none = match published.table.find(&Asked::of(received), agrees) {
            Ok(rule) => return Ok(Arc::clone(rule)),
            Err(none) => none,
        };
        // With a good token it might be let in, so the route itself says what is wrong with this one, and counts whose it is
        // by address before. Whose token is good and says something else has come to the wrong place.
        if let Some(rule) = none.lacking
            && bearer.look(&published.verifiers).identity().is_err()
        {
            return Ok(Arc::clone(rule));
        }
        if none.allowed.is_empty() {
            return Err(Refusal::NoRoute { method: method.clone(), path: path.to_owned() });
        }
        Err(Refusal::MethodNotAllowed { method: method.clone(), allowed: none.allowed })
    }
}

/// What the actor is told. One message is under way at most: its sender waits for the answer.
enum Msg {
    /// From our own watcher: the view changed, or a refused revision is due. Answers whether to come back by itself.
    Look(Arc<View>, RpcReplyPort<Again>),
}

/// Whether a revision must be tried again though no view changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Yes,
    No,
}

struct RoutesActor;

struct State {
    shared: Arc<Shared>,
    watcher: AbortHandle,
}

impl Drop for State {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Actor for RoutesActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(&self, me: ActorRef<Msg>, shared: Arc<Shared>) -> Result<State, ActorProcessingErr> {
        let watching = AssertUnwindSafe(watch_views(me.clone(), Arc::clone(&shared))).catch_unwind();
        let watcher = tokio::spawn(async move {
            if let Err(panic) = watching.await {
                error!(panic = panic_text(&*panic), "the watch on views panicked");
                // Without it this actor is deaf: it ends, and another one begins.
                me.kill();
            }
        });
        let watcher = watcher.abort_handle();
        Ok(State { shared, watcher })
    }

    async fn handle(&self, _: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        panic_point("routes");
        let Msg::Look(view, reply) = msg;
        // A watcher that was aborted no longer waits.
        let _ = reply.send(state.shared.look(&view).await);
        Ok(())
    }
}

/// Brings each new view to the actor, one at a time; views that come meanwhile are overtaken by the newest.
async fn watch_views(me: ActorRef<Msg>, shared: Arc<Shared>) {
    let mut views = shared.views.clone();
    loop {
        panic_point("routes-watch");
        let view = views.borrow_and_update().clone();
        let (answer, answered) = oneshot::channel();
        if me.send_message(Msg::Look(view, RpcReplyPort::from(answer))).is_err() {
            return;
        }
        let Ok(again) = answered.await else { return };
        let retry = async {
            match again {
                Again::Yes => shared.world.clock.sleep(RETRY_AFTER).await,
                Again::No => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = views.changed() => if changed.is_err() { return },
            () = retry => {}
        }
    }
}

impl Shared {
    /// Publishes the view's revision if it is another than the one in force.
    async fn look(&self, view: &View) -> Again {
        let (Some(document), Some(secret)) = (&view.document, view.secret) else { return Again::No };
        let last = self.published.load_full();
        if last.as_ref().is_some_and(|last| last.revision == view.revision) {
            self.problem.store(None);
            return Again::No;
        }
        let source = Source { revision: view.revision, document: Arc::clone(document), secret };
        match self.compile(source, last.clone()).await {
            Ok(published) => {
                info!(
                    revision = view.revision.0,
                    routes = document.routes.len(),
                    "gateway document in force"
                );
                self.published.store(Some(Arc::new(published)));
                self.problem.store(None);
                Again::No
            }
            Err(why) => {
                let kept = last.map_or("no revision is".to_owned(), |last| {
                    format!("revision {} stays", last.revision.0)
                });
                let problem = format!(
                    "revision {} can not be served by this node, {kept} in force:\n{why}",
                    view.revision.0
                );
                if self.problem().as_deref() != Some(&problem) {
                    warn!(revision = view.revision.0, problem, "gateway document refused");
                }
                self.problem.store(Some(Arc::new(problem)));
                Again::Yes
            }
        }
    }

    fn problem(&self) -> Option<String> {
        self.problem.load_full().map(|problem| problem.as_ref().clone())
    }

    /// Compiles beside the runtime, since secrets are read from the disk.
    async fn compile(&self, source: Source, last: Option<Arc<Published>>) -> Result<Published, String> {
        let (done, result) = oneshot::channel();
        let (disk, folder) = (Arc::clone(&self.world.disk), self.secrets.clone());
        let work = move || {
            let compiled =
                compile(&source, last.as_deref(), |secret| secrets::load(secret, &folder, disk.as_ref()));
            // Nobody waits any more if it took too long.
            let _ = done.send(compiled);
        };
        let blocking = self.world.domains.blocking(Box::new(work));
        let waited = tokio::time::timeout(COMPILE_WITHIN, async {
            blocking.await;
            result.await
        });
        match waited.await {
            Ok(Ok(compiled)) => compiled,
            Ok(Err(_)) => Err("compiling it failed with a panic; the log says where".to_owned()),
            Err(_) => Err(format!("reading secrets took longer than {COMPILE_WITHIN:?}: does a disk hang?")),
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
