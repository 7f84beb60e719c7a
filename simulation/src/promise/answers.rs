//! Every request has one end: an answer, its own, or a connection that is seen to fail. None is left without, while
//! there is no trouble.
//!
//! An answer with 200 comes from the upstream that the request reached, and names it. Source: the journey; every wait
//! has a deadline.

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::{Event, Fate, RequestNumber};

/// The promise.
#[derive(Default)]
pub struct Answers {
    /// When it was sent, and how often it reached an upstream.
    open: BTreeMap<RequestNumber, (TrueNs, u32)>,
    calm_since: Option<TrueNs>,
}

/// Connections that a trouble silenced are found out within this time after it.
const SETTLE_NS: TrueNs = 20_000 * crate::clock::MS_NS;

impl Promise for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Calm => self.calm_since = Some(at),
            Event::Sent(request) => {
                self.open.insert(request.number, (at, 0));
            }
            Event::Reached { number, .. } => {
                if let Some((_, reached)) = self.open.get_mut(number) {
                    *reached += 1;
                }
            }
            Event::Done { number, node, fate } => {
                let Some((sent_at, reached)) = self.open.remove(number) else {
                    return Err(format!("request {number} has a second end at node {node}: {fate:?}"));
                };
                match fate {
                    Fate::Answered { status: 200, echo, .. } if *echo != Some(*number) || reached == 0 => {
                        return Err(format!(
                            "request {number} was answered 200 by node {node} with the answer to {echo:?}, having \
                             reached an upstream {reached} times"
                        ));
                    }
                    Fate::Silent if self.calm_since.is_some_and(|calm| sent_at > calm + SETTLE_NS) => {
                        return Err(format!(
                            "request {number} to node {node} was left without an end in calm weather"
                        ));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Verdict {
        match self.open.first_key_value() {
            Some((number, _)) => {
                Err(format!("{} requests have no end, the first is {number}", self.open.len()))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answered, judge, reached, sent};
    use super::*;
    use crate::event::Token;

    #[test]
    fn a_missing_a_second_and_anothers_answer_are_found() {
        let judge = |events: &[Event]| judge(&mut Answers::default(), events);
        let (one, there) = (sent(1, Token::Good), reached(1, "first"));
        assert_eq!(judge(&[one.clone(), there.clone(), answered(1, 200, Some(1))]), Ok(()));
        assert_eq!(judge(&[one.clone(), answered(1, 429, None)]), Ok(()));
        assert!(judge(std::slice::from_ref(&one)).is_err());
        assert!(judge(&[one.clone(), there.clone(), answered(1, 200, Some(2))]).is_err());
        assert!(judge(&[one.clone(), answered(1, 200, Some(1))]).is_err(), "it never was at the upstream");
        assert!(judge(&[one, answered(1, 429, None), answered(1, 429, None)]).is_err());
    }

    #[test]
    fn silence_is_forgiven_in_a_storm_and_not_long_after() {
        let silent = Event::Done { number: 1, node: 1, fate: Fate::Silent };
        let mut stormy = Answers::default();
        assert_eq!(judge(&mut stormy, &[sent(1, Token::Good), silent.clone()]), Ok(()));
        let mut calm = Answers::default();
        assert_eq!(calm.see(0, &Event::Calm), Ok(()));
        assert_eq!(calm.see(SETTLE_NS + 1, &sent(1, Token::Good)), Ok(()));
        assert!(calm.see(SETTLE_NS + 2, &silent).is_err());
    }
}
