//! The supervisor of a node's keepers.

use std::collections::BTreeMap;

use cluster::world::World;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::restarts::{Restart, Restarts};
use crate::quota::Keeper;
use crate::router::Routes;

/// The children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    Keeper,
    Routes,
}

/// Arguments and state of the supervisor.
pub struct Tree {
    world: World,
    keeper: Keeper,
    routes: Routes,
    restarts: Restarts,
    running: BTreeMap<ActorId, Child>,
    ended: Option<oneshot::Sender<String>>,
}

/// Starts the keepers under a supervisor. The receiver yields why the supervisor gave up.
pub async fn start(
    world: World,
    keeper: Keeper,
    routes: Routes,
) -> Result<(ActorRef<()>, oneshot::Receiver<String>), SpawnErr> {
    let (ended, why) = oneshot::channel();
    let tree = Tree {
        world,
        keeper,
        routes,
        restarts: Restarts::default(),
        running: BTreeMap::new(),
        ended: Some(ended),
    };
    let (actor, _) = Actor::spawn(None, TreeActor, tree).await?;
    Ok((actor, why))
}

impl Tree {
    async fn start(&mut self, child: Child, me: ActorCell) -> Result<(), SpawnErr> {
        let cell = match child {
            Child::Keeper => self.keeper.start(me).await?,
            Child::Routes => self.routes.start(me).await?,
        };
        self.running.insert(cell.get_id(), child);
        Ok(())
    }

    async fn again(
        &mut self,
        child: ActorId,
        reason: String,
        me: ActorCell,
    ) -> Result<(), ActorProcessingErr> {
        let Some(child) = self.running.remove(&child) else { return Ok(()) };
        match self.restarts.ask(self.world.clock.boot()) {
            Restart::Allowed => {
                warn!(?child, reason, "keeper failed, started again");
                Ok(self.start(child, me).await?)
            }
            Restart::Exhausted => Err(format!("{child:?} failed too often, last: {reason}").into()),
        }
    }
}

struct TreeActor;

impl Actor for TreeActor {
    type Msg = ();
    type State = Tree;
    type Arguments = Tree;

    async fn pre_start(&self, me: ActorRef<()>, mut tree: Tree) -> Result<Tree, ActorProcessingErr> {
        for child in [Child::Keeper, Child::Routes] {
            tree.start(child, me.get_cell()).await?;
        }
        Ok(tree)
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<()>,
        event: SupervisionEvent,
        tree: &mut Tree,
    ) -> Result<(), ActorProcessingErr> {
        let again = match event {
            SupervisionEvent::ActorFailed(child, reason) => {
                tree.again(child.get_id(), reason.to_string(), me.get_cell()).await
            }
            // A keeper ends in order only when the tree stops it; before that it is a failure like any other.
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                tree.again(child.get_id(), reason.unwrap_or_else(|| "it stopped".to_owned()), me.get_cell())
                    .await
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        };
        if let Err(why) = &again {
            error!(%why, "the keepers cannot go on");
            if let Some(ended) = tree.ended.take() {
                // The node may be stopping already, and then asks no more.
                let _ = ended.send(why.to_string());
            }
        }
        again
    }
}
