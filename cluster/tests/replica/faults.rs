//! A disk that fails when it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};

use quorumgate_cluster::world::{Disk, Draft, Reading, World};

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
    pub fn over(&self, mut world: World) -> World {
        world.disk = Arc::new(Faulty { disk: world.disk, faults: self.clone() });
        world
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

struct Faulty {
    disk: Arc<dyn Disk>,
    faults: Faults,
}

impl Disk for Faulty {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(dir)
    }
    fn store(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        Ok(Box::new(Store { store: self.disk.store(path)?, faults: self.faults.clone() }))
    }
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.faults.write()?;
        self.faults.sync()?;
        self.disk.write(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        self.disk.open(path)
    }
    fn draft(&self, path: &Path) -> io::Result<Box<dyn Draft>> {
        Ok(Box::new(Begun { draft: self.disk.draft(path)?, faults: self.faults.clone() }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
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
