//! How often one part of a node warns of refusals: a line a second for each reason, with the number of those that had
//! none.
//!
//! A refusal that is not the client's fault deserves a warning, and when a leader is gone or an upstream is down every
//! request is one; so is every connection of a stranger at the peers' door. The log need not hold them all.

use std::collections::BTreeMap;

use crate::world::BootNs;

const LINE_EVERY_NS: u64 = 1_000_000_000;

/// One part's warnings, for instance a data-plane thread's. As many entries as there are reasons, which are words in the code.
#[derive(Debug, Default)]
pub struct Warnings {
    reasons: BTreeMap<&'static str, Last>,
}

#[derive(Debug)]
struct Last {
    line: BootNs,
    unsaid: u64,
}

impl Warnings {
    /// Whether a refusal for `reason` at `now` gets a line, and how many got none since the last one.
    pub fn line(&mut self, reason: &'static str, now: BootNs) -> Option<u64> {
        let Some(last) = self.reasons.get_mut(reason) else {
            self.reasons.insert(reason, Last { line: now, unsaid: 0 });
            return Some(0);
        };
        if now.since(last.line) < LINE_EVERY_NS {
            last.unsaid += 1;
            return None;
        }
        last.line = now;
        Some(std::mem::take(&mut last.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_line_a_second_that_counts_those_without_one() {
        // given a thread that has not warned yet
        let mut warnings = Warnings::default();
        let at = |ms: u64| BootNs(ms * 1_000_000);
        // when a thousand requests a second are undecided for 2.5 s, and one is too much for the node
        let mut lines = Vec::new();
        for ms in 0..2_500 {
            lines.extend(warnings.line("quota-undecided", at(ms)).map(|others| (ms, others)));
        }
        let other = warnings.line("overloaded", at(2_400));
        // then there are three lines for the first reason, one for the other, and none is forgotten
        assert_eq!(lines, [(0, 0), (1_000, 999), (2_000, 999)]);
        assert_eq!(other, Some(0));
        assert_eq!(warnings.line("quota-undecided", at(60_000)), Some(499));
    }
}
