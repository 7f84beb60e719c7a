//! A change that was acknowledged stays, and no node's revision goes back for who looks at it.
//!
//! Source: decisions 21. A process that has just begun may show what was on its disk; while it runs, its revision only
//! rises. In the end every node has the last acknowledged revision or a later one.

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::Event;
use crate::host::HostNumber;

/// The promise.
#[derive(Default)]
pub struct Acknowledged {
    revision: u64,
    seen: BTreeMap<HostNumber, u64>,
}

impl Promise for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn see(&mut self, _: TrueNs, event: &Event) -> Verdict {
        match *event {
            Event::InForce { edition, revision } => {
                if revision < self.revision {
                    return Err(format!(
                        "edition {edition} became revision {revision}, after revision {} was acknowledged",
                        self.revision
                    ));
                }
                self.revision = revision;
                Ok(())
            }
            Event::Began { host, .. } => {
                self.seen.remove(&host);
                Ok(())
            }
            Event::Status { host, revision, .. } => {
                let before = self.seen.insert(host, revision).unwrap_or(0);
                if revision < before {
                    return Err(format!("node {host} went from revision {before} back to {revision}"));
                }
                Ok(())
            }
            Event::Converged { revision, .. } if revision < self.revision => Err(format!(
                "the cluster rests at revision {revision}, but {} was acknowledged",
                self.revision
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::judge;
    use super::*;

    fn status(revision: u64) -> Event {
        Event::Status { host: 1, revision, applied: 0 }
    }

    #[test]
    fn a_lost_change_and_a_revision_that_goes_back_are_found() {
        let in_force = |revision| Event::InForce { edition: 0, revision };
        let converged = |revision| Event::Converged { revision, applied: 0 };
        let judge = |events: &[Event]| judge(&mut Acknowledged::default(), events);
        assert_eq!(judge(&[in_force(1), status(1), in_force(2), status(2), converged(3)]), Ok(()));
        assert!(judge(&[in_force(2), converged(1)]).is_err());
        assert!(judge(&[in_force(2), in_force(1)]).is_err());
        assert!(judge(&[status(2), status(1)]).is_err());
        assert_eq!(judge(&[status(2), Event::Began { host: 1, life: 2 }, status(1)]), Ok(()));
    }
}
