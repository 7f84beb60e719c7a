//! Owns the raft instance: proposes, forwards, asks, publishes the view.

use std::future::Future;
use std::sync::Arc;

use config::gateway::GatewayDocument;
use config::node::NodeFile;
use tokio::sync::{mpsc, watch};

use crate::lease::{Ask, AskError, AskReply, Push};
use crate::state::ids::{Revision, SessionId};
use crate::view::View;
use crate::world::{BootNs, World};

/// The door to this node's replica. Cheap to clone; usable from every thread.
#[derive(Clone, Debug)]
pub struct Replica {
    view: watch::Receiver<Arc<View>>,
}

/// What a started replica consists of.
#[derive(Debug)]
pub struct Started {
    /// The door.
    pub replica: Replica,
    /// From the leader, unasked; bounded, the oldest are dropped.
    pub pushes: mpsc::Receiver<Push>,
    /// Ends with the reason when the replica can not go on (storage error, lost thread): the process must end.
    pub fatal: watch::Receiver<Option<String>>,
}

impl Replica {
    /// Starts the replica on domains of its own: recovers log, vote and snapshot, listens for peers, and, if this node
    /// belongs to no cluster and its file names peers, goes on asking them to let it join. Never founds a cluster.
    ///
    /// # Errors
    /// A text for the operator: what was found, what was wanted, what to do.
    pub async fn start(_world: World, _node: Arc<NodeFile>) -> Result<Started, String> {
        Err("not built yet".to_owned())
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
        None
    }

    /// Founds a cluster of this node alone.
    ///
    /// # Errors
    /// If the node already belongs to a cluster, or a disk failed.
    pub async fn found(&self) -> Result<(), String> {
        Err("not built yet".to_owned())
    }

    /// Replaces the gateway document. Answers when every member has acknowledged it, or can no longer serve the old one.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn apply_document(
        &self,
        _document: Arc<GatewayDocument>,
        _expected: Option<Revision>,
    ) -> Result<Applied, ProposeError> {
        Err(ProposeError::NoLeader)
    }

    /// Asks the ledger for a session; answered after commit.
    ///
    /// # Errors
    /// [`AskError`]; try again.
    pub fn register(
        &self,
        _nonce: u128,
    ) -> impl Future<Output = Result<SessionId, AskError>> + Send + 'static {
        async { Err(AskError::Unreachable) }
    }

    /// Sends one batch to the leader, wherever it is. Has no deadline of its own: the caller drops it.
    ///
    /// # Errors
    /// [`AskError`]; the batch is void.
    pub fn ask(&self, _ask: Ask) -> impl Future<Output = Result<AskReply, AskError>> + Send + 'static {
        async { Err(AskError::Unreachable) }
    }

    /// Hands leadership over if this node leads, then stops.
    pub async fn stop(&self) {}
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
