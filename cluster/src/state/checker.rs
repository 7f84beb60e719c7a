//! A small exhaustive search over the real ledger (quota.md 9): every order of everything that can happen to one key.
//!
//! Clocks are perfect and time moves in ticks. A message that is lost is one that is never delivered; one that is late is
//! delivered after others. A gateway may void its batch at any time by closing another. At a leader change the entry in
//! flight is lost or kept, and the new leader's clock starts where it applied the last stamp, at once or late.

use std::collections::{BTreeSet, VecDeque};

use config::quota::Limit;

use super::amounts::Amounts;
use super::command::{Batch, BatchOutcome, Item, ItemOutcome, Register};
use super::digest::Digester;
use super::ids::{Key, LeaseId, LimitId, RaftId, Revision, SessionId, Tau};
use super::ledger::Ledger;
use super::rules::{Rule, without};

const KEY: Key = Key { limit: LimitId(1), tenant: 0, value: 1 };
const TTL: u64 = 2;
/// A larger search does not belong into every run of the tests.
const STATES_MAX: usize = 250_000;

/// What a search is bounded by.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    gateways: usize,
    batches: u8,
    duplicates: u8,
    leader_changes: u8,
    burst: u64,
    ticks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ask {
    gateway: usize,
    seq: u64,
    lid: Option<LeaseId>,
    held: u64,
    spent: u64,
}

#[derive(Clone, Debug)]
enum Message {
    Ask(Ask),
    Reply { gateway: usize, seq: u64, outcome: ItemOutcome },
}

#[derive(Clone, Debug, Default)]
struct Gateway {
    session: SessionId,
    seq: u64,
    /// The batch that is not void, and when it was sent.
    outstanding: Option<(u64, u64)>,
    lid: Option<LeaseId>,
    held: u64,
    spent: u64,
    deadline: u64,
}

/// One state of everything.
#[derive(Clone, Debug)]
struct Everything {
    now: u64,
    ledger: Ledger,
    /// By how much the leader's cluster clock lags behind true time.
    lag: u64,
    /// When the last entry was committed.
    committed: u64,
    in_flight: Option<(Tau, Ask)>,
    net: Vec<Message>,
    gateways: Vec<Gateway>,
    duplicates: u8,
    leader_changes: u8,
    /// The perfect bucket that all admissions are charged to: one token comes each tick.
    perfect: (u64, u64),
}

/// More was admitted than a perfect bucket holds.
#[derive(Debug, PartialEq, Eq)]
struct OverAdmission;

impl Everything {
    fn new(bounds: &Bounds) -> Self {
        let mut ledger = Ledger::with_bounds(1, 64);
        let limit = Limit { tokens: 1, per_ns: 1, burst: bounds.burst };
        ledger.amounts(Revision(1), Amounts { defaults: [(KEY.limit, limit)].into(), ..Amounts::default() });
        let sessions = 0..bounds.gateways as u64;
        let registers = sessions.map(|node| Register { node: RaftId(node), nonce: 0 });
        let sessions: Vec<SessionId> = registers.map(|register| ledger.register(&register)).collect();
        let gateway = |session| Gateway { session, ..Gateway::default() };
        Self {
            now: 0,
            ledger,
            lag: 0,
            committed: 0,
            in_flight: None,
            net: Vec::new(),
            gateways: sessions.into_iter().map(gateway).collect(),
            duplicates: bounds.duplicates,
            leader_changes: bounds.leader_changes,
            perfect: (bounds.burst, 0),
        }
    }

    /// Every state that one step leads to.
    fn next(&self, bounds: &Bounds) -> Result<Vec<Self>, OverAdmission> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            all.push(next);
        };
        if self.now < bounds.ticks {
            add(&|it| it.now += 1);
        }
        for (number, gateway) in self.gateways.iter().enumerate() {
            if gateway.seq < bounds.batches.into() {
                add(&|it| it.close(number, false));
                if gateway.held > 0 && self.now < gateway.deadline {
                    add(&|it| it.close(number, true));
                }
            }
        }
        for (place, message) in self.net.iter().enumerate() {
            match message {
                Message::Ask(ask) if self.in_flight.is_none() => {
                    add(&|it| {
                        it.net.remove(place);
                        it.propose(*ask);
                    });
                    if self.duplicates > 0 {
                        add(&|it| {
                            it.duplicates -= 1;
                            it.propose(*ask);
                        });
                    }
                }
                Message::Ask(_) => {}
                Message::Reply { gateway, seq, outcome } => {
                    add(&|it| {
                        it.net.remove(place);
                        it.take(*gateway, *seq, outcome);
                    });
                }
            }
        }
        if self.in_flight.is_some() {
            add(&|it| it.commit(true));
        }
        if self.leader_changes > 0 {
            // The tail is lost, and the new leader applied the last entry at once or just now.
            add(&|it| it.lead(it.committed));
            add(&|it| it.lead(it.now));
            if self.in_flight.is_some() {
                add(&|it| {
                    it.commit(false);
                    it.lead(it.now);
                });
            }
        }
        for (number, gateway) in self.gateways.iter().enumerate() {
            if gateway.held > 0 && self.now < gateway.deadline {
                let mut next = self.clone();
                next.spend(number, bounds)?;
                all.push(next);
            }
        }
        Ok(all)
    }

    fn spend(&mut self, number: usize, bounds: &Bounds) -> Result<(), OverAdmission> {
        let gateway = &mut self.gateways[number];
        gateway.held -= 1;
        gateway.spent += 1;
        let (level, at) = self.perfect;
        let level = bounds.burst.min(level + self.now - at);
        self.perfect = (level.checked_sub(1).ok_or(OverAdmission)?, self.now);
        Ok(())
    }

    fn close(&mut self, number: usize, give_back: bool) {
        let gateway = &mut self.gateways[number];
        if give_back || self.now >= gateway.deadline {
            gateway.held = 0;
        }
        gateway.seq += 1;
        gateway.outstanding = Some((gateway.seq, self.now));
        let Gateway { seq, lid, held, spent, .. } = *gateway;
        // Replies to earlier batches are void for ever: whether they come makes no difference.
        self.net.retain(|it| !matches!(it, Message::Reply { gateway, .. } if *gateway == number));
        self.net.push(Message::Ask(Ask { gateway: number, seq, lid, held, spent }));
    }

    fn propose(&mut self, ask: Ask) {
        let stamp = Tau(self.now - self.lag).max(self.ledger.tau());
        self.in_flight = Some((stamp, ask));
    }

    fn commit(&mut self, answer: bool) {
        let (stamp, ask) = self.in_flight.take().expect("the caller saw an entry in flight");
        let Ask { gateway, seq, lid, held, spent } = ask;
        let item = Item { key: KEY, lid, held, spent, min: 0, max: u64::MAX, ttl_ns: TTL };
        self.ledger.begin(stamp);
        let session = self.gateways[gateway].session;
        let outcome = self.ledger.batch(&Batch { session, seq, items: vec![item] });
        self.ledger.sweep(1);
        self.ledger.check_all();
        self.committed = self.now;
        if let (true, BatchOutcome::Applied(mut outcomes)) = (answer, outcome) {
            self.net.push(Message::Reply { gateway, seq, outcome: outcomes.remove(0) });
        }
    }

    fn lead(&mut self, applied: u64) {
        self.leader_changes -= 1;
        self.in_flight = None;
        self.lag = applied - self.ledger.tau().0;
    }

    fn take(&mut self, number: usize, seq: u64, outcome: &ItemOutcome) {
        let gateway = &mut self.gateways[number];
        let Some((_, sent)) = gateway.outstanding.filter(|(outstanding, _)| *outstanding == seq) else {
            return;
        };
        gateway.outstanding = None;
        if !outcome.keep {
            gateway.held = 0;
        }
        if outcome.ttl_ns > 0 {
            if outcome.lid != gateway.lid {
                (gateway.lid, gateway.spent) = (outcome.lid, 0);
            }
            gateway.deadline = sent + TTL;
        }
        gateway.held += outcome.grant;
    }

    fn fingerprint(&self) -> u64 {
        let mut digester = Digester::new();
        digester.number(self.now).number(self.lag).number(self.committed);
        digester.number(self.duplicates.into()).number(self.leader_changes.into());
        digester.number(self.perfect.0).number(self.perfect.1);
        let ask = |digester: &mut Digester, ask: &Ask| {
            digester.number(ask.gateway as u64).number(ask.seq).number(ask.lid.map_or(0, |lid| lid.0));
            digester.number(ask.held).number(ask.spent);
        };
        if let Some((stamp, asked)) = &self.in_flight {
            digester.number(1).number(stamp.0);
            ask(&mut digester, asked);
        }
        // The order of messages means nothing.
        let messages: BTreeSet<u64> = self
            .net
            .iter()
            .map(|message| {
                let mut digester = Digester::new();
                match message {
                    Message::Ask(asked) => ask(&mut digester, asked),
                    Message::Reply { gateway, seq, outcome } => {
                        digester.number(9).number(*gateway as u64).number(*seq).number(outcome.grant);
                        digester.number(outcome.keep.into()).number(outcome.lid.map_or(0, |lid| lid.0));
                        digester.number(outcome.ttl_ns);
                    }
                }
                digester.finish()
            })
            .collect();
        digester.number(messages.len() as u64);
        for message in messages {
            digester.number(message);
        }
        for it in &self.gateways {
            let (seq, sent) = it.outstanding.unwrap_or_default();
            digester.number(it.seq).number(seq).number(sent).number(it.lid.map_or(0, |lid| lid.0));
            digester.number(it.held).number(it.spent).number(it.deadline);
        }
        self.ledger.digest(&mut digester);
        digester.finish()
    }
}

/// Searches everything, nearest or newest first, and counts the states.
fn search(bounds: &Bounds, nearest_first: bool) -> Result<usize, OverAdmission> {
    let start = Everything::new(bounds);
    let mut seen = BTreeSet::from([start.fingerprint()]);
    let mut open = VecDeque::from([start]);
    while let Some(state) = if nearest_first { open.pop_front() } else { open.pop_back() } {
        for next in state.next(bounds)? {
            if seen.insert(next.fingerprint()) {
                open.push_back(next);
            }
        }
        assert!(seen.len() <= STATES_MAX, "too large for every run of the tests: {bounds:?}");
    }
    Ok(seen.len())
}

const ALONE: Bounds =
    Bounds { gateways: 1, batches: 2, duplicates: 1, leader_changes: 1, burst: 2, ticks: 4 };

// A changed number of states is a changed model or ledger: look at it, then write the new number down.

#[test]
fn one_gateway_with_lost_and_late_batches_and_a_leader_change_never_admits_too_much() {
    let bounds = Bounds { duplicates: 0, ..ALONE };
    assert_eq!(search(&bounds, true), Ok(35_252));
    // and the order of the search makes no difference
    assert_eq!(search(&bounds, false), Ok(35_252));
}

#[test]
fn one_gateway_with_lost_late_and_doubled_batches_never_admits_too_much() {
    assert_eq!(search(&Bounds { leader_changes: 0, ..ALONE }, true), Ok(51_768));
}

#[test]
fn all_of_it_in_a_shorter_time_never_admits_too_much() {
    assert_eq!(search(&Bounds { ticks: 3, ..ALONE }, true), Ok(100_354));
}

#[test]
fn two_gateways_and_a_leader_change_never_admit_too_much() {
    let bounds = Bounds { gateways: 2, batches: 1, duplicates: 0, leader_changes: 1, burst: 1, ticks: 4 };
    assert_eq!(search(&bounds, true), Ok(47_476));
}

#[test]
fn the_search_finds_what_a_missing_rule_lets_through() {
    let three = Bounds { batches: 3, duplicates: 0, leader_changes: 0, ..ALONE };
    for (rule, bounds) in [
        (Rule::RefillBeforeReport, ALONE),
        (Rule::CapCountsOut, ALONE),
        (Rule::ExpiredIsSpent, ALONE),
        (Rule::SeqRises, three),
    ] {
        assert_eq!(without(rule, || search(&bounds, true)), Err(OverAdmission), "without {rule:?}");
    }
}
