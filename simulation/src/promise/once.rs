//! A request that must not be repeated is sent to an upstream once at most; one that may be, twice.
//!
//! Source: RFC 9110 section 9.2.2; the gateway sends a request without a body once more, over a new connection, if an
//! idle connection turns out to be closed.

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::{Event, RequestNumber};
use crate::witness::Counts;

/// The promise.
#[derive(Default)]
pub struct Once {
    /// Whether it may be repeated, and how often it arrived.
    sent: BTreeMap<RequestNumber, (bool, u32)>,
    again: u64,
}

impl Promise for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn see(&mut self, _: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Sent(request) => {
                self.sent.insert(request.number, (request.idempotent, 0));
            }
            Event::Reached { number, upstream, .. } => {
                let (idempotent, count) = self.sent.entry(*number).or_insert((false, 0));
                *count += 1;
                self.again += u64::from(*count > 1);
                if *count > 1 + u32::from(*idempotent) {
                    return Err(format!(
                        "request {number} (idempotent: {idempotent}) reached {upstream} {count} times"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts::from([("requests sent to an upstream again".to_owned(), self.again)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, reached, sent};
    use super::*;
    use crate::event::Token;

    #[test]
    fn a_repeated_post_is_found() {
        let once = [sent(1, Token::Good), reached(1, "first")];
        assert_eq!(judge(&mut Once::default(), &once), Ok(()));
        let twice = [sent(1, Token::Good), reached(1, "first"), reached(1, "first")];
        assert!(judge(&mut Once::default(), &twice).is_err());
    }
}
