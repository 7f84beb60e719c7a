//! One leader a term.
//!
//! Source: Raft (Ongaro 2014, section 3.4, election safety). Two lives of one node count as two, for a node that forgot
//! its vote may lead a term twice.

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::clock::TrueNs;
use crate::event::Event;
use crate::host::HostNumber;

/// The promise.
#[derive(Default)]
pub struct Leaders {
    lives: BTreeMap<HostNumber, u64>,
    /// Term → who leads it.
    led: BTreeMap<u64, (HostNumber, u64)>,
}

impl Promise for Leaders {
    fn name(&self) -> &'static str {
        "leaders"
    }

    fn see(&mut self, _: TrueNs, event: &Event) -> Verdict {
        match *event {
            Event::Began { host, life } => {
                self.lives.insert(host, life);
                Ok(())
            }
            Event::Leads { host, term } => {
                let leader = (host, self.lives.get(&host).copied().unwrap_or(0));
                let first = *self.led.entry(term).or_insert(leader);
                if first == leader {
                    return Ok(());
                }
                Err(format!("node and life {leader:?} leads term {term}, which {first:?} led"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::judge;
    use super::*;

    #[test]
    fn two_nodes_or_two_lives_in_one_term_are_found() {
        let began = |life| Event::Began { host: 1, life };
        let leads = |host, term| Event::Leads { host, term };
        assert_eq!(
            judge(&mut Leaders::default(), &[began(1), leads(1, 1), leads(2, 2), leads(2, 2)]),
            Ok(())
        );
        assert!(judge(&mut Leaders::default(), &[leads(1, 1), leads(2, 1)]).is_err());
        assert!(judge(&mut Leaders::default(), &[began(1), leads(1, 1), began(2), leads(1, 1)]).is_err());
    }
}
