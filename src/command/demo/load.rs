//! Sends the players' requests, open loop, and keeps what came of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::players::Player;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(5);
const IN_FLIGHT_MAX: u64 = 4_000;

/// A node as the load sees it, like a load balancer would.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    up: AtomicBool,
    /// Rises at each kill: a request that fails across one was lost with the node.
    kills: AtomicU64,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Target {
    /// A running node.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, up: AtomicBool::new(true), kills: AtomicU64::new(0), idle: Mutex::default() }
    }

    /// Called just before the node is killed: no new requests.
    pub fn take_out(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
        self.up.store(false, Ordering::SeqCst);
        self.idle.lock().clear();
    }

    /// Called when the node is ready again.
    pub fn put_back(&self) {
        self.up.store(true, Ordering::SeqCst);
    }
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 200.
    Served,
    /// 429.
    OverQuota,
    /// 503 with the problem `quota-undecided`.
    Undecided,
    /// 403: its token lacks a scope.
    Forbidden,
    /// Anything else that a surviving node did.
    Failed(String),
    /// Its node was killed while it was under way.
    LostWithNode,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Index into the players.
    pub player: usize,
    /// Index into the nodes.
    pub node: usize,
    /// CLOCK_BOOTTIME, ns.
    pub sent_ns: u64,
    /// CLOCK_BOOTTIME, ns.
    pub answered_ns: u64,
    /// What came of it.
    pub fate: Fate,
}

/// The running load.
#[derive(Debug)]
pub struct Load {
    targets: Arc<Vec<Target>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    in_flight: Arc<AtomicU64>,
    /// Requests that were not sent because too many were under way; a drive with any is not a fair one.
    skipped: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts sending what `players` send, for `duration`.
    ///
    /// # Errors
    /// If a token cannot be minted.
    pub fn start(targets: Arc<Vec<Target>>, players: &[Player], duration: Duration) -> Result<Self, String> {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let in_flight = Arc::new(AtomicU64::new(0));
        let skipped = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for (index, player) in players.iter().copied().enumerate() {
            let token = super::town::token(player.tenant, &format!("{}-client", player.tenant))?;
            let sender = Sender {
                index,
                player,
                authorization: Arc::from(format!("Bearer {token}")),
                targets: targets.clone(),
                sent: sent.clone(),
                in_flight: in_flight.clone(),
                skipped: skipped.clone(),
            };
            tasks.push(tokio::spawn(sender.run(duration)));
        }
        Ok(Self { targets, sent, in_flight, skipped, tasks })
    }

    /// The nodes.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Fates so far: served, over quota, undecided, failed, lost with a node.
    pub fn counts(&self) -> [usize; 5] {
        let mut counts = [0; 5];
        for sent in self.sent.lock().iter() {
            counts[match sent.fate {
                Fate::Served => 0,
                Fate::OverQuota => 1,
                Fate::Undecided => 2,
                Fate::Failed(_) | Fate::Forbidden => 3,
                Fate::LostWithNode => 4,
            }] += 1;
        }
        counts
    }

    /// Waits for the last answers. Returns every request, and how many were not sent for want of room.
    pub async fn finish(self) -> (Vec<Sent>, u64) {
        for task in self.tasks {
            // A sender has no way to fail; a panic in it shows as missing requests.
            let _ = task.await;
        }
        let until = Instant::now() + ANSWER_WITHIN;
        while self.in_flight.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            tokio::time::sleep(TICK).await;
        }
        (std::mem::take(&mut self.sent.lock()), self.skipped.load(Ordering::SeqCst))
    }
}

#[derive(Clone)]
struct Sender {
    index: usize,
    player: Player,
    authorization: Arc<str>,
    targets: Arc<Vec<Target>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    in_flight: Arc<AtomicU64>,
    skipped: Arc<AtomicU64>,
}

impl Sender {
    async fn run(self, duration: Duration) {
        let start = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut number = 0;
        while start.elapsed() < duration {
            ticks.tick().await;
            let at_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            while number * 1000 < at_ms * self.player.offered_per_s {
                let first = self.player.spread.pick(number, at_ms, self.targets.len());
                number += 1;
                let up = |node: &usize| self.targets[*node].up.load(Ordering::SeqCst);
                let Some(node) = (0..self.targets.len()).map(|k| (first + k) % self.targets.len()).find(up)
                else {
                    continue;
                };
                if self.in_flight.fetch_add(1, Ordering::SeqCst) >= IN_FLIGHT_MAX {
                    self.in_flight.fetch_sub(1, Ordering::SeqCst);
                    self.skipped.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let sender = self.clone();
                tokio::spawn(async move {
                    let target = &sender.targets[node];
                    let kills = target.kills.load(Ordering::SeqCst);
                    let sent_ns = boot_ns();
                    let exchange = exchange(target, sender.player.path, &sender.authorization);
                    let fate = match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
                        Ok(Ok(fate)) => fate,
                        _ if target.kills.load(Ordering::SeqCst) != kills => Fate::LostWithNode,
                        Ok(Err(error)) => Fate::Failed(error),
                        Err(_) => Fate::Failed(format!("no answer within {ANSWER_WITHIN:?}")),
                    };
                    let (player, answered_ns) = (sender.index, boot_ns());
                    let sent = Sent { player, node, sent_ns, answered_ns, fate };
                    sender.sent.lock().push(sent);
                    sender.in_flight.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
}

async fn exchange(target: &Target, path: &str, authorization: &str) -> Result<Fate, String> {
    // Nobody else holds the lock across an await: it is taken and given back inside this statement.
    let idle = target.idle.lock().pop();
    let mut sender = match idle.filter(|sender| !sender.is_closed()) {
        Some(sender) => sender,
        None => connect(target.address).await?,
    };
    let request = Request::builder()
        .uri(path)
        .header(hyper::header::HOST, "orders.example")
        .header(hyper::header::AUTHORIZATION, authorization)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    sender.ready().await.map_err(|error| error.to_string())?;
    let (head, body) = sender.send_request(request).await.map_err(|error| error.to_string())?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    target.idle.lock().push(sender);
    Ok(match head.status {
        StatusCode::OK => Fate::Served,
        StatusCode::TOO_MANY_REQUESTS => Fate::OverQuota,
        StatusCode::FORBIDDEN => Fate::Forbidden,
        StatusCode::SERVICE_UNAVAILABLE if contains(&body, b"quota-undecided") => Fate::Undecided,
        status => Fate::Failed(format!("{status}: {}", String::from_utf8_lossy(&body))),
    })
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream =
        tokio::net::TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

/// CLOCK_BOOTTIME in ns: the clock that the nodes of this machine stamp admissions with.
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
