//! The stage: nodes with their lessees, one leader, a road between them, and true time.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::clock::ClusterClock;
use cluster::leader::{Closed, Lender, Reply, Ticket, Wish};
use cluster::lease::{Ask, AskError, AskReply, Push};
use cluster::state::State;
use cluster::state::command::{Command, DocumentChange, Member, Outcome, Register, Stamped};
use cluster::state::ids::{Key, RaftId, SessionId, Tau};
use cluster::state::key::limit_id;
use cluster::world::{BootNs, MonoNs};
use config::gateway::GatewayDocument;
use config::ids::{NodeName, QuotaName};
use config::quota::{Limit, OnQuorumLoss, Quota};

use super::super::{Bounds, Lessee, Output, Verdict, WaiterId};
use crate::quota::entry::Entry;
use crate::quota::hold::Hold;
use crate::quota::rule::{Charge, QuotaRule};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;

/// Chance, repeatable.
pub struct Dice(pub u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// In `low..=high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low + 1)
    }
}

/// How long messages take one way, and entries until they are applied, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Road {
    delay: (u64, u64),
    commit: (u64, u64),
}

impl Road {
    /// One rack.
    pub const NEAR: Self = Self { delay: (200_000, MS), commit: (MS, 3 * MS) };
    /// Some zones, and disks that take their time.
    pub const FAR: Self = Self { delay: (200_000, 5 * MS), commit: (MS, 8 * MS) };
    /// Machines that have too much to do.
    pub const SLOW: Self = Self { delay: (MS, 12 * MS), commit: (5 * MS, 40 * MS) };

    /// So many ms one way; disks cost nothing beside that.
    pub fn apart(ms: u64) -> Self {
        Self { delay: (ms * MS, ms * MS + MS), commit: (2 * ms * MS, 2 * ms * MS + 2 * MS) }
    }

    /// Each in its turn.
    pub fn of(seed: u64) -> Self {
        [Self::NEAR, Self::FAR, Self::SLOW][usize::try_from(seed % 3).expect("small")]
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Admitted,
    Over,
    Undecided,
    Overloaded,
}

/// One request of cost 1.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub at: u64,
    pub node: usize,
    pub end: Option<End>,
    pub ended: u64,
    /// Whether a token lay somewhere, in the bucket or a node's lease, when it came, and when it ended.
    lay: (bool, bool),
}

impl Request {
    /// Refused though there was a token for it.
    pub fn is_needless(&self) -> bool {
        self.end == Some(End::Over) && self.lay == (true, true)
    }
}

enum Event {
    Request { node: usize },
    Wake { node: usize },
    Registers { node: usize, nonce: u128 },
    Registered { node: usize, nonce: u128, answer: Result<SessionId, AskError> },
    Asks { node: usize, ask: Ask },
    Answered { node: usize, session: SessionId, seq: u64, answer: Result<AskReply, AskError> },
    Pushed { node: usize, push: Push },
    Pump,
    Committed { entry: Stamped },
}

enum Asker {
    Batch { node: usize, session: SessionId, seq: u64 },
    Register { node: usize, nonce: u128 },
}

struct Node {
    lessee: Lessee,
    entry: Option<Arc<Entry>>,
    open: BTreeMap<WaiterId, usize>,
    wake: Option<u64>,
}

pub struct Stage {
    pub now: u64,
    pub requests: Vec<Request>,
    /// When and where.
    pub admissions: Vec<(u64, usize)>,
    pub entries: u64,
    pub messages: u64,
    charge: Charge,
    dice: Dice,
    road: Road,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    nodes: Vec<Node>,
    state: State,
    clock: ClusterClock,
    lender: Option<Lender>,
    term: u64,
    index: u64,
    tickets: BTreeMap<Ticket, Asker>,
}

impl Stage {
    /// A founded cluster whose only quota has this amount, under its first leader.
    pub fn new(seed: u64, road: Road, limit: Limit, nodes: u64) -> Self {
        let name = QuotaName::parse("only").expect("a good name");
        let on_quorum_loss = OnQuorumLoss::Deny;
        let quota = Quota { name: name.clone(), key: Vec::new(), limit, wait: None, on_quorum_loss };
        let limit_id = limit_id(&quota);
        let rule = QuotaRule { name, limit_id, wait: None, on_quorum_loss, limit };
        let charge =
            Charge { quota: Arc::new(rule), key: Key { limit: limit_id, tenant: 0, value: 7 }, cost: 1 };
        let mut stage = Self {
            now: 0,
            requests: Vec::new(),
            admissions: Vec::new(),
            entries: 0,
            messages: 0,
            charge,
            dice: Dice(seed),
            road,
            events: BTreeMap::new(),
            count: 0,
            nodes: Vec::new(),
            state: State::default(),
            clock: ClusterClock::restarted(Tau(0), 0, MonoNs(0)),
            lender: None,
            term: 1,
            index: 0,
            tickets: BTreeMap::new(),
        };
        stage.found(quota);
        stage.elect();
        for node in 0..nodes {
            let bounds = Bounds { waiters_max: 10_000, keys_max: 100 };
            let lessee = Lessee::new(BootNs(0), u128::from(node), bounds);
            stage.nodes.push(Node { lessee, entry: None, open: BTreeMap::new(), wake: None });
            stage.carry_out(usize::try_from(node).expect("small"));
        }
        stage
    }

    fn found(&mut self, quota: Quota) {
        let founder = Member {
            name: NodeName::parse("founder").expect("a good name"),
            address: "founder:1".to_owned(),
        };
        self.command(&Command::Found { cluster_id: 1, secret: [1; 16], founder });
        let document = GatewayDocument { quotas: vec![quota], ..GatewayDocument::default() };
        let json = serde_json::to_string(&document).expect("a document can be written").into();
        let document = Some(DocumentChange { json, expected: None, request_id: 1 });
        let entry = Stamped { term: self.term, stamp: Tau(0), document, registers: vec![], batches: vec![] };
        let outcome = self.command(&Command::Stamped(entry));
        assert!(matches!(outcome, Outcome::Stamped(told) if matches!(told.document, Some(Ok(_)))));
    }

    fn command(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, self.term, command)
    }

    /// A leader begins.
    pub fn elect(&mut self) {
        (self.term, self.index) = (self.term + 1, self.index + 1);
        let mono = MonoNs(self.now);
        self.clock.lead(self.term, self.index);
        self.clock.applied(self.index, self.term, None, mono);
        self.lender = Some(Lender::new(self.term));
    }

    /// The leader is gone, with all that it was asked and what it had in flight. Until the next one nobody answers.
    pub fn depose(&mut self) {
        self.lender = None;
        self.tickets.clear();
    }

    /// A request comes to a node at a time.
    pub fn request(&mut self, at: u64, node: usize) {
        self.at(at, Event::Request { node });
    }

    /// A request comes to a node now, and its client waits for the answer.
    pub fn get(&mut self, node: usize) -> End {
        let number = self.come(node);
        loop {
            if let Some(end) = self.requests[number].end {
                return end;
            }
            let next = *self.events.first_key_value().expect("a request has its end").0;
            self.run_to(next.0);
        }
    }

    /// Runs until a time.
    pub fn run_to(&mut self, until: u64) {
        while let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= until) {
            let ((at, _), event) = first.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    /// After as long as a message takes.
    fn send(&mut self, event: Event) {
        self.messages += 1;
        let at = self.now + self.dice.within(self.road.delay.0, self.road.delay.1);
        self.at(at, event);
    }

    fn happen(&mut self, event: Event) {
        let now = BootNs(self.now);
        match event {
            Event::Request { node } => drop(self.come(node)),
            Event::Wake { node } => {
                let at = &mut self.nodes[node];
                if at.wake == Some(self.now) {
                    at.wake = None;
                    at.lessee.woke(now);
                    self.carry_out(node);
                }
            }
            Event::Registered { node, nonce, answer } => {
                self.nodes[node].lessee.registered(now, nonce, answer);
                self.carry_out(node);
            }
            Event::Answered { node, session, seq, answer } => {
                self.nodes[node].lessee.answered(now, session, seq, answer);
                self.carry_out(node);
            }
            Event::Pushed { node, push } => {
                self.nodes[node].lessee.pushed(now, push);
                self.carry_out(node);
            }
            Event::Registers { node, nonce } => self.asked(node, Err(nonce)),
            Event::Asks { node, ask } => self.asked(node, Ok(ask)),
            Event::Pump => self.pump(),
            Event::Committed { entry } => self.committed(&entry),
        }
    }

    /// What the keeper's handle does with a request; says its number.
    fn come(&mut self, at: usize) -> usize {
        let number = self.requests.len();
        let lay = (self.a_token_lies(), false);
        self.requests.push(Request { at: self.now, node: at, end: None, ended: 0, lay });
        let now = BootNs(self.now);
        if let Some(entry) = self.nodes[at].entry.clone() {
            let mut hold: Hold<&Entry> = Hold::default();
            let mut low = false;
            let reserved = !entry.has_waiters() && hold.reserve(&entry, 1);
            if reserved && hold.commit(now, |_| low = true) {
                self.end(number, End::Admitted);
                if low {
                    self.nodes[at].lessee.low(now, self.charge.key);
                    self.carry_out(at);
                }
                return number;
            }
            if entry.cell.held().tokens == 0 && entry.refused_for(now).is_some() {
                entry.missed(1, now);
                self.end(number, End::Over);
                return number;
            }
        }
        self.wait(at, number);
        number
    }

    fn wait(&mut self, at: usize, number: usize) {
        let charges = [self.charge.clone()].into_iter().collect();
        let id = self.nodes[at].lessee.admit(BootNs(self.now), charges);
        self.nodes[at].open.insert(id, number);
        self.carry_out(at);
    }

    fn a_token_lies(&self) -> bool {
        let stamp = self.clock.read(MonoNs(self.now)).max(self.state.tau());
        let central = self.state.shadow(self.charge.key, stamp).map_or(0, |bucket| bucket.central());
        let held = |node: &Node| node.entry.as_ref().is_some_and(|entry| entry.cell.held().tokens > 0);
        central > 0 || self.nodes.iter().any(held)
    }

    fn end(&mut self, number: usize, end: End) {
        self.requests[number].lay.1 = self.a_token_lies();
        let request = &mut self.requests[number];
        (request.end, request.ended) = (Some(end), self.now);
        if end == End::Admitted {
            self.admissions.push((self.now, request.node));
        }
    }

    fn carry_out(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].lessee.poll_output() {
            match output {
                Output::Register { nonce, .. } => self.send(Event::Registers { node: at, nonce }),
                Output::Send { ask, .. } => self.send(Event::Asks { node: at, ask }),
                Output::WakeAt(instant) => {
                    self.nodes[at].wake = Some(instant.0);
                    self.at(instant.0, Event::Wake { node: at });
                }
                Output::Resolve(id, verdict) => {
                    let number = self.nodes[at].open.remove(&id).expect("it waits");
                    match verdict {
                        Verdict::Ready(hold) => {
                            if hold.commit(BootNs(self.now), |_| {}) {
                                self.end(number, End::Admitted);
                            } else {
                                self.wait(at, number);
                            }
                        }
                        Verdict::Over(_) => self.end(number, End::Over),
                        Verdict::Undecided { .. } => self.end(number, End::Undecided),
                        Verdict::Overloaded | Verdict::KeysFull(_) => self.end(number, End::Overloaded),
                    }
                }
                Output::Publish(_, entry) => self.nodes[at].entry = Some(entry),
                Output::Withdraw(_) => self.nodes[at].entry = None,
                Output::Drained => {}
            }
        }
    }

    fn asked(&mut self, node: usize, what: Result<Ask, u128>) {
        self.count += 1;
        let ticket = Ticket(self.count);
        let from = RaftId(node as u64);
        let Some(lender) = &mut self.lender else {
            // Its replica knows at once that there is no leader.
            return self.at(
                self.now,
                match what {
                    Ok(Ask { session, seq, .. }) => {
                        Event::Answered { node, session, seq, answer: Err(AskError::Unreachable) }
                    }
                    Err(nonce) => Event::Registered { node, nonce, answer: Err(AskError::Unreachable) },
                },
            );
        };
        let ended = match what {
            Ok(ask) => {
                self.tickets.insert(ticket, Asker::Batch { node, session: ask.session, seq: ask.seq });
                lender.ask(from, ticket, ask, MonoNs(self.now))
            }
            Err(nonce) => {
                self.tickets.insert(ticket, Asker::Register { node, nonce });
                lender.register(ticket, Register { node: from, nonce })
            }
        };
        self.answer(ended);
        self.pump();
    }

    fn pump(&mut self) {
        let Some(lender) = &mut self.lender else { return };
        let now = MonoNs(self.now);
        match lender.wants_close(now) {
            Wish::Now => {
                let closed = lender.close(&self.state, &mut self.clock, || now);
                self.publish(closed);
            }
            Wish::At(instant) => self.at(instant.0, Event::Pump),
            Wish::Nothing => {}
        }
    }

    fn publish(&mut self, closed: Closed) {
        if let Some(entry) = closed.entry {
            self.entries += 1;
            let at = self.now + self.dice.within(self.road.commit.0, self.road.commit.1);
            self.at(at, Event::Committed { entry });
        }
        self.answer(closed.answers);
        for (node, push) in closed.pushes {
            self.send(Event::Pushed { node: usize::try_from(node.0).expect("small"), push });
        }
    }

    fn committed(&mut self, entry: &Stamped) {
        if entry.term != self.term {
            return;
        }
        let Outcome::Stamped(outcome) = self.command(&Command::Stamped(entry.clone())) else {
            panic!("a stamped entry has a stamped outcome")
        };
        self.clock.applied(self.index, self.term, Some(entry.stamp), MonoNs(self.now));
        if let Some(lender) = &mut self.lender {
            let closed = lender.applied(&outcome, &self.state);
            self.publish(closed);
            self.pump();
        }
    }

    fn answer(&mut self, answers: impl IntoIterator<Item = (Ticket, Reply)>) {
        for (ticket, reply) in answers {
            match (self.tickets.remove(&ticket), reply) {
                (Some(Asker::Batch { node, session, seq }), Reply::Batch(answer)) => {
                    self.send(Event::Answered { node, session, seq, answer });
                }
                (Some(Asker::Register { node, nonce }), Reply::Session(answer)) => {
                    self.send(Event::Registered { node, nonce, answer });
                }
                _ => panic!("a ticket is answered once, with what it asked for"),
            }
        }
    }
}
