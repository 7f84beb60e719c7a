//! A simulated machine: one process at a time, on a single-threaded runtime of its own whose time we move.
//!
//! Each millisecond of true time, a host runs until it has nothing more to do. Its timers follow its own clock, so that
//! a host whose clock is fast finds its timers early by true time: those of every library, for all of them are tokio's.
//! A paused process does nothing, while its machine's clocks go on; when it resumes, all timers that came due meanwhile
//! are due at once.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cluster::fatal::{Fatal, panic_text};
use tokio::runtime::{Builder, RngSeed, Runtime, UnhandledPanic};
use tokio::task::JoinHandle;

use crate::clock::{MS_NS, MachineClock, TrueNs};
use crate::shim;

/// A machine's number: its address is `127.0.0.N`.
pub type HostNumber = u8;

/// How a process ended by itself.
pub type Ended = Result<(), Fatal>;

/// One machine.
pub struct Host {
    number: HostNumber,
    seed: u64,
    clock: Arc<MachineClock>,
    life: Option<Life>,
    lives: u64,
    paused: bool,
}

struct Life {
    runtime: Runtime,
    main: JoinHandle<Ended>,
    /// What the clock read when the process began.
    began_ns: u64,
    /// Milliseconds that the runtime's time has moved.
    moved_ms: u64,
}

impl Host {
    /// A machine without a process.
    pub fn new(number: HostNumber, seed: u64) -> Self {
        Self { number, seed, clock: Arc::default(), life: None, lives: 0, paused: false }
    }

    /// Its clocks.
    pub fn clock(&self) -> &Arc<MachineClock> {
        &self.clock
    }

    /// How many processes were started on it.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// Whether a process is there, be it paused.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Starts a process.
    ///
    /// # Panics
    /// If there is one.
    pub fn start(&mut self, now: TrueNs, main: impl Future<Output = Ended> + Send + 'static) {
        assert!(self.life.is_none(), "host {} runs a process already", self.number);
        self.lives += 1;
        self.look_at_clocks(now);
        let seed = self.seed ^ (u64::from(self.number) << 56) ^ (self.lives << 40);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            // A panic that nobody catches must not pass unseen.
            .unhandled_panic(UnhandledPanic::ShutdownRuntime)
            .build()
            .expect("a runtime without I/O needs nothing from the system");
        let main = runtime.spawn(main);
        self.life = Some(Life { runtime, main, began_ns: self.clock.mono_ns(), moved_ms: 0 });
    }

    /// Runs the process up to true time `now`. Some: it has ended by itself.
    ///
    /// # Errors
    /// A panic that nobody caught.
    pub fn run_until(&mut self, now: TrueNs) -> Result<Option<Ended>, String> {
        self.look_at_clocks(now);
        if self.paused {
            return Ok(None);
        }
        let Some(life) = &mut self.life else { return Ok(None) };
        let owed_ms = ((self.clock.mono_ns() - life.began_ns) / MS_NS).saturating_sub(life.moved_ms);
        if owed_ms > 0 {
            life.moved_ms += owed_ms;
            let step = async {
                if owed_ms > 2 {
                    tokio::time::advance(Duration::from_millis(owed_ms - 1)).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    tokio::time::sleep(Duration::from_millis(owed_ms)).await;
                }
            };
            let ran = std::panic::catch_unwind(AssertUnwindSafe(|| life.runtime.block_on(step)));
            if let Err(panic) = ran {
                return Err(format!("host {} panicked: {}", self.number, panic_text(panic.as_ref())));
            }
        }
        if !life.main.is_finished() {
            return Ok(None);
        }
        let ended = life.runtime.block_on(&mut life.main);
        self.kill();
        match ended {
            Ok(ended) => Ok(Some(ended)),
            Err(error) => Err(format!("host {} panicked: {error}", self.number)),
        }
    }

    /// Ends the process at once, wherever it is: what its tasks hold is dropped, as the kernel closes files and sockets.
    pub fn kill(&mut self) {
        self.paused = false;
        drop(self.life.take());
    }

    /// Lets the process stand still, or go on.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused && self.life.is_some();
    }

    fn look_at_clocks(&self, now: TrueNs) {
        self.clock.advance(now);
        shim::set_clocks(self.clock.mono_ns(), self.clock.wall_ns());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn ticker(count: &Arc<AtomicU64>) -> impl Future<Output = Ended> + Send + use<> {
        let count = count.clone();
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn run(host: &mut Host, from_ms: u64, until_ms: u64) {
        for ms in from_ms..until_ms {
            assert_eq!(host.run_until((ms + 1) * MS_NS), Ok(None));
        }
    }

    #[test]
    fn timers_follow_the_hosts_own_clock() {
        let counts = [-50_000, 0, 50_000].map(|ppm| {
            // given a host whose clock runs at this rate
            let count = Arc::default();
            let mut host = Host::new(1, 7);
            host.clock().set_rate(0, ppm);
            host.start(0, ticker(&count));
            // when ten true seconds have passed
            run(&mut host, 0, 10_000);
            count.load(Ordering::Relaxed)
        });
        // then its timer came due as often as its clock says
        assert_eq!(counts, [950, 1000, 1050]);
    }

    #[test]
    fn a_paused_process_does_nothing_and_then_finds_its_clock_ahead() {
        let count = Arc::default();
        let mut host = Host::new(1, 7);
        host.start(0, ticker(&count));
        run(&mut host, 0, 100);
        let before = count.load(Ordering::Relaxed);
        host.pause(true);
        run(&mut host, 100, 600);
        assert_eq!(count.load(Ordering::Relaxed), before);
        assert_eq!(host.clock().mono_ns(), crate::clock::ORIGIN_NS + 600 * MS_NS);
        host.pause(false);
        run(&mut host, 600, 610);
        assert!((before + 1..=before + 2).contains(&count.load(Ordering::Relaxed)));
    }

    #[test]
    fn the_end_of_a_process_and_a_panic_in_any_task_are_seen() {
        let mut host = Host::new(1, 7);
        let no_room = Fatal::Storage("no room".to_owned());
        let why = no_room.clone();
        host.start(0, async { Err(why) });
        assert_eq!(host.run_until(MS_NS), Ok(Some(Err(no_room))));
        assert!(!host.is_up());
        host.start(MS_NS, async {
            tokio::spawn(async { panic!("on purpose") });
            std::future::pending().await
        });
        let seen = (2..10).find_map(|ms| host.run_until(ms * MS_NS).err());
        assert!(seen.is_some_and(|text| text.contains("host 1 panicked")));
    }
}
