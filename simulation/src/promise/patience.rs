//! Who never comes to the end of a head is turned away in time, and no node waits for it.
//!
//! Judged while the cluster is well: a node that stands still turns nobody away. Source: `limits.head_timeout` of the node
//! file, which counts from the first byte of a head; decisions, "every wait has a deadline".

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::clock::{MS_NS, TrueNs};
use crate::event::{Event, RequestNumber};
use crate::host::HostNumber;

/// Longer than nodes are patient ([`crate::town::HEAD_TIMEOUT_S`]), on the slowest clock of a plan, with the way there and
/// back.
const PATIENCE_NS: TrueNs = (crate::town::HEAD_TIMEOUT_S * 1_000 * 3 / 2 + 2_000) * MS_NS;

/// The promise.
#[derive(Default)]
pub struct Patience {
    well_since: Option<TrueNs>,
    /// Since when, and at which node.
    open: BTreeMap<RequestNumber, (TrueNs, HostNumber)>,
}

impl Promise for Patience {
    fn name(&self) -> &'static str {
        "patience"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Converged { .. } => {
                self.well_since.get_or_insert(at);
            }
            Event::Dawdles { number, node } => {
                self.open.insert(*number, (at, *node));
            }
            Event::TurnedAway { number } => {
                self.open.remove(number);
            }
            Event::Status { .. } => {
                let Some(well) = self.well_since else { return Ok(()) };
                let late = self.open.iter().find(|(_, (since, _))| well.max(*since) + PATIENCE_NS < at);
                if let Some((number, (since, node))) = late {
                    let for_ms = (at - since) / MS_NS;
                    return Err(format!("node {node} has waited for the head of {number} for {for_ms} ms"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_waits_for_ever_is_found_once_it_is_well() {
        let status = Event::Status { host: 1, revision: 1, applied: 1 };
        let mut patience = Patience::default();
        let mut see = |at, event: &Event| patience.see(at, event);
        assert_eq!(see(0, &Event::Dawdles { number: 1, node: 1 }), Ok(()));
        assert_eq!(see(2 * PATIENCE_NS, &status), Ok(()));
        assert_eq!(see(2 * PATIENCE_NS, &Event::Converged { revision: 1, applied: 1 }), Ok(()));
        assert_eq!(see(3 * PATIENCE_NS, &status), Ok(()));
        assert!(see(3 * PATIENCE_NS + 1, &status).is_err());
        assert_eq!(see(3 * PATIENCE_NS + 1, &Event::TurnedAway { number: 1 }), Ok(()));
        assert_eq!(see(3 * PATIENCE_NS + 1, &status), Ok(()));
    }
}
