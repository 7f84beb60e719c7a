//! One data-plane thread's connections to upstreams: a bounded number each, reused while clean.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cluster::world::World;
use config::ids::UpstreamName;
use config::upstream::{Endpoint, Upstream};
use http::HeaderValue;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::body::ClientBody;
use super::head::host_of;
use super::stall::Unstalled;
use crate::refusal::Refusal;

/// Connections of one data-plane thread, by upstream. Made and used on that thread.
#[derive(Debug)]
pub struct Pool {
    world: World,
    groups: Mutex<BTreeMap<UpstreamName, Arc<Group>>>,
}

/// Connections to one upstream, as one revision of the document describes it.
#[derive(Debug)]
struct Group {
    upstream: Arc<Upstream>,
    /// One an endpoint.
    hosts: Vec<Option<HeaderValue>>,
    turn: AtomicUsize,
    /// One permit a request in flight.
    free: Arc<Semaphore>,
    /// Requests that wait for a permit; bounded by [`WAITERS_PER_CONNECTION`].
    waiting: AtomicUsize,
    /// Oldest first. In flight and idle together stay within `connections_max`.
    idle: Mutex<VecDeque<Idle>>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    endpoint: usize,
    since: Instant,
}

/// A connection; the loss of this value closes it.
#[derive(Debug)]
struct Link {
    sender: SendRequest<ClientBody>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many requests may wait for each connection that an upstream may have.
const WAITERS_PER_CONNECTION: usize = 4;
/// How often idle connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A connection in use by one request. Closed when dropped; back in the pool with [`Lease::release`].
#[derive(Debug)]
pub struct Lease {
    link: Link,
    group: Arc<Group>,
    endpoint: usize,
    /// Whether it served another request before.
    pub reused: bool,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Where it goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.group.upstream.endpoints[self.endpoint]
    }

    /// What `Host` says there.
    pub fn host(&self) -> Option<HeaderValue> {
        self.group.hosts[self.endpoint].clone()
    }

    /// To send with.
    pub fn sender(&mut self) -> &mut SendRequest<ClientBody> {
        &mut self.link.sender
    }

    /// Gives the connection back, after a complete exchange; a connection that is not ready for another is closed.
    pub fn release(self) {
        let Self { link, group, endpoint, _permit: permit, .. } = self;
        if link.sender.is_ready() {
            let mut idle = group.idle.lock();
            idle.push_back(Idle { link, endpoint, since: Instant::now() });
            drop(permit);
            let in_flight = group.in_flight();
            while idle.len() + in_flight > group.connections_max() && idle.pop_front().is_some() {}
        }
    }
}

impl Group {
    fn new(upstream: Arc<Upstream>) -> Self {
        let free = Arc::new(Semaphore::new(upstream.connections_max as usize));
        let (turn, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let hosts = upstream.endpoints.iter().map(host_of).collect();
        Self { upstream, hosts, turn, free, waiting, idle: Mutex::default() }
    }

    fn connections_max(&self) -> usize {
        self.upstream.connections_max as usize
    }

    fn in_flight(&self) -> usize {
        self.connections_max().saturating_sub(self.free.available_permits())
    }

    /// The idle connection to `endpoint` that was used last.
    fn take_idle(&self, endpoint: usize) -> Option<Link> {
        let mut idle = self.idle.lock();
        while let Some(at) = idle.iter().rposition(|idle| idle.endpoint == endpoint) {
            let Idle { link, since, .. } = idle.remove(at)?;
            if link.sender.is_ready()
                && !link.sender.is_closed()
                && since.elapsed() < self.upstream.idle_timeout
            {
                return Some(link);
            }
        }
        None
    }

    fn sweep(&self) {
        let idle_timeout = self.upstream.idle_timeout;
        self.idle.lock().retain(|idle| !idle.link.sender.is_closed() && idle.since.elapsed() < idle_timeout);
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(permit);
        }
        if self.waiting.load(Ordering::Relaxed) >= WAITERS_PER_CONNECTION * self.connections_max() {
            return Err(Refusal::Overloaded { what: "requests waiting for an upstream connection" });
        }
        let _waiting = Waiting::enter(&self.waiting);
        match timeout(self.upstream.connect_timeout, self.free.clone().acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("nobody closes this semaphore")),
            Err(_) => Err(Refusal::Overloaded { what: "no upstream connection became free in time" }),
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// An empty pool; to be called on the thread that uses it. Its sweeper ends with it.
    pub fn new(world: World) -> Arc<Self> {
        let pool = Arc::new(Self { world, groups: Mutex::default() });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// An idle connection to the endpoint whose turn it is, if there is one. Never waits.
    pub fn idle(&self, upstream: &Arc<Upstream>) -> Option<Lease> {
        let group = self.group(upstream);
        let permit = group.free.clone().try_acquire_owned().ok()?;
        let endpoint = group.turn.load(Ordering::Relaxed) % group.upstream.endpoints.len();
        let link = group.take_idle(endpoint)?;
        group.turn.fetch_add(1, Ordering::Relaxed);
        Some(Lease { link, group, endpoint, reused: true, _permit: permit })
    }

    /// A connection to `upstream`: an idle one, else a new one. Endpoints take turns; one that cannot be reached is passed
    /// over, for nothing was sent yet.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if none became free in time, [`Refusal::UpstreamUnreachable`] if no endpoint could be reached.
    pub async fn checkout(&self, upstream: &Arc<Upstream>, fresh: bool) -> Result<Lease, Refusal> {
        let group = self.group(upstream);
        let permit = group.permit().await?;
        let first = group.turn.fetch_add(1, Ordering::Relaxed);
        let count = group.upstream.endpoints.len();
        let mut why = "no endpoint".to_owned();
        for endpoint in (0..count).map(|step| first.wrapping_add(step) % count) {
            if let Some(link) = (!fresh).then(|| group.take_idle(endpoint)).flatten() {
                return Ok(Lease { link, group, endpoint, reused: true, _permit: permit });
            }
            match self.connect(upstream, endpoint).await {
                Ok(link) => return Ok(Lease { link, group, endpoint, reused: false, _permit: permit }),
                Err(found) => why = found,
            }
        }
        Err(Refusal::UpstreamUnreachable { upstream: upstream.name.clone(), why })
    }

    /// The group of this upstream; a new one if the document describes it differently now.
    fn group(&self, upstream: &Arc<Upstream>) -> Arc<Group> {
        let mut groups = self.groups.lock();
        match groups.get(&upstream.name) {
            Some(group) if Arc::ptr_eq(&group.upstream, upstream) || group.upstream == *upstream => {
                group.clone()
            }
            _ => {
                let group = Arc::new(Group::new(upstream.clone()));
                groups.insert(upstream.name.clone(), group.clone());
                group
            }
        }
    }

    async fn connect(&self, upstream: &Upstream, endpoint: usize) -> Result<Link, String> {
        let Endpoint { host, port } = &upstream.endpoints[endpoint];
        let stream = match timeout(upstream.connect_timeout, self.world.net.connect(host, *port)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("{host}:{port}: {error}")),
            Err(_) => {
                return Err(format!("{host}:{port}: no connection within {:?}", upstream.connect_timeout));
            }
        };
        let stream = TokioIo::new(Unstalled::new(stream, upstream.body_idle_timeout));
        let (sender, connection) =
            http1::handshake(stream).await.map_err(|error| format!("{host}:{port}: {error}"))?;
        // The exchange learns of its failure through the sender; an idle connection's end needs no word.
        let task = tokio::spawn(async move { drop(connection.with_upgrades().await) }).abort_handle();
        Ok(Link { sender, task })
    }
}

/// Closes connections that were idle for too long, and forgets upstreams without any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.groups.lock().retain(|_, group| {
            group.sweep();
            Arc::strong_count(group) > 1 || !group.idle.lock().is_empty()
        });
    }
}
