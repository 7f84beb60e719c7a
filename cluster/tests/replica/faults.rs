//! A disk that fails when it is told to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};

use quorumgate_cluster::world::{Draft, World};

use super::over::{Eye, over};

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing more can be written: ENOSPC.
    Full = 1,
    /// Nothing is synced any more: EIO.
    Unsynced = 2,
}

/// Tells one disk to fail.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    fault: AtomicU8,
    /// Calls that failed, and calls of any kind that followed the first of them.
    failed: AtomicU64,
    later: AtomicU64,
}

impl Faults {
    pub fn arm(&self, fault: Fault) {
        self.0.fault.store(fault as u8, SeqCst);
    }

    /// Changes and syncs that were tried after one had failed.
    pub fn tried_again(&self) -> u64 {
        self.0.later.load(SeqCst)
    }

    /// `world` with a disk that obeys.
    pub fn over(&self, world: World) -> World {
        over(world, self.clone())
    }

    fn pass(&self, fails_by: Fault, errno: i32) -> io::Result<()> {
        if self.0.failed.load(SeqCst) > 0 {
            self.0.later.fetch_add(1, SeqCst);
        }
        if self.0.fault.load(SeqCst) != fails_by as u8 {
            return Ok(());
        }
        self.0.failed.fetch_add(1, SeqCst);
        Err(io::Error::from_raw_os_error(errno))
    }

    fn write(&self) -> io::Result<()> {
        self.pass(Fault::Full, 28)
    }

    fn sync(&self) -> io::Result<()> {
        self.pass(Fault::Unsynced, 5)
    }
}

impl Eye for Faults {
    fn writes(&self) -> io::Result<()> {
        self.write()?;
        self.sync()
    }
    fn store(&self, store: Box<dyn redb::StorageBackend>) -> Box<dyn redb::StorageBackend> {
        Box::new(Store { store, faults: self.clone() })
    }
    fn draft(&self, draft: Box<dyn Draft>) -> Box<dyn Draft> {
        Box::new(Begun { draft, faults: self.clone() })
    }
}

struct Begun {
    draft: Box<dyn Draft>,
    faults: Faults,
}

impl Draft for Begun {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        self.draft.append(bytes)
    }
    fn keep(self: Box<Self>) -> io::Result<()> {
        self.faults.sync()?;
        self.draft.keep()
    }
}

#[derive(Debug)]
struct Store {
    store: Box<dyn redb::StorageBackend>,
    faults: Faults,
}

impl redb::StorageBackend for Store {
    fn len(&self) -> io::Result<u64> {
        self.store.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.store.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.write()?;
        self.store.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.store.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        self.store.write(offset, data)
    }
}
