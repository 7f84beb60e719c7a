//! The keeper of this node's quotas: owns the lessee, talks to connections (on a miss) and to the replica.

use std::sync::Arc;

use cluster::lease::{Ask, AskError, AskReply, Push};
use cluster::replica::Replica;
use cluster::state::ids::SessionId;
use cluster::view::View;
use cluster::world::{BoxFuture, World};
use config::node::Limits;
use ractor::{ActorCell, SpawnErr};
use tokio::sync::{Mutex, mpsc, watch};

use super::rule::{Admission, Charge, Refused, Standing, Stats};

/// Whom the keeper asks: the cluster's ledger, through this node's replica.
pub trait Ledger: Send + Sync + 'static {
    /// Asks for a session; answered after commit.
    fn register(&self, nonce: u128) -> BoxFuture<'static, Result<SessionId, AskError>>;
    /// Sends one batch to the leader. Has no deadline of its own.
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<AskReply, AskError>>;
}

impl Ledger for Replica {
    fn register(&self, nonce: u128) -> BoxFuture<'static, Result<SessionId, AskError>> {
        Box::pin(Self::register(self, nonce))
    }
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<AskReply, AskError>> {
        Box::pin(Self::ask(self, ask))
    }
}

/// The door to the node's quotas. Cheap to clone; stays good when its actor is restarted.
#[derive(Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
}

struct Shared {
    world: World,
    ledger: Arc<dyn Ledger>,
    views: watch::Receiver<Arc<View>>,
    pushes: Arc<Mutex<mpsc::Receiver<Push>>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

impl Keeper {
    /// A door without an actor behind it: until [`Keeper::start`], every request is undecided.
    pub fn new(
        world: World,
        ledger: Arc<dyn Ledger>,
        views: watch::Receiver<Arc<View>>,
        pushes: mpsc::Receiver<Push>,
        _limits: &Limits,
    ) -> Self {
        let pushes = Arc::new(Mutex::new(pushes));
        Self { shared: Arc::new(Shared { world, ledger, views, pushes }) }
    }

    /// Starts the actor under `supervisor`, on the calling runtime (the control domain's), or starts it again after it
    /// failed: all leases are dropped, and a new session begins.
    ///
    /// # Errors
    /// If the actor can not be spawned.
    pub async fn start(&self, _supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let _ = (&self.shared.world, &self.shared.ledger, &self.shared.views, &self.shared.pushes);
        Err(SpawnErr::StartupFailed("the actor is not built yet".into()))
    }

    /// Spends the charges of one request, all or none. With tokens at hand it costs a few atomic operations and one clock
    /// read; else the request waits, as long as its quotas allow, for the leader.
    ///
    /// The keys of `charges` are distinct. No charges: admitted.
    ///
    /// # Errors
    /// [`Refused`]; nothing was spent.
    pub async fn admit(&self, charges: &[Charge]) -> Result<Admission, Refused> {
        Err(Refused::Undecided { quotas: charges.iter().map(|c| Arc::clone(&c.quota)).collect() })
    }

    /// Where a charge's key stands, without spending.
    pub fn standing(&self, charge: &Charge) -> Standing {
        let limit = charge.quota.limit;
        Standing { quota: Arc::clone(&charge.quota), limit, left: limit.burst, reset_s: 0 }
    }

    /// Figures for status and metrics.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Gives every lease back in a last batch. Ends when the leader has it, or after `drain_timeout` of a batch.
    pub async fn drain(&self) {}
}
