//! Snapshots: one file, replaced as a whole, durable before anything depends on it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::log::blocking;
use super::types::{LogId, Snapshot, SnapshotMeta, StoredMembership};
use crate::peer::codec::{self, Kind};
use crate::peer::message::raft::SnapshotFileV1;
use crate::state::State;
use crate::state::snapshot::SnapshotV1;
use crate::world::World;

const FILE: &str = "raft.snapshot";

/// What a snapshot holds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Place and membership.
    pub meta: SnapshotMeta,
    /// The state.
    pub state: State,
}

impl Content {
    fn encode(&self) -> Vec<u8> {
        let file = SnapshotFileV1 {
            last: self.meta.last_log_id.map(Into::into),
            membership_at: self.meta.last_membership.log_id().map(Into::into),
            membership: self.meta.last_membership.membership().into(),
            state: SnapshotV1::from(&self.state),
        };
        codec::seal(Kind::Snapshot, &codec::encode(&file))
    }

    fn decode(record: &[u8]) -> io::Result<Self> {
        let file: SnapshotFileV1<SnapshotV1> = codec::decode_stored(codec::open(Kind::Snapshot, record)?)?;
        let membership = file.membership.try_into()?;
        let meta = SnapshotMeta {
            last_log_id: file.last.map(Into::into),
            last_membership: StoredMembership::new(file.membership_at.map(Into::into), membership),
        };
        let state = State::try_from(file.state).map_err(io::Error::other)?;
        Ok(Self { meta, state })
    }
}

/// Where the snapshot lies. Cheap to clone; one at a time writes.
#[derive(Clone, Debug)]
pub struct Shelf {
    world: World,
    /// What the file holds; none: there is no file.
    held: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl Shelf {
    /// The shelf of `world`'s disk; [`Shelf::load`] looks what lies on it.
    pub fn new(world: World) -> Self {
        Self { world, held: Arc::default() }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The disk's; a damaged file.
    pub async fn load(&self) -> io::Result<Option<Content>> {
        let mut held = self.held.lock().await;
        let disk = self.world.disk.clone();
        let content = blocking(&self.world, move || {
            disk.read(Path::new(FILE))?.map(|record| Content::decode(&record)).transpose()
        })
        .await?;
        *held = content.as_ref().map(|content| content.meta.clone());
        Ok(content)
    }

    /// Writes `content`, unless the file already holds something newer.
    ///
    /// # Errors
    /// The disk's.
    pub async fn store(&self, content: Content) -> io::Result<Snapshot> {
        let mut held = self.held.lock().await;
        let meta = content.meta.clone();
        let newest = held.as_ref().is_none_or(|held| position(held) <= position(&meta));
        let disk = self.world.disk.clone();
        let bytes = blocking(&self.world, move || {
            let record = content.encode();
            if newest {
                disk.write(Path::new(FILE), &record)?;
            }
            Ok(Bytes::from(record))
        })
        .await?;
        if newest {
            *held = Some(meta.clone());
        }
        Ok(Snapshot { meta, snapshot: bytes })
    }

    /// Checks a snapshot that came from the leader, makes it durable, and hands its content back.
    ///
    /// # Errors
    /// The disk's; a damaged snapshot.
    pub async fn install(&self, meta: &SnapshotMeta, bytes: Bytes) -> io::Result<Content> {
        let mut held = self.held.lock().await;
        let disk = self.world.disk.clone();
        let wanted = meta.clone();
        let content = blocking(&self.world, move || {
            let content = Content::decode(&bytes)?;
            if content.meta != wanted {
                let text = format!("the snapshot's file holds {}, its message said {wanted}", content.meta);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            disk.write(Path::new(FILE), &bytes)?;
            Ok(content)
        })
        .await?;
        *held = Some(meta.clone());
        Ok(content)
    }

    /// The file as it lies there.
    ///
    /// # Errors
    /// The disk's.
    pub async fn current(&self) -> io::Result<Option<Snapshot>> {
        let held = self.held.lock().await;
        let Some(meta) = held.clone() else { return Ok(None) };
        let disk = self.world.disk.clone();
        let bytes = blocking(&self.world, move || disk.read(Path::new(FILE))).await?;
        Ok(bytes.map(|bytes| Snapshot { meta, snapshot: bytes.into() }))
    }
}

/// The head of a snapshot file that a leader sent.
///
/// # Errors
/// A damaged file.
pub fn meta_of(bytes: &[u8]) -> io::Result<SnapshotMeta> {
    Ok(Content::decode(bytes)?.meta)
}

fn position(meta: &SnapshotMeta) -> Option<LogId> {
    meta.last_log_id
}
