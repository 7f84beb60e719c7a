//! A node's disk: files, and the bytes under its stores. It outlives the node's processes, and forgets like a real one.
//!
//! What was written to a store and not synced lies in a cache: a power cut loses all of it, keeps all of it, or keeps
//! some of its 512-byte sectors. A file that is replaced is there as it was or as it is, for `Disk::write` promises it.
//! Each process has a handle of its own: once the machine has lost its power, late writes of a process that is being
//! torn down change nothing. (redb writes when it is dropped: without that, every crash would be an orderly end.)

mod handle;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::chance::Chance;
use crate::clock::MS_NS;
use crate::weather::Unsynced;

pub use handle::DiskHandle;
use store::Store;

/// What happened to a disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Syncs.
    pub syncs: u64,
    /// Power cuts that found something that was not synced.
    pub cuts_unsynced: u64,
    /// Writes that a power cut lost, whole or in part.
    pub lost_writes: u64,
    /// Writes of which some sectors were lost and some were not.
    pub torn_writes: u64,
    /// Operations that failed for want of room.
    pub full: u64,
    /// Operations that failed.
    pub errors: u64,
}

/// One node's disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    files: BTreeMap<PathBuf, Vec<u8>>,
    stores: BTreeMap<PathBuf, Store>,
    locked: BTreeSet<PathBuf>,
    /// The data directory: relative paths are under it.
    root: PathBuf,
    /// The process that may use it.
    life: u64,
    chance: Chance,
    /// Fails after this many operations that change something: the power is cut.
    cut_after: Option<u64>,
    /// What that cut leaves.
    cut_leaves: Unsynced,
    /// The power was cut in the middle of an operation: the machine has to be crashed.
    is_cut: bool,
    /// No room for anything new.
    is_full: bool,
    /// This many operations from now, one fails.
    fail_after: Option<u64>,
    sync_ms: (u64, u64),
    slower_ms: u64,
    /// Time that the operations took since it was last asked for.
    owed_ns: u64,
    seen: Seen,
}

impl SimDisk {
    /// An empty disk. `chance` decides what a power cut leaves, and how long a sync takes within `sync_ms`.
    pub fn new(chance: Chance, sync_ms: (u64, u64)) -> Self {
        let inner = Inner {
            files: BTreeMap::new(),
            stores: BTreeMap::new(),
            locked: BTreeSet::new(),
            root: PathBuf::new(),
            life: 0,
            chance,
            cut_after: None,
            cut_leaves: Unsynced::Lost,
            is_cut: false,
            is_full: false,
            fail_after: None,
            sync_ms,
            slower_ms: 0,
            owed_ns: 0,
            seen: Seen::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic happens while the disk is locked")
    }

    /// The disk as the next process has it; what earlier processes hold of it is dead.
    pub fn attach(&self) -> DiskHandle {
        let mut inner = self.inner();
        inner.life += 1;
        inner.locked.clear();
        DiskHandle::new(self.clone(), inner.life)
    }

    /// The power is cut. To be called before the process is ended.
    pub fn cut(&self, unsynced: Unsynced) {
        let mut inner = self.inner();
        inner.life += 1;
        inner.locked.clear();
        (inner.cut_after, inner.is_cut, inner.fail_after) = (None, false, None);
        let Inner { stores, chance, seen, .. } = &mut *inner;
        let found = stores.values().any(Store::has_unsynced);
        seen.cuts_unsynced += u64::from(found);
        for store in stores.values_mut() {
            store.cut(unsynced, chance, seen);
        }
    }

    /// The process has ended, the machine has not: the kernel still writes what it was given.
    pub fn let_go(&self) {
        let mut inner = self.inner();
        inner.life += 1;
        inner.locked.clear();
        (inner.cut_after, inner.fail_after) = (None, None);
        inner.stores.values_mut().for_each(Store::sync);
    }

    /// Cuts the power in the middle of the operations to come: `count` more change something, none after them.
    pub fn cut_after(&self, count: u64, unsynced: Unsynced) {
        let mut inner = self.inner();
        (inner.cut_after, inner.cut_leaves) = (Some(count), unsynced);
    }

    /// What a cut in the middle of an operation leaves.
    pub fn cut_leaves(&self) -> Unsynced {
        self.inner().cut_leaves
    }

    /// Nothing fails from now on.
    pub fn forgive(&self) {
        let mut inner = self.inner();
        (inner.cut_after, inner.fail_after, inner.is_full, inner.slower_ms) = (None, None, false, 0);
    }

    /// Whether the power was cut so.
    pub fn is_cut(&self) -> bool {
        self.inner().is_cut
    }

    /// Fails one operation that changes something, after `count` more.
    pub fn fail_after(&self, count: u64) {
        self.inner().fail_after = Some(count);
    }

    /// Whether anything new finds room.
    pub fn fill(&self, is_full: bool) {
        self.inner().is_full = is_full;
    }

    /// Every sync takes this much longer.
    pub fn slow_down(&self, by_ms: u64) {
        self.inner().slower_ms = by_ms;
    }

    /// An empty disk in its place, but for what the operator put outside of the data directory.
    pub fn wipe(&self) {
        let mut inner = self.inner();
        let root = inner.root.clone();
        inner.files.retain(|path, _| !path.starts_with(&root));
        inner.stores.clear();
    }

    /// Puts a file there, as an operator does.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut inner = self.inner();
        let path = inner.at(path);
        inner.files.insert(path, bytes.to_owned());
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        self.inner().seen
    }
}

impl Inner {
    /// Joining an absolute path gives that path.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// An operation of process `life` reads.
    fn reads(&self, life: u64) -> io::Result<()> {
        if self.life == life && !self.is_cut { Ok(()) } else { Err(io::Error::other("the machine is off")) }
    }

    /// An operation of process `life` changes something; `grows`: it needs room.
    fn changes(&mut self, life: u64, grows: bool) -> io::Result<()> {
        self.reads(life)?;
        if let Some(left) = &mut self.cut_after {
            if *left == 0 {
                self.is_cut = true;
                return self.reads(life);
            }
            *left -= 1;
        }
        if let Some(left) = &mut self.fail_after {
            if *left == 0 {
                self.fail_after = None;
                self.seen.errors += 1;
                return Err(io::Error::other("input/output error of the simulated disk"));
            }
            *left -= 1;
        }
        if self.is_full && grows {
            self.seen.full += 1;
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the simulated disk"));
        }
        Ok(())
    }

    fn synced(&mut self) {
        self.seen.syncs += 1;
        let (least, most) = self.sync_ms;
        self.owed_ns += (self.chance.within(least..=most) + self.slower_ms) * MS_NS;
    }
}

#[cfg(test)]
mod tests;
