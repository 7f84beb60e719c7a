//! The simulated world of one process: the network, its machine's clocks, its disk, chance from the seed, no threads.
//!
//! To its nodes the simulation looks like one machine: host number N is `127.0.0.N`. So a node file for the simulator
//! is a node file for a laptop, and what the product allows on loopback alone it allows here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::fatal::panic_text;
use cluster::world::{
    BootNs, BoxFuture, Chance as Chances, Clock, Domains, Listener, MonoNs, Net, Share, Stream, UnixMs, World,
};
use futures_util::FutureExt;

use crate::chance::Chance;
use crate::clock::MachineClock;
use crate::disk::DiskHandle;
use crate::host::HostNumber;
use crate::network::{Network, SimListener};

/// What blocking work costs besides its syncs: it runs inline, and its caller goes on a little later.
const BLOCKING_TAKES: Duration = Duration::from_millis(1);

/// The world of a process on host `number`.
pub fn world(
    number: HostNumber,
    network: Network,
    clock: Arc<MachineClock>,
    disk: DiskHandle,
    chance: Chance,
) -> World {
    World {
        net: Arc::new(SimNet { number, network }),
        clock: Arc::new(SimClock(clock)),
        disk: Arc::new(disk.clone()),
        chance: Arc::new(SimChance(Mutex::new(chance))),
        domains: Arc::new(SimDomains { disk }),
    }
}

/// The number of the host that an address names.
fn host_number(host: &str) -> io::Result<HostNumber> {
    match host.parse::<Ipv4Addr>().map(|ip| ip.octets()) {
        Ok([127, 0, 0, number]) => Ok(number),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("no host {host} in the simulation"))),
    }
}

struct SimNet {
    number: HostNumber,
    network: Network,
}

impl Net for SimNet {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = self.network.connect(self.number, host_number(host)?, port).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn bind(&self, address: SocketAddr, _share: Share) -> io::Result<Box<dyn Listener>> {
        let inner = self.network.listen(self.number, address.port())?;
        Ok(Box::new(Door { inner, ip: address.ip() }))
    }
}

struct Door {
    inner: SimListener,
    ip: std::net::IpAddr,
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, host, port) = self.inner.accept().await;
            let peer = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port));
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.inner.port())
    }
}

struct SimClock(Arc<MachineClock>);

impl Clock for SimClock {
    fn mono(&self) -> MonoNs {
        MonoNs(self.0.mono_ns())
    }

    fn boot(&self) -> BootNs {
        BootNs(self.0.mono_ns())
    }

    fn wall(&self) -> UnixMs {
        UnixMs(self.0.wall_ns() / 1_000_000)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // The host moves its runtime's time at the rate of its machine's clock.
        Box::pin(tokio::time::sleep(duration))
    }
}

struct SimChance(Mutex<Chance>);

impl Chances for SimChance {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().expect("no panic happens while chance is locked").fill(bytes);
    }
}

struct SimDomains {
    disk: DiskHandle,
}

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
        let disk = self.disk.clone();
        Box::pin(async move {
            work();
            tokio::time::sleep(BLOCKING_TAKES + disk.take_owed()).await;
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
    use crate::clock::MS_NS;
    use crate::disk::SimDisk;
    use crate::host::Host;

    #[test]
    fn the_simulated_world_keeps_the_contract() {
        // given one host, which is 127.0.0.1
        let network = Network::new(Chance::new(1, "network"), (1, 2));
        let disk = SimDisk::new(Chance::new(1, "disk"), (1, 2));
        let mut host = Host::new(1, 1);
        let world = world(1, network.clone(), host.clock().clone(), disk.attach(), Chance::new(1, "node"));
        // when its world is asked for every promise, then it keeps them
        host.start(0, async move {
            cluster::world::contract(&world, 7000, Path::new("/data")).await;
            Ok(())
        });
        let ended = (1..10_000).find_map(|ms| {
            network.run_until(ms * MS_NS);
            host.run_until(ms * MS_NS).expect("no promise is broken")
        });
        assert_eq!(ended, Some(Ok(())));
    }
}
