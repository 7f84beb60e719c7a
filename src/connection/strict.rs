//! A stream through which hyper sees no request that two readers could understand in two ways.
//!
//! Where the bytes stop being clear, hyper is given some that it refuses for certain, and none after them. So hyper, which
//! alone knows when it is this request's turn, answers 400 and closes, after the answers to all requests before it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::scan::Scan;

/// Malformed wherever it stands: a NUL has no place in a head, in a trailer or behind a CR, a bare LF none in a chunk's
/// extension; and two line ends make sure that hyper looks.
const REFUSED: &[u8] = b"\0\n\0\r\n\r\n";

/// Tells a [`Strict`] stream that what comes now is not HTTP/1.1 any more, and is told whether something was unclear before.
#[derive(Clone, Debug, Default)]
pub(super) struct StandAside(Arc<Words>);

#[derive(Debug, Default)]
struct Words {
    aside: AtomicBool,
    refused: AtomicBool,
}

impl StandAside {
    /// To be called before the client learns that it may speak another protocol.
    pub(super) fn stand(&self) {
        self.0.aside.store(true, Ordering::Release);
    }

    /// Whether hyper was given what it refuses, and has read it as another protocol's if it has switched.
    pub(super) fn has_refused(&self) -> bool {
        self.0.refused.load(Ordering::Acquire)
    }
}

/// The stream. `S` is the client's.
pub(super) struct Strict<S> {
    stream: S,
    peer: SocketAddr,
    scan: Scan,
    aside: StandAside,
    /// What hyper is still to be given of [`REFUSED`]; none: the bytes were clear so far.
    refused: Option<&'static [u8]>,
}

impl<S> Strict<S> {
    /// `head_bytes_max` is hyper's, too.
    pub(super) fn new(stream: S, peer: SocketAddr, head_bytes_max: usize, aside: StandAside) -> Self {
        Self { stream, peer, scan: Scan::new(head_bytes_max), aside, refused: None }
    }
}

/// Gives as much as there is room for.
fn give(refused: &mut &'static [u8], buf: &mut ReadBuf<'_>) {
    let (now, later) = refused.split_at(refused.len().min(buf.remaining()));
    buf.put_slice(now);
    *refused = later;
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(refused) = &mut self.refused {
            if refused.is_empty() {
                // hyper has all it needs to refuse. An end of the stream would cut off an answer that is under way.
                return Poll::Pending;
            }
            give(refused, buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.aside.0.aside.load(Ordering::Acquire) {
            return polled;
        }
        if let Err(unclear) = self.scan.look(&buf.filled()[before..]) {
            debug!(peer = %self.peer, why = unclear.why, "malformed request");
            buf.set_filled(before + unclear.clear_bytes);
            let mut refused = REFUSED;
            give(&mut refused, buf);
            self.refused = Some(refused);
            self.aside.0.refused.store(true, Ordering::Release);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn strict(sent: &[u8], aside: StandAside) -> Strict<tokio::io::DuplexStream> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(sent).await.expect("it fits");
        Strict::new(ours, ([127, 0, 0, 1], 4000).into(), 1000, aside)
    }

    #[tokio::test]
    async fn what_is_unclear_is_replaced_by_what_is_refused_even_byte_by_byte() {
        let clear = b"GET / HTTP/1.1\r\nhost: a";
        for room in [1, 3, 4096] {
            let mut stream = strict(&[clear, &b"\nx: y\r\n\r\n"[..]].concat(), StandAside::default()).await;
            let mut got = Vec::new();
            let mut piece = vec![0; room];
            while got.len() < clear.len() + REFUSED.len() {
                let read = stream.read(&mut piece).await.expect("no error");
                got.extend_from_slice(&piece[..read]);
            }
            assert_eq!(got, [clear, REFUSED].concat());
        }
    }

    #[tokio::test]
    async fn another_protocol_is_not_looked_at() {
        let aside = StandAside::default();
        aside.stand();
        let sent = b"\n\n\n";
        let mut got = Vec::new();
        strict(sent, aside).await.read_to_end(&mut got).await.expect("no error");
        assert_eq!(got, sent);
    }
}
