//! The ends of connections, as processes hold them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Network, PairNumber, Side, WINDOW_BYTES, What};
use crate::host::HostNumber;

/// One end of a connection. Dropped, it is closed; with unread bytes, reset.
pub struct SimStream {
    network: Network,
    pair: PairNumber,
    side: Side,
}

impl SimStream {
    pub(super) fn new(network: Network, pair: PairNumber, side: Side) -> Self {
        Self { network, pair, side }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (pair, side) = (self.pair, self.side);
        self.network.with(|inner| {
            let end = inner.end(pair, side);
            if !end.inbox.is_empty() {
                let count = end.inbox.len().min(out.remaining());
                out.put_slice(&end.inbox[..count]);
                end.inbox.advance(count);
                let other = inner.end(pair, 1 - side);
                other.unread = other.unread.saturating_sub(count);
                let writer = other.writer.take();
                inner.wakers.extend(writer);
                return Poll::Ready(Ok(()));
            }
            if end.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if end.ended {
                return Poll::Ready(Ok(()));
            }
            end.reader = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (pair, side) = (self.pair, self.side);
        self.network.with(|inner| {
            let end = inner.end(pair, side);
            if end.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if end.sent_end {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = WINDOW_BYTES.saturating_sub(end.unread);
            let count = room.min(bytes.len());
            if count == 0 && !bytes.is_empty() {
                end.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            end.unread += count;
            inner.send(pair, 1 - side, What::Data(Bytes::copy_from_slice(&bytes[..count])));
            Poll::Ready(Ok(count))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (pair, side) = (self.pair, self.side);
        self.network.with(|inner| {
            let end = inner.end(pair, side);
            if !end.reset && !end.sent_end {
                end.sent_end = true;
                inner.send(pair, 1 - side, What::Fin);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let (pair, side) = (self.pair, self.side);
        self.network.with(|inner| inner.let_go(pair, side));
    }
}

/// A listening port. Dropped, it is free again, and who waited there is reset.
pub struct SimListener {
    network: Network,
    host: HostNumber,
    port: u16,
}

impl SimListener {
    pub(super) fn new(network: Network, host: HostNumber, port: u16) -> Self {
        Self { network, host, port }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next connection, and the host and port that it comes from.
    pub async fn accept(&self) -> (SimStream, HostNumber, u16) {
        let at = (self.host, self.port);
        let (pair, host, port) = poll_fn(|cx| {
            self.network.with(|inner| {
                let backlog = inner.listeners.get_mut(&at).expect("it listens as long as this is held");
                let Some(pair) = backlog.waiting.pop_front() else {
                    backlog.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                let from = inner.end(pair, 0);
                Poll::Ready((pair, from.host, from.port))
            })
        })
        .await;
        (SimStream::new(self.network.clone(), pair, 1), host, port)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let at = (self.host, self.port);
        self.network.with(|inner| {
            let waiting = inner.listeners.remove(&at).map_or_else(VecDeque::new, |held| held.waiting);
            for pair in waiting {
                inner.let_go(pair, 1);
            }
        });
    }
}
