//! Operators' connections: so many at once, and none that says nothing for long.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cluster::hooks::panic_point;
use cluster::world::{Listener, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use crate::upstream::stall::Unstalled;

/// Connections at once; those beyond wait in the kernel's queue.
pub const GUESTS_MAX: usize = 64;
/// A connection on which nothing is heard for so long is closed. Longer than the longest answer takes.
const SILENT_MAX: Duration = Duration::from_secs(75);
/// A connection that takes nothing of its answer for so long is closed.
const STALLED_MAX: Duration = Duration::from_secs(30);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Lets axum accept from the world's listener.
pub struct Guests {
    listener: Box<dyn Listener>,
    places: Arc<Semaphore>,
}

impl Guests {
    /// At most `guests_max` at once.
    pub fn new(listener: Box<dyn Listener>, guests_max: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(guests_max)) }
    }
}

impl axum::serve::Listener for Guests {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        let place = self.places.clone().acquire_owned().await.expect("nobody closes this semaphore");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    panic_point("operators");
                    let (stream, silent) = (Unstalled::new(stream, STALLED_MAX), Box::pin(sleep(SILENT_MAX)));
                    return (Guest { stream, silent, _place: place }, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "the operators' door cannot accept");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.listener.local_addr())
    }
}

/// One connection, and its place.
pub struct Guest {
    stream: Unstalled<Box<dyn Stream>>,
    silent: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.silent.as_mut().reset(Instant::now() + SILENT_MAX);
            return polled;
        }
        self.silent.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
    use axum::serve::Listener as _;
    use cluster::world::BoxFuture;
    use futures_util::FutureExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Always has one more connection.
    struct Crowd(Vec<tokio::io::DuplexStream>);

    impl Listener for Crowd {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
            let (ours, theirs) = tokio::io::duplex(64);
            self.0.push(ours);
            Box::pin(async { Ok((Box::new(theirs) as Box<dyn Stream>, self.local_addr())) })
        }
        fn local_addr(&self) -> SocketAddr {
            ([127, 0, 0, 1], 80).into()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn guests_beyond_the_bound_wait_and_a_silent_one_makes_room() {
        // given room for one
        let mut guests = Guests::new(Box::new(Crowd(Vec::new())), 1);
        let (mut silent, _) = guests.accept().await;
        // when another comes
        assert!(guests.accept().now_or_never().is_none(), "there is one place");
        // then it is let in when the first has said nothing for long
        let error = silent.read(&mut [0]).await.expect_err("its time is up");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(silent);
        guests.accept().now_or_never().expect("there is a place");
    }
}
