//! Frames over one secured stream, both directions at once, without a task of its own.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::frame::{Decoder, Frame, FrameError, GREETING_BYTES_MAX};
use crate::tls::TlsError;
use crate::world::Stream;

/// Above this many unwritten bytes nothing more is read or answered, so that a peer that does not read holds no
/// memory beyond it and one frame.
const OUTBOX_BYTES_MAX: usize = 1 << 20;

/// The longest time in which a peer takes nothing of what we have for it.
pub(super) const WRITE_STALL_MAX: Duration = Duration::from_secs(5);

/// The longest time in which a frame that has begun may make no end.
pub(super) const FRAME_WITHIN: Duration = Duration::from_secs(10);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer read nothing for {WRITE_STALL_MAX:?}")]
    NotReading,
    #[error("the peer stopped inside a frame for {FRAME_WITHIN:?}")]
    StuckInFrame,
    #[error("nothing heard from the peer for {0:?}")]
    Silent(Duration),
    #[error("not believed any more: {0}")]
    Trust(#[from] TlsError),
    #[error("found {0} where the protocol has none")]
    Unexpected(&'static str),
}

/// One connection.
pub(super) struct Wire {
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    decoder: Decoder,
    outbox: BytesMut,
    unflushed: bool,
    /// When the outbox last shrank or was empty.
    written_at: Instant,
    /// When the last whole frame came.
    heard_at: Instant,
    /// When the frame that is being received began.
    inside_since: Option<Instant>,
}

impl Wire {
    /// A connection that still has to greet.
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        let now = Instant::now();
        Self {
            read,
            write,
            decoder: Decoder::new(GREETING_BYTES_MAX),
            outbox: BytesMut::new(),
            unflushed: false,
            written_at: now,
            heard_at: now,
            inside_since: None,
        }
    }

    /// From now on frames up to `body_bytes_max`.
    pub(super) fn allow(&mut self, body_bytes_max: usize) {
        self.decoder.allow(body_bytes_max);
    }

    /// Queues a frame; [`Wire::next`] and [`Wire::flush`] write it.
    pub(super) fn push(&mut self, frame: &Frame) -> Result<(), FrameError> {
        if self.outbox.is_empty() {
            self.written_at = Instant::now();
        }
        frame.encode(&mut self.outbox)?;
        self.unflushed = true;
        Ok(())
    }

    /// Whether more may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_BYTES_MAX
    }

    /// The next frame; meanwhile what is queued is written. May be dropped at any await without losing a byte.
    pub(super) async fn next(&mut self) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                self.heard_at = Instant::now();
                self.inside_since = self.decoder.is_inside().then_some(self.heard_at);
                return Ok(frame);
            }
            let may_read = self.has_room();
            tokio::select! {
                biased;
                done = write_some(&mut self.write, &mut self.outbox), if self.unflushed => {
                    self.unflushed = !done?;
                    self.written_at = Instant::now();
                }
                read = self.read.read_buf(self.decoder.room()), if may_read => {
                    if read? == 0 {
                        self.decoder.finish()?;
                        return Err(WireError::Closed);
                    }
                    self.inside_since.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    /// Writes all that is queued. The deadline is the caller's.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while self.unflushed {
            self.unflushed = !write_some(&mut self.write, &mut self.outbox).await?;
        }
        Ok(())
    }

    /// To be asked now and then: whether the peer still plays along. `silence_max`: between whole frames.
    pub(super) fn check(&self, now: Instant, silence_max: Duration) -> Result<(), WireError> {
        if self.unflushed && now.duration_since(self.written_at) >= WRITE_STALL_MAX {
            return Err(WireError::NotReading);
        }
        if self.inside_since.is_some_and(|since| now.duration_since(since) >= FRAME_WITHIN) {
            return Err(WireError::StuckInFrame);
        }
        if now.duration_since(self.heard_at) >= silence_max && self.inside_since.is_none() {
            return Err(WireError::Silent(silence_max));
        }
        Ok(())
    }
}

/// Writes a piece, or flushes when nothing is left to write. Says whether all is done.
async fn write_some(write: &mut WriteHalf<Box<dyn Stream>>, outbox: &mut BytesMut) -> io::Result<bool> {
    if outbox.is_empty() {
        write.flush().await?;
        return Ok(true);
    }
    if write.write_buf(outbox).await? == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(false)
}
