//! Incoming connections of other nodes: accepted, secured, greeted, served.
//!
//! Everything a stranger can hold is bounded: connections in greeting, greeted connections, the time to greet,
//! requests and bytes a connection has in service, and bytes it has not read. Whatever is wrong with one
//! connection ends that connection, with its reason in the log: a line a second for each kind of reason.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::frame::{BODY_BYTES_MAX, Frame};
use super::handshake::{HelloV1, Mismatch};
use super::places::{Full, Places, Seat};
use super::trust::Trust;
use super::wire::{Wire, WireError};
use super::{Caller, Lane, Me, PAYLOAD_BYTES_MAX, Serve, UNANSWERED_BYTES_MAX};
use crate::fatal::Bell;
use crate::hooks::panic_point;
use crate::tls::{Tls, TlsError};
use crate::warnings::Warnings;
use crate::world::{BoxFuture, Listener, Share, Stream, World};

/// Until a connection is secured and greeted.
pub const GREET_WITHIN: Duration = Duration::from_secs(2);
/// A connection without a frame (callers ping) for this long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(10);
const CHECK_EVERY: Duration = Duration::from_secs(1);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The open door. Dropping it closes the listener and every connection that came through it.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    task: AbortHandle,
}

impl Door {
    /// Listens on `listen` and serves what comes, on the runtime that this is called in. New connections are secured with
    /// the latest `tls`. `bell` rings if it can not go on.
    ///
    /// # Errors
    /// As [`crate::world::Net::bind`].
    pub fn open(
        world: &World,
        listen: SocketAddr,
        tls: watch::Receiver<Tls>,
        me: Me,
        serve: Arc<dyn Serve>,
        bell: &Bell,
    ) -> io::Result<Self> {
        let listener = world.net.bind(listen, Share::Alone)?;
        let address = listener.local_addr();
        let (places, warnings) = (Places::default(), Arc::default());
        let host = Host { world: world.clone(), tls, me, serve, places, warnings };
        let task = tokio::spawn(bell.guard("the door for peers", host.accept(listener))).abort_handle();
        Ok(Self { address, task })
    }

    /// Where it listens; the port is never 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort(); // Drops the set of connections with it.
    }
}

#[derive(Clone)]
struct Host {
    world: World,
    tls: watch::Receiver<Tls>,
    me: Me,
    serve: Arc<dyn Serve>,
    places: Places,
    warnings: Arc<Mutex<Warnings>>,
}

/// A node that was let in.
struct Guest {
    wire: Wire,
    caller: Caller,
    lane: Lane,
    trust: Trust,
    _seat: Seat,
}

/// Why a connection did not get in.
#[derive(Debug, thiserror::Error)]
enum Turned {
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    #[error("{0}")]
    NotAdmitted(String),
    #[error("{0}")]
    Full(#[from] Full),
    #[error("no greeting within {GREET_WITHIN:?}")]
    Late,
    #[error("no greeting yet, and its place was needed for a newer connection")]
    Crowded,
}

impl Turned {
    /// For the log's limit: no kind of stranger hides another.
    fn kind(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Wire(_) => "wire",
            Self::Mismatch(_) => "mismatch",
            Self::NotAdmitted(_) => "not-admitted",
            Self::Full(_) => "full",
            Self::Late => "late",
            Self::Crowded => "crowded",
        }
    }
}

impl Host {
    async fn accept(self, mut listener: Box<dyn Listener>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = listener.accept().await;
            while let Some(ended) = connections.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a peer's connection panicked and is closed");
                }
            }
            match accepted {
                Ok((stream, peer)) => {
                    panic_point("door");
                    let mut place = self.places.greet();
                    let host = self.clone();
                    connections.spawn(async move {
                        let greeted = tokio::select! {
                            biased;
                            greeted = timeout(GREET_WITHIN, host.greet(stream, peer)) => {
                                greeted.unwrap_or(Err(Turned::Late))
                            }
                            () = place.lost() => Err(Turned::Crowded),
                        };
                        drop(place);
                        match greeted {
                            Ok(guest) => host.converse(guest).await,
                            Err(reason) => {
                                if let Some(others) = host.line(reason.kind()) {
                                    tracing::warn!(%peer, %reason, others, "peer connection turned away");
                                }
                            }
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, or the connection is gone again: neither is for ever.
                    if let Some(others) = self.line("accept") {
                        tracing::warn!(%error, others, "accepting a peer connection failed");
                    }
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// Whether a reason of this kind gets a line now, and how many had none since the last one.
    fn line(&self, kind: &'static str) -> Option<u64> {
        self.warnings.lock().line(kind, self.world.clock.boot())
    }

    async fn greet(&self, stream: Box<dyn Stream>, peer: SocketAddr) -> Result<Guest, Turned> {
        let mut files = self.tls.clone();
        let tls = files.borrow_and_update().clone();
        let (stream, certified) = tls.accept(stream, peer).await?.into_parts();
        let mut wire = Wire::new(stream);
        let Frame::Hello(bytes) = wire.next().await? else {
            return Err(WireError::Unexpected("a frame before the hello").into());
        };
        let me = (self.me)();
        let checked = HelloV1::decode(bytes).and_then(|hello| {
            hello.check_caller(&me, |name| certified.check(name))?;
            Ok(hello)
        });
        let seated = checked.map_err(Turned::from).and_then(|HelloV1 { name, raft_id, lane, .. }| {
            let caller = Caller { name, raft_id, address: peer };
            self.serve.admits(&caller, lane).map_err(Turned::NotAdmitted)?;
            let seat = self.places.seat(&caller.name, lane)?;
            Ok((caller, lane, seat))
        });
        let reply = match &seated {
            Ok((_, lane, _)) => Frame::Hello(HelloV1::of(&me, *lane).encode()),
            Err(reason) => Frame::Reject(reason.to_string()),
        };
        wire.push(&reply).map_err(WireError::from)?;
        wire.flush().await.map_err(WireError::from)?;
        let (caller, lane, seat) = seated?;
        wire.allow(BODY_BYTES_MAX);
        let trust = Trust::new(files, certified, Instant::now());
        Ok(Guest { wire, caller, lane, trust, _seat: seat })
    }

    async fn converse(&self, guest: Guest) {
        let Guest { mut wire, caller, lane, mut trust, _seat } = guest;
        tracing::debug!(node = %caller.name, peer = %caller.address, ?lane, "peer connected");
        let mut desk = Desk::new(self.serve.clone(), caller, lane);
        let mut tick = interval(CHECK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reason = loop {
            let may_answer = wire.has_room() && !desk.serving.is_empty();
            panic_point("peer");
            let step = tokio::select! {
                biased;
                _ = tick.tick() => {
                    let now = Instant::now();
                    wire.check(now, IDLE_MAX).and_then(|()| Ok(trust.check(now)?))
                }
                Some(done) = desk.serving.next(), if may_answer => desk.answer(done, &mut wire),
                frame = wire.next() => frame.and_then(|frame| desk.take(frame, &mut wire)),
            };
            if let Err(reason) = step {
                break reason;
            }
        };
        let (node, peer) = (&desk.caller.name, desk.caller.address);
        if matches!(reason, WireError::Closed) {
            tracing::debug!(%node, %peer, ?lane, "peer disconnected");
        } else if let Some(others) = self.line("dropped") {
            tracing::warn!(%node, %peer, ?lane, %reason, others, "peer connection dropped");
        }
    }
}

/// A request's answer, and how many bytes the request held.
struct Done {
    id: u64,
    bytes: usize,
    answer: Result<Bytes, String>,
}

/// Requests of one connection: at most [`Lane::calls_max`] of them and [`UNANSWERED_BYTES_MAX`] bytes.
struct Desk {
    serve: Arc<dyn Serve>,
    caller: Caller,
    lane: Lane,
    /// In service, at most [`Lane::served_at_once`].
    serving: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Not yet in service, in the order they came.
    waiting: VecDeque<(u64, u16, Bytes)>,
    bytes: usize,
}

impl Desk {
    fn new(serve: Arc<dyn Serve>, caller: Caller, lane: Lane) -> Self {
        Self { serve, caller, lane, serving: FuturesUnordered::new(), waiting: VecDeque::new(), bytes: 0 }
    }

    fn take(&mut self, frame: Frame, wire: &mut Wire) -> Result<(), WireError> {
        match frame {
            Frame::Ping => Ok(wire.push(&Frame::Pong)?),
            Frame::Request { id, kind, payload } => {
                let full = self.serving.len() + self.waiting.len() >= self.lane.calls_max();
                if full || self.bytes + payload.len() > UNANSWERED_BYTES_MAX {
                    return Ok(wire.push(&Frame::Overload { id })?);
                }
                self.bytes += payload.len();
                self.waiting.push_back((id, kind, payload));
                self.begin();
                Ok(())
            }
            Frame::Hello(_) => Err(WireError::Unexpected("a second hello")),
            _ => Err(WireError::Unexpected("a frame that only a server sends")),
        }
    }

    fn begin(&mut self) {
        while self.serving.len() < self.lane.served_at_once() {
            let Some((id, kind, payload)) = self.waiting.pop_front() else { return };
            let bytes = payload.len();
            let answer = self.serve.serve(self.caller.clone(), self.lane, kind, payload);
            self.serving.push(Box::pin(async move { Done { id, bytes, answer: answer.await } }));
        }
    }

    fn answer(&mut self, done: Done, wire: &mut Wire) -> Result<(), WireError> {
        self.bytes -= done.bytes;
        self.begin();
        let id = done.id;
        let frame = match done.answer {
            Ok(payload) if payload.len() <= PAYLOAD_BYTES_MAX => Frame::Answer { id, payload },
            Ok(payload) => {
                let found = payload.len();
                let reason = format!("found an answer of {found} bytes, wanted at most {PAYLOAD_BYTES_MAX}");
                Frame::Refusal { id, reason }
            }
            Err(reason) => Frame::Refusal { id, reason },
        };
        Ok(wire.push(&frame)?)
    }
}
