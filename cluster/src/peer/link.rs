//! Outgoing calls: for each target and lane one connection, made when needed and made again when lost.
//!
//! A target is a node's name, address and number: a node that moved or was given another number is another one, and calls
//! to what it was and to what it is never disturb each other. Links that nobody uses any more are given up.
//!
//! A call holds a place and its bytes on its lane until it is answered, so that nothing here grows without bound. A
//! connection on which nothing is heard for [`SILENCE_MAX`] is dropped alone; calls that wait on it end with it.
//!
//! When this node's certificates are replaced, each lane's connection is made anew, one lane after another: the new one
//! stands before the old one is left, and it is left when no call is unanswered on it. While no new one can be made, the
//! old one goes on, as long as its far end is believed (`trust`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::frame::{BODY_BYTES_MAX, Frame};
use super::handshake::HelloV1;
use super::trust::Trust;
use super::wire::{Wire, WireError};
use super::{CallError, Identity, Lane, Me, PAYLOAD_BYTES_MAX, Target, UNANSWERED_BYTES_MAX};
use crate::hooks::panic_point;
use crate::tls::Tls;
use crate::world::{BoxFuture, World};

/// Until a connection is made, secured and greeted.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How often a quiet peer is asked for a sign of life.
pub const PING_EVERY: Duration = Duration::from_millis(500);
/// A connection without a sign of life for this long is dropped.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// A link without a call for this long is given up when another one is made.
const UNUSED_MAX: Duration = Duration::from_secs(60);
/// After a change of the certificates, from one lane's new connections to the next lane's.
pub const REMAKE_LANE_EVERY: Duration = Duration::from_secs(2);
/// Until a new connection that could not be made is tried again.
const REMAKE_AGAIN: Duration = Duration::from_secs(5);
/// How long calls may be held back until the old connection's are answered, little beside what a request waits for tokens:
/// an answer may depend on a call that is held. Then the old connection goes on, and is left at another moment.
const HOLD_MAX: Duration = Duration::from_millis(50);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The other nodes, to call. Cheap to clone; connections end when the last clone is dropped.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    world: World,
    tls: watch::Receiver<Tls>,
    me: Me,
    runtime: Handle,
    links: Mutex<BTreeMap<(Target, Lane), Link>>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}

/// One lane to one node.
#[derive(Clone)]
struct Link {
    used: Instant,
    calls: mpsc::Sender<Call>,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

struct Call {
    kind: u16,
    payload: Bytes,
    reply: oneshot::Sender<Result<Bytes, CallError>>,
    _place: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Peers {
    /// Makes no connection yet. Connections live on the runtime that this is called in, and are secured with the latest
    /// `tls`.
    pub fn new(world: World, tls: watch::Receiver<Tls>, me: Me) -> Self {
        let runtime = Handle::current();
        Self(Arc::new(Inner { world, tls, me, runtime, links: Mutex::default() }))
    }

    /// Sends one request and waits for its answer, at most `deadline`. Calls of one lane to one node are sent in the
    /// order in which this is first polled; on [`Lane::Raft`] they are served in that order too.
    ///
    /// # Errors
    /// [`CallError`]. After [`CallError::Unreachable`] and [`CallError::Timeout`] the request may have been served.
    pub async fn call(
        &self,
        to: &Target,
        lane: Lane,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let found = payload.len();
            return Err(CallError::Refused(format!(
                "found a message of {found} bytes, wanted at most {PAYLOAD_BYTES_MAX}"
            )));
        }
        let link = self.link(to, lane);
        let overloaded = |_| CallError::Overloaded;
        let _place = link.places.clone().try_acquire_owned().map_err(overloaded)?;
        let weight = u32::try_from(payload.len()).expect("at most PAYLOAD_BYTES_MAX");
        let _bytes = link.bytes.clone().try_acquire_many_owned(weight).map_err(overloaded)?;
        let (reply, answer) = oneshot::channel();
        let call = Call { kind, payload, reply, _place, _bytes };
        // The queue is as long as there are places, so it is full only with calls nobody waits for any more.
        link.calls.try_send(call).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => CallError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => CallError::Unreachable("this node is stopping".into()),
        })?;
        match timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Unreachable("the connection's task ended".into())),
            Err(_) => Err(CallError::Timeout),
        }
    }

    fn link(&self, to: &Target, lane: Lane) -> Link {
        let now = Instant::now();
        let mut links = self.0.links.lock();
        let key = (to.clone(), lane);
        if let Some(link) = links.get_mut(&key)
            && !link.calls.is_closed()
        {
            link.used = now;
            return link.clone();
        }
        // Every call has a deadline that is far shorter, so a link that is dropped here has no call at hand.
        links.retain(|_, link| now.duration_since(link.used) < UNUSED_MAX);
        let (calls, queue) = mpsc::channel(lane.calls_max());
        let places = Arc::new(Semaphore::new(lane.calls_max()));
        let bytes = Arc::new(Semaphore::new(UNANSWERED_BYTES_MAX));
        let link = Link { used: now, calls, places, bytes };
        let caller = Caller {
            world: self.0.world.clone(),
            tls: self.0.tls.clone(),
            me: self.0.me.clone(),
            target: to.clone(),
            lane,
        };
        self.0.runtime.spawn(caller.run(queue));
        links.insert(key, link.clone());
        link
    }
}

/// The task behind one link. Ends when the link is dropped.
struct Caller {
    world: World,
    tls: watch::Receiver<Tls>,
    me: Me,
    target: Target,
    lane: Lane,
}

/// A greeted connection.
struct Connection {
    wire: Wire,
    /// Who this node said to be.
    said: Identity,
    trust: Trust,
}

/// A connection that is to take the present one's place.
#[derive(Default)]
struct Successor<'a> {
    opening: Option<BoxFuture<'a, Result<Connection, CallError>>>,
    /// It stands, and waits until then for a moment without unanswered calls.
    open: Option<(Connection, Instant)>,
    again_at: Option<Instant>,
}

impl Successor<'_> {
    /// Yields once the connection stands or could not be made; never, if none is being made.
    async fn opened(&mut self) -> Result<Connection, CallError> {
        let Some(opening) = &mut self.opening else { return std::future::pending().await };
        let opened = opening.await;
        self.opening = None;
        opened
    }
}

/// Why a connection's life ended without fault.
enum Ended {
    /// The link was dropped.
    Dropped,
    /// This node is another than it said at the handshake.
    Changed,
}

impl Caller {
    async fn run(self, mut queue: mpsc::Receiver<Call>) {
        let mut backoff = BACKOFF_MIN;
        while let Some(first) = queue.recv().await {
            if first.reply.is_closed() {
                continue;
            }
            let mut served = false;
            let error = match self.open().await {
                Ok(connection) => match self.converse(connection, first, &mut queue, &mut served).await {
                    Ok(Ended::Dropped) => return,
                    Ok(Ended::Changed) => continue,
                    Err(error) => CallError::Unreachable(error.to_string()),
                },
                Err(error) => fail(first, error),
            };
            tracing::info!(
                node = %self.target.name, address = %self.target.address, lane = ?self.lane, reason = %error,
                "no connection to peer"
            );
            if served {
                backoff = BACKOFF_MIN;
            }
            let pause = self.jitter(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            // Who calls meanwhile is told at once: it knows better than we whether to wait.
            let until = sleep(pause);
            tokio::pin!(until);
            loop {
                tokio::select! {
                    biased;
                    () = &mut until => break,
                    call = queue.recv() => match call {
                        Some(call) => { fail(call, error.clone()); }
                        None => return,
                    },
                }
            }
        }
    }

    /// Half of `pause` to the whole.
    fn jitter(&self, pause: Duration) -> Duration {
        let mut byte = [0];
        self.world.chance.fill(&mut byte);
        pause / 2 + pause * u32::from(byte[0]) / 510
    }

    async fn open(&self) -> Result<Connection, CallError> {
        let late = |_| CallError::Unreachable(format!("no connection within {CONNECT_WITHIN:?}"));
        timeout(CONNECT_WITHIN, self.connect()).await.map_err(late)?
    }

    async fn connect(&self) -> Result<Connection, CallError> {
        let unreachable = |e: &dyn std::fmt::Display| CallError::Unreachable(e.to_string());
        let address = &self.target.address;
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
            .ok_or_else(|| CallError::Unreachable(format!("found address {address:?}, wanted host:port")))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = self.world.net.connect(host, port).await.map_err(|e| unreachable(&e))?;
        let mut files = self.tls.clone();
        let tls = files.borrow_and_update().clone();
        let secured = tls.connect(stream, host, &self.target.name).await.map_err(|e| unreachable(&e))?;
        let (stream, certified) = secured.into_parts();
        let mut wire = Wire::new(stream);
        let me = (self.me)();
        let hello = HelloV1::of(&me, self.lane).encode();
        wire.push(&Frame::Hello(hello)).map_err(|e| unreachable(&e))?;
        match wire.next().await.map_err(|e| unreachable(&e))? {
            Frame::Hello(bytes) => {
                let hello = HelloV1::decode(bytes).map_err(|e| unreachable(&e))?;
                hello
                    .check_server(&me, &self.target, self.lane, |name| certified.check(name))
                    .map_err(|e| CallError::Refused(e.to_string()))?;
            }
            Frame::Reject(reason) => return Err(CallError::Refused(reason)),
            _ => return Err(unreachable(&WireError::Unexpected("a frame before the hello"))),
        }
        wire.allow(BODY_BYTES_MAX);
        Ok(Connection { wire, said: me, trust: Trust::new(files, certified, Instant::now()) })
    }

    async fn converse(
        &self,
        mut connection: Connection,
        first: Call,
        queue: &mut mpsc::Receiver<Call>,
        served: &mut bool,
    ) -> Result<Ended, WireError> {
        let mut unanswered = Unanswered::default();
        unanswered.send(first, &mut connection.wire)?;
        let mut successor = Successor::default();
        let mut tick = interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            let idle = unanswered.calls.is_empty();
            if let Some((next, _)) = successor.open.take_if(|_| idle) {
                connection = next;
                unanswered = Unanswered::default();
                tracing::info!(node = %self.target.name, lane = ?self.lane, "connection to peer made anew");
            }
            let may_send = connection.wire.has_room() && successor.open.is_none();
            let held_until = successor.open.as_ref().map_or_else(Instant::now, |(_, until)| *until);
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    let now = Instant::now();
                    let good = connection.wire.check(now, SILENCE_MAX);
                    if let Err(error) = good.and_then(|()| Ok(connection.trust.check(now)?)) {
                        break Err(error);
                    }
                    unanswered.forget_given_up();
                    if unanswered.calls.is_empty() && (self.me)() != connection.said {
                        break Ok(Ended::Changed);
                    }
                    connection.wire.push(&Frame::Ping)?;
                    self.succeed(&connection, &mut successor, now);
                }
                () = sleep_until(held_until), if successor.open.is_some() => {
                    successor.open = None;
                    successor.again_at = Some(Instant::now() + PING_EVERY);
                }
                opened = successor.opened() => match opened {
                    Ok(next) => successor.open = Some((next, Instant::now() + HOLD_MAX)),
                    Err(error) => {
                        successor.again_at = Some(Instant::now() + REMAKE_AGAIN);
                        tracing::warn!(
                            node = %self.target.name, lane = ?self.lane, reason = %error,
                            "the connection to the peer can not be made anew with the new certificates; the old one goes on"
                        );
                    }
                },
                frame = connection.wire.next() => match frame {
                    Ok(Frame::Pong) => {}
                    Ok(frame) => match unanswered.settle(frame) {
                        Ok(()) => *served = true,
                        Err(error) => break Err(error),
                    },
                    Err(error) => break Err(error),
                },
                call = queue.recv(), if may_send => match call {
                    Some(call) => unanswered.send(call, &mut connection.wire)?,
                    None => break Ok(Ended::Dropped),
                },
            }
        };
        if let Err(error) = &ended {
            for (_, call) in std::mem::take(&mut unanswered.calls) {
                fail(call, CallError::Unreachable(error.to_string()));
            }
        }
        ended
    }

    /// Begins a connection under the new certificates when this lane's turn has come.
    fn succeed<'a>(&'a self, present: &Connection, successor: &mut Successor<'a>, now: Instant) {
        let Some(changed_at) = present.trust.changed_at() else { return };
        let turn = changed_at + REMAKE_LANE_EVERY * u32::from(self.lane.code() - 1);
        let under_way = successor.opening.is_some() || successor.open.is_some();
        if !under_way && now >= turn && successor.again_at.is_none_or(|again| now >= again) {
            successor.opening = Some(Box::pin(self.open()));
        }
    }
}

/// Calls that were sent on this connection.
#[derive(Default)]
struct Unanswered {
    calls: BTreeMap<u64, Call>,
    id_next: u64,
}

impl Unanswered {
    fn send(&mut self, mut call: Call, wire: &mut Wire) -> Result<(), WireError> {
        if call.reply.is_closed() {
            return Ok(());
        }
        panic_point("link");
        let id = self.id_next;
        self.id_next += 1;
        let payload = std::mem::take(&mut call.payload);
        self.calls.insert(id, call);
        let kind = self.calls[&id].kind;
        Ok(wire.push(&Frame::Request { id, kind, payload })?)
    }

    fn settle(&mut self, frame: Frame) -> Result<(), WireError> {
        let (id, answer) = match frame {
            Frame::Answer { id, payload } => (id, Ok(payload)),
            Frame::Refusal { id, reason } => (id, Err(CallError::Refused(reason))),
            Frame::Overload { id } => (id, Err(CallError::Overloaded)),
            _ => return Err(WireError::Unexpected("a frame that is no answer")),
        };
        if id >= self.id_next {
            return Err(WireError::Unexpected("an answer to no request"));
        }
        // None, or nobody listening: the caller gave up before. That is its right.
        if let Some(call) = self.calls.remove(&id) {
            let _ = call.reply.send(answer);
        }
        Ok(())
    }

    fn forget_given_up(&mut self) {
        self.calls.retain(|_, call| !call.reply.is_closed());
    }
}

fn fail(call: Call, error: CallError) -> CallError {
    // The caller may have given up.
    let _ = call.reply.send(Err(error.clone()));
    error
}
