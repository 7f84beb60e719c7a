//! One client connection: an actor that owns the task which drives hyper, and ends with it.
//!
//! The client's first bytes say which HTTP it speaks.
//!
//! No handler of the actor lives as long as the connection: the task does, and its end, with its cause, is a message. The
//! listener sends `Drain`.

mod extended;
mod http2;
#[cfg(test)]
mod http2_tests;
mod opening;
pub mod pace;
mod proxied;
mod scan;
mod streams;
mod strict;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use cluster::fatal::panic_text;
use cluster::hooks::panic_point;
use cluster::world::Stream;
use config::action::Scheme;
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, error};

use crate::journey::caller::{Caller, Proxies};
use crate::journey::{Gateway, answer};
use crate::tls::listening::{Failed, Listening};
use crate::upstream::stall::Unstalled;
use crate::upstream::tunnel::Tunnel;
use opening::{Ahead, Opened, Opening, Spoken};
use pace::{Late, Pace, Paced, Watch};
use strict::{StandAside, Strict};

/// A connection that was accepted within the process's budget.
pub struct Accepted {
    /// The socket.
    pub stream: Box<dyn Stream>,
    /// The client's end.
    pub peer: SocketAddr,
    /// This thread's gateway.
    pub gateway: Arc<Gateway>,
    /// The connection's place in the budget.
    pub permit: OwnedSemaphorePermit,
    /// Where it came in.
    pub entrance: Entrance,
}

/// What a connection has to pass before HTTP is spoken. Cheap to clone; one for each port.
#[derive(Clone, Debug, Default)]
pub struct Entrance {
    /// None: plaintext.
    pub tls: Option<Listening>,
    /// Who speaks for others.
    pub proxies: Arc<Proxies>,
    /// The port's number.
    pub port: u16,
}

/// What a connection is told.
#[derive(Debug)]
pub enum Msg {
    /// From the listener: finish the request at hand, then close.
    Drain,
    /// From the connection's own task: it has ended.
    Ended(End),
}

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// Either side closed it in order.
    Closed,
    /// It waited too long for a request, or for the rest of its head.
    Late(Late),
    /// The socket or the client's HTTP broke.
    Broken(hyper::Error),
    /// The socket broke before any HTTP was spoken.
    Lost(io::Error),
    /// It does not speak what is spoken here.
    Foreign(&'static str),
    /// There was no TLS handshake.
    Unsecured(Failed),
    /// A bug of ours; the text of the panic.
    Panicked(String),
}

/// The actor. Its arguments are the accepted connection.
#[derive(Debug)]
pub struct ConnectionActor;

/// What the actor keeps.
pub struct State {
    gateway: Arc<Gateway>,
    drain: Arc<Drain>,
    task: AbortHandle,
    peer: SocketAddr,
}

/// The word to finish, from the actor to its task.
#[derive(Debug, Default)]
struct Drain {
    wanted: AtomicBool,
    task: AtomicWaker,
}

impl Drain {
    /// Whether it was said; if not, it wakes the caller once it is.
    fn is_wanted(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.wanted.load(Ordering::Acquire)
    }
}

impl Actor for ConnectionActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Accepted;

    async fn pre_start(&self, me: ActorRef<Msg>, accepted: Accepted) -> Result<State, ActorProcessingErr> {
        let Accepted { stream, peer, gateway, permit, entrance } = accepted;
        let drain = Arc::new(Drain::default());
        gateway.recorder.connection_opened();
        let served = AssertUnwindSafe(serve(stream, entrance, peer, gateway.clone(), drain.clone()));
        let served = served.catch_unwind();
        let task = tokio::spawn(async move {
            let end = served.await.unwrap_or_else(|panic| End::Panicked(panic_text(panic.as_ref())));
            drop(permit);
            // The actor may have been stopped before: then nobody asks why we ended.
            let _ = me.send_message(Msg::Ended(end));
        });
        Ok(State { gateway, drain, task: task.abort_handle(), peer })
    }

    async fn handle(&self, me: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Drain => {
                state.drain.wanted.store(true, Ordering::Release);
                state.drain.task.wake();
            }
            Msg::Ended(end) => {
                match end {
                    End::Panicked(text) => {
                        error!(peer = %state.peer, panic = text, "connection task panicked")
                    }
                    end => debug!(peer = %state.peer, ?end, "connection ended"),
                }
                me.stop(None);
            }
        }
        Ok(())
    }
}

/// However the actor ends, its task does not outlive it.
impl Drop for State {
    fn drop(&mut self) {
        self.task.abort();
        self.gateway.recorder.connection_closed();
    }
}

/// Drives one connection to its end.
async fn serve(
    mut stream: Box<dyn Stream>,
    entrance: Entrance,
    mut peer: SocketAddr,
    gateway: Arc<Gateway>,
    drain: Arc<Drain>,
) -> End {
    let limits = &gateway.limits;
    if entrance.proxies.announces(peer.ip()) {
        match Box::pin(proxied::hear(&mut stream, limits.head_timeout)).await {
            Ok(source) => peer = source.unwrap_or(peer),
            Err(what) => {
                gateway.recorder.connection_failed(what);
                return End::Foreign(what);
            }
        }
    }
    // Under TLS, which takes bytes before the client does.
    let stalls = Unstalled::new(stream, limits.body_idle_timeout).at_least(limits.body_rate_min);
    stream = Box::new(stalls);
    let scheme = if entrance.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let mut caller = Caller::new(peer, scheme, entrance.port, entrance.proxies);
    let mut spoken = Spoken::Either;
    if let Some(tls) = &entrance.tls {
        // Boxed, as everything that is done once for a connection: it would carry the size to its end.
        let secured = match Box::pin(tls.shake(stream)).await {
            Ok(secured) => secured,
            Err(failed) => {
                gateway.recorder.connection_failed(failed.slug());
                return End::Unsecured(failed);
            }
        };
        // Over TLS, HTTP/2 is agreed on by ALPN alone (RFC 9113 section 3.2).
        spoken = if secured.is_http2 { Spoken::Http2 } else { Spoken::Http1 };
        caller.certificate = secured.certificate;
        stream = secured.stream;
    }
    let caller = Arc::new(caller);
    let opening = Opening::new(stream, spoken, limits.head_timeout, limits.idle_timeout);
    match opening.hear(&drain).await {
        Opened::Http1(stream, begun) => http1(stream, begun, caller, gateway, drain).await,
        // Boxed: most connections speak HTTP/1.1, and would carry its size.
        Opened::Http2(stream) => Box::pin(http2::serve(stream, caller, gateway, drain)).await,
        Opened::Late(stream, late) => {
            if late == Late::Head {
                say_late(stream, limits.body_idle_timeout).await;
            }
            End::Late(late)
        }
        Opened::Not(end) => {
            if let End::Foreign(what) = end {
                gateway.recorder.connection_failed(what);
            }
            end
        }
    }
}

/// Drives HTTP/1.1. `begun`: since when its first head is coming in.
async fn http1(
    stream: Ahead<Box<dyn Stream>>,
    begun: Instant,
    caller: Arc<Caller>,
    gateway: Arc<Gateway>,
    drain: Arc<Drain>,
) -> End {
    let limits = &gateway.limits;
    let pace = Arc::new(Pace::begun(begun, limits.head_timeout, limits.idle_timeout));
    let aside = StandAside::default();
    let stream = Strict::new(stream, caller.peer, limits.head_bytes_max, aside.clone());
    let stream = Paced::new(stream, pace.clone());
    let next = Arc::new(Mutex::new(None::<Box<Tunnel>>));
    let service = {
        let (gateway, pace, next, aside) = (gateway.clone(), pace.clone(), next.clone(), aside.clone());
        service_fn(move |request: http::Request<Incoming>| {
            pace.request();
            let (gateway, pace, caller) = (gateway.clone(), pace.clone(), caller.clone());
            let (aside, next) = (aside.clone(), next.clone());
            async move {
                panic_point("connection");
                let mut answered = answer(&gateway, &caller, request).await;
                if answered.status() == StatusCode::SWITCHING_PROTOCOLS {
                    aside.stand();
                }
                if let Some(tunnel) = answered.body_mut().take_tunnel() {
                    *next.lock() = Some(tunnel);
                }
                Ok::<_, Infallible>(answered.map(|body| Watch::new(body, pace)))
            }
        })
    };
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES_MIN))
        .max_header_size(limits.head_bytes_max);
    if limits.headers_max != HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut timer = std::pin::pin!(tokio::time::sleep(limits.head_timeout));
    let mut draining = false;
    let end = std::future::poll_fn(|cx| {
        if drain.is_wanted(cx) && !draining {
            draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(done) = connection.poll_unpin(cx) {
            return Poll::Ready(done.map_or_else(End::Broken, |()| End::Closed));
        }
        pace.poll_late(timer.as_mut(), cx).map(End::Late)
    })
    .await;
    if let End::Late(Late::Head) = end {
        let stream = connection.into_parts().io.into_inner();
        say_late(stream, limits.body_idle_timeout).await;
        return end;
    }
    let tunnel = next.lock().take();
    if let (End::Closed, Some(tunnel)) = (&end, tunnel) {
        if aside.has_refused() {
            return End::Foreign("unclear-before-its-upgrade");
        }
        // hyper has written its last answer and lets go of the stream.
        let parts = connection.into_parts();
        Box::pin(tunnel.run(&gateway.recorder, parts.io.into_inner(), parts.read_buf)).await;
    }
    end
}

/// hyper parses so many fields without an allocation.
const HYPER_HEADERS_MAX: usize = 100;
/// hyper takes no smaller buffer.
const BUFFER_BYTES_MIN: usize = 16 << 10;

/// hyper has no request to answer yet, so this answer is written by hand.
async fn say_late(mut stream: impl tokio::io::AsyncWrite + Unpin, patience: std::time::Duration) {
    const TEXT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let said = async {
        stream.write_all(TEXT).await?;
        stream.shutdown().await
    };
    // A client that does not take it has its connection closed all the same.
    let _ = timeout(patience, said).await;
}
