//! A message is taken for whole by nobody unless it is, as it was sent; and what ends an exchange is an answer to it.
//!
//! Bodies are made of their request's number, both ways. Connections break in the middle of them, upstreams send what was
//! not asked for, callers go away. Source: RFC 9112 section 8, and 9110 section 15.2: an interim answer is not the end.

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::{Event, Fate};

/// The promise.
#[derive(Default)]
pub struct Whole;

impl Promise for Whole {
    fn name(&self) -> &'static str {
        "whole"
    }

    fn see(&mut self, _: TrueNs, event: &Event) -> Verdict {
        match event {
            Event::Garbled { number, found } => Err(format!("request {number}: {found}")),
            Event::Done { number, node, fate: Fate::Answered { status: status @ ..200, .. } } => Err(
                format!("request {number} was answered {status} by node {node}, and with nothing after it"),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answered, judge};
    use super::*;

    #[test]
    fn another_body_and_an_interim_answer_are_found() {
        assert_eq!(judge(&mut Whole, &[answered(1, 200, Some(1))]), Ok(()));
        assert!(judge(&mut Whole, &[answered(1, 101, Some(1))]).is_err());
        let found = "an answer with 1 bytes, wanted 4".to_owned();
        assert!(judge(&mut Whole, &[Event::Garbled { number: 1, found }]).is_err());
    }
}
