//! A connection's patience: how long it waits for a request to begin, and for its head to be complete.
//!
//! hyper has one timer for both. Here the first byte of a head is what divides them: the stream tells of bytes, the service
//! of requests, the answer's body of its end. An answer of which some is not sent yet has deadlines of its own. All of it happens inside one task; the clock is read only when that task is
//! about to wait.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a connection waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// A request.
    Idle,
    /// The rest of a head.
    Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Waits for a request. None: since now.
    Idle(Option<Instant>),
    /// Reads a head. None: since now.
    Head(Option<Instant>),
    /// Has a request at hand; other deadlines watch it.
    Busy,
}

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(super) struct Pace {
    doing: Mutex<Doing>,
    /// Whether the client did not take the last that was written. An answer's body ends when hyper has it in its buffer, and
    /// hyper writes until that is empty or the client takes no more.
    unsent: AtomicBool,
    head_timeout: Duration,
    idle_timeout: Duration,
}

impl Pace {
    /// Of a connection whose first head has begun.
    pub(super) fn begun(at: Instant, head_timeout: Duration, idle_timeout: Duration) -> Self {
        let doing = Mutex::new(Doing::Head(Some(at)));
        Self { doing, unsent: AtomicBool::new(false), head_timeout, idle_timeout }
    }

    /// Bytes came in.
    fn bytes(&self) {
        let mut doing = self.doing.lock();
        if matches!(*doing, Doing::Idle(_)) {
            *doing = Doing::Head(None);
        }
    }

    /// A head is complete.
    pub(super) fn request(&self) {
        *self.doing.lock() = Doing::Busy;
    }

    /// A request was answered to its end.
    fn answered(&self) {
        *self.doing.lock() = Doing::Idle(None);
    }

    /// Bytes were to go out; passes on what came of it.
    fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.unsent.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    /// When patience ends; none: while a request is at hand, or its answer on its way.
    fn deadline(&self, now: impl Fn() -> Instant) -> Option<(Late, Instant)> {
        if self.unsent.load(Ordering::Relaxed) {
            return None;
        }
        match &mut *self.doing.lock() {
            Doing::Idle(since) => Some((Late::Idle, *since.get_or_insert_with(&now) + self.idle_timeout)),
            Doing::Head(since) => Some((Late::Head, *since.get_or_insert_with(&now) + self.head_timeout)),
            Doing::Busy => None,
        }
    }

    /// Ready once patience has run out. The timer is moved only when it would ring too late, so that a busy connection does
    /// not move it for each request; one that rings too early is set again.
    pub(super) fn poll_late(&self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Late> {
        let Some((late, deadline)) = self.deadline(Instant::now) else { return Poll::Pending };
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(late);
            }
            timer.as_mut().reset(deadline);
        }
    }
}

/// A stream that tells of bytes that come in, and of those that do not go out.
pub(super) struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pace.bytes();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pace.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pace.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.pace.wrote(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An answer's body that tells of its end.
pub(super) struct Watch<B> {
    body: B,
    pace: Arc<Pace>,
}

impl<B> Watch<B> {
    pub(super) fn new(body: B, pace: Arc<Pace>) -> Self {
        Self { body, pace }
    }
}

impl<B> Drop for Watch<B> {
    fn drop(&mut self) {
        self.pace.answered();
    }
}

impl<B: Body + Unpin> Body for Watch<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_of_a_head_shortens_patience_and_a_request_ends_it() {
        // given a connection that has waited for a while
        let begin = Instant::now();
        let pace = Pace::begun(begin, HEAD, IDLE);
        let at = |now: Instant| pace.deadline(|| now);
        assert_eq!(at(begin), Some((Late::Head, begin + HEAD)));
        pace.request();
        pace.answered();
        assert_eq!(at(begin), Some((Late::Idle, begin + IDLE)));
        // when a head begins, and goes on
        let later = begin + Duration::from_secs(30);
        pace.bytes();
        assert_eq!(at(later), Some((Late::Head, later + HEAD)));
        pace.bytes();
        // then its deadline stays, until it is complete
        assert_eq!(at(later + HEAD), Some((Late::Head, later + HEAD)));
        pace.request();
        pace.bytes();
        assert_eq!(at(later + HEAD), None);
        pace.answered();
        assert_eq!(at(later + IDLE), Some((Late::Idle, later + IDLE + IDLE)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_on_its_way_is_neither_idle_nor_a_late_head() {
        // given an answer that hyper has given away, but the client has not taken
        let begin = Instant::now();
        let pace = Pace::begun(begin, HEAD, IDLE);
        pace.request();
        pace.answered();
        let _ = pace.wrote(Poll::<()>::Pending);
        // when the next head begins meanwhile
        pace.bytes();
        assert_eq!(pace.deadline(|| begin), None);
        // then its time begins once the answer is sent
        let _ = pace.wrote(Poll::Ready(()));
        let later = begin + IDLE;
        assert_eq!(pace.deadline(|| later), Some((Late::Head, later + HEAD)));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_runs_out_on_time_however_early_the_timer_rings() {
        let begin = Instant::now();
        let pace = Pace::begun(begin, HEAD, IDLE);
        pace.answered();
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::from_secs(1)));
        let late = std::future::poll_fn(|cx| pace.poll_late(timer.as_mut(), cx)).await;
        assert_eq!((late, begin.elapsed()), (Late::Idle, IDLE));
    }
}
