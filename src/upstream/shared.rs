//! HTTP/2 connections: each serves many requests at once, up to a bound.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster::world::Stream;
use config::upstream::Upstream;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::body::ClientBody;
use super::stall::Unstalled;
use super::upload::{Courier, Tasks, Upload};

/// Held of a response whose client reads slowly.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Silence of the other side after which a connection with requests is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(10);
/// How long it may take to say so.
const PING_WITHIN: Duration = Duration::from_secs(5);
/// Of a response's head.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// A connection; the loss of this value closes it.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<ClientBody>,
    task: AbortHandle,
    tasks: Tasks,
    /// A place a request.
    places: Arc<Semaphore>,
    places_max: usize,
    /// Requests at once that the other side takes, as far as it has said so.
    taken: Arc<AtomicUsize>,
    used: AtomicBool,
    last_used: Mutex<Instant>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
        // What they wait for might never come.
        self.tasks.abort();
    }
}

/// One request's place on a connection.
#[derive(Debug)]
pub(super) struct Place {
    sender: SendRequest<ClientBody>,
    /// Whether the connection served another request before.
    pub(super) reused: bool,
    pub(super) upload: Arc<Upload>,
    connection: Arc<Connection>,
    courier: Option<Courier>,
    /// Its loss ends the sending of the request's body.
    _wanted: oneshot::Sender<Infallible>,
}

impl Place {
    /// Sends a request, and yields the response's head. A place serves one.
    pub(super) fn send(
        &mut self,
        mut request: Request<ClientBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<ClientBody>>>> + use<> {
        if let Some(courier) = self.courier.take() {
            request.body_mut().go_with(courier);
        }
        self.sender.try_send_request(request)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.connection.last_used.lock() = Instant::now();
    }
}

/// The connections to one endpoint, oldest first. New requests fill the first one that has room, so that no more are open
/// than are needed.
#[derive(Debug, Default)]
pub(super) struct Shared {
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Whoever finds no place waits for the one who makes a connection.
    pub(super) making: tokio::sync::Mutex<()>,
}

impl Shared {
    /// A place on a connection that is there.
    pub(super) fn place(&self) -> Option<Place> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        connections.iter().find_map(Connection::place)
    }

    /// A place on a connection that is added.
    pub(super) fn add(&self, connection: Fresh) -> Option<Place> {
        let place = connection.0.place();
        self.connections.lock().push(connection.0);
        place
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        connections.len()
    }

    /// Lets go of those that were closed, and of those that were unused for too long.
    pub(super) fn sweep(&self, idle_timeout: Duration) {
        self.connections.lock().retain(|connection| {
            let busy = connection.places.available_permits() < connection.places_max;
            let in_time = || connection.last_used.lock().elapsed() < idle_timeout;
            !connection.sender.is_closed() && (busy || in_time())
        });
    }
}

/// A connection that serves nobody yet.
pub(super) struct Fresh(Arc<Connection>);

impl Connection {
    fn place(self: &Arc<Self>) -> Option<Place> {
        // Until the other side has said how many requests it takes, hyper counts with one, and holds the others back: a
        // connection that takes one is not told from a new one, and is not full with it.
        let taken = self.taken.load(Ordering::Relaxed);
        let in_use = self.places_max - self.places.available_permits();
        if taken > 1 && in_use >= taken {
            return None;
        }
        let permit = self.places.clone().try_acquire_owned().ok()?;
        let reused = self.used.swap(true, Ordering::Relaxed);
        let upload = Upload::new(permit);
        let (wanted, unwanted) = oneshot::channel();
        let courier = Some(Courier::new(upload.clone(), self.tasks.clone(), unwanted));
        let (sender, connection) = (self.sender.clone(), self.clone());
        Some(Place { sender, reused, upload, connection, courier, _wanted: wanted })
    }
}

/// Begins to speak HTTP/2, which the other side is known to speak.
pub(super) async fn begin(upstream: &Upstream, stream: Box<dyn Stream>) -> hyper::Result<Fresh> {
    let places_max = upstream.streams_max as usize;
    let stream = TokioIo::new(Unstalled::new(stream, upstream.body_idle_timeout));
    let tasks = Tasks::new(upstream.body_idle_timeout);
    let (sender, mut connection) = Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_WITHIN)
        // Requests beyond what the other side takes would be refused, so none are sent before it has said how many.
        .initial_max_send_streams(1)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        // Responses that nobody reads hold all the windows of their streams, and must not stop others.
        .initial_connection_window_size(STREAM_WINDOW_BYTES.saturating_mul(upstream.streams_max))
        .max_header_list_size(HEAD_BYTES_MAX)
        .handshake(stream)
        .await?;
    // Requests learn of its failure through the sender; an unused connection's end needs no word.
    let taken = Arc::new(AtomicUsize::new(1));
    let told = taken.clone();
    let driven = std::future::poll_fn(move |cx| {
        let driven = connection.poll_unpin(cx);
        told.store(connection.current_max_send_streams(), Ordering::Relaxed);
        driven
    });
    let task = tokio::spawn(async move { drop(driven.await) }).abort_handle();
    Ok(Fresh(Arc::new(Connection {
        sender,
        task,
        tasks,
        places: Arc::new(Semaphore::new(places_max)),
        places_max,
        taken,
        used: AtomicBool::new(false),
        last_used: Mutex::new(Instant::now()),
    })))
}
