//! Which editions of the gateway document may be in force, since when, until when. No promise; promises ask it.

use std::collections::BTreeSet;

use crate::clock::TrueNs;
use crate::event::Event;

/// Editions, by number.
pub struct Editions {
    all: Vec<Held>,
    older_end_ns: TrueNs,
}

struct Held {
    number: usize,
    from: TrueNs,
    until: Option<TrueNs>,
}

impl Editions {
    /// The first is in force from the start.
    ///
    /// - `older_end_ns`: so long after another is in force, leases and views of an older one have ended.
    pub fn new(older_end_ns: TrueNs) -> Self {
        Self { all: vec![Held { number: 0, from: 0, until: None }], older_end_ns }
    }

    /// Hears an event.
    pub fn see(&mut self, at: TrueNs, event: &Event) {
        match event {
            Event::Ordered { edition } if *edition > 0 => {
                self.all.push(Held { number: *edition, from: at, until: None });
            }
            Event::InForce { edition, .. } => {
                for older in self.all.iter_mut().filter(|it| it.number < *edition && it.until.is_none()) {
                    older.until = Some(at + self.older_end_ns);
                }
            }
            _ => {}
        }
    }

    /// Those that may be in force at some instant between two, both included.
    pub fn between(&self, from: TrueNs, until: TrueNs) -> impl Iterator<Item = usize> {
        let held =
            self.all.iter().filter(move |it| it.from <= until && it.until.is_none_or(|ends| from < ends));
        held.map(|it| it.number)
    }

    /// When one more, or one less, may be in force.
    pub fn changes(&self) -> BTreeSet<TrueNs> {
        self.all.iter().flat_map(|it| [Some(it.from), it.until]).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_may_be_in_force_until_the_leases_of_before_the_next_have_ended() {
        let mut editions = Editions::new(1_000);
        editions.see(100, &Event::Ordered { edition: 1 });
        editions.see(200, &Event::InForce { edition: 1, revision: 2 });
        let at = |at| editions.between(at, at).collect::<Vec<_>>();
        assert_eq!((at(99), at(100), at(1_199)), (vec![0], vec![0, 1], vec![0, 1]));
        assert_eq!(at(1_200), [1]);
        assert_eq!(editions.changes(), BTreeSet::from([0, 100, 1_200]));
    }
}
