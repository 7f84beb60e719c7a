//! What the leader sent unasked, on its way to this node's gateway: bounded, the oldest are dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::lease::Push;

const WAITING_MAX: usize = 1024;

/// The near end. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pushes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<VecDeque<Push>>,
    filled: Notify,
}

impl Pushes {
    /// Adds one; drops the oldest when too many wait.
    pub fn push(&self, push: Push) {
        let mut waiting = self.0.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(push);
        drop(waiting);
        self.0.filled.notify_one();
    }

    /// Hands everything on until the far end is dropped.
    pub async fn deliver(self, far: mpsc::Sender<Push>) {
        loop {
            let Ok(room) = far.reserve().await else { return };
            loop {
                let next = self.0.waiting.lock().pop_front();
                match next {
                    Some(push) => break room.send(push),
                    None => self.0.filled.notified().await,
                }
            }
        }
    }
}
