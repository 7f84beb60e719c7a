//! A world for unit tests: tokio's clock, which may be paused, files in memory, chance that is none. It reaches nothing.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind::Unsupported};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::world::{
    BootNs, BoxFuture, Chance, Clock, Disk, Domains, Draft, Listener, MonoNs, Net, Reading, Share, Stream,
    UnixMs, World,
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The world; a test may put files into it and take them out.
pub(crate) struct Small {
    begun: Instant,
    files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
}

impl Small {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), files: Mutex::default() })
    }

    pub fn world(self: &Arc<Self>) -> World {
        World {
            net: self.clone(),
            clock: self.clone(),
            disk: self.clone(),
            chance: self.clone(),
            domains: self.clone(),
        }
    }
}

impl Net for Small {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(Unsupported.into()) })
    }
    fn bind(&self, _: SocketAddr, _: Share) -> io::Result<Box<dyn Listener>> {
        Err(Unsupported.into())
    }
}

impl Clock for Small {
    fn mono(&self) -> MonoNs {
        MonoNs(self.boot().0)
    }
    fn boot(&self) -> BootNs {
        // Never 0, which stands for "never".
        BootNs(1 + u64::try_from(self.begun.elapsed().as_nanos()).expect("a test ends within centuries"))
    }
    fn wall(&self) -> UnixMs {
        UnixMs(1_800_000_000_000)
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Disk for Small {
    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Err(Unsupported.into())
    }
    fn store(&self, _: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        Err(Unsupported.into())
    }
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.lock().get(path).cloned())
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.files.lock().insert(path.to_owned(), bytes.to_owned());
        Ok(())
    }
    fn open(&self, _: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        Err(Unsupported.into())
    }
    fn draft(&self, _: &Path) -> io::Result<Box<dyn Draft>> {
        Err(Unsupported.into())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path);
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let files = self.files.lock();
        let here = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| path.file_name()).map(PathBuf::from).collect())
    }
}

impl Chance for Small {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

impl Domains for Small {
    fn spawn(&self, _: &str, main: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> {
        let task = tokio::spawn(main);
        Box::pin(async move { task.await.map_err(|error| error.to_string()) })
    }
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        Box::pin(std::future::ready(()))
    }
    fn parallelism(&self) -> u16 {
        1
    }
}
