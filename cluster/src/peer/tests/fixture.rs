//! Two or more nodes in one process, on a network in memory, with certificates made for the test. Nothing of it waits for
//! the kernel, so that time may be paused: no test hangs on how fast the machine is.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config::ids::NodeName;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};

use super::super::{Caller, Door, Identity, Lane, Me, Peers, Serve, Target};
use crate::state::ids::RaftId;
use crate::tls::{Pem, Tls, TlsError};
use crate::world::*;

pub fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("valid")
}

/// Pipes for sockets, a wall clock that stands in 2027, chance that counts; no disk, no threads.
pub fn world() -> World {
    let outside = Arc::new(Outside::default());
    World {
        net: outside.clone(),
        clock: outside.clone(),
        disk: outside.clone(),
        chance: outside.clone(),
        domains: outside,
    }
}

#[derive(Default)]
struct Outside {
    chance: AtomicU64,
}

/// Bytes on their way in one direction of a connection.
const WINDOW_BYTES: usize = 64 << 10;

/// The far end of a connection, and where it comes from.
type Arrival = (DuplexStream, SocketAddr);

/// Who listens, by port: all worlds are on one machine.
static LISTENING: Mutex<BTreeMap<u16, mpsc::UnboundedSender<Arrival>>> = Mutex::new(BTreeMap::new());

/// An address of this machine that nobody had before.
fn unused() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    (Ipv4Addr::LOCALHOST, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// A connection to whoever listens on `port`.
pub fn connect(port: u16) -> io::Result<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(WINDOW_BYTES);
    let listening = LISTENING.lock();
    let ear = listening.get(&port).ok_or(io::ErrorKind::ConnectionRefused)?;
    ear.send((theirs, unused())).map_err(|_| io::ErrorKind::ConnectionRefused)?;
    Ok(ours)
}

impl Net for Outside {
    fn connect<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(connect(port)?) as Box<dyn Stream>) })
    }
    fn bind(&self, _: SocketAddr, _: Share) -> io::Result<Box<dyn Listener>> {
        let (ear, arrivals) = mpsc::unbounded_channel();
        let address = unused();
        LISTENING.lock().insert(address.port(), ear);
        Ok(Box::new(Ear { address, arrivals }))
    }
}

struct Ear {
    address: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
}

impl Listener for Ear {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.arrivals.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }
    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Clock for Outside {
    fn mono(&self) -> MonoNs {
        MonoNs(0)
    }
    fn boot(&self) -> BootNs {
        BootNs(0)
    }
    fn wall(&self) -> UnixMs {
        UnixMs(1_800_000_000_000)
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Chance for Outside {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.chance.fetch_add(1, Ordering::Relaxed) as u8);
    }
}

impl Disk for Outside {
    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn store(&self, _: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn read(&self, _: &Path) -> io::Result<Option<Vec<u8>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open(&self, _: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn draft(&self, _: &Path) -> io::Result<Box<dyn Draft>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Domains for Outside {
    fn spawn(&self, _: &str, _: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Err("no threads here".into()) })
    }
    fn blocking(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async { job() })
    }
    fn parallelism(&self) -> u16 {
        1
    }
}

/// A certificate authority of the test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Files of a node with these DNS names, valid for the years from 2025 up to, not including, `until`.
    pub fn pem(&self, names: &[&str], until: i32) -> Pem {
        let key = KeyPair::generate().expect("key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("DNS names");
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Pem {
            ca: self.pem.clone().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    /// As [`Tls::mutual`] for a node that bears its own name.
    pub fn tls(&self, node: &str) -> Tls {
        mutual(node, &self.pem(&[node], 2040)).expect("usable")
    }
}

pub fn mutual(node: &str, pem: &Pem) -> Result<Tls, TlsError> {
    Tls::mutual(world().clock, &name(node), pem)
}

pub fn me(node: &str, cluster: Option<u128>, raft_id: Option<u64>) -> Me {
    let identity = Identity { name: name(node), cluster, raft_id: raft_id.map(RaftId) };
    Arc::new(move || identity.clone())
}

/// Answers with what it was sent, after as many milliseconds as `kind` says; refuses kind 13, tells kind 77 which connection
/// it came by, and never answers 99.
pub struct Echo;

impl Serve for Echo {
    fn admits(&self, _: &Caller, _: Lane) -> Result<(), String> {
        Ok(())
    }

    fn serve(
        &self,
        from: Caller,
        lane: Lane,
        kind: u16,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            match kind {
                13 => Err(format!("{} may not do that on {lane:?}", from.name)),
                77 => Ok(Bytes::from(from.address.to_string())),
                99 => std::future::pending().await,
                ms => {
                    tokio::time::sleep(Duration::from_millis(ms.into())).await;
                    Ok(payload)
                }
            }
        })
    }
}

/// Node n2 (raft id 2 of cluster 1) behind its door.
pub fn n2(tls: Tls) -> (Door, Target) {
    let (me, bell) = (me("n2", Some(1), Some(2)), crate::fatal::Bell::new("/nowhere".into()).0);
    let door = Door::open(&world(), ([127, 0, 0, 1], 0).into(), fixed(tls), me, Arc::new(Echo), &bell);
    let door = door.expect("a free port");
    let target = target("n2", door.local_addr());
    (door, target)
}

pub fn target(node: &str, address: SocketAddr) -> Target {
    Target { name: name(node), address: address.to_string(), raft_id: None }
}

/// Node n1 (raft id 1 of cluster 1), calling.
pub fn n1(tls: Tls) -> Peers {
    Peers::new(world(), fixed(tls), me("n1", Some(1), Some(1)))
}

/// Files that never change.
pub fn fixed(tls: Tls) -> watch::Receiver<Tls> {
    watch::channel(tls).1
}
