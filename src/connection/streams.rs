//! The streams of one HTTP/2 connection: they run inside the connection's task, and end with it.
//!
//! hyper hands each stream to its executor as soon as it has called the service for it. A stream that panics is reset, and
//! the others go on. A stream whose client does not take what it asked for is reset when patience has run out: its window
//! is the client's to open, so that no write ever fails. A stream that becomes a tunnel goes on in its place.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cluster::fatal::panic_text;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tracing::{debug, error};

/// The executor of one connection.
#[derive(Clone)]
pub(super) struct Streams(Arc<Shared>);

struct Shared {
    patience: Duration,
    /// What the service was called for, until hyper hands over its stream.
    called: Mutex<Option<Arc<Taking>>>,
    /// Handed over, and not begun.
    arrived: Mutex<Vec<(Work, Arc<Taking>)>>,
    /// Of the stream that is being polled, if it has just become a tunnel: what hyper hands over then.
    pump: Mutex<Option<Work>>,
}

/// What is left to do.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Streams {
    /// `patience`: how long a client may take for [`PIECE_BYTES`] of an answer.
    pub(super) fn new(patience: Duration) -> Self {
        Self(Arc::new(Shared {
            patience,
            called: Mutex::default(),
            arrived: Mutex::default(),
            pump: Mutex::default(),
        }))
    }

    /// The service was called: for its answer.
    pub(super) fn called(&self) -> Arc<Taking> {
        let taking = Arc::new(Taking::default());
        *self.0.called.lock() = Some(taking.clone());
        taking
    }

    /// What a stream does that has been answered: nothing, unless it has become a tunnel.
    fn after(&self, taking: &Taking) -> Option<Work> {
        let pump = self.0.pump.lock().take()?;
        let begin = taking.tunnel.lock().take()?;
        Some(begin(pump))
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, work: F) {
        match self.0.called.lock().take() {
            Some(taking) => self.0.arrived.lock().push((Box::pin(work), taking)),
            None => *self.0.pump.lock() = Some(Box::pin(work)),
        }
    }
}

/// Those that were begun and have not ended.
pub(super) struct Running {
    streams: Streams,
    running: FuturesUnordered<Stream>,
}

impl Running {
    pub(super) fn new(streams: Streams) -> Self {
        Self { streams, running: FuturesUnordered::new() }
    }

    /// Moves all that can move. Called after the connection was polled, for that is when streams arrive.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let arrived = std::mem::take(&mut *self.streams.0.arrived.lock());
        self.running.extend(arrived.into_iter().map(|(work, taking)| Stream {
            work,
            taking,
            streams: self.streams.clone(),
            timer: None,
            pieces_seen: 0,
        }));
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

/// What has arrived holds the executor that holds it.
impl Drop for Running {
    fn drop(&mut self) {
        let arrived = std::mem::take(&mut *self.streams.0.arrived.lock());
        drop(arrived);
    }
}

/// One stream.
struct Stream {
    work: Work,
    taking: Arc<Taking>,
    streams: Streams,
    timer: Option<Pin<Box<Sleep>>>,
    pieces_seen: u64,
}

impl Future for Stream {
    type Output = ();

    /// What is dropped before it has ended is reset by hyper.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(cx))) {
                Ok(Poll::Ready(())) => match self.streams.after(&self.taking) {
                    Some(tunnel) => self.work = tunnel,
                    None => return Poll::Ready(()),
                },
                Ok(Poll::Pending) => break,
                Err(panic) => {
                    error!(panic = panic_text(&*panic), "a stream panicked, and was reset");
                    return Poll::Ready(());
                }
            }
        }
        let Some(pieces) = self.taking.untaken() else { return Poll::Pending };
        let is_new = pieces != std::mem::replace(&mut self.pieces_seen, pieces);
        let patience = self.streams.0.patience;
        let mut timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience))).as_mut();
        if is_new {
            timer.as_mut().reset(Instant::now() + patience);
        }
        ready!(timer.poll(cx));
        debug!("a stream was reset: its client did not take the answer");
        Poll::Ready(())
    }
}

/// How far a client has taken its answer's body, or the tunnel that it has got instead.
#[derive(Default)]
pub(super) struct Taking {
    /// Twice the pieces that hyper was given, and one if it has not asked for the next one.
    pieces: AtomicU64,
    tunnel: Mutex<Option<Begin>>,
}

/// Makes a tunnel of what hyper hands over for it.
type Begin = Box<dyn FnOnce(Work) -> Work + Send>;

impl Taking {
    /// The answer begins a tunnel.
    pub(super) fn becomes(&self, begin: impl FnOnce(Work) -> Work + Send + 'static) {
        *self.tunnel.lock() = Some(Box::new(begin));
    }

    fn asked(&self) {
        self.pieces.fetch_and(!1, Ordering::Relaxed);
    }

    fn given(&self) {
        self.pieces.fetch_add(3, Ordering::Relaxed);
    }

    /// While hyper waits for the client: which piece it is.
    fn untaken(&self) -> Option<u64> {
        let pieces = self.pieces.load(Ordering::Relaxed);
        (pieces & 1 == 1).then_some(pieces)
    }
}

/// An answer's body is given to hyper in pieces of at most so many bytes, so that a slow client shows that it takes some.
const PIECE_BYTES: usize = 16 << 10;

/// An answer's body that tells how far it was taken.
///
/// hyper takes a piece as soon as the client's window has room for one byte, and after the last one lets go of the stream,
/// with whatever the window had no room for. So the last byte of what there is comes alone: hyper takes that only when there
/// is room for all before it, and then nothing is left to wait for.
///
/// A connection to an upstream reads into large buffers, and each slice of one holds the whole: the last piece is a copy.
pub(super) struct Taken<B> {
    body: B,
    rest: Bytes,
    taking: Arc<Taking>,
}

impl<B> Taken<B> {
    pub(super) fn new(body: B, taking: Arc<Taking>) -> Self {
        Self { body, rest: Bytes::new(), taking }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Taken<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.taking.asked();
        if self.rest.is_empty() {
            let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
            match next.map(|next| next.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = own_if_last(data),
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = match self.rest.len() {
            all @ 0..=1 => all,
            all => PIECE_BYTES.min(all - 1),
        };
        let was_own = self.rest.len() <= PIECE_BYTES;
        let piece = self.rest.split_to(length);
        if !was_own {
            self.rest = own_if_last(std::mem::take(&mut self.rest));
        }
        self.taking.given();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// The same bytes, in memory of their own if they are no more than a piece.
fn own_if_last(rest: Bytes) -> Bytes {
    if rest.len() > PIECE_BYTES { rest } else { Bytes::copy_from_slice(&rest) }
}
