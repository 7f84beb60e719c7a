//! The state machine: the replicated state in memory, applied in the log's order, and its snapshots.
//!
//! The state, its place in the log, the membership and the cluster clock change together under one lock, which is held
//! for one entry at a time. Snapshots are built from a cheap clone, encoded beside the runtime, and are one file. Whatever
//! is large is freed beside the runtime too.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::log::{Log, drop_beside};
use super::snapshot::{Content, Parcel, Shelf};
use super::types::{Local, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, term};
use crate::HISTORY;
use crate::clock::ClusterClock;
use crate::fatal::Bell;
use crate::hooks::panic_point;
use crate::state::State;
use crate::state::command::{BatchOutcome, Command, Outcome};
use crate::world::World;

/// The consensus core.
pub type Raft = openraft::Raft<TypeConfig, Machine>;

/// What the log made of this node so far. All of it changes together.
#[derive(Debug)]
pub struct Replicated {
    /// The state.
    pub state: State,
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// The last applied membership.
    pub membership: StoredMembership,
    /// This node's reading of cluster time.
    pub clock: ClusterClock,
}

impl Replicated {
    /// Index of the last applied entry; 0: none, or the very first.
    pub fn applied_index(&self) -> u64 {
        self.applied.map_or(0, |id| id.index)
    }
}

/// The state machine that openraft drives.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Mutex<Replicated>>,
    shelf: Shelf,
    applied: watch::Sender<u64>,
    log: Log,
    world: World,
    bell: Bell,
}

/// What others keep of a machine.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The replicated state and its companions.
    pub replicated: Arc<Mutex<Replicated>>,
    /// Rises after each apply or install: the last applied index.
    pub applied: watch::Receiver<u64>,
}

impl Machine {
    /// Recovers the last snapshot; openraft then applies the log's committed entries. `bell` rings if that panics:
    /// openraft does not notice, and would wait for ever.
    ///
    /// # Errors
    /// The disk's, or a damaged snapshot.
    pub async fn open(world: &World, log: Log, bell: Bell) -> io::Result<(Self, Shared)> {
        let shelf = Shelf::new(world.clone());
        let content = shelf.load().await?.unwrap_or_default();
        let now = world.clock.mono();
        let index = content.meta.last_log_id.map_or(0, |id| id.index);
        let clock = ClusterClock::restarted(content.state.tau(), index, now);
        let replicated = Arc::new(Mutex::new(Replicated {
            state: content.state,
            applied: content.meta.last_log_id,
            membership: content.meta.last_membership,
            clock,
        }));
        let (applied, watched) = watch::channel(index);
        let shared = Shared { replicated: replicated.clone(), applied: watched };
        Ok((Self { shared: replicated, shelf, applied, log, world: world.clone(), bell }, shared))
    }

    fn apply_one(
        &self,
        id: LogId,
        payload: EntryPayload<Local<Command>, u64, super::types::PeerNode>,
    ) -> Outcome {
        panic_point("apply");
        let mut replicated = self.shared.lock();
        let (outcome, stamp) = match payload {
            EntryPayload::Blank => (Outcome::None, None),
            EntryPayload::Membership(membership) => {
                replicated.membership = StoredMembership::new(Some(id), membership);
                (Outcome::None, None)
            }
            EntryPayload::Normal(Local(command)) => {
                let ended = replicated.state.ledger().tally().deemed_spent;
                let outcome = replicated.state.apply(id.index, term(&id), &command);
                tell(&outcome, replicated.state.ledger().tally().deemed_spent - ended);
                let stamped = matches!(outcome, Outcome::Stamped(_));
                (outcome, stamped.then(|| replicated.state.tau()))
            }
        };
        replicated.applied = Some(id);
        // Entry 0 is the founding membership: it has no stamp, and the clock counts from 1.
        if id.index > 0 {
            let received = self.log.received(&id).unwrap_or_else(|| self.world.clock.mono());
            replicated.clock.applied(id.index, term(&id), stamp, received);
        }
        let state = &replicated.state;
        tracing::debug!(
            target: HISTORY,
            index = id.index,
            term = term(&id),
            digest = state.digest(),
            given = state.ledger().given(),
            "applied"
        );
        #[cfg(feature = "checks")]
        replicated.state.check_after(id.index);
        outcome
    }
}

/// What an entry did that is rare enough to be worth a word; `ended`: tokens that were booked with a lease that ended.
fn tell(outcome: &Outcome, ended: i128) {
    match outcome {
        Outcome::Stamped(stamped) => {
            for batch in &stamped.batches {
                match batch {
                    BatchOutcome::Applied(_) => {}
                    BatchOutcome::UnknownSession => {
                        tracing::debug!(target: HISTORY, "batches of unknown sessions");
                    }
                    BatchOutcome::Stale => tracing::debug!(target: HISTORY, "batches behind a later one"),
                }
            }
            if !stamped.sessions.is_empty() {
                let count = stamped.sessions.len();
                tracing::debug!(target: HISTORY, count, "sessions registered");
            }
            if ended > 0 {
                tracing::debug!(target: HISTORY, count = ended, "tokens booked as spent with their lease");
            }
        }
        Outcome::Fenced => tracing::debug!(target: HISTORY, "entries of a deposed leader"),
        _ => {}
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Parcel;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let replicated = self.shared.lock();
        Ok((replicated.applied, replicated.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let apply = async {
            while let Some(next) = entries.next().await {
                let (entry, responder) = next?;
                let outcome = self.apply_one(entry.log_id, entry.payload);
                self.applied.send_replace(entry.log_id.index);
                if let Some(responder) = responder {
                    responder.send(Local(outcome));
                }
            }
            Ok(())
        };
        self.bell.caught("applying an entry", apply).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let replicated = self.shared.lock();
        let meta =
            SnapshotMeta { last_log_id: replicated.applied, last_membership: replicated.membership.clone() };
        let content = Content { meta, state: replicated.state.clone() };
        Builder { content: Some(content), shelf: self.shelf.clone(), bell: self.bell.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Parcel) -> io::Result<()> {
        let install = self.shelf.install(meta, snapshot);
        let content = self.bell.caught("installing a snapshot", install).await?;
        let index = content.meta.last_log_id.map_or(0, |id| id.index);
        let replaced = {
            let mut replicated = self.shared.lock();
            let tau = content.state.tau();
            let now = self.world.clock.mono();
            let replaced = std::mem::replace(&mut replicated.state, content.state);
            replicated.applied = content.meta.last_log_id;
            replicated.membership = content.meta.last_membership;
            replicated.clock.installed(tau, index, now);
            replaced
        };
        drop_beside(&self.world, replaced);
        tracing::info!(index, "goes on from a snapshot");
        self.applied.send_replace(index);
        tracing::debug!(target: HISTORY, index, "installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.shelf.current())
    }
}

/// Builds one snapshot.
#[derive(Debug)]
pub struct Builder {
    /// None once it was built.
    content: Option<Content>,
    shelf: Shelf,
    bell: Bell,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Parcel;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let content = self.content.take().ok_or_else(|| io::Error::other("a builder builds one snapshot"))?;
        self.bell.caught("building a snapshot", self.shelf.store(content)).await
    }
}
