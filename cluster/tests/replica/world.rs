//! A world for tests: real loopback sockets, real files in a temporary directory.
// It is a `World`, so it may use what the rest reaches through one.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorumgate_cluster::world::{
    BootNs, BoxFuture, Chance, Clock, Disk, Domains, Draft, Listener, MonoNs, Net, Reading, Share, Stream,
    UnixMs, World,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A world whose files lie in `dir`.
pub fn world(dir: &Path) -> World {
    World {
        net: Arc::new(Loopback),
        clock: Arc::new(Watch(Instant::now())),
        disk: Arc::new(Files(dir.to_owned())),
        chance: Arc::new(Dice(AtomicU64::new(std::process::id().into()))),
        domains: Arc::new(Threads),
    }
}

struct Loopback;

impl Net for Loopback {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn bind(&self, address: SocketAddr, _: Share) -> io::Result<Box<dyn Listener>> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Box::new(Ear(TcpListener::from_std(listener)?)))
    }
}

struct Ear(TcpListener);

impl Listener for Ear {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((Box::new(stream) as Box<dyn Stream>, from))
        })
    }
    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound listener has an address")
    }
}

struct Watch(Instant);

impl Watch {
    fn ns(&self) -> u64 {
        // Never 0, which stands for "never".
        u64::try_from(self.0.elapsed().as_nanos()).expect("a test ends within centuries") + 1
    }
}

impl Clock for Watch {
    fn mono(&self) -> MonoNs {
        MonoNs(self.ns())
    }
    fn boot(&self) -> BootNs {
        BootNs(self.ns())
    }
    fn wall(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        UnixMs(u64::try_from(since.as_millis()).expect("before the year 500 million"))
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct Dice(AtomicU64);

impl Chance for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        use std::hash::{BuildHasher, RandomState};
        for chunk in bytes.chunks_mut(8) {
            let number = RandomState::new().hash_one(self.0.fetch_add(1, Ordering::Relaxed));
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}

struct Files(PathBuf);

impl Disk for Files {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        std::fs::create_dir_all(dir)?;
        let file = std::fs::File::create(dir.join("lock"))?;
        file.try_lock().map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        Ok(Box::new(file))
    }
    fn store(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.0.join(path))?;
        Ok(Box::new(redb::backends::FileBackend::new(file).map_err(io::Error::other)?))
    }
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.0.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut draft = self.draft(path)?;
        draft.append(bytes)?;
        draft.keep()
    }
    fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        match std::fs::File::open(self.0.join(path)) {
            Ok(file) => Ok(Some(Arc::new(Opened(file)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
    fn draft(&self, path: &Path) -> io::Result<Box<dyn Draft>> {
        let file = tempfile::NamedTempFile::new_in(&self.0)?;
        Ok(Box::new(Begun { file, path: self.0.join(path) }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(path)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names: Vec<PathBuf> = std::fs::read_dir(self.0.join(dir))?
            .map(|entry| entry.map(|e| e.file_name().into()))
            .collect::<Result<_, _>>()?;
        names.sort();
        Ok(names)
    }
}

struct Opened(std::fs::File);

impl Reading for Opened {
    fn size(&self) -> u64 {
        self.0.metadata().expect("an open file has a size").len()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, into, offset)
    }
}

struct Begun {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Draft for Begun {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, bytes)
    }
    fn keep(self: Box<Self>) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(self.path)?;
        Ok(())
    }
}

struct Threads;

impl Domains for Threads {
    fn spawn(&self, name: &str, main: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> {
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a thread can have a runtime");
                runtime.block_on(main);
                runtime.shutdown_timeout(Duration::from_secs(5));
                let _ = tell.send(());
            })
            .expect("there is room for a thread");
        Box::pin(async move { told.await.map_err(|_| "panicked".to_owned()) })
    }
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let task = tokio::task::spawn_blocking(work);
        Box::pin(async move { task.await.expect("blocking work does not panic") })
    }
    fn parallelism(&self) -> u16 {
        1
    }
}
