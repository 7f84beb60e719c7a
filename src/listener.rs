//! The accepting side of one data-plane thread: an actor that owns its accept loops, one for each port, and supervises their
//! connections.
//!
//! The node keeps the sockets and hands them in, so that a listener that is started again takes over the same accept queues. A
//! connection takes its place in the process's budget before anything is spawned for it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cluster::fatal::panic_text;
use cluster::hooks::panic_point;
use cluster::world::Listener as Socket;
use futures_util::FutureExt;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::connection::{self, Accepted, ConnectionActor, Entrance};
use crate::journey::Gateway;
use crate::node::restarts::{Restart, Restarts};

/// A listening socket that outlives its listener.
#[derive(Clone)]
pub struct Door {
    socket: Arc<Mutex<Box<dyn Socket>>>,
    address: std::net::SocketAddr,
    entrance: Entrance,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({})", self.address)
    }
}

impl Door {
    /// Keeps `socket`, whose connections come in by `entrance`.
    pub fn new(socket: Box<dyn Socket>, mut entrance: Entrance) -> Self {
        let address = socket.local_addr();
        entrance.port = address.port();
        Self { socket: Arc::new(Mutex::new(socket)), address, entrance }
    }

    /// Where it listens; the port is never 0.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Whether it is for TLS.
    pub fn is_tls(&self) -> bool {
        self.entrance.tls.is_some()
    }
}

/// How many client connections this process takes at once. Cheap to clone; shared by all threads.
#[derive(Clone, Debug)]
pub struct Budget {
    places: Arc<Semaphore>,
}

impl Budget {
    /// `limits.connections_max` places.
    pub fn new(connections_max: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(connections_max as usize)) }
    }
}

/// The handle of one running listener.
#[derive(Clone, Debug)]
pub struct Listener {
    actor: ActorRef<Msg>,
    open: watch::Receiver<u32>,
}

impl Listener {
    /// Starts accepting at all `doors` under `supervisor`, on the calling thread's runtime, where all its connections then live.
    ///
    /// # Errors
    /// If the actor cannot be spawned.
    pub async fn start(
        doors: Vec<Door>,
        gateway: Arc<Gateway>,
        budget: Budget,
        supervisor: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let (open, watched) = watch::channel(0);
        let arguments = Arguments { doors, gateway, budget, open };
        let (actor, _) = Actor::spawn_linked(None, ListenerActor, arguments, supervisor).await?;
        Ok(Self { actor, open: watched })
    }

    /// For the supervisor: names the actor in its events.
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Stops accepting, lets requests at hand finish, and ends when all connections have, or after `patience`; what is still
    /// open then is cut. Yields how many were.
    pub async fn drain(&self, patience: Duration) -> u32 {
        let mut open = self.open.clone();
        if self.actor.send_message(Msg::Drain).is_err() {
            return 0;
        }
        // An error says that the actor is gone, and with it every connection.
        let _ = timeout(patience, open.wait_for(|open| *open == 0)).await;
        let cut = *open.borrow();
        self.actor.stop(None);
        cut
    }
}

/// What a listener is told.
#[derive(Debug)]
pub enum Msg {
    /// From the node: accept no more, let requests finish.
    Drain,
    /// From an accept loop, which never ends in order: its place, and the text of its panic.
    Panicked(usize, String),
}

/// The actor's arguments.
pub struct Arguments {
    doors: Vec<Door>,
    gateway: Arc<Gateway>,
    budget: Budget,
    open: watch::Sender<u32>,
}

/// What the accept loop needs, each time it begins.
#[derive(Clone)]
struct Hall {
    door: Door,
    gateway: Arc<Gateway>,
    budget: Budget,
    open: Arc<watch::Sender<u32>>,
}

/// The accept loop panicked too often; another listener would fare no better.
#[derive(Debug, thiserror::Error)]
#[error("the accept loop panicked too often, last: {0}")]
pub struct GaveUp(String);

/// What the actor keeps.
pub struct State {
    accepting: Vec<AbortHandle>,
    /// One for each door.
    halls: Vec<Hall>,
    gateway: Arc<Gateway>,
    open: Arc<watch::Sender<u32>>,
    draining: bool,
    restarts: Restarts,
}

impl State {
    fn stop_accepting(&self) {
        self.accepting.iter().for_each(AbortHandle::abort);
    }
}

/// However the actor ends, it lets go of the sockets.
impl Drop for State {
    fn drop(&mut self) {
        self.stop_accepting();
    }
}

/// The actor.
#[derive(Debug)]
pub struct ListenerActor;

impl Actor for ListenerActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, me: ActorRef<Msg>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { doors, gateway, budget, open } = arguments;
        let open = Arc::new(open);
        let hall = |door| Hall { door, gateway: gateway.clone(), budget: budget.clone(), open: open.clone() };
        let halls: Vec<Hall> = doors.into_iter().map(hall).collect();
        let accepting =
            halls.iter().enumerate().map(|(place, hall)| begin(place, hall, me.clone())).collect();
        Ok(State { accepting, halls, gateway, open, draining: false, restarts: Restarts::default() })
    }

    async fn handle(&self, me: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Drain => {
                state.draining = true;
                state.stop_accepting();
                for connection in me.get_cell().get_children() {
                    // One that has just ended needs no word.
                    let _ = connection.send_message(connection::Msg::Drain);
                }
                Ok(())
            }
            Msg::Panicked(..) if state.draining => Ok(()),
            // The connections know nothing of it, and go on.
            Msg::Panicked(place, text) => match state.restarts.ask(state.gateway.world.clock.boot()) {
                Restart::Allowed => {
                    error!(panic = text, "accept loop panicked, started again");
                    state.accepting[place] = begin(place, &state.halls[place], me);
                    Ok(())
                }
                Restart::Exhausted => Err(GaveUp(text).into()),
            },
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, reason) => {
                error!(%reason, "connection actor failed");
                state.open.send_modify(|open| *open = open.saturating_sub(1));
            }
            SupervisionEvent::ActorTerminated(..) => {
                state.open.send_modify(|open| *open = open.saturating_sub(1))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(&self, me: ActorRef<Msg>, _: &mut State) -> Result<(), ActorProcessingErr> {
        me.get_cell().stop_children(None);
        Ok(())
    }
}

/// Waits after an error: the usual cause is too many open files, which only time heals.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Begins to accept, in a task of its own whose panic is a message.
fn begin(place: usize, hall: &Hall, me: ActorRef<Msg>) -> AbortHandle {
    let accepting = AssertUnwindSafe(accept(hall.clone(), me.get_cell())).catch_unwind();
    let task = tokio::spawn(async move {
        let Err(panic) = accepting.await;
        // The actor may have been stopped: then nobody asks.
        let _ = me.send_message(Msg::Panicked(place, panic_text(&*panic)));
    });
    task.abort_handle()
}

/// Takes connections for ever.
async fn accept(hall: Hall, me: ActorCell) -> std::convert::Infallible {
    let Hall { door, gateway, budget, open } = hall;
    // The loop before ours may have been aborted an instant ago; it lets go at its next wait.
    let mut socket = door.socket.lock().await;
    let mut back_off = BACK_OFF_MIN;
    loop {
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) if concerns_one_client(&error) => continue,
            Err(error) => {
                warn!(%error, back_off_ms = back_off.as_millis() as u64, "accept failed");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                continue;
            }
        };
        back_off = BACK_OFF_MIN;
        panic_point("listener");
        let Ok(permit) = budget.places.clone().try_acquire_owned() else {
            gateway.recorder.connection_refused();
            continue;
        };
        let entrance = door.entrance.clone();
        let accepted = Accepted { stream, peer, gateway: gateway.clone(), permit, entrance };
        open.send_modify(|open| *open += 1);
        if let Err(error) = Actor::spawn_linked(None, ConnectionActor, accepted, me.clone()).await {
            open.send_modify(|open| *open = open.saturating_sub(1));
            warn!(%error, "connection actor did not start");
        }
    }
}

/// The client went away before it was accepted.
fn concerns_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use cluster::world::{BoxFuture, Stream};
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;
    use crate::journey::tests::quiet_gateway;
    use crate::telemetry::Telemetry;

    /// Connections as a channel.
    struct Channel(mpsc::Receiver<DuplexStream>);

    impl Socket for Channel {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
            Box::pin(async {
                match self.0.recv().await {
                    Some(stream) => {
                        let stream: Box<dyn Stream> = Box::new(stream);
                        Ok((stream, ([192, 0, 2, 9], 4000).into()))
                    }
                    None => std::future::pending().await,
                }
            })
        }
        fn local_addr(&self) -> SocketAddr {
            ([127, 0, 0, 1], 80).into()
        }
    }

    struct Node;

    impl Actor for Node {
        type Msg = ();
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
        async fn handle_supervisor_evt(
            &self,
            _: ActorRef<()>,
            _: SupervisionEvent,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    async fn connect(clients: &mpsc::Sender<DuplexStream>) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        clients.send(theirs).await.expect("the socket is kept");
        sleep(Duration::from_millis(1)).await;
        ours
    }

    async fn is_closed(client: &mut DuplexStream) -> bool {
        timeout(Duration::from_millis(1), client.read(&mut [0])).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_beyond_the_budget_is_closed_at_once() {
        // given room for one connection
        let (clients, socket) = mpsc::channel(8);
        let telemetry = Telemetry::new();
        let (node, _) = Actor::spawn(None, Node, ()).await.expect("the node starts");
        let door = Door::new(Box::new(Channel(socket)), Entrance::default());
        let listener =
            Listener::start(vec![door], quiet_gateway(&telemetry), Budget::new(1), node.get_cell()).await;
        let listener = listener.expect("the listener starts");
        // when two clients come
        let (mut first, mut second) = (connect(&clients).await, connect(&clients).await);
        // then the second is closed, and the first is not, until the listener drains
        assert!(is_closed(&mut second).await && !is_closed(&mut first).await);
        assert_eq!(listener.drain(Duration::from_secs(1)).await, 0);
        assert!(is_closed(&mut first).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_is_started_again_takes_over_the_accept_queue() {
        // given a listener that has ended, and a client that came meanwhile
        let (clients, socket) = mpsc::channel(8);
        let telemetry = Telemetry::new();
        let (node, _) = Actor::spawn(None, Node, ()).await.expect("the node starts");
        let (door, budget) = (Door::new(Box::new(Channel(socket)), Entrance::default()), Budget::new(8));
        let start = || {
            Listener::start(vec![door.clone()], quiet_gateway(&telemetry), budget.clone(), node.get_cell())
        };
        let first = start().await.expect("the listener starts");
        first.actor.stop_and_wait(None, None).await.expect("it stops");
        let mut client = connect(&clients).await;
        assert_eq!(telemetry.summary().connections, 0);
        // when it is started again
        let _second = start().await.expect("the listener starts");
        sleep(Duration::from_millis(1)).await;
        // then the client is served
        assert!(!is_closed(&mut client).await);
        assert_eq!(telemetry.summary().connections, 1);
    }

    /// Connections as a channel; none stands for a panic in the accept loop.
    struct Trapped(mpsc::Receiver<Option<DuplexStream>>);

    impl Socket for Trapped {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
            Box::pin(async {
                let stream = self.0.recv().await.expect("clients are kept").expect("it is a trap");
                Ok((Box::new(stream) as Box<dyn Stream>, ([192, 0, 2, 9], 4000).into()))
            })
        }
        fn local_addr(&self) -> SocketAddr {
            ([127, 0, 0, 1], 80).into()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_outlive_a_panic_of_the_accept_loop_until_there_are_too_many() {
        // given a connection
        let (clients, socket) = mpsc::channel(8);
        let telemetry = Telemetry::new();
        let (node, _) = Actor::spawn(None, Node, ()).await.expect("the node starts");
        let door = Door::new(Box::new(Trapped(socket)), Entrance::default());
        let listener =
            Listener::start(vec![door], quiet_gateway(&telemetry), Budget::new(8), node.get_cell()).await;
        let listener = listener.expect("the listener starts");
        let connect = async || {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            clients.send(Some(theirs)).await.expect("the socket is kept");
            sleep(Duration::from_millis(1)).await;
            ours
        };
        let mut first = connect().await;
        // when the accept loop panics as often as it may
        for _ in 0..Restarts::MAX {
            clients.send(None).await.expect("the socket is kept");
        }
        // then the connection is open, and another one is accepted
        let mut second = connect().await;
        assert!(!is_closed(&mut first).await && !is_closed(&mut second).await);
        assert_eq!(telemetry.summary().connections, 2);
        // when it panics once more
        clients.send(None).await.expect("the socket is kept");
        sleep(Duration::from_millis(1)).await;
        // then the listener has ended
        assert_eq!(listener.actor.get_status(), ractor::ActorStatus::Stopped);
        assert!(is_closed(&mut first).await);
    }
}
