//! No request reaches an upstream unless its token is good, or its route is public; and it reaches its own route's
//! upstream alone.
//!
//! Source: architecture, "evidence": an unauthenticated request has no way to the upstream.

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::{Event, RequestNumber, Token};
use crate::witness::Counts;

/// The promise.
#[derive(Default)]
pub struct Identity {
    sent: BTreeMap<RequestNumber, (&'static str, Token)>,
    unwelcome: u64,
}

impl Promise for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn see(&mut self, _: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Sent(request) => {
                self.unwelcome += u64::from(request.route != "open" && request.token != Token::Good);
                self.sent.insert(request.number, (request.route, request.token));
                Ok(())
            }
            Event::Reached { number, upstream, .. } => {
                let Some((route, token)) = self.sent.get(number) else {
                    return Err(format!("request {number} reached {upstream}, and nobody had sent it"));
                };
                if *route != "open" && *token != Token::Good {
                    return Err(format!(
                        "request {number} for {route} reached {upstream} with token {token:?}"
                    ));
                }
                let wanted = if *route == "reports" { "second" } else { "first" };
                if *upstream != wanted {
                    return Err(format!("request {number} for {route} reached {upstream}, wanted {wanted}"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn counts(&self) -> Counts {
        Counts::from([("requests without a good token".to_owned(), self.unwelcome)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, reached, sent};
    use super::*;

    #[test]
    fn a_stranger_at_an_upstream_and_a_wrong_upstream_are_found() {
        let judge = |events: &[Event]| judge(&mut Identity::default(), events);
        assert_eq!(judge(&[sent(1, Token::Good), reached(1, "first"), sent(2, Token::Forged)]), Ok(()));
        assert!(judge(&[sent(1, Token::Forged), reached(1, "second")]).is_err());
        assert!(judge(&[sent(1, Token::None), reached(1, "second")]).is_err());
        assert!(judge(&[sent(1, Token::Good), reached(1, "second")]).is_err());
        assert!(judge(&[reached(1, "first")]).is_err());
    }
}
