//! Bodies of requests on their way over a shared connection.
//!
//! hyper sends each in a task of its own. While the other side takes nothing, that task waits for room alone: it asks neither
//! for the body's next piece nor whether anybody wants the answer still. So its end is ours to decide: nobody wants the
//! answer, or the other side has left a piece untaken for too long. The stream of a task that ends early is reset, unless
//! its answer is read still.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

/// One request's body, as hyper, its sender and its forwarder see it.
#[derive(Debug)]
pub(super) struct Upload {
    stage: Mutex<Stage>,
    answered: AtomicBool,
    /// A place is taken for as long as hyper has the request, too.
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The other side has yet to make room for the request.
    Queued,
    /// hyper waits for the next piece.
    Asked,
    /// hyper has one that the other side may not have taken.
    Holds { since: Instant },
    /// hyper has let go of the body.
    Over,
    /// The other side did not take a piece in time.
    GivenUp,
}

impl Upload {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Arc<Self> {
        let (stage, answered) = (Mutex::new(Stage::Queued), AtomicBool::new(false));
        Arc::new(Self { stage, answered, _permit: permit })
    }

    fn stage(&self) -> Stage {
        *self.stage.lock()
    }

    /// Whether the other side has yet to make room for the request.
    pub(super) fn is_queued(&self) -> bool {
        self.stage() == Stage::Queued
    }

    /// Whether the other side did not take a piece in time.
    pub(super) fn is_given_up(&self) -> bool {
        self.stage() == Stage::GivenUp
    }

    /// The head of the answer has come.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }
}

/// What goes with a body, and tells where it is.
#[derive(Debug)]
pub(super) struct Courier {
    upload: Arc<Upload>,
    tasks: Tasks,
    unwanted: Option<oneshot::Receiver<Infallible>>,
}

impl Courier {
    /// - `unwanted`: ends once nobody wants the answer.
    pub(super) fn new(upload: Arc<Upload>, tasks: Tasks, unwanted: oneshot::Receiver<Infallible>) -> Self {
        Self { upload, tasks, unwanted: Some(unwanted) }
    }

    /// hyper asks for the next piece.
    pub(super) fn asked(&mut self) {
        *self.upload.stage.lock() = Stage::Asked;
        if let Some(unwanted) = self.unwanted.take() {
            *self.tasks.0.begun.lock() = Some(Begun { upload: self.upload.clone(), unwanted });
        }
    }

    /// It was given one.
    pub(super) fn given(&self) {
        *self.upload.stage.lock() = Stage::Holds { since: Instant::now() };
    }

    /// Whether the head of the answer has come.
    pub(super) fn is_answered(&self) -> bool {
        self.upload.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        let mut stage = self.upload.stage.lock();
        if *stage != Stage::GivenUp {
            *stage = Stage::Over;
        }
    }
}

/// hyper's tasks for one connection.
#[derive(Clone, Debug)]
pub(super) struct Tasks(Arc<Running>);

#[derive(Debug)]
struct Running {
    patience: Duration,
    /// hyper asks for a body's first piece itself, and hands over its task right after that, unless it was the last one.
    begun: Mutex<Option<Begun>>,
    running: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Begun {
    upload: Arc<Upload>,
    unwanted: oneshot::Receiver<Infallible>,
}

impl Tasks {
    /// - `patience`: how long the other side may leave a piece untaken.
    pub(super) fn new(patience: Duration) -> Self {
        Self(Arc::new(Running { patience, begun: Mutex::default(), running: Mutex::default() }))
    }

    /// Ends all of them.
    pub(super) fn abort(&self) {
        self.0.running.lock().abort_all();
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, work: F) {
        let begun = self.0.begun.lock().take().filter(|begun| begun.upload.stage() != Stage::Over);
        let mut running = self.0.running.lock();
        // One that panicked has told so, and ended what it served.
        while running.try_join_next().is_some() {}
        match begun {
            Some(Begun { upload, unwanted }) => {
                let (work, patience) = (Box::pin(work), self.0.patience);
                running.spawn(Sending { work, upload, unwanted, patience, timer: None })
            }
            None => running.spawn(work),
        };
    }
}

/// hyper's task for one body.
struct Sending<F> {
    work: Pin<Box<F>>,
    upload: Arc<Upload>,
    unwanted: oneshot::Receiver<Infallible>,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Sending<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.unwanted).poll(cx).is_ready() || self.work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Stage::Holds { since } = self.upload.stage() else { return Poll::Pending };
        let due = since + self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        *self.upload.stage.lock() = Stage::GivenUp;
        Poll::Ready(())
    }
}
