//! No token is spent that the ledger did not give: at every moment, the tokens of all admissions until then are no more
//! than those that the ledger has booked as spent, and those that are out in leases.
//!
//! Source: quota.md 7 (I5, I8) and 8. What a lease loses is booked first and comes back never, so this holds whatever
//! clocks do: a lease that a slow clock spends after its end was booked as spent at its end. The ledger's sums are those
//! after the newest entry that any node has applied; each node tells them, together with what it checks of itself (that
//! all tokens ever refilled are in buckets, booked, or cut). Admissions are those that upstreams saw, as in [`exact`].
//!
//! [`exact`]: super::exact

use std::collections::{BTreeMap, BTreeSet};

use super::exact::unjudged;
use super::{Promise, Verdict};
use crate::clock::{MS_NS, TrueNs};
use crate::event::{Charge, Event, RequestNumber};
use crate::plan::Plan;
use crate::witness::Counts;

/// The promise.
#[derive(Default)]
pub struct Conserved {
    /// Quotas of which a node may admit what the ledger has not given.
    unjudged: BTreeSet<String>,
    /// Millisecond of true time → the most that may have been spent at some moment within it, and at its end.
    given: BTreeMap<u64, (u64, u64)>,
    newest: u64,
    /// Index → what the first node said of it.
    told: BTreeMap<u64, u64>,
    /// True instant, request, quota and bucket, cost. A request that was sent to an upstream twice was admitted once.
    admissions: BTreeSet<(TrueNs, RequestNumber, String, String, u64)>,
}

impl Conserved {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        Self { unjudged: unjudged(plan).into_keys().collect(), ..Self::default() }
    }
}

impl Promise for Conserved {
    fn name(&self) -> &'static str {
        "conserved"
    }

    fn see(&mut self, at: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Applied { host, index, given: tokens, .. } => {
                let first = *self.told.entry(*index).or_insert(*tokens);
                if first != *tokens {
                    return Err(format!(
                        "at index {index} node {host} has given {tokens} tokens, and another had given {first}"
                    ));
                }
                if *index > self.newest {
                    self.newest = *index;
                    let before = self.given.values().next_back().map_or(0, |(_, last)| *last);
                    let (most, last) = self.given.entry(at / MS_NS).or_insert((before, before));
                    (*most, *last) = ((*most).max(*tokens), *tokens);
                }
            }
            Event::Reached { number, charges, .. } => {
                let judged = |charge: &&Charge| !self.unjudged.contains(&charge.quota);
                for Charge { quota, key, cost, at } in charges.iter().filter(judged) {
                    self.admissions.insert((*at, *number, quota.clone(), key.clone(), *cost));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Verdict {
        let mut spent = 0;
        for (at, number, quota, _, cost) in &self.admissions {
            // Hosts act at whole milliseconds; a clock that is led back to the truth is some nanoseconds off.
            let ms = (at + MS_NS / 2) / MS_NS;
            let most = match self.given.range(..=ms).next_back() {
                Some((since, (most, _))) if *since == ms => *most,
                Some((_, (_, last))) => *last,
                None => 0,
            };
            spent += cost;
            if spent > most {
                return Err(format!(
                    "request {number} was charged to {quota} at {:.3} s of true time: {spent} tokens were spent by then, \
                     and {most} given",
                    *at as f64 / 1e9
                ));
            }
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let spent: u64 = self.admissions.iter().map(|(_, _, _, _, cost)| cost).sum();
        Counts::from([
            ("tokens spent".to_owned(), spent),
            ("tokens given at last".to_owned(), self.given.values().next_back().map_or(0, |(_, last)| *last)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::judge;
    use super::*;

    fn given(index: u64, tokens: u64) -> Event {
        Event::Applied { host: 1, index, term: 1, digest: 0, given: tokens }
    }

    fn spent(number: RequestNumber, at_ms: u64) -> Event {
        let charge = Charge { quota: "q".to_owned(), key: "k".to_owned(), cost: 1, at: at_ms * MS_NS };
        Event::Reached { number, node: 1, upstream: "first".into(), charges: vec![charge] }
    }

    #[test]
    fn a_token_that_was_not_given_or_came_back_too_early_is_found() {
        let judge = |events: &[Event]| judge(&mut Conserved::default(), events);
        // Events come at 0 ms, 1 ms, 2 ms, …
        assert_eq!(judge(&[given(1, 0), given(2, 2), spent(1, 1), spent(2, 2)]), Ok(()));
        assert_eq!(judge(&[given(1, 1), spent(1, 1), spent(1, 1)]), Ok(()), "one request, tried twice");
        assert!(judge(&[given(1, 1), spent(1, 1), spent(2, 2)]).is_err(), "one too many");
        assert!(judge(&[given(1, 0), given(2, 0), given(3, 5), spent(1, 1)]).is_err(), "before it was given");
        assert!(
            judge(&[given(1, 5), given(2, 1), spent(1, 0), spent(2, 3)]).is_err(),
            "spent after it went back"
        );
        assert_eq!(judge(&[given(1, 5), given(2, 1), spent(1, 1), spent(2, 1)]), Ok(()), "or just before");
        assert_eq!(judge(&[given(2, 5), given(1, 0), spent(1, 3)]), Ok(()), "a node that is behind");
    }

    #[test]
    fn nodes_that_differ_are_found() {
        assert!(judge(&mut Conserved::default(), &[given(1, 1), given(1, 2)]).is_err());
    }
}
