//! openraft's calls from other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::incoming::{Incoming, Taken};
use super::machine::Raft;
use super::snapshot::Parcel;
use super::types::Snapshot;
use super::wire;
use crate::HISTORY;
use crate::fatal::Bell;
use crate::peer::codec;
use crate::peer::message::kind;
use crate::peer::message::raft::{
    AppendReplyV1, AppendV1, SnapshotChunkV1, SnapshotReplyV1, TransferV1, VoteReplyV1, VoteRequestV1,
};
use crate::world::World;

/// A snapshot that stands still for so long is given up. Its sender gives up a piece after less.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// Answers the leader's and candidates' calls. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    raft: Raft,
    incoming: Arc<Incoming>,
}

impl Service {
    /// Answers for `raft`; `bell` rings when a snapshot that comes in cannot be written.
    pub fn new(raft: Raft, world: World, bell: Bell) -> Self {
        Self { raft, incoming: Arc::new(Incoming::new(world, bell, PIECE_WITHIN)) }
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
                let response = self.raft.vote(request).await.map_err(text)?;
                if !response.vote_granted {
                    tracing::debug!(target: HISTORY, "votes refused");
                }
                codec::encode(&VoteReplyV1::from(response))
            }
            kind::PRE_VOTE => {
                let request = read::<VoteRequestV1>(payload)?.into();
                let response = self.raft.pre_vote(request).await.map_err(text)?;
                if !response.vote_granted {
                    tracing::debug!(target: HISTORY, "pre-votes refused");
                }
                codec::encode(&VoteReplyV1::from(response))
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
        match self.incoming.take(chunk).await? {
            Taken::Next(next) => Ok(SnapshotReplyV1::Continue(next)),
            Taken::Whole(vote, received) => {
                let snapshot =
                    Snapshot { meta: received.meta().clone(), snapshot: Parcel::Received(received) };
                let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(text)?;
                Ok(SnapshotReplyV1::Done(response.vote.into()))
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    codec::decode(payload).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
