//! A snapshot that another node sends, piece by piece.
//!
//! ```text
//! pieces ─▶ the one transfer (a task): decodes, writes a draft ─▶ whole: to the consensus core
//!                └─ 30 s without a piece, or another transfer begins: freed, draft and all
//! ```

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::log::{blocking, drop_beside};
use super::snapshot::{Intake, Received};
use super::types::Vote;
use crate::fatal::Bell;
use crate::peer::message::log::LogIdV1;
use crate::peer::message::raft::SnapshotChunkV1;
use crate::world::World;

/// The largest file that is taken: what the most buckets need, several times over.
const BYTES_MAX: u64 = 4 << 30;

/// What became of a piece.
#[derive(Debug)]
pub enum Taken {
    /// The next begins here.
    Next(u64),
    /// It was the last: a whole, good snapshot of a leader with this vote.
    Whole(Vote, Received),
}

/// Takes pieces. There is one transfer at most: another leader's, or one that begins anew, takes its place.
#[derive(Debug)]
pub struct Incoming {
    world: World,
    bell: Bell,
    piece_within: Duration,
    transfer: Mutex<Option<Transfer>>,
}

#[derive(Debug)]
struct Transfer {
    vote: Vote,
    last: Option<LogIdV1>,
    total: u64,
    /// The piece that is wanted.
    next: u64,
    pieces: mpsc::Sender<Piece>,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    last: bool,
    /// None: it is not whole yet.
    reply: oneshot::Sender<io::Result<Option<Received>>>,
}

impl Incoming {
    /// Takes pieces in `world`; `bell` rings when its disk fails. A transfer that stands still for `piece_within` is given
    /// up.
    pub fn new(world: World, bell: Bell, piece_within: Duration) -> Self {
        Self { world, bell, piece_within, transfer: Mutex::default() }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// A text for the sender's log: it must begin anew.
    pub async fn take(&self, chunk: SnapshotChunkV1) -> Result<Taken, String> {
        let vote: Vote = chunk.vote.into();
        let next = chunk.offset + chunk.bytes.0.len() as u64;
        let last = next == chunk.total;
        let (reply, answer) = oneshot::channel();
        self.place(&chunk, next)?
            .send(Piece { bytes: chunk.bytes.0, last, reply })
            .await
            .map_err(|_| GONE)?;
        match answer.await {
            Ok(Ok(None)) => Ok(Taken::Next(next)),
            Ok(Ok(Some(received))) => Ok(Taken::Whole(vote, received)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(GONE.to_owned()),
        }
    }

    /// The transfer that the piece belongs to.
    fn place(&self, chunk: &SnapshotChunkV1, next: u64) -> Result<mpsc::Sender<Piece>, String> {
        let SnapshotChunkV1 { last, total, offset, .. } = *chunk;
        let vote: Vote = chunk.vote.into();
        if total > BYTES_MAX {
            return Err(format!("found a snapshot of {total} bytes, wanted at most {BYTES_MAX}"));
        }
        let mut slot = self.transfer.lock();
        if let Some(newer) = slot.as_ref().filter(|held| held.vote > vote && !held.pieces.is_closed()) {
            return Err(format!("a snapshot is coming from a leader with the vote {}", newer.vote));
        }
        if offset == 0 {
            let (pieces, queue) = mpsc::channel(1);
            let received = receive(self.world.clone(), self.bell.clone(), self.piece_within, queue);
            tokio::spawn(self.bell.guard("the taking of a snapshot", received));
            *slot = Some(Transfer { vote, last, total, next: 0, pieces });
        }
        let fits = |held: &&mut Transfer| {
            held.vote == vote
                && (held.last, held.total, held.next) == (last, total, offset)
                && (offset < next || total == 0)
                && next <= total
        };
        let Some(transfer) = slot.as_mut().filter(fits) else {
            *slot = None;
            return Err(format!("found a piece of a snapshot at {offset}, wanted it to begin at 0"));
        };
        transfer.next = next;
        let pieces = transfer.pieces.clone();
        if next == total {
            *slot = None;
        }
        Ok(pieces)
    }
}

const GONE: &str = "the transfer of the snapshot has ended: begin anew";

/// One transfer, until it is whole, damaged, late, or replaced.
async fn receive(world: World, bell: Bell, within: Duration, mut pieces: mpsc::Receiver<Piece>) {
    let mut intake = None;
    while let Ok(Some(Piece { bytes, last, reply })) = timeout(within, pieces.recv()).await {
        let (held, disk) = (intake.take(), world.clone());
        let taken = blocking(&world, move || {
            let mut intake = held.map_or_else(|| Intake::begin(&disk), Ok)?;
            intake.take(&bytes)?;
            if last { intake.finish(&disk).map(Progress::Whole) } else { Ok(Progress::Part(intake)) }
        })
        .await;
        // Who sent the piece may have stopped waiting: what was whole is freed then, what was not waits for the next.
        match taken {
            Ok(Progress::Part(part)) => {
                intake = Some(part);
                let _ = reply.send(Ok(None));
            }
            Ok(Progress::Whole(received)) => return drop(reply.send(Ok(Some(received)))),
            Err(error) => {
                // Damaged pieces are the sender's; anything else is this node's disk.
                if error.kind() != io::ErrorKind::InvalidData {
                    bell.ring(bell.storage("writing a snapshot", &error));
                }
                return drop(reply.send(Err(error)));
            }
        }
    }
    drop_beside(&world, intake);
}

enum Progress {
    Part(Intake),
    Whole(Received),
}
