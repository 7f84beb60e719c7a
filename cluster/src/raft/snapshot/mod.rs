//! Snapshots: one file, replaced as a whole, durable before anything depends on it; never held in memory as a whole.
//!
//! ```text
//! state ─▶ parts ─▶ records ─▶ a draft ─▶ in the old file's place        built here
//! pieces from the leader ─┬─▶ a draft ─▶ in the old file's place         received
//!                         └─▶ decoder ─▶ state
//! ```

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::log::{blocking, blocking_while_wanted, drop_beside};
use super::types::{LogId, Snapshot, SnapshotMeta};
use crate::state::State;
use crate::world::{Draft, Reading, World};

mod file;
#[cfg(test)]
mod tests;

pub use file::{Decoder, encode};

const FILE: &str = "raft.snapshot";
/// Bytes that are read or sent at once.
pub const PIECE_BYTES: usize = 1 << 20;

/// What a snapshot holds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Place and membership.
    pub meta: SnapshotMeta,
    /// The state.
    pub state: State,
}

/// A snapshot as the consensus core carries it about: never its bytes.
#[derive(Debug)]
pub enum Parcel {
    /// It lies on this node's shelf.
    Kept(File),
    /// It came from the leader.
    Received(Received),
}

/// A snapshot file that was opened. Cheap to clone.
#[derive(Clone)]
pub struct File(Arc<dyn Reading>);

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size())
    }
}

impl File {
    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// At most [`PIECE_BYTES`] from `offset` on; none at the file's end. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn piece(&self, offset: u64) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        self.0.read_at(offset, &mut piece)?;
        Ok(piece)
    }

    /// All pieces, one at a time. Blocks.
    fn each(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut offset = 0;
        while offset < self.size() {
            let piece = self.piece(offset)?;
            offset += piece.len() as u64;
            take(&piece)?;
        }
        Ok(())
    }
}

/// A snapshot that is coming in: decoded and written to a draft piece by piece.
pub struct Intake {
    decoder: Box<Decoder>,
    draft: Box<dyn Draft>,
}

impl Intake {
    /// Begins with nothing. Blocks, as all of it does.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin(world: &World) -> io::Result<Self> {
        Ok(Self { decoder: Box::default(), draft: world.disk.draft(Path::new(FILE))? })
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// The disk's; a damaged piece.
    pub fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        self.decoder.push(piece)?;
        self.draft.append(piece)
    }

    /// There is no more.
    ///
    /// # Errors
    /// If that was not all.
    pub fn finish(self, world: &World) -> io::Result<Received> {
        let content = self.decoder.finish()?;
        Ok(Received { world: world.clone(), held: Some(Box::new((content, self.draft))) })
    }
}

/// A whole, good snapshot that is not yet in the file's place. If nobody wants it, it is freed beside the runtime.
pub struct Received {
    world: World,
    held: Option<Box<(Content, Box<dyn Draft>)>>,
}

impl Received {
    /// What it holds.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.held.as_ref().expect("it holds it until it is taken, which consumes it").0.meta
    }

    fn into_parts(mut self) -> (Content, Box<dyn Draft>) {
        *self.held.take().expect("it is taken once: that consumes it")
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            drop_beside(&self.world, held);
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received {}", self.meta())
    }
}

/// Where the snapshot lies. Cheap to clone. Whoever only looks never waits for who writes.
#[derive(Clone, Debug)]
pub struct Shelf {
    world: World,
    /// What the file holds; none: there is no file.
    kept: Arc<Mutex<Option<(SnapshotMeta, File)>>>,
    /// Held while a draft takes the file's place.
    replacing: Arc<Mutex<()>>,
}

impl Shelf {
    /// The shelf of `world`'s disk; [`Shelf::load`] looks what lies on it.
    pub fn new(world: World) -> Self {
        Self { world, kept: Arc::default(), replacing: Arc::default() }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The disk's; a damaged file.
    pub async fn load(&self) -> io::Result<Option<Content>> {
        let shelf = self.clone();
        blocking(&self.world, move || {
            let Some(file) = shelf.world.disk.open(Path::new(FILE))?.map(File) else { return Ok(None) };
            let mut decoder = Decoder::default();
            file.each(|piece| decoder.push(piece))?;
            let content = decoder.finish()?;
            *shelf.kept.lock() = Some((content.meta.clone(), file));
            Ok(Some(content))
        })
        .await
    }

    /// Writes `content`, unless the file already holds something newer. Yields what the file then holds. Stops in the
    /// middle, and leaves nothing, when the returned future is dropped.
    ///
    /// # Errors
    /// The disk's.
    pub async fn store(&self, content: Content) -> io::Result<Snapshot> {
        let shelf = self.clone();
        blocking_while_wanted(&self.world, move |wanted| {
            let mut draft = shelf.world.disk.draft(Path::new(FILE))?;
            encode(&content, |record| {
                wanted()?;
                draft.append(record)
            })?;
            shelf.replace(content.meta, draft, |held, new| held <= new)
        })
        .await
    }

    /// Makes a snapshot that came from the leader durable, and hands its content back.
    ///
    /// # Errors
    /// The disk's; a damaged snapshot.
    pub async fn install(&self, meta: &SnapshotMeta, parcel: Parcel) -> io::Result<Content> {
        let (shelf, wanted) = (self.clone(), meta.clone());
        blocking(&self.world, move || {
            let received = match parcel {
                Parcel::Received(received) => received,
                Parcel::Kept(file) => {
                    let mut intake = Intake::begin(&shelf.world)?;
                    file.each(|piece| intake.take(piece))?;
                    intake.finish(&shelf.world)?
                }
            };
            let (content, draft) = received.into_parts();
            if content.meta != wanted {
                let text = format!("the snapshot's file holds {}, its message said {wanted}", content.meta);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            shelf.replace(wanted, draft, |_, _| true)?;
            Ok(content)
        })
        .await
    }

    /// Puts a draft in the file's place if `better` says so of the two places in the log. Blocks.
    fn replace(
        &self,
        meta: SnapshotMeta,
        draft: Box<dyn Draft>,
        better: impl FnOnce(Option<LogId>, Option<LogId>) -> bool,
    ) -> io::Result<Snapshot> {
        let _alone = self.replacing.lock();
        let held = self.current();
        if let Some(held) = held.filter(|held| !better(held.meta.last_log_id, meta.last_log_id)) {
            return Ok(held);
        }
        draft.keep()?;
        let file = self.world.disk.open(Path::new(FILE))?.map(File);
        let file =
            file.ok_or_else(|| io::Error::other("the snapshot's file is gone a moment after it was kept"))?;
        *self.kept.lock() = Some((meta.clone(), file.clone()));
        Ok(Snapshot { meta, snapshot: Parcel::Kept(file) })
    }

    /// What lies there.
    pub fn current(&self) -> Option<Snapshot> {
        let (meta, file) = self.kept.lock().clone()?;
        Some(Snapshot { meta, snapshot: Parcel::Kept(file) })
    }
}
