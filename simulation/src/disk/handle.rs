//! The disk as one process has it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::world::{Disk, Draft, Reading};
use redb::StorageBackend;

use super::SimDisk;
use super::store::range;

/// One process's hold of a disk.
#[derive(Clone)]
pub struct DiskHandle {
    disk: SimDisk,
    life: u64,
}

impl DiskHandle {
    pub(super) fn new(disk: SimDisk, life: u64) -> Self {
        Self { disk, life }
    }

    /// How long the operations since the last call took.
    pub fn take_owed(&self) -> Duration {
        Duration::from_nanos(std::mem::take(&mut self.disk.inner().owed_ns))
    }
}

impl Disk for DiskHandle {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut inner = self.disk.inner();
        inner.reads(self.life)?;
        if !inner.locked.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inner.root = dir.to_owned();
        Ok(Box::new(Lock { handle: self.clone(), dir: dir.to_owned() }))
    }

    fn store(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let mut inner = self.disk.inner();
        inner.reads(self.life)?;
        let path = inner.at(path);
        inner.stores.entry(path.clone()).or_default();
        Ok(Box::new(Open { handle: self.clone(), path }))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let inner = self.disk.inner();
        inner.reads(self.life)?;
        let path = inner.at(path);
        let file = inner.files.get(&path).cloned();
        Ok(file.or_else(|| inner.stores.get(&path).map(|store| store.bytes().to_owned())))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.changes(self.life, true)?;
        let path = inner.at(path);
        inner.files.insert(path, bytes.to_owned());
        inner.synced();
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        Ok(self.read(path)?.map(|bytes| Arc::new(Opened { handle: self.clone(), bytes }) as Arc<dyn Reading>))
    }

    fn draft(&self, path: &Path) -> io::Result<Box<dyn Draft>> {
        self.disk.inner().changes(self.life, true)?;
        Ok(Box::new(Begun { handle: self.clone(), path: path.to_owned(), bytes: Vec::new() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.changes(self.life, false)?;
        let path = inner.at(path);
        inner.files.remove(&path);
        inner.stores.remove(&path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.disk.inner();
        inner.reads(self.life)?;
        let dir = inner.at(dir);
        let names = inner.files.keys().chain(inner.stores.keys()).filter(|path| path.parent() == Some(&dir));
        let names: BTreeSet<PathBuf> = names.filter_map(|path| path.file_name()).map(PathBuf::from).collect();
        Ok(names.into_iter().collect())
    }
}

/// A file as it was when it was opened.
struct Opened {
    handle: DiskHandle,
    bytes: Vec<u8>,
}

impl Reading for Opened {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.handle.disk.inner().reads(self.handle.life)?;
        into.copy_from_slice(&self.bytes[range(offset, into.len(), self.bytes.len())?]);
        Ok(())
    }
}

/// A file under no name: a power cut leaves nothing of it.
struct Begun {
    handle: DiskHandle,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Draft for Begun {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.handle.disk.inner().changes(self.handle.life, true)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn keep(self: Box<Self>) -> io::Result<()> {
        self.handle.write(&self.path, &self.bytes)
    }
}

struct Lock {
    handle: DiskHandle,
    dir: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut inner = self.handle.disk.inner();
        if inner.life == self.handle.life {
            inner.locked.remove(&self.dir);
        }
    }
}

/// A store as one process has it open.
struct Open {
    handle: DiskHandle,
    path: PathBuf,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl Open {
    fn gone(&self) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("{} was removed", self.path.display()))
    }
}

impl StorageBackend for Open {
    fn len(&self) -> io::Result<u64> {
        let inner = self.handle.disk.inner();
        inner.reads(self.handle.life)?;
        Ok(inner.stores.get(&self.path).ok_or_else(|| self.gone())?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.handle.disk.inner();
        inner.reads(self.handle.life)?;
        inner.stores.get(&self.path).ok_or_else(|| self.gone())?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut inner = self.handle.disk.inner();
        inner.changes(self.handle.life, true)?;
        inner.stores.get_mut(&self.path).ok_or_else(|| self.gone())?.set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.handle.disk.inner();
        inner.changes(self.handle.life, false)?;
        inner.stores.get_mut(&self.path).ok_or_else(|| self.gone())?.sync();
        inner.synced();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.handle.disk.inner();
        inner.changes(self.handle.life, true)?;
        inner.stores.get_mut(&self.path).ok_or_else(|| self.gone())?.write(offset, bytes)
    }
}
