//! At the same index, every node has applied the same entries to the same state, in every one of its lives.
//!
//! Source: Raft (Ongaro 2014, section 3.6.3, state machine safety); the fingerprint is of the whole state.

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::Event;
use crate::host::HostNumber;
use crate::witness::Counts;

/// The promise.
#[derive(Default)]
pub struct Agreement {
    /// Index → term, fingerprint, who said so first.
    applied: BTreeMap<u64, (u64, u64, HostNumber)>,
    again: u64,
}

impl Promise for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn see(&mut self, _: TrueNs, event: &Event) -> Verdict {
        let Event::Applied { host, index, term, digest, .. } = *event else { return Ok(()) };
        let (first_term, first_digest, first) = *self.applied.entry(index).or_insert((term, digest, host));
        self.again += u64::from(first != host);
        if (first_term, first_digest) == (term, digest) {
            return Ok(());
        }
        Err(format!(
            "at index {index} node {host} has term {term} and state {digest:016x}, node {first} had term {first_term} \
             and state {first_digest:016x}"
        ))
    }

    fn counts(&self) -> Counts {
        Counts::from([("entries compared".to_owned(), self.again)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::judge;
    use super::*;

    #[test]
    fn another_entry_and_another_state_are_found() {
        let applied = |host, index, term, digest| Event::Applied { host, index, term, digest, given: 0 };
        let same = [applied(1, 1, 1, 7), applied(2, 1, 1, 7), applied(1, 2, 1, 8)];
        assert_eq!(judge(&mut Agreement::default(), &same), Ok(()));
        assert!(judge(&mut Agreement::default(), &[applied(1, 1, 1, 7), applied(2, 1, 2, 7)]).is_err());
        assert!(judge(&mut Agreement::default(), &[applied(1, 1, 1, 7), applied(1, 1, 1, 8)]).is_err());
    }
}
