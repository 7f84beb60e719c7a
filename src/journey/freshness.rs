//! How old the view may be that a node serves requests from.
//!
//! ```text
//!                     public route        route with a token
//! lease holds         served              served
//! lease has ended     served              503 stale-view, but for its `serve_stale_for`
//! never confirmed     503, for 30 s       503 stale-view
//!   after 30 s        served              503 stale-view
//! ```
//! A process that has just begun knows a document from its disk alone, which the cluster may have replaced long ago. It
//! waits for a leader's word; after [`Freshness::CONTACT_WITHIN`] it goes on without one, and its health says so.

use std::time::Duration;

use cluster::world::{BootNs, World};

/// Until when this node's view of its cluster is known to be no older than its lease; none: never confirmed.
pub type FreshUntil = Box<dyn Fn() -> Option<BootNs> + Send + Sync>;

/// Judges the age of the view, one a process.
pub struct Freshness {
    world: World,
    until: FreshUntil,
    born: BootNs,
}

impl std::fmt::Debug for Freshness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Freshness")
    }
}

/// What is known of the view's age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Within its lease.
    Fresh,
    /// Its lease ended so long ago.
    Stale(Duration),
    /// No leader has confirmed it since the process began; some time is left to hear from one.
    Expected(Duration),
    /// No leader has confirmed it, and that time is over: what is on the disk is served.
    Unconfirmed,
}

impl Freshness {
    /// How long a process waits for the first word of a leader before it serves what it has on its disk.
    pub const CONTACT_WITHIN: Duration = Duration::from_secs(30);

    /// Of a process that begins now.
    pub fn new(world: World, until: FreshUntil) -> Self {
        let born = world.clock.boot();
        Self { world, until, born }
    }

    /// The view's age now.
    pub fn age(&self) -> Age {
        age((self.until)(), self.born, self.world.clock.boot())
    }

    /// Whether the view may be served from at all.
    pub fn serves(&self) -> bool {
        // The usual case costs no reading of the clock.
        (self.until)().is_some() || self.age() == Age::Unconfirmed
    }

    /// Whether a token may be believed under this view, on a route that goes on for `stale_for` after the lease.
    pub fn trusts(&self, stale_for: Duration) -> bool {
        match self.age() {
            Age::Fresh => true,
            Age::Stale(ago) => ago < stale_for,
            // How old it is nobody knows: no bound can be kept.
            Age::Expected(_) | Age::Unconfirmed => false,
        }
    }
}

fn age(until: Option<BootNs>, born: BootNs, now: BootNs) -> Age {
    match until {
        Some(until) if now < until => Age::Fresh,
        Some(until) => Age::Stale(Duration::from_nanos(now.since(until))),
        None => match born.plus(Freshness::CONTACT_WITHIN).since(now) {
            0 => Age::Unconfirmed,
            left => Age::Expected(Duration::from_nanos(left)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(until: Option<u64>, now: u64) -> Age {
        age(until.map(|s| BootNs(s * SECOND)), BootNs(100 * SECOND), BootNs(now * SECOND))
    }

    #[test]
    fn a_lease_ends_at_its_instant_and_not_after_it() {
        assert_eq!(at(Some(105), 104), Age::Fresh);
        assert_eq!(at(Some(105), 105), Age::Stale(Duration::ZERO));
        assert_eq!(at(Some(105), 165), Age::Stale(Duration::from_secs(60)));
    }

    #[test]
    fn a_process_that_hears_nothing_waits_for_half_a_minute() {
        assert_eq!(at(None, 101), Age::Expected(Duration::from_secs(29)));
        assert_eq!(at(None, 130), Age::Unconfirmed);
    }
}
