//! What the replica and the node around it tell each other of coming and going.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// Whether this node is on its way out of its cluster. Only ever goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parting {
    /// It stays.
    #[default]
    No,
    /// It is about to be removed: it finishes its requests and gives its leases back while it still can.
    HandBack,
    /// It is no member any more. Nothing can start on its disk again.
    Removed,
}

/// Shared by the replica's domain and its door.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    parting: watch::Sender<Parting>,
    ready: AtomicBool,
    joining: Mutex<Option<String>>,
}

impl Standing {
    /// Goes on to `parting`, if that is further.
    pub fn part(&self, parting: Parting) {
        self.parting.send_if_modified(|held| {
            let further = parting > *held;
            *held = parting.max(*held);
            further
        });
    }

    pub fn parting(&self) -> Parting {
        *self.parting.borrow()
    }

    pub fn partings(&self) -> watch::Receiver<Parting> {
        self.parting.subscribe()
    }

    /// The node holds no lease any more and serves nobody.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// What this node was last told when it asked to be let in; none: it is a member as it should be.
    pub fn joining(&self) -> Option<String> {
        self.joining.lock().clone()
    }

    pub fn told(&self, answer: Option<String>) {
        *self.joining.lock() = answer;
    }
}
