//! The real world: the kernel's sockets, clocks, files and threads.
//!
//! The one place of the product that may touch them; everything else goes through [`World`](cluster::world::World).

use std::sync::Arc;
use std::time::Duration;

use cluster::world::{BootNs, BoxFuture, Chance, Clock, MonoNs, UnixMs, World};
use rustix::time::{ClockId, clock_gettime};

mod disk;
mod domains;
mod net;
#[cfg(test)]
pub(crate) mod small;

/// This machine, for one node.
pub fn real() -> World {
    World {
        net: Arc::new(net::Sockets::default()),
        clock: Arc::new(Clocks),
        disk: Arc::new(disk::Files::default()),
        chance: Arc::new(Kernel),
        domains: Arc::new(domains::Threads),
    }
}

struct Clocks;

/// Nanoseconds of a clock that is never negative.
fn read_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).expect("this clock starts at 0");
    let ns = u64::try_from(now.tv_nsec).expect("0 to 999 999 999");
    seconds * 1_000_000_000 + ns
}

impl Clock for Clocks {
    fn mono(&self) -> MonoNs {
        MonoNs(read_ns(ClockId::MonotonicRaw))
    }

    fn boot(&self) -> BootNs {
        BootNs(read_ns(ClockId::Boottime))
    }

    fn wall(&self) -> UnixMs {
        let now = clock_gettime(ClockId::Realtime);
        // A machine whose clock says 1969 is as wrong as one that says 1970.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        UnixMs(seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The kernel's generator.
struct Kernel;

impl Chance for Kernel {
    fn fill(&self, bytes: &mut [u8]) {
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // Never seen on a kernel that has the call (Linux 3.17); keys from anything else would be no secret.
                Err(error) => panic!("the kernel gives no random bytes: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, SocketAddr};

    use cluster::world::Share;

    use super::*;

    #[tokio::test]
    async fn the_real_world_keeps_the_contract() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let world = real();
        // given two ports that were free a moment ago, below those that the kernel gives to whoever asks for any
        let first = 10_000 + u16::try_from(std::process::id() % 10_000).expect("it is small");
        let is_free = |port| world.net.bind((Ipv4Addr::LOCALHOST, port).into(), Share::Alone).is_ok();
        let port = (first..30_000).find(|port| is_free(*port) && is_free(port + 1)).expect("two free ports");
        cluster::world::contract(&world, port, &dir.path().join("data")).await;
    }

    #[tokio::test]
    async fn listeners_of_one_process_share_a_port_and_another_process_is_told_that_it_is_taken() {
        // given two sharers of a port that the first one chose
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (world, other) = (real(), real());
        let one = world.net.bind(any, Share::OneOfMany).expect("some port");
        let address = one.local_addr();
        assert_ne!(address.port(), 0);
        let two = world.net.bind(address, Share::OneOfMany).expect("shared");
        // when another world (as another process would) wants the same
        let taken = other.net.bind(address, Share::OneOfMany).err().expect("taken");
        // then it is told
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        assert!(taken.to_string().contains(&address.to_string()), "{taken}");
        // and once both are gone, the port is free for it
        drop((one, two));
        other.net.bind(address, Share::OneOfMany).expect("free again");
    }

    #[test]
    fn a_locked_directory_names_its_holder() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _held = real().disk.lock(dir.path()).expect("free");
        let taken = real().disk.lock(dir.path()).err().expect("taken");
        assert!(taken.to_string().contains(&format!("process {}", std::process::id())), "{taken}");
    }
}
