//! A node's disk, in memory: files, and the bytes under its stores. It outlives the node's processes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use cluster::world::{Disk, Draft, Reading};
use redb::StorageBackend;

/// One node's disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<PathBuf, Vec<u8>>,
    stores: BTreeMap<PathBuf, Arc<Mutex<Vec<u8>>>>,
    locked: BTreeSet<PathBuf>,
    /// The data directory: relative paths are under it.
    root: PathBuf,
}

impl Inner {
    /// Joining an absolute path gives that path.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

impl SimDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic happens while the disk is locked")
    }
}

impl Disk for SimDisk {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut inner = self.inner();
        if !inner.locked.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inner.root = dir.to_owned();
        Ok(Box::new(Lock { disk: self.clone(), dir: dir.to_owned() }))
    }

    fn store(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let bytes = {
            let mut inner = self.inner();
            let path = inner.at(path);
            inner.stores.entry(path).or_default().clone()
        };
        Ok(Box::new(Store { bytes }))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let inner = self.inner();
        Ok(inner.files.get(&inner.at(path)).cloned())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        let path = inner.at(path);
        inner.files.insert(path, bytes.to_owned());
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        Ok(self.read(path)?.map(|bytes| Arc::new(Opened(bytes)) as Arc<dyn Reading>))
    }

    fn draft(&self, path: &Path) -> io::Result<Box<dyn Draft>> {
        let path = self.inner().at(path);
        Ok(Box::new(Begun { disk: self.clone(), path, bytes: Vec::new() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let path = inner.at(path);
        inner.files.remove(&path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.inner();
        let dir = inner.at(dir);
        let names = inner.files.keys().chain(inner.stores.keys()).filter(|path| path.parent() == Some(&dir));
        let names: BTreeSet<PathBuf> = names.filter_map(|path| path.file_name()).map(PathBuf::from).collect();
        Ok(names.into_iter().collect())
    }
}

/// A file as it was.
struct Opened(Vec<u8>);

impl Reading for Opened {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.0[range(offset, into.len(), self.0.len())?]);
        Ok(())
    }
}

struct Begun {
    disk: SimDisk,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Draft for Begun {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn keep(self: Box<Self>) -> io::Result<()> {
        self.disk.write(&self.path, &self.bytes)
    }
}

struct Lock {
    disk: SimDisk,
    dir: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.inner().locked.remove(&self.dir);
    }
}

/// The bytes under one store.
#[derive(Debug)]
struct Store {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Store {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().expect("no panic happens while the store is locked")
    }
}

fn range(offset: u64, len: usize, end: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    match start.checked_add(len) {
        Some(stop) if stop <= end => Ok(start..stop),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl StorageBackend for Store {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        out.copy_from_slice(&bytes[range(offset, out.len(), bytes.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes();
        let end = bytes.len();
        let range = range(offset, data.len(), end)?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }
}
