//! A stream of HTTP/2 that has become a tunnel (RFC 8441), to be read and written like a connection.
//!
//! hyper splits it in two: what is written passes a pump of its own. They are held together here, so that they end at once. A
//! reset by the client, which hyper would call an end, is an error to whoever reads; and a stream that is dropped before its
//! end was told is reset, where a pump that went on would tell the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::streams::Work;

/// The stream. Whoever reads or writes moves both directions.
pub(super) struct Extended {
    stream: TokioIo<Upgraded>,
    /// Hands to the connection what was written; none: it has ended.
    pump: Option<Work>,
    /// Whether our end was told.
    has_ended: bool,
}

impl Extended {
    pub(super) fn new(stream: Upgraded, pump: Work) -> Self {
        Self { stream: TokioIo::new(stream), pump: Some(pump), has_ended: false }
    }

    /// # Errors
    /// The client has reset the stream: a pump ends by itself only once our end was told.
    fn pump(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.pump.as_mut().is_some_and(|pump| pump.as_mut().poll(cx).is_ready()) {
            self.pump = None;
        }
        if self.pump.is_none() && !self.has_ended {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    fn stream(&mut self) -> Pin<&mut TokioIo<Upgraded>> {
        Pin::new(&mut self.stream)
    }
}

impl AsyncRead for Extended {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pump(cx)?;
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Extended {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(cx, buf);
        self.pump(cx)?;
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream().poll_flush(cx);
        self.pump(cx)?;
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.has_ended = true;
        if let Poll::Ready(shut) = self.stream().poll_shutdown(cx) {
            return Poll::Ready(shut);
        }
        self.pump(cx)?;
        self.stream().poll_shutdown(cx)
    }
}
