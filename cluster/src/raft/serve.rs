//! openraft's calls from other nodes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::log::blocking;
use super::machine::Raft;
use super::snapshot::meta_of;
use super::types::{Snapshot, Vote};
use super::wire;
use crate::peer::codec::{self, DISK_BYTES_MAX};
use crate::peer::message::kind;
use crate::peer::message::log::LogIdV1;
use crate::peer::message::raft::{
    AppendReplyV1, AppendV1, SnapshotChunkV1, SnapshotReplyV1, TransferV1, VoteReplyV1, VoteRequestV1,
};
use crate::world::World;

/// Answers the leader's and candidates' calls. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    raft: Raft,
    world: World,
    incoming: Arc<Mutex<Option<Incoming>>>,
}

/// A snapshot of which pieces have come. There is one at most: a new leader's begins anew.
struct Incoming {
    vote: Vote,
    last: Option<LogIdV1>,
    total: u64,
    bytes: BytesMut,
}

impl Service {
    /// Answers for `raft`.
    pub fn new(raft: Raft, world: World) -> Self {
        Self { raft, world, incoming: Arc::default() }
    }

    /// Answers one call.
    ///
    /// # Errors
    /// A text for the caller's log.
    pub async fn serve(&self, kind: u16, payload: &[u8]) -> Result<Bytes, String> {
        let answer = match kind {
            kind::APPEND => {
                let request = read::<AppendV1>(payload)?.try_into().map_err(text)?;
                codec::encode(&AppendReplyV1::from(self.raft.append_entries(request).await.map_err(text)?))
            }
            kind::VOTE => {
                let request = read::<VoteRequestV1>(payload)?.into();
                codec::encode(&VoteReplyV1::from(self.raft.vote(request).await.map_err(text)?))
            }
            kind::PRE_VOTE => {
                let request = read::<VoteRequestV1>(payload)?.into();
                codec::encode(&VoteReplyV1::from(self.raft.pre_vote(request).await.map_err(text)?))
            }
            kind::TRANSFER => {
                let request = read::<TransferV1>(payload)?.into();
                let response = self.raft.handle_transfer_leader(request).await.map_err(text)?;
                codec::encode(&wire::transfer_reply(response))
            }
            kind::SNAPSHOT => codec::encode(&self.snapshot(read(payload)?).await?),
            _ => return Err(format!("found message kind {kind}, wanted one of raft's")),
        };
        Ok(answer.into())
    }

    async fn snapshot(&self, chunk: SnapshotChunkV1) -> Result<SnapshotReplyV1, String> {
        let Some(whole) = self.take(chunk)? else {
            let next = self.incoming.lock().as_ref().map_or(0, |incoming| incoming.bytes.len() as u64);
            return Ok(SnapshotReplyV1::Continue(next));
        };
        let bytes = whole.bytes.freeze();
        let file = bytes.clone();
        let meta = blocking(&self.world, move || meta_of(&file)).await.map_err(text)?;
        let snapshot = Snapshot { meta, snapshot: bytes };
        let response = self.raft.install_full_snapshot(whole.vote, snapshot).await.map_err(text)?;
        Ok(SnapshotReplyV1::Done(response.vote.into()))
    }

    /// Adds a piece; the whole when it was the last.
    fn take(&self, chunk: SnapshotChunkV1) -> Result<Option<Incoming>, String> {
        if chunk.total > DISK_BYTES_MAX as u64 {
            return Err(format!(
                "found a snapshot of {} bytes, wanted at most {DISK_BYTES_MAX}",
                chunk.total
            ));
        }
        let mut slot = self.incoming.lock();
        let vote: Vote = chunk.vote.into();
        if chunk.offset == 0 {
            *slot = Some(Incoming { vote, last: chunk.last, total: chunk.total, bytes: BytesMut::new() });
        }
        let fits = slot.as_ref().is_some_and(|incoming| {
            incoming.vote == vote
                && (incoming.last, incoming.total) == (chunk.last, chunk.total)
                && incoming.bytes.len() as u64 == chunk.offset
                && chunk.offset + chunk.bytes.0.len() as u64 <= chunk.total
        });
        let Some(incoming) = slot.as_mut().filter(|_| fits) else {
            *slot = None;
            return Err(format!("found a piece of a snapshot at {}, wanted it to begin at 0", chunk.offset));
        };
        incoming.bytes.extend_from_slice(&chunk.bytes.0);
        let complete = incoming.bytes.len() as u64 == incoming.total;
        Ok(if complete { slot.take() } else { None })
    }
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    codec::decode(payload).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
