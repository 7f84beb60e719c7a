//! A disk over another one, on whose calls a test has an eye.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorumgate_cluster::world::{Disk, Draft, Reading, World};
use redb::StorageBackend;

/// What a test does at calls that change the disk; all else goes through.
pub trait Eye: Send + Sync + 'static {
    /// Before a small file is replaced.
    fn writes(&self) -> io::Result<()> {
        Ok(())
    }
    /// Takes the place of a store that was opened.
    fn store(&self, store: Box<dyn StorageBackend>) -> Box<dyn StorageBackend> {
        store
    }
    /// Takes the place of a draft that was begun.
    fn draft(&self, draft: Box<dyn Draft>) -> Box<dyn Draft> {
        draft
    }
}

/// `world` with an eye on its disk.
pub fn over(world: World, eye: impl Eye) -> World {
    World { disk: Arc::new(Over { disk: world.disk, eye }), ..world }
}

struct Over<E> {
    disk: Arc<dyn Disk>,
    eye: E,
}

impl<E: Eye> Disk for Over<E> {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(dir)
    }
    fn store(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        Ok(self.eye.store(self.disk.store(path)?))
    }
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.eye.writes()?;
        self.disk.write(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        self.disk.open(path)
    }
    fn draft(&self, path: &Path) -> io::Result<Box<dyn Draft>> {
        Ok(self.eye.draft(self.disk.draft(path)?))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }
}
