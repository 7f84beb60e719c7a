//! The log and the vote: an image in memory, and one ordered queue to one writer.
//!
//! ```text
//! append, vote, truncate, purge ──▶ image (readable at once) ──▶ queue ──▶ writer: one commit for all that waits
//!                                                                          └─▶ callbacks, after the sync
//! ```
//!
//! - An append's callback runs only after the sync; a vote is readable and answered only after it.
//! - Vote and entries share the queue, so that their order on disk is the order in which openraft gave them.
//! - `committed` rides with the next batch; only a log that falls silent writes it alone, so that a node that restarts
//!   without a quorum serves what it served before.
//! - After a failed write nobody knows what the disk holds: callbacks fail, the queue closes, the process must end.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::backend::{Backend, Fact, Loaded, Write};
use super::types::{Entry, LogId, TypeConfig, Vote};
use super::wire;
use crate::HISTORY;
use crate::fatal::Bell;
use crate::hooks::panic_point;
use crate::peer::codec::{self, Kind};
use crate::peer::message::log::{EntryV1, LogIdV1, VoteV1};
use crate::world::{MonoNs, World};

/// Writes that may wait for the writer; openraft waits beyond.
const QUEUE_MAX: usize = 1024;
/// Writes of one commit.
const BATCH_MAX: usize = 512;
/// How long what is committed waits for a batch to ride with.
const COMMITTED_WITHIN: Duration = Duration::from_secs(1);
/// Entries of one message to a follower, whatever openraft asks for.
const READ_BYTES_MAX: usize = 1 << 20;

/// The log. Cheap to clone: all clones are one log.
#[derive(Clone, Debug)]
pub struct Log {
    world: World,
    image: Arc<Mutex<Image>>,
    queue: mpsc::Sender<Op>,
}

#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) entries: BTreeMap<u64, Held>,
    pub(super) vote: Option<Vote>,
    purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// `committed` is newer than what the disk has.
    committed_waits: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) entry: Entry,
    bytes: usize,
    /// When this process got it; none: an earlier process did.
    received: Option<MonoNs>,
}

struct Op {
    writes: Vec<Write>,
    done: Done,
}

enum Done {
    Nobody,
    Append(IOFlushed<TypeConfig>),
    Vote(Vote, oneshot::Sender<io::Result<()>>),
}

impl Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} writes", self.writes.len())
    }
}

impl Log {
    /// Reads what `backend` holds and starts the writer, as a task of the calling runtime.
    ///
    /// `bell` rings when a write failed.
    ///
    /// # Errors
    /// If a record is damaged: the log can not be trusted then, and the node must not start.
    pub async fn open(world: &World, backend: Arc<dyn Backend>, bell: Bell) -> io::Result<Self> {
        let loaded = blocking(world, {
            let backend = backend.clone();
            move || backend.load()
        })
        .await?;
        let image = Arc::new(Mutex::new(Image::read(loaded)?));
        let (queue, ops) = mpsc::channel(QUEUE_MAX);
        let put = image.lock().last().map(|id| id.index);
        let writer =
            Writer { world: world.clone(), backend, image: image.clone(), ops, put, bell: bell.clone() };
        tokio::spawn(bell.guard("the log's writer", writer.run()));
        Ok(Self { world: world.clone(), image, queue })
    }

    /// The last entry's index; none: the log is empty and nothing was purged.
    pub fn last_index(&self) -> Option<u64> {
        let image = self.image.lock();
        image.entries.keys().next_back().copied().or(image.purged.map(|id| id.index))
    }

    /// How many entries it holds.
    pub fn count(&self) -> u64 {
        self.image.lock().entries.len() as u64
    }

    /// When this process got an entry; none: an earlier process did, or the log holds another at its index.
    pub(super) fn received(&self, id: &LogId) -> Option<MonoNs> {
        let image = self.image.lock();
        image.entries.get(&id.index).filter(|held| held.entry.log_id == *id)?.received
    }

    async fn enqueue(&self, writes: Vec<Write>, done: Done) -> io::Result<()> {
        self.queue.send(Op { writes, done }).await.map_err(|_| ended())
    }
}

fn ended() -> io::Error {
    io::Error::other("the log's writer has ended after a failed write")
}

/// Runs `work` beside the runtime and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    world: &World,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    blocking_while_wanted(world, |_| work()).await
}

/// As [`blocking`], for long work: what it is given fails as soon as nobody waits for the work any more.
pub(crate) async fn blocking_while_wanted<T: Send + 'static>(
    world: &World,
    work: impl FnOnce(&dyn Fn() -> io::Result<()>) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (tx, rx) = oneshot::channel();
    let run = world.domains.blocking(Box::new(move || {
        let wanted = || if tx.is_closed() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
        let result = work(&wanted);
        // Nobody waits any more only when the runtime is ending.
        let _ = tx.send(result);
    }));
    run.await;
    rx.await.unwrap_or_else(|_| Err(io::Error::other("blocking work panicked")))
}

/// Frees something large beside the runtime.
pub(crate) fn drop_beside<T: Send + 'static>(world: &World, large: T) {
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::spawn(world.domains.blocking(Box::new(move || drop(large))));
    }
}

impl Image {
    pub(super) fn read(loaded: Loaded) -> io::Result<Self> {
        let id = |record: Option<Vec<u8>>| -> io::Result<Option<LogId>> {
            let Some(record) = record else { return Ok(None) };
            Ok(Some(codec::decode_stored::<LogIdV1>(codec::open(Kind::LogId, &record)?)?.into()))
        };
        let mut image =
            Self { purged: id(loaded.purged)?, committed: id(loaded.committed)?, ..Self::default() };
        if let Some(record) = loaded.vote {
            image.vote = Some(codec::decode_stored::<VoteV1>(codec::open(Kind::Vote, &record)?)?.into());
        }
        let mut wanted = image.purged.map(|id| id.index + 1);
        for (index, record) in loaded.entries {
            let bytes = record.len();
            let entry = wire::entry(codec::decode_stored(codec::open(Kind::Entry, &record)?)?)?;
            if entry.log_id.index != index || wanted.is_some_and(|wanted| wanted != index) {
                let found = format!("the log holds entry {} at index {index}", entry.log_id.index);
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{found}, wanted {wanted:?}: restore this node from an empty disk"),
                ));
            }
            wanted = Some(index + 1);
            image.entries.insert(index, Held { entry, bytes, received: None });
        }
        Ok(image)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|held| held.entry.log_id).or(self.purged)
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let image = self.image.lock();
        Ok(image.entries.range(range).map(|(_, held)| held.entry.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let image = self.image.lock();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for held in image.entries.range(start..end).map(|(_, held)| held) {
            bytes += held.bytes;
            if bytes > READ_BYTES_MAX && !entries.is_empty() {
                break;
            }
            entries.push(held.entry.clone());
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.image.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let image = self.image.lock();
        Ok(LogState { last_purged_log_id: image.purged, last_log_id: image.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let record = codec::seal(Kind::Vote, &codec::encode(&VoteV1::from(*vote)))?;
        let (tx, rx) = oneshot::channel();
        self.enqueue(vec![Write::Set(Fact::Vote, record)], Done::Vote(*vote, tx)).await?;
        rx.await.unwrap_or_else(|_| Err(ended()))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut image = self.image.lock();
        image.committed_waits |= image.committed != committed;
        image.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.image.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut writes = Vec::new();
        let received = Some(self.world.clock.mono());
        {
            let mut image = self.image.lock();
            for entry in entries {
                let index = entry.log_id.index;
                let record = codec::seal(Kind::Entry, &codec::encode(&EntryV1::from(&entry)))?;
                image.entries.insert(index, Held { entry, bytes: record.len(), received });
                writes.push(Write::Put(index, record));
            }
        }
        self.enqueue(writes, Done::Append(callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let first = last_log_id.map_or(0, |id| id.index + 1);
        let count = self.image.lock().entries.split_off(&first).len() as u64;
        tracing::debug!(target: HISTORY, count, "entries cut off");
        self.enqueue(vec![Write::RemoveFrom(first)], Done::Nobody).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let purged = {
            let mut image = self.image.lock();
            image.purged = image.purged.max(Some(log_id));
            let kept = image.entries.split_off(&(log_id.index + 1));
            std::mem::replace(&mut image.entries, kept)
        };
        tracing::debug!(target: HISTORY, "logs purged");
        drop_beside(&self.world, purged);
        let record = codec::seal(Kind::LogId, &codec::encode(&LogIdV1::from(log_id)))?;
        let writes = vec![Write::Set(Fact::Purged, record), Write::RemoveThrough(log_id.index)];
        self.enqueue(writes, Done::Nobody).await
    }
}

/// The one task that writes.
struct Writer {
    world: World,
    backend: Arc<dyn Backend>,
    image: Arc<Mutex<Image>>,
    ops: mpsc::Receiver<Op>,
    /// The last index given to the backend.
    put: Option<u64>,
    bell: Bell,
}

impl Writer {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        // Times out, with nothing to write but what is committed; or ends with all senders.
        while timeout(COMMITTED_WITHIN, self.ops.recv_many(&mut batch, BATCH_MAX)).await != Ok(0) {
            let mut writes = Vec::new();
            let mut done = Vec::with_capacity(batch.len());
            for op in batch.drain(..) {
                writes.extend(op.writes);
                done.push(op.done);
            }
            panic_point("log");
            let committed = self.committed(&writes);
            writes.extend(committed);
            if writes.is_empty() && done.is_empty() {
                continue;
            }
            let backend = self.backend.clone();
            let result = blocking(&self.world, move || backend.write(&writes)).await;
            let failed = result.err().map(|error| {
                // First of all, for whatever the consensus core says of its end follows from this.
                self.bell.ring(self.bell.storage("writing the log", &error));
                error.to_string()
            });
            for done in done {
                self.complete(done, &failed);
            }
            if failed.is_some() {
                return;
            }
        }
    }

    /// What is committed, if the disk does not know it. Never more than the log on disk holds: entries may be
    /// committed by others' disks while they still wait for ours.
    fn committed(&mut self, writes: &[Write]) -> Option<Write> {
        for write in writes {
            match write {
                Write::Put(index, _) => self.put = Some(*index),
                Write::RemoveFrom(first) => self.put = first.checked_sub(1),
                Write::RemoveThrough(last) => self.put = self.put.max(Some(*last)),
                Write::Set(..) => {}
            }
        }
        let mut image = self.image.lock();
        let committed = image.committed.filter(|id| image.committed_waits && Some(id.index) <= self.put)?;
        image.committed_waits = false;
        let record = codec::seal(Kind::LogId, &codec::encode(&LogIdV1::from(committed)));
        let record = record.expect("a log id has a few bytes");
        Some(Write::Set(Fact::Committed, record))
    }

    fn complete(&self, done: Done, failed: &Option<String>) {
        let result = || failed.as_ref().map_or(Ok(()), |reason| Err(io::Error::other(reason.clone())));
        match done {
            Done::Nobody => {}
            Done::Append(callback) => callback.io_completed(result()),
            Done::Vote(vote, answer) => {
                if failed.is_none() {
                    self.image.lock().vote = Some(vote);
                }
                // openraft stops waiting only when it ends.
                let _ = answer.send(result());
            }
        }
    }
}
