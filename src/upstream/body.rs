//! Bodies on their way through: never buffered, each with a deadline for silence.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use config::upstream::Protocol;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use super::copying::Copying;
use super::head;
use super::pool::Lease;
use super::rate::Credit;
use super::upload::{Courier, Upload};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// More came than is allowed.
    #[error("the body is larger than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// Nothing came for too long, or too little.
    #[error("the sender of the body is too slow")]
    Silent,
    /// Its chunks are none.
    #[error("the body's chunks are malformed")]
    Malformed,
    /// The connection broke.
    #[error("the connection broke inside the body")]
    Broken,
}

/// Says when nothing came for too long, or too little. Its clock runs only while somebody waits for the body, so a slow
/// reader does not count as a slow sender.
#[derive(Debug)]
struct Silence {
    patience: Duration,
    credit: Credit,
    /// Since when somebody waits.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    fn new(patience: Duration, credit: Credit) -> Self {
        Self { patience, credit, since: None, timer: None }
    }

    /// A frame came, of so many bytes.
    fn broken(&mut self, bytes: usize) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.credit.moved(waited, bytes as u64);
    }

    /// While waiting: ready once patience or credit has run out.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let due = now + self.credit.within(self.patience);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(due),
                None => self.timer = Some(Box::pin(sleep_until(due))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }
}

/// Word of how a client's body ended.
#[derive(Debug)]
pub(super) struct RequestEnd {
    known: Option<Result<(), BodyFault>>,
    coming: Option<oneshot::Receiver<Result<(), BodyFault>>>,
}

impl RequestEnd {
    /// How it ended; none: it has not, or nobody read it to its end.
    pub(super) fn look(&mut self) -> Option<Result<(), BodyFault>> {
        if let Some(coming) = &mut self.coming
            && let Ok(how) = coming.try_recv()
        {
            self.known = Some(how);
            self.coming = None;
        }
        self.known
    }

    /// Yields once the body has ended, or was dropped.
    pub(super) async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(coming) = &mut self.coming {
            self.known = ready!(Pin::new(coming).poll(cx)).ok();
            self.coming = None;
        }
        Poll::Ready(())
    }
}

/// A client's body: bounded in size, with a deadline for silence, and word to the forwarder of how it ended.
#[derive(Debug)]
pub struct ClientBody {
    incoming: Option<Incoming>,
    bytes_max: u64,
    left_bytes: u64,
    /// Whether it comes over HTTP/2, where hyper takes some resets for an end.
    is_http2: bool,
    silence: Silence,
    ended: Option<oneshot::Sender<Result<(), BodyFault>>>,
    copy: Option<Copying>,
    /// A body that is there as a whole, in place of one that comes.
    whole: Option<Bytes>,
    /// Over a connection that others share.
    courier: Option<Courier>,
    is_call: bool,
}

impl ClientBody {
    /// Takes at most `bytes_max` and waits at most `patience` for each next piece, for all of them as `credit` says.
    ///
    /// - `version`: in which it comes.
    pub fn new(
        incoming: Incoming,
        version: Version,
        bytes_max: u64,
        patience: Duration,
        credit: Credit,
    ) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        let (silence, is_http2) = (Silence::new(patience, credit), version == Version::HTTP_2);
        Self { incoming, bytes_max, left_bytes: bytes_max, is_http2, silence, ..Self::empty() }
    }

    /// A body that is there already.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { whole: (!bytes.is_empty()).then_some(bytes), ..Self::empty() }
    }

    /// Its pieces are messages, which come when there is something to say: at any rate, and once the answer has begun, after
    /// any silence. That of the answer bounds the call.
    pub(super) fn is_of_a_call(&mut self) {
        self.is_call = true;
        self.silence.credit = Credit::endless();
    }

    /// Is sent over a connection that others share.
    pub(super) fn go_with(&mut self, courier: Courier) {
        self.courier = Some(courier);
    }

    /// Copies what goes by from now on.
    pub(super) fn copy_to(&mut self, copy: Copying) {
        self.copy = Some(copy);
    }

    /// No body at all.
    pub fn empty() -> Self {
        Self {
            incoming: None,
            bytes_max: 0,
            left_bytes: 0,
            is_http2: false,
            silence: Silence::new(Duration::ZERO, Credit::endless()),
            ended: None,
            copy: None,
            whole: None,
            courier: None,
            is_call: false,
        }
    }

    /// Whether there is nothing to send, so that the request can be sent again.
    pub fn is_empty(&self) -> bool {
        self.incoming.is_none() && self.whole.is_none()
    }

    /// Tells how the body ends.
    pub(super) fn watch_end(&mut self) -> RequestEnd {
        if self.is_empty() {
            return RequestEnd { known: Some(Ok(())), coming: None };
        }
        let (ended, coming) = oneshot::channel();
        self.ended = Some(ended);
        RequestEnd { known: None, coming: Some(coming) }
    }

    fn end(&mut self, how: Result<(), BodyFault>) {
        self.incoming = None;
        if let Some(copy) = self.copy.take().filter(|_| how.is_ok()) {
            copy.end();
        }
        if let Some(ended) = self.ended.take() {
            // The forwarder may have its answer already; then it does not care.
            let _ = ended.send(how);
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(whole) = self.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let Poll::Ready(next) = Pin::new(&mut *incoming).poll_frame(cx) else {
            ready!(self.silence.poll(cx));
            let is_answered = self.courier.as_ref().is_some_and(Courier::is_answered);
            if self.is_call && is_answered {
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(BodyFault::Silent)));
        };
        self.silence.broken(bytes_of(next.as_ref()));
        let Some(next) = next else {
            // A client that takes its request back has no need of an answer, whatever it had sent of it.
            let broken_off = self.is_http2 && !incoming.is_end_stream();
            return Poll::Ready(broken_off.then_some(Err(BodyFault::Broken)));
        };
        let frame = match next {
            Ok(frame) => cleaned(frame),
            Err(error) if is_malformed(&error) => return Poll::Ready(Some(Err(BodyFault::Malformed))),
            Err(_) => return Poll::Ready(Some(Err(BodyFault::Broken))),
        };
        if let Some(data) = frame.data_ref() {
            match self.left_bytes.checked_sub(data.len() as u64) {
                Some(left) => self.left_bytes = left,
                None => return Poll::Ready(Some(Err(BodyFault::TooLarge { bytes_max: self.bytes_max }))),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// Whether bytes came that are no chunks, and not too few bytes.
fn is_malformed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|io| matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(courier) = &mut self.courier {
            courier.asked();
        }
        let next = ready!(self.poll_inner(cx));
        if let (Some(courier), Some(Ok(_))) = (&self.courier, &next) {
            courier.given();
        }
        if let (Some(copy), Some(Ok(frame))) = (&mut self.copy, &next) {
            copy.see(frame.data_ref());
        }
        match &next {
            Some(Ok(_)) if self.incoming.as_ref().is_none_or(Body::is_end_stream) => self.end(Ok(())),
            Some(Ok(_)) => {}
            Some(Err(fault)) => {
                let fault = *fault;
                self.end(Err(fault));
            }
            None => self.end(Ok(())),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let whole = self.whole.as_ref().map_or(0, |whole| whole.len() as u64);
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(whole), Body::size_hint)
    }
}

fn bytes_of<E>(next: Option<&Result<Frame<Bytes>, E>>) -> usize {
    next.and_then(|next| next.as_ref().ok()?.data_ref()).map_or(0, Bytes::len)
}

/// A trailer holds only what may stand in one.
fn cleaned(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        head::clean_trailers(trailers);
    }
    frame
}

/// An upstream's body: with a deadline for silence. Its connection goes back to the pool at its end, and is closed if it is
/// not read to its end.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    silence: Silence,
    lease: Option<(Lease, RequestEnd)>,
    is_http2: bool,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, patience: Duration, lease: Lease, request_end: RequestEnd) -> Self {
        let silence = Silence::new(patience, Credit::endless());
        let is_http2 = lease.speech().0 == Protocol::Http2;
        let mut body = Self { incoming, silence, lease: Some((lease, request_end)), is_http2 };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    /// Whether a body without more frames was ended by a reset. hyper does not tell one from the other where the reset says
    /// that there was no error, or that the stream is no longer wanted. An upstream that has answered in full may say so, too,
    /// to stop a request that it needs no more of (RFC 9113 section 8.1): then what the head announces has come, or, if it
    /// announces nothing, the request was still on its way.
    fn is_broken_off(&mut self) -> bool {
        if !self.is_http2 || self.incoming.is_end_stream() {
            return false;
        }
        match self.incoming.size_hint().exact() {
            Some(left_bytes) => left_bytes > 0,
            None => self.lease.as_mut().is_some_and(|(_, end)| end.look() == Some(Ok(()))),
        }
    }

    /// Whether the upstream did not take the rest of the request in time: it knows no end of this exchange.
    fn is_given_up(&mut self, cx: &mut Context<'_>) -> bool {
        self.lease.as_mut().is_some_and(|(lease, request_end)| {
            request_end.poll(cx).is_ready() && lease.upload().is_some_and(Upload::is_given_up)
        })
    }

    /// Clean is a connection whose request was sent to its end, too.
    fn release(&mut self) {
        if let Some((lease, mut request_end)) = self.lease.take()
            && request_end.look() == Some(Ok(()))
        {
            lease.release();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            if self.is_given_up(cx) {
                self.lease = None;
                return Poll::Ready(Some(Err(BodyFault::Broken)));
            }
            ready!(self.silence.poll(cx));
            self.lease = None;
            return Poll::Ready(Some(Err(BodyFault::Silent)));
        };
        self.silence.broken(0);
        match next {
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.release();
                }
                Poll::Ready(Some(Ok(cleaned(frame))))
            }
            Some(Err(_)) => {
                self.lease = None;
                Poll::Ready(Some(Err(BodyFault::Broken)))
            }
            None if self.is_broken_off() => {
                self.lease = None;
                Poll::Ready(Some(Err(BodyFault::Broken)))
            }
            None => {
                self.release();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
