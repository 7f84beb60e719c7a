//! The one door to everything outside a node: sockets, clocks, chance, disk, threads.
//!
//! A node takes one [`World`] and nothing else from outside. The binary's `main` hands it the real one, the simulator
//! hands it a simulated one, and the node cannot tell which. TLS is product code above [`Net`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

mod contract;
pub use contract::contract;

/// A boxed future that may cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Everything a node gets from outside. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// Sockets and names.
    pub net: Arc<dyn Net>,
    /// The three clocks, and sleep.
    pub clock: Arc<dyn Clock>,
    /// Files and stores.
    pub disk: Arc<dyn Disk>,
    /// Chance.
    pub chance: Arc<dyn Chance>,
    /// Threads.
    pub domains: Arc<dyn Domains>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// A raw byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static> Stream for T {}

/// Sockets and names. Deadlines are the caller's.
pub trait Net: Send + Sync {
    /// Connects to `host:port`, resolving the name; Nagle's algorithm is off.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;

    /// Listens on `address`. Several listeners of this process may share one address, and the kernel spreads
    /// connections over them, if all but the first are made with `share`.
    ///
    /// # Errors
    /// `AddrInUse` if another process has the port.
    fn bind(&self, address: SocketAddr, share: Share) -> io::Result<Box<dyn Listener>>;
}

/// Whether a listener shares its address with others of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It is alone.
    Alone,
    /// One of several (`SO_REUSEPORT`).
    OneOfMany,
}

/// A listening socket.
pub trait Listener: Send + Sync {
    /// The next connection and its peer's address.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
    /// The address that was bound; its port is never 0.
    fn local_addr(&self) -> SocketAddr;
}

/// A reading of CLOCK_MONOTONIC_RAW in nanoseconds: not slewed, stands still in suspend. For stamps. Means nothing in
/// another process or after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoNs(pub u64);

/// A reading of CLOCK_BOOTTIME in nanoseconds: counts suspend. For lease deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootNs(pub u64);

/// A reading of the wall clock in milliseconds since the Unix epoch. For tokens' `exp` and logs, never for quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMs(pub u64);

impl MonoNs {
    /// Nanoseconds since `earlier`, 0 if that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl BootNs {
    /// `self + d`.
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
    /// Nanoseconds since `earlier`, 0 if that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The node's clocks. Reads are cheap (tens of ns) and never cached.
pub trait Clock: Send + Sync {
    /// For cluster stamps.
    fn mono(&self) -> MonoNs;
    /// For leases.
    fn boot(&self) -> BootNs;
    /// For tokens and logs.
    fn wall(&self) -> UnixMs;
    /// Waits at the node's clock rate.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Chance.
pub trait Chance: Send + Sync {
    /// Fills `bytes` with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// A node's files. Paths are relative to the node's data directory unless absolute.
///
/// These calls block; they are made at start or inside [`Domains::blocking`].
pub trait Disk: Send + Sync {
    /// Takes the data directory for this process, making it when missing; held until the guard is dropped. Relative
    /// paths are under it from then on.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Opens or creates the bytes under a store (a redb database).
    fn store(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>>;
    /// A file's content; none if there is no such file.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a file: temporary file, sync, rename, sync of the directory. Durable on return.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Opens a file to read it in pieces; none if there is no such file.
    fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn Reading>>>;
    /// Begins what will take a file's place, for a file too large to be held as a whole.
    fn draft(&self, path: &Path) -> io::Result<Box<dyn Draft>>;
    /// Removes a file; no error when there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a directory (without the directory), sorted; empty if there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
}

/// A file as it was when it was opened, whatever takes its place meanwhile. Calls block.
pub trait Reading: Send + Sync {
    /// Bytes of the whole file.
    fn size(&self) -> u64;
    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A file that is being written under no name. Calls block.
pub trait Draft: Send {
    /// Adds bytes at its end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Puts it in the place of the file for which it was begun. Durable on return. A draft that is dropped without it
    /// leaves nothing.
    fn keep(self: Box<Self>) -> io::Result<()>;
}

/// Threads.
pub trait Domains: Send + Sync {
    /// Runs `main` on a thread of its own with a current-thread runtime; tasks that it spawns stay there and end when it
    /// ends. The returned future yields when it has ended: `Err` with the panic's text if it panicked.
    fn spawn(&self, name: &str, main: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>>;

    /// Runs one piece of blocking work beside the calling runtime. Calls may run at the same time: whoever needs
    /// an order awaits one before the next.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Data-plane threads that make sense here, ≥ 1.
    fn parallelism(&self) -> u16;
}
