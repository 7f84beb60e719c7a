//! Time: the true time of a simulation, and the clocks of its hosts, which run at rates of their own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::shim::EPOCH_UNIX_S;

/// True time since the start, in nanoseconds. Nobody inside the simulation can read it.
pub type TrueNs = u64;

/// One millisecond.
pub const MS_NS: u64 = 1_000_000;
/// Monotonic clocks begin here, so that subtracting a little never goes below zero.
pub const ORIGIN_NS: u64 = 1_000_000_000_000;

/// The clocks of one machine. They go on while its processes stand still, and restart with none of them.
#[derive(Debug)]
pub struct MachineClock {
    /// What the monotonic clocks answer now.
    mono_ns: AtomicU64,
    /// How far the wall clock is from the truth, apart from its rate.
    wall_off_ns: AtomicI64,
    /// How fast it ran since when, oldest first; never empty.
    rates: Mutex<Vec<Rate>>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    since: TrueNs,
    mono_ns: u64,
    ppm: i64,
}

impl Rate {
    fn mono_at(&self, now: TrueNs) -> u64 {
        let passed = i128::from(now - self.since);
        let local = passed + passed * i128::from(self.ppm) / 1_000_000;
        self.mono_ns + u64::try_from(local).expect("no clock runs backwards")
    }
}

impl Default for MachineClock {
    fn default() -> Self {
        Self {
            mono_ns: AtomicU64::new(ORIGIN_NS),
            wall_off_ns: AtomicI64::new(0),
            rates: Mutex::new(vec![Rate { since: 0, mono_ns: ORIGIN_NS, ppm: 0 }]),
        }
    }
}

impl MachineClock {
    fn last_rate(&self) -> Rate {
        let rates = self.rates.lock().expect("no panic happens while rates are locked");
        *rates.last().expect("there is a rate since the start")
    }

    /// Moves the clocks to true time `now`; it never falls.
    pub fn advance(&self, now: TrueNs) {
        self.mono_ns.store(self.last_rate().mono_at(now), Ordering::Relaxed);
    }

    /// From `now` on this machine's clocks gain `ppm` microseconds a second (lose, if negative).
    ///
    /// # Panics
    /// If they would stand still.
    pub fn set_rate(&self, now: TrueNs, ppm: i64) {
        assert!(ppm > -1_000_000, "a clock that stands still is another fault");
        let mono_ns = self.last_rate().mono_at(now);
        let mut rates = self.rates.lock().expect("no panic happens while rates are locked");
        rates.push(Rate { since: now, mono_ns, ppm });
    }

    /// Moves the wall clock alone.
    pub fn jump_wall(&self, by_ms: i64) {
        self.wall_off_ns.fetch_add(by_ms * 1_000_000, Ordering::Relaxed);
    }

    /// CLOCK_MONOTONIC_RAW and CLOCK_BOOTTIME, in nanoseconds.
    pub fn mono_ns(&self) -> u64 {
        self.mono_ns.load(Ordering::Relaxed)
    }

    /// CLOCK_REALTIME, in nanoseconds since the Unix epoch.
    pub fn wall_ns(&self) -> u64 {
        let true_ns = EPOCH_UNIX_S * 1_000_000_000 + (self.mono_ns() - ORIGIN_NS);
        true_ns.saturating_add_signed(self.wall_off_ns.load(Ordering::Relaxed))
    }

    /// The true time at which the monotonic clocks read `mono_ns`.
    pub fn true_at(&self, mono_ns: u64) -> TrueNs {
        let rates = self.rates.lock().expect("no panic happens while rates are locked");
        let rate = rates.iter().rev().find(|rate| rate.mono_ns <= mono_ns).unwrap_or(&rates[0]);
        let local = i128::from(mono_ns.saturating_sub(rate.mono_ns));
        let passed = local * 1_000_000 / i128::from(1_000_000 + rate.ppm);
        rate.since + u64::try_from(passed).expect("no clock runs backwards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000 * MS_NS;

    #[test]
    fn a_fast_clock_gains_and_its_readings_lead_back_to_the_truth() {
        // given a clock that is right for a second, and then gains 1000 ppm
        let clock = MachineClock::default();
        clock.set_rate(SECOND, 1_000);
        // when ten more seconds have passed
        clock.advance(11 * SECOND);
        // then it is 10 ms ahead
        assert_eq!(clock.mono_ns() - ORIGIN_NS, 11 * SECOND + 10 * MS_NS);
        assert_eq!(clock.true_at(clock.mono_ns()), 11 * SECOND);
        assert_eq!(clock.true_at(ORIGIN_NS + SECOND / 2), SECOND / 2);
    }

    #[test]
    fn the_wall_clock_jumps_alone() {
        let clock = MachineClock::default();
        clock.advance(SECOND);
        let (mono, wall) = (clock.mono_ns(), clock.wall_ns());
        clock.jump_wall(-3_600_000);
        assert_eq!(clock.mono_ns(), mono);
        assert_eq!(clock.wall_ns(), wall - 3_600 * SECOND);
    }
}
