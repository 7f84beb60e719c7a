//! One data-plane thread's connections to upstreams: a bounded number each, reused while clean.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cluster::world::{Stream, World};
use config::ids::UpstreamName;
use config::upstream::{Endpoint, Protocol, Upstream};
use futures_util::future::Either;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::body::ClientBody;
use super::head::host_of;
use super::shared::{self, Place, Shared};
use super::stall::Unstalled;
use super::upload::Upload;
use crate::refusal::Refusal;
use crate::tls::calling::Calling;

/// Connections of one data-plane thread, by upstream. Made and used on that thread.
#[derive(Debug)]
pub struct Pool {
    world: World,
    /// Where relative files of the document are.
    folder: PathBuf,
    requests: Groups,
    copies: Groups,
}

type Groups = Mutex<BTreeMap<UpstreamName, Arc<Group>>>;

/// What connections are for. Each kind has its own, and its own bound of them: so copies that a mirror does not answer take
/// none from the requests of a route whose upstream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// What clients sent.
    Requests,
    /// What mirrors get.
    Copies,
}

/// Connections of one kind to one upstream, as one revision of the document describes it.
#[derive(Debug)]
struct Group {
    upstream: Arc<Upstream>,
    /// None: in the clear.
    calling: Option<Calling>,
    /// One an endpoint.
    hosts: Vec<Option<HeaderValue>>,
    /// Connections of HTTP/2, one list an endpoint.
    shared: Vec<Shared>,
    turn: AtomicUsize,
    /// One permit a request in flight.
    free: Arc<Semaphore>,
    /// Requests that wait for a permit; bounded by [`WAITERS_PER_CONNECTION`].
    waiting: AtomicUsize,
    /// Connections of HTTP/1.1, oldest first. In flight and idle together stay within `connections_max`.
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

/// What a request is sent over.
#[derive(Debug)]
enum Wire {
    /// A connection of its own, for now.
    Own(Link),
    /// A place among others.
    Shared(Place),
}

/// What one request is sent over. When dropped, a connection of its own is closed, and a place on a shared one is left;
/// back in the pool with [`Lease::release`].
#[derive(Debug)]
pub struct Lease {
    wire: Wire,
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

    /// What is spoken there, and whether it is secured.
    pub fn speech(&self) -> (Protocol, bool) {
        (self.group.upstream.protocol, self.group.upstream.tls.is_some())
    }

    /// How its body fares, where others share the connection.
    pub(super) fn upload(&self) -> Option<&Upload> {
        match &self.wire {
            Wire::Own(_) => None,
            Wire::Shared(place) => Some(&place.upload),
        }
    }

    /// Sends a request, and yields the response's head.
    pub fn send(
        &mut self,
        request: Request<ClientBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<ClientBody>>>> + use<> {
        match &mut self.wire {
            Wire::Own(link) => Either::Left(link.sender.try_send_request(request)),
            Wire::Shared(place) => Either::Right(place.send(request)),
        }
    }

    /// Gives the connection back, after a complete exchange; a connection that is not ready for another is closed.
    pub fn release(self) {
        let Self { wire, group, endpoint, _permit: permit, .. } = self;
        let Wire::Own(link) = wire else { return };
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
    fn new(upstream: Arc<Upstream>, world: &World, folder: &Path) -> Self {
        let in_flight_max = match upstream.protocol {
            Protocol::Http1 => upstream.connections_max as usize,
            Protocol::Http2 => upstream.connections_max as usize * upstream.streams_max as usize,
        };
        let free = Arc::new(Semaphore::new(in_flight_max));
        let (turn, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let hosts = upstream.endpoints.iter().map(|it| host_of(it, upstream.tls.is_some())).collect();
        let shared = upstream.endpoints.iter().map(|_| Shared::default()).collect();
        let calling = upstream.tls.clone();
        let calling =
            calling.map(|tls| Calling::new(world.clone(), folder.to_owned(), tls, upstream.protocol));
        Self { upstream, calling, hosts, shared, turn, free, waiting, idle: Mutex::default() }
    }

    fn connections_max(&self) -> usize {
        self.upstream.connections_max as usize
    }

    fn in_flight(&self) -> usize {
        self.connections_max().saturating_sub(self.free.available_permits())
    }

    /// Something to send over to `endpoint` at once, and whether it served before.
    fn ready(&self, endpoint: usize) -> Option<(Wire, bool)> {
        match self.upstream.protocol {
            Protocol::Http1 => self.take_idle(endpoint).map(|link| (Wire::Own(link), true)),
            Protocol::Http2 => self.shared[endpoint].place().map(of_place),
        }
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
        self.shared.iter().for_each(|shared| shared.sweep(idle_timeout));
        self.idle.lock().retain(|idle| !idle.link.sender.is_closed() && idle.since.elapsed() < idle_timeout);
    }

    fn is_unused(&self) -> bool {
        self.idle.lock().is_empty() && self.shared.iter().all(|shared| shared.count() == 0)
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
    ///
    /// - `folder`: where relative files of the document are.
    pub fn new(world: World, folder: PathBuf) -> Arc<Self> {
        let (requests, copies) = (Groups::default(), Groups::default());
        let pool = Arc::new(Self { world, folder, requests, copies });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// An idle connection to the endpoint whose turn it is, if there is one. Never waits.
    pub fn idle(&self, upstream: &Arc<Upstream>, traffic: Traffic) -> Option<Lease> {
        let group = self.group(upstream, traffic);
        let permit = group.free.clone().try_acquire_owned().ok()?;
        let endpoint = group.turn.load(Ordering::Relaxed) % group.upstream.endpoints.len();
        let (wire, reused) = group.ready(endpoint)?;
        group.turn.fetch_add(1, Ordering::Relaxed);
        Some(Lease { wire, group, endpoint, reused, _permit: permit })
    }

    /// A connection to `upstream`: an idle one, else a new one. Endpoints take turns; one that cannot be reached is passed
    /// over, for nothing was sent yet.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if none became free in time, [`Refusal::UpstreamUnreachable`] if no endpoint could be reached.
    pub async fn checkout(
        &self,
        upstream: &Arc<Upstream>,
        traffic: Traffic,
        fresh: bool,
    ) -> Result<Lease, Refusal> {
        let group = self.group(upstream, traffic);
        let permit = group.permit().await?;
        let first = group.turn.fetch_add(1, Ordering::Relaxed);
        let count = group.upstream.endpoints.len();
        let mut why = "no endpoint".to_owned();
        for endpoint in (0..count).map(|step| first.wrapping_add(step) % count) {
            let opened = match (!fresh).then(|| group.ready(endpoint)).flatten() {
                Some(ready) => Ok(ready),
                None => self.open(&group, endpoint, fresh).await,
            };
            match opened {
                Ok((wire, reused)) => return Ok(Lease { wire, group, endpoint, reused, _permit: permit }),
                Err(found) => why = found,
            }
        }
        Err(Refusal::UpstreamUnreachable { upstream: upstream.name.clone(), why })
    }

    /// The group of this upstream; a new one if the document describes it differently now.
    fn group(&self, upstream: &Arc<Upstream>, traffic: Traffic) -> Arc<Group> {
        let groups = match traffic {
            Traffic::Requests => &self.requests,
            Traffic::Copies => &self.copies,
        };
        let mut groups = groups.lock();
        match groups.get(&upstream.name) {
            Some(group) if Arc::ptr_eq(&group.upstream, upstream) || group.upstream == *upstream => {
                group.clone()
            }
            _ => {
                let group = Arc::new(Group::new(upstream.clone(), &self.world, &self.folder));
                groups.insert(upstream.name.clone(), group.clone());
                group
            }
        }
    }

    /// A new connection to `endpoint`; or a place on one that somebody else has made meanwhile, unless it must be `fresh`.
    async fn open(&self, group: &Group, endpoint: usize, fresh: bool) -> Result<(Wire, bool), String> {
        let Endpoint { host, port } = &group.upstream.endpoints[endpoint];
        let opening = async {
            match group.upstream.protocol {
                Protocol::Http1 => self.own(group, endpoint).await.map(|link| (Wire::Own(link), false)),
                Protocol::Http2 => self.share(group, endpoint, fresh).await.map(of_place),
            }
        };
        let patience = group.upstream.connect_timeout;
        match timeout(patience, opening).await {
            Ok(opened) => opened.map_err(|why| format!("{host}:{port}: {why}")),
            Err(_) => Err(format!("{host}:{port}: no connection within {patience:?}")),
        }
    }

    async fn own(&self, group: &Group, endpoint: usize) -> Result<Link, String> {
        let stream = self.connect(group, endpoint).await?;
        let stream = TokioIo::new(Unstalled::new(stream, group.upstream.body_idle_timeout));
        let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
        // The exchange learns of its failure through the sender; an idle connection's end needs no word.
        let task = tokio::spawn(async move { drop(connection.with_upgrades().await) }).abort_handle();
        Ok(Link { sender, task })
    }

    async fn share(&self, group: &Group, endpoint: usize, fresh: bool) -> Result<Place, String> {
        let shared = &group.shared[endpoint];
        let _making = shared.making.lock().await;
        if let Some(place) = (!fresh).then(|| shared.place()).flatten() {
            return Ok(place);
        }
        if group.shared.iter().map(Shared::count).sum::<usize>() >= group.connections_max() {
            // One that has not looked at a request may look at it the second time.
            let place = shared.place();
            return place.ok_or_else(|| "as many connections as there may be, all of them full".to_owned());
        }
        let stream = self.connect(group, endpoint).await?;
        let fresh = shared::begin(&group.upstream, stream).await.map_err(|error| error.to_string())?;
        shared.add(fresh).ok_or_else(|| "a new connection without a place".to_owned())
    }

    async fn connect(&self, group: &Group, endpoint: usize) -> Result<Box<dyn Stream>, String> {
        let Endpoint { host, port } = &group.upstream.endpoints[endpoint];
        let stream = self.world.net.connect(host, *port).await.map_err(|error| error.to_string())?;
        match &group.calling {
            Some(calling) => calling.secure(stream, host).await,
            None => Ok(stream),
        }
    }
}

fn of_place(place: Place) -> (Wire, bool) {
    let reused = place.reused;
    (Wire::Shared(place), reused)
}

/// Closes connections that were idle for too long, and forgets upstreams without any.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        for groups in [&pool.requests, &pool.copies] {
            groups.lock().retain(|_, group| {
                group.sweep();
                Arc::strong_count(group) > 1 || !group.is_unused()
            });
        }
    }
}
