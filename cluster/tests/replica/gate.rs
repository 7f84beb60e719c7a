//! A disk on which snapshots stand still when they are told to.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use quorumgate_cluster::world::{Draft, World};

use super::over::{Eye, over};

/// Lets so many more appends to drafts pass, and holds up the next.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Debug, Default)]
struct Inner {
    /// None: all.
    left: Option<u64>,
    held_up: u64,
    begun: u64,
}

impl Gate {
    /// Holds up what follows the next `appends`.
    pub fn close_after(&self, appends: u64) {
        self.0.0.lock().expect("no panic").left = Some(appends);
    }

    /// Lets everything pass.
    pub fn open(&self) {
        self.0.0.lock().expect("no panic").left = None;
        self.0.1.notify_all();
    }

    /// Appends that are being held up.
    pub fn held_up(&self) -> u64 {
        self.0.0.lock().expect("no panic").held_up
    }

    /// Drafts that were begun.
    pub fn begun(&self) -> u64 {
        self.0.0.lock().expect("no panic").begun
    }

    /// `world` with a disk that has the gate.
    pub fn over(&self, world: World) -> World {
        over(world, self.clone())
    }

    fn pass(&self) {
        let (inner, opened) = &*self.0;
        let mut inner = inner.lock().expect("no panic");
        inner.held_up += 1;
        while inner.left == Some(0) {
            inner = opened.wait(inner).expect("no panic");
        }
        inner.held_up -= 1;
        inner.left = inner.left.map(|left| left - 1);
    }
}

impl Eye for Gate {
    fn draft(&self, draft: Box<dyn Draft>) -> Box<dyn Draft> {
        self.0.0.lock().expect("no panic").begun += 1;
        Box::new(Begun { draft, gate: self.clone() })
    }
}

struct Begun {
    draft: Box<dyn Draft>,
    gate: Gate,
}

impl Draft for Begun {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.gate.pass();
        self.draft.append(bytes)
    }
    fn keep(self: Box<Self>) -> io::Result<()> {
        self.draft.keep()
    }
}
