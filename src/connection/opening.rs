//! Which HTTP a client speaks, by its first bytes (RFC 9113 section 3.4): as many are read as it takes to know, and whoever
//! serves the connection reads them again.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::pace::Late;
use super::{Drain, End};

/// What every HTTP/2 client says first, before a SETTINGS frame.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of a frame's head, and where in it its type stands.
const FRAME_HEAD_BYTES: usize = 9;
const FRAME_TYPE_AT: usize = 3;
const SETTINGS: u8 = 4;
/// No more is read ahead than the preface and the head of the frame after it.
const BYTES_MAX: usize = PREFACE.len() + FRAME_HEAD_BYTES;

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Http1,
    Http2,
    Foreign(&'static str),
    /// Too little to know.
    More,
}

/// What may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// The first bytes say which.
    Either,
    /// HTTP/1.1 was agreed on.
    Http1,
    /// HTTP/2 was agreed on.
    Http2,
}

impl Spoken {
    fn judge(self, bytes: &[u8]) -> Heard {
        match (self, judge(bytes)) {
            (Self::Http1, _) => Heard::Http1,
            (Self::Http2, Heard::Http1) => Heard::Foreign("http2-without-preface"),
            (_, heard) => heard,
        }
    }
}

/// Pure. At the first byte that differs from the preface it is HTTP/1.1, so that no request of that waits for more.
fn judge(bytes: &[u8]) -> Heard {
    let compared = bytes.len().min(PREFACE.len());
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Heard::Foreign("tls-on-a-plain-port");
    }
    if bytes[..compared] != PREFACE[..compared] {
        return Heard::Http1;
    }
    match bytes.get(PREFACE.len() + FRAME_TYPE_AT) {
        Some(&SETTINGS) if bytes.len() == BYTES_MAX => Heard::Http2,
        Some(&SETTINGS) | None => Heard::More,
        Some(_) => Heard::Foreign("http2-without-settings"),
    }
}

/// The first byte of whoever begins with TLS. No method of HTTP begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// A connection whose first bytes are awaited.
pub(super) struct Opening<S> {
    ahead: Ahead<S>,
    spoken: Spoken,
    head_timeout: Duration,
    idle_timeout: Duration,
}

/// What became of it.
pub(super) enum Opened<S> {
    /// HTTP/1.1, and since when.
    Http1(Ahead<S>, Instant),
    /// HTTP/2: the preface is there, and SETTINGS begin.
    Http2(Ahead<S>),
    /// The client took too long.
    Late(Ahead<S>, Late),
    /// It is over.
    Not(End),
}

impl<S: AsyncRead + Unpin> Opening<S> {
    pub(super) fn new(stream: S, spoken: Spoken, head_timeout: Duration, idle_timeout: Duration) -> Self {
        let ahead = Ahead { stream, bytes: [0; BYTES_MAX], filled: 0, read: 0 };
        Self { ahead, spoken, head_timeout, idle_timeout }
    }

    /// Reads until it is known, or patience has run out. A connection that has said nothing yet is closed when the node
    /// drains.
    pub(super) async fn hear(mut self, drain: &Drain) -> Opened<S> {
        let mut timer = std::pin::pin!(tokio::time::sleep(self.idle_timeout));
        let mut begun = None;
        let heard = poll_fn(|cx| self.poll_hear(&mut begun, timer.as_mut(), drain, cx)).await;
        match heard {
            Ok(Heard::Http1) => Opened::Http1(self.ahead, begun.unwrap_or_else(Instant::now)),
            Ok(Heard::Http2) => Opened::Http2(self.ahead),
            Ok(Heard::Foreign(what)) => Opened::Not(End::Foreign(what)),
            Ok(Heard::More) => {
                Opened::Late(self.ahead, if begun.is_some() { Late::Head } else { Late::Idle })
            }
            Err(end) => Opened::Not(end),
        }
    }

    /// Ready with [`Heard::More`]: patience has run out.
    fn poll_hear(
        &mut self,
        begun: &mut Option<Instant>,
        mut timer: Pin<&mut Sleep>,
        drain: &Drain,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Heard, End>> {
        loop {
            let read = match self.ahead.poll_more(cx) {
                Poll::Ready(read) => read,
                Poll::Pending if begun.is_none() && drain.is_wanted(cx) => {
                    return Poll::Ready(Err(End::Closed));
                }
                Poll::Pending => return timer.poll(cx).map(|()| Ok(Heard::More)),
            };
            match read {
                Ok(0) if self.ahead.filled == 0 => return Poll::Ready(Err(End::Closed)),
                // What is there is no request; HTTP/1.1 says so.
                Ok(0) => return Poll::Ready(Ok(Heard::Http1)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(End::Lost(error))),
            }
            if begun.is_none() {
                let now = Instant::now();
                *begun = Some(now);
                timer.as_mut().reset(now + self.head_timeout);
            }
            match self.spoken.judge(&self.ahead.bytes[..self.ahead.filled]) {
                Heard::More => {}
                known => return Poll::Ready(Ok(known)),
            }
        }
    }
}

/// A stream of which some bytes were read ahead; they come first.
pub(super) struct Ahead<S> {
    stream: S,
    bytes: [u8; BYTES_MAX],
    filled: usize,
    read: usize,
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    /// Reads ahead; yields how much, 0 at the stream's end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(&mut self.bytes[self.filled..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        let count = buf.filled().len();
        self.filled += count;
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read < self.filled {
            let count = buf.remaining().min(self.filled - self.read);
            buf.put_slice(&self.bytes[self.read..self.read + count]);
            self.read += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const HEAD: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(60);

    fn opening() -> (DuplexStream, impl Future<Output = Opened<DuplexStream>>) {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let hear =
            async move { Opening::new(theirs, Spoken::Either, HEAD, IDLE).hear(&Drain::default()).await };
        (ours, hear)
    }

    #[test]
    fn the_first_byte_that_differs_from_the_preface_decides() {
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        let whole = [PREFACE.as_slice(), settings].concat();
        for length in 0..whole.len() {
            assert_eq!(judge(&whole[..length]), Heard::More, "{length}");
        }
        assert_eq!(judge(&whole), Heard::Http2);
        for request in
            ["GET / HTTP/1.1\r\n", "G", "PO", "PRI * HTTP/1", "PRI * HTTP/2.0\r\nhost: a", "\r", "pri"]
        {
            assert_eq!(judge(request.as_bytes()), Heard::Http1, "{request:?}");
        }
        assert!(matches!(judge(b"\x16\x03\x01"), Heard::Foreign(_)));
        assert_eq!(Spoken::Http1.judge(PREFACE), Heard::Http1);
        assert!(matches!(Spoken::Http2.judge(b"GET"), Heard::Foreign(_)));
        let data = [PREFACE.as_slice(), b"\0\0\0\0"].concat();
        assert!(matches!(judge(&data), Heard::Foreign(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_ahead_is_read_again_byte_by_byte() {
        // given requests that come in two pieces, cut anywhere
        let text = b"PUT /a HTTP/1.1\r\nhost: a\r\n\r\n";
        for cut in 1..text.len() {
            let (mut client, opened) = opening();
            let write = async {
                client.write_all(&text[..cut]).await.expect("open");
                tokio::time::sleep(Duration::from_secs(1)).await;
                client.write_all(&text[cut..]).await.expect("open");
                client.shutdown().await.expect("open");
            };
            let read = async {
                let Opened::Http1(mut stream, _) = opened.await else { panic!("it is HTTP/1.1") };
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.expect("readable");
                all
            };
            // then not a byte is lost
            assert_eq!(tokio::join!(write, read).1, text, "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_a_preface_is_late() {
        for (said, wanted, within) in
            [("", Late::Idle, IDLE), ("P", Late::Head, HEAD), ("PRI * HTT", Late::Head, HEAD)]
        {
            let (mut client, opened) = opening();
            let begin = Instant::now();
            client.write_all(said.as_bytes()).await.expect("open");
            let Opened::Late(_, late) = opened.await else { panic!("it is late") };
            assert_eq!((late, begin.elapsed()), (wanted, within));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_said_nothing_is_closed_by_a_drain() {
        let (_client, theirs) = tokio::io::duplex(64);
        let drain = Drain::default();
        drain.wanted.store(true, std::sync::atomic::Ordering::Release);
        let opened = Opening::new(theirs, Spoken::Either, HEAD, IDLE).hear(&drain).await;
        assert!(matches!(opened, Opened::Not(End::Closed)));
    }
}
