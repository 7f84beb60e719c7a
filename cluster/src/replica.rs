//! Owns the raft instance: proposes, forwards, asks, publishes the view.
//!
//! ```text
//! core     what the tasks share; the seat in a cluster        run      the domain's main, from start to stop
//! slot     the leader's single-flight stamped entries         ask      batches and sessions, to the leader
//! change   a document, until all members show it              lease    how a view is known not to be stale
//! views    the published view                                 service  what other nodes ask
//! standing whether this node comes, stays, or goes
//! ```

mod ask;
mod change;
pub(crate) mod core;
mod lease;
mod pushes;
mod run;
mod service;
mod slot;
pub(crate) mod standing;
mod views;

pub use lease::VIEW_LEASE;
pub(crate) use lease::VIEWS_END_AFTER;
pub use standing::Parting;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::gateway::GatewayDocument;
use config::ids::NodeName;
use config::node::NodeFile;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use self::run::{Request, Wiring};
use self::standing::Standing;
use crate::credentials::CertificateStanding;
use crate::fatal::{Bell, Fatal};
use crate::lease::{Ask, AskError, AskReply, Push};
pub use crate::membership::order::OrderError;
use crate::peer::message::members::MembersV1;
pub use crate::peer::message::members::{EndedV1 as Ended, ProgressV1 as Progress, ReportV1 as Report};
use crate::state::ids::{Revision, SessionId};
use crate::view::View;
use crate::world::{BootNs, World};

/// Requests on their way to the replica's domain.
const REQUESTS_MAX: usize = 1024;
const PUSHES_MAX: usize = 256;
/// Founding, with a wait for the first leadership.
const FOUND_WITHIN: Duration = Duration::from_secs(30);
/// All attempts to change the document, and the last one's end.
const CHANGE_WITHIN: Duration = Duration::from_secs(30);
const DIGEST_WITHIN: Duration = Duration::from_secs(5);
const ORDER_WITHIN: Duration = Duration::from_secs(10);
const MEMBERS_WITHIN: Duration = Duration::from_secs(1);
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Held as long as anything of the domain may touch the disk.
type DirectoryLock = Box<dyn Send + Sync>;

/// The door to this node's replica. Cheap to clone; usable from every thread.
#[derive(Clone, Debug)]
pub struct Replica {
    view: watch::Receiver<Arc<View>>,
    lease: Arc<AtomicU64>,
    certificate: watch::Receiver<CertificateStanding>,
    requests: mpsc::Sender<Request>,
    standing: Arc<Standing>,
    /// True once the domain has ended and nothing of it touches the disk any more.
    over: watch::Receiver<bool>,
}

/// What a started replica consists of.
#[derive(Debug)]
pub struct Started {
    /// The door.
    pub replica: Replica,
    /// From the leader, unasked; bounded, the oldest are dropped.
    pub pushes: mpsc::Receiver<Push>,
    /// Yields the reason when the replica can not go on (failed disk, panic): the process must end.
    pub fatal: watch::Receiver<Option<Fatal>>,
}

impl Replica {
    /// Starts the replica on domains of its own: takes the data directory, recovers log, vote and snapshot, listens for
    /// peers, and, if this node belongs to no cluster and its file names peers, goes on asking them to let it join.
    /// Never founds a cluster.
    ///
    /// # Errors
    /// A text for the operator: what was found, what was wanted, what to do.
    pub async fn start(world: World, node: Arc<NodeFile>) -> Result<Started, Fatal> {
        let (view, views) = watch::channel(Arc::new(View::default()));
        let lease = Arc::new(AtomicU64::new(0));
        let (certificate, certificates) = watch::channel(CertificateStanding::default());
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (pushed, pushes) = mpsc::channel(PUSHES_MAX);
        let (bell, fatal) = Bell::new(node.data.clone());
        let (ready, started) = oneshot::channel();
        let standing = Arc::<Standing>::default();
        let wiring = Wiring {
            view,
            lease: lease.clone(),
            certificate,
            asked,
            pushed,
            standing: standing.clone(),
            bell: bell.clone(),
            ready,
        };
        let domains = world.domains.clone();
        let ended = domains.spawn("raft", Box::pin(run::run(world, node, wiring)));
        let (end, over) = watch::channel(false);
        let (keep, kept) = oneshot::channel::<DirectoryLock>();
        tokio::spawn(async move {
            let ended = ended.await;
            if let Err(panic) = ended {
                bell.ring(Fatal::Internal(format!("the replica's thread ended: {panic}")));
            }
            // Given back only now: tasks of the domain may have used the disk to its end.
            drop(kept.await);
            end.send_replace(true);
        });
        let died = |_| Fatal::Internal("the replica's thread ended before it was ready".to_owned());
        let lock = started.await.map_err(died)??;
        // The task above is there as long as the runtime is; without it the lock is given back at once.
        drop(keep.send(lock));
        let replica = Self { view: views, lease, certificate: certificates, requests, standing, over };
        Ok(Started { replica, pushes, fatal })
    }

    /// The present view. Immutable; costs an atomic load.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Yields a new view after each change.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Until when the view is known to be no staler than its lease (decisions.md 21); none: never confirmed.
    pub fn view_lease(&self) -> Option<BootNs> {
        let until = self.lease.load(Ordering::Acquire);
        (until > 0).then_some(BootNs(until))
    }

    /// This node's certificate: until when it is valid, and whether the files on disk are in force.
    pub fn certificate(&self) -> CertificateStanding {
        self.certificate.borrow().clone()
    }

    /// Founds a cluster of this node alone.
    ///
    /// # Errors
    /// If the node already belongs to a cluster, or a disk failed.
    pub async fn found(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let stopped = "the replica has stopped";
        self.requests.send(Request::Found(reply)).await.map_err(|_| stopped)?;
        let answer = timeout(FOUND_WITHIN, answer).await;
        answer.map_err(|_| "founding took too long: look at the log, then try again")?.map_err(|_| stopped)?
    }

    /// Begins to remove the member of this name, and says where that stands. It goes on by itself, whoever leads.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn leave(&self, node: &NodeName) -> Result<Report, OrderError> {
        self.order(MembersV1::Leave(node.as_str().to_owned())).await
    }

    /// Begins to replace the member `old` by the member `new`, and says where that stands.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn replace(&self, old: &NodeName, new: &NodeName) -> Result<Report, OrderError> {
        let (old, new) = (old.as_str().to_owned(), new.as_str().to_owned());
        self.order(MembersV1::Replace { old, new }).await
    }

    async fn order(&self, order: MembersV1) -> Result<Report, OrderError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request::Order(order, reply)).map_err(|_| OrderError::NoLeader)?;
        match timeout(ORDER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(OrderError::Unanswered),
        }
    }

    /// What the leader knows of the members. None: it was not reached.
    pub async fn members(&self) -> Option<Report> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request::Members(reply)).ok()?;
        timeout(MEMBERS_WITHIN, answer).await.ok()?.ok()?
    }

    /// Whether this node is on its way out of its cluster; yields each step of it.
    pub fn partings(&self) -> watch::Receiver<Parting> {
        self.standing.partings()
    }

    /// This node has finished: it serves nobody and holds no lease, so it can be removed.
    pub fn handed_back(&self) {
        self.standing.ready();
    }

    /// What this node was last told when it asked to be let in, or to have its address changed; none: it is the member
    /// that it should be.
    pub fn joining(&self) -> Option<String> {
        self.standing.joining()
    }

    /// Replaces the gateway document. Answers when every member has acknowledged it, or can no longer serve routes with a
    /// token under the old one, but for those whose `serve_stale_for` lets it.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn apply_document(
        &self,
        document: Arc<GatewayDocument>,
        expected: Option<Revision>,
    ) -> Result<Applied, ProposeError> {
        let json = serde_json::to_string(&*document).map_err(|e| ProposeError::Refused(e.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Change { json: json.into(), expected, reply };
        self.requests.try_send(request).map_err(|_| ProposeError::NoLeader)?;
        match timeout(CHANGE_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Asks the ledger for a session; answered after commit.
    ///
    /// # Errors
    /// [`AskError`]; try again.
    pub fn register(
        &self,
        nonce: u128,
    ) -> impl Future<Output = Result<SessionId, AskError>> + Send + 'static {
        self.send(move |reply| Request::Register(nonce, reply))
    }

    /// Sends one batch to the leader, wherever it is. Has no deadline of its own: the caller drops it.
    ///
    /// # Errors
    /// [`AskError`]; the batch is void.
    pub fn ask(&self, ask: Ask) -> impl Future<Output = Result<AskReply, AskError>> + Send + 'static {
        self.send(move |reply| Request::Ask(ask, reply))
    }

    fn send<T: Send + 'static>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, AskError>>) -> Request + Send + 'static,
    ) -> impl Future<Output = Result<T, AskError>> + Send + 'static {
        let requests = self.requests.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            requests.try_send(request(reply)).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => AskError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => AskError::Unreachable,
            })?;
            answer.await.unwrap_or(Err(AskError::Unreachable))
        }
    }

    /// The last applied index and the fingerprint of the state there: equal on all nodes at equal indexes.
    /// None: this node belongs to no cluster, or has stopped.
    pub async fn digest(&self) -> Option<(u64, u64)> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request::Digest(reply)).ok()?;
        timeout(DIGEST_WITHIN, answer).await.ok()?.ok()?
    }

    /// Hands leadership over if this node leads, then stops.
    pub async fn stop(&self) {
        // Fails if the domain has ended on its own.
        let _ = self.requests.send(Request::Stop).await;
        let mut over = self.over.clone();
        if timeout(STOP_WITHIN, over.wait_for(|over| *over)).await.is_err() {
            tracing::warn!(within = ?STOP_WITHIN, "the replica did not stop: a hanging disk?");
        }
    }
}

/// A document change that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its revision.
    pub revision: Revision,
    /// Names of members that have not confirmed it; their view leases have ended.
    pub unconfirmed: Vec<String>,
}

/// Why a proposal took no effect, or may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader is known: nothing was done.
    #[error("no leader is known; is a majority of the nodes running?")]
    NoLeader,
    /// No answer came in time: it may have been done.
    #[error(
        "no answer in time: the change may or may not have been applied; look at `quorumgate cluster status`"
    )]
    Unknown,
    /// Refused.
    #[error("{0}")]
    Refused(String),
}
