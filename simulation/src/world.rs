//! The simulated world of one node: turmoil's network, the simulation's clock, chance from the seed, no threads.
//!
//! To its nodes the simulation looks like one machine: host number N is `127.0.0.N`. So a node file for the simulator
//! is a node file for a laptop, and what the product allows on loopback alone it allows here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::fatal::panic_text;
use cluster::world::{
    BootNs, BoxFuture, Chance, Clock, Domains, Listener, MonoNs, Net, Share, Stream, UnixMs, World,
};
use futures_util::FutureExt;

use crate::disk::SimDisk;
use crate::shim;

/// Monotonic clocks of nodes begin here.
const ORIGIN_NS: u64 = 1_000_000_000_000;
/// What blocking work costs: it runs inline, and its caller goes on a little later.
const BLOCKING_TAKES: Duration = Duration::from_millis(1);

/// The turmoil name of host `number`.
pub fn host_name(number: u8) -> String {
    format!("h{number}")
}

/// The world of host `number` in its present life, which is named by `seed`.
pub fn world(disk: SimDisk, seed: u64) -> World {
    World {
        net: Arc::new(SimNet),
        clock: Arc::new(SimClock),
        disk: Arc::new(disk),
        chance: Arc::new(SimChance { state: Mutex::new(seed) }),
        domains: Arc::new(SimDomains),
    }
}

struct SimNet;

impl Net for SimNet {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let number = match host.parse::<Ipv4Addr>() {
                Ok(ip) if ip.is_loopback() => ip.octets()[3],
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        format!("no host {host} in the simulation"),
                    ));
                }
            };
            let stream = turmoil::net::TcpStream::connect((host_name(number), port)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn bind(&self, address: SocketAddr, _share: Share) -> io::Result<Box<dyn Listener>> {
        let bound = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()));
        let inner =
            bound.now_or_never().ok_or_else(|| io::Error::other("a simulated bind never waits"))??;
        let port = inner.local_addr()?.port();
        Ok(Box::new(SimListener { inner, local: SocketAddr::new(address.ip(), port) }))
    }
}

struct SimListener {
    inner: turmoil::net::TcpListener,
    local: SocketAddr,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.inner.accept().await?;
            let number = match peer.ip() {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 0,
            };
            let peer = SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), peer.port()));
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

struct SimClock;

impl SimClock {
    fn elapsed_ns() -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_else(shim::now);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Clock for SimClock {
    fn mono(&self) -> MonoNs {
        MonoNs(ORIGIN_NS + Self::elapsed_ns())
    }

    fn boot(&self) -> BootNs {
        BootNs(ORIGIN_NS + Self::elapsed_ns())
    }

    fn wall(&self) -> UnixMs {
        UnixMs(shim::EPOCH_UNIX_S * 1000 + Self::elapsed_ns() / 1_000_000)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct SimChance {
    state: Mutex<u64>,
}

impl Chance for SimChance {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.state.lock().expect("no panic happens while chance is locked");
        let cell = std::cell::Cell::new(*state);
        for byte in bytes {
            *byte = shim::next(&cell).to_le_bytes()[0];
        }
        *state = cell.get();
    }
}

struct SimDomains;

impl Domains for SimDomains {
    fn spawn(&self, _name: &str, main: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> {
        // Caught here, as a thread would: a panic that leaves a task ends the simulation.
        let task = tokio::spawn(AssertUnwindSafe(main).catch_unwind());
        Box::pin(async move {
            match task.await {
                Ok(ended) => ended.map_err(|panic| panic_text(panic.as_ref())),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            work();
            tokio::time::sleep(BLOCKING_TAKES).await;
        })
    }

    fn parallelism(&self) -> u16 {
        1
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_simulated_world_keeps_the_contract() {
        // given one host, which is 127.0.0.1
        let mut sim = turmoil::Builder::new().rng_seed(1).build();
        sim.client(host_name(1), async {
            // when its world is asked for every promise, then it keeps them
            cluster::world::contract(&world(SimDisk::default(), 1), 7000, Path::new("/data")).await;
            Ok(())
        });
        sim.run().expect("no panic left the host");
    }
}
