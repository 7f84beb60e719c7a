//! A client's HTTP/2 connection: every stream is a request like any other.
//!
//! What bounds a connection: streams at once, windows, the lists of fields and the frames that it takes, streams that are
//! reset before or after they were looked at, pings that are not answered, and time without a stream.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cluster::hooks::panic_point;
use cluster::world::Stream;
use config::node::Limits;
use http::Response;
use http::header::{self, HeaderMap, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, Sleep};

use super::extended::Extended;
use super::opening::Ahead;
use super::pace::Late;
use super::streams::{Running, Streams, Taken, Work};
use super::{Drain, End};
use crate::journey::caller::Caller;
use crate::journey::{Gateway, answer};
use crate::response::AnswerBody;
use crate::upstream::stall::Unstalled;
use crate::upstream::tunnel::Tunnel;

/// Drives one connection to its end.
pub(super) async fn serve(
    stream: Ahead<Box<dyn Stream>>,
    caller: Arc<Caller>,
    gateway: Arc<Gateway>,
    drain: Arc<Drain>,
) -> End {
    let limits = &gateway.limits;
    let streams = Streams::new(limits.body_idle_timeout);
    let service = {
        let (gateway, streams) = (gateway.clone(), streams.clone());
        service_fn(move |mut request: http::Request<Incoming>| {
            let taking = streams.called();
            let leaving = hyper::upgrade::on(&mut request);
            let (gateway, caller) = (gateway.clone(), caller.clone());
            async move {
                panic_point("stream");
                let mut answered = answer_stream(&gateway, &caller, request).await;
                if let Some(tunnel) = answered.body_mut().take_tunnel() {
                    taking.becomes(|pump| carry(gateway, *tunnel, leaving, pump));
                }
                Ok::<_, Infallible>(answered.map(|body| Taken::new(body, taking)))
            }
        })
    };
    let mut connection = builder(limits, &streams).serve_connection(TokioIo::new(stream), service);
    let mut running = Running::new(streams);
    let mut timer = std::pin::pin!(tokio::time::sleep(limits.idle_timeout));
    let mut idle = Idle { since: None, parting: false };
    poll_fn(|cx| {
        if drain.is_wanted(cx) && idle.part() {
            Pin::new(&mut connection).graceful_shutdown();
        }
        loop {
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(done.map_or_else(End::Broken, |()| End::Closed));
            }
            running.poll(cx);
            ready!(idle.poll_late(running.is_empty(), limits, timer.as_mut(), cx));
            if !idle.part() {
                return Poll::Ready(End::Late(Late::Idle));
            }
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await
}

/// What a stream does once it has left HTTP.
///
/// - `leaving`: yields the stream.
/// - `pump`: writes for it.
fn carry(gateway: Arc<Gateway>, tunnel: Tunnel, leaving: OnUpgrade, pump: Work) -> Work {
    Box::pin(async move {
        // hyper gives up a stream only together with its pump.
        if let Ok(stream) = leaving.await {
            let limits = &gateway.limits;
            let client = Unstalled::new(Extended::new(stream, pump), limits.body_idle_timeout);
            tunnel.run(&gateway.recorder, client.at_least(limits.body_rate_min), Bytes::new()).await;
        }
    })
}

/// The node file's limits.
fn builder(limits: &Limits, streams: &Streams) -> http2::Builder<Streams> {
    let own = &limits.http2;
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(own.streams_max)
        .initial_stream_window_size(own.stream_window_bytes)
        .initial_connection_window_size(own.connection_window_bytes)
        .max_frame_size(own.frame_bytes_max)
        .max_send_buf_size(own.send_buffer_bytes_max as usize)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(own.resets_pending_max as usize)
        .max_local_error_reset_streams(own.resets_local_max as usize)
        .enable_connect_protocol()
        .keep_alive_interval(own.ping_interval)
        .keep_alive_timeout(own.ping_timeout);
    builder
}

/// A connection without a stream, whatever else it says: first it is told to go (GOAWAY), then it is cut.
struct Idle {
    since: Option<Instant>,
    parting: bool,
}

impl Idle {
    /// Begins to part; false: it has begun before.
    fn part(&mut self) -> bool {
        self.since = None;
        !std::mem::replace(&mut self.parting, true)
    }

    /// Ready once it has been without a stream for too long.
    fn poll_late(
        &mut self,
        is_empty: bool,
        limits: &Limits,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if !is_empty {
            self.since = None;
            return Poll::Pending;
        }
        let patience = if self.parting { limits.head_timeout } else { limits.idle_timeout };
        let deadline = *self.since.get_or_insert_with(Instant::now) + patience;
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        // One that rings too early, since it was set before the last stream, is set again.
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

/// One stream's request, answered.
async fn answer_stream(
    gateway: &Gateway,
    caller: &Arc<Caller>,
    mut request: http::Request<Incoming>,
) -> Response<AnswerBody> {
    join_cookies(request.headers_mut());
    let mut response = answer(gateway, caller, request).await;
    // What a refusal says of the connection concerns its stream alone, which ends anyway.
    response.headers_mut().remove(header::CONNECTION);
    response
}

/// HTTP/2 may split `Cookie` into several fields; everybody else expects one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Values joined by visible characters are a value.
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())) {
        headers.insert(header::COOKIE, joined);
    }
}
