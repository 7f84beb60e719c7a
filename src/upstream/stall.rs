//! A byte stream whose writes have a deadline: a peer that stops reading, or reads a byte now and then, does not hold its
//! connection for ever.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::rate::Credit;

/// Fails with `TimedOut` once no byte could be written for `patience`, or too few.
pub struct Unstalled<S> {
    stream: S,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    credit: Credit,
    /// Since when the peer is waited for.
    since: Option<Instant>,
}

impl<S> Unstalled<S> {
    /// Watches `stream`.
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, timer: None, credit: Credit::endless(), since: None }
    }

    /// The same, of a peer that has to take so many bytes a second while it is waited for; 0: any number.
    pub fn at_least(self, bytes_per_s: u64) -> Self {
        Self { credit: Credit::new(bytes_per_s), ..self }
    }

    /// - `bytes`: that were written.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = &polled {
            let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            self.credit.moved(waited, done.as_ref().map_or(0, bytes) as u64);
            return polled;
        }
        let patience = self.credit.within(self.patience);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            timer.as_mut().reset(now + patience);
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, polled, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, polled, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, polled, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, polled, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_given_up() {
        // given a peer that takes four bytes and no more
        let (ours, _theirs) = tokio::io::duplex(4);
        let mut ours = Unstalled::new(ours, Duration::from_secs(5));
        let begin = Instant::now();
        // when more is written
        let error = ours.write_all(b"12345").await.expect_err("nobody reads");
        // then the write ends at its deadline
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_a_byte_now_and_then_is_given_up() {
        use tokio::io::AsyncReadExt;
        for (bytes, goes_on) in [(1, false), (2_900, true)] {
            // given a peer that reads some bytes each 29 seconds
            let (ours, mut theirs) = tokio::io::duplex(4);
            let mut ours = Unstalled::new(ours, Duration::from_secs(30)).at_least(100);
            tokio::spawn(async move {
                let mut piece = vec![0; bytes];
                loop {
                    tokio::time::sleep(Duration::from_secs(29)).await;
                    theirs.read_exact(&mut piece).await.expect("more comes");
                }
            });
            // when much is written, then it ends soon, unless the peer keeps to the rate
            let begin = Instant::now();
            let all = vec![0; 29_000];
            let written = tokio::time::timeout(Duration::from_secs(280), ours.write_all(&all)).await;
            assert_eq!(written.is_err(), goes_on, "{written:?}");
            assert_eq!(begin.elapsed().as_secs(), if goes_on { 280 } else { 30 });
        }
    }
}
