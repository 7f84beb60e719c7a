//! No node ends by a fault of the program.
//!
//! A node may end because its disk failed or it was told to. A panic, an actor that fails too often, or an invariant of
//! the replicated state that does not hold is a fault. Source: decisions 20 and 24; quota.md 7 (I1, I2, I8, I12 are
//! checked by each node after each entry, or after each sixteenth where there are many buckets).

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::Event;

/// The promise.
pub struct Faults;

impl Promise for Faults {
    fn name(&self) -> &'static str {
        "faults"
    }

    fn see(&mut self, _: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Ended { host, why, fault: true } => Err(format!("node {host} ended by a fault: {why}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::judge;
    use super::*;

    #[test]
    fn a_failed_disk_is_no_fault_and_a_panic_is_one() {
        let ended = |fault| [Event::Ended { host: 1, why: "why".to_owned(), fault }];
        assert_eq!(judge(&mut Faults, &ended(false)), Ok(()));
        assert!(judge(&mut Faults, &ended(true)).is_err());
    }
}
