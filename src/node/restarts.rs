//! How often an actor may be started again. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use cluster::world::BootNs;

/// What a supervisor may do with a failed child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Start it again.
    Allowed,
    /// It fails too often: give up, and let the process's own supervisor start the node afresh.
    Exhausted,
}

/// A budget of restarts in a sliding window.
#[derive(Debug, Default)]
pub struct Restarts {
    /// Instants of restarts within the window, oldest first; at most [`Restarts::MAX`].
    recent: VecDeque<BootNs>,
}

impl Restarts {
    /// Restarts within [`Restarts::WINDOW`].
    pub const MAX: usize = 5;
    /// A restart counts for this long.
    pub const WINDOW: Duration = Duration::from_secs(60);

    /// Asks for one restart at `now`.
    pub fn ask(&mut self, now: BootNs) -> Restart {
        while self.recent.front().is_some_and(|oldest| oldest.plus(Self::WINDOW) <= now) {
            self.recent.pop_front();
        }
        if self.recent.len() == Self::MAX {
            return Restart::Exhausted;
        }
        self.recent.push_back(now);
        Restart::Allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> BootNs {
        BootNs(number * 1_000_000_000)
    }

    #[test]
    fn a_child_that_fails_again_and_again_exhausts_its_budget() {
        let mut restarts = Restarts::default();
        let answers: Vec<Restart> = (0..6).map(|number| restarts.ask(second(number))).collect();
        assert_eq!(answers[..5], [Restart::Allowed; 5]);
        assert_eq!(answers[5], Restart::Exhausted);
    }

    #[test]
    fn a_child_that_fails_now_and_then_is_always_started_again() {
        let mut restarts = Restarts::default();
        assert!((0..100).all(|number| restarts.ask(second(number * 13)) == Restart::Allowed));
    }
}
