//! The model: three voters with real lenders and clocks, some gateways, and a network, in one thread on true time.

use std::collections::BTreeMap;

use config::quota::Limit;
use quorumgate_cluster::clock::ClusterClock;
use quorumgate_cluster::leader::{Answer, Closed, Lender, Reply, Ticket, Wish};
use quorumgate_cluster::lease::{Ask, AskError, Push};
use quorumgate_cluster::state::command::{Register, Stamped};
use quorumgate_cluster::state::ids::{RaftId, SessionId, Tau};
use quorumgate_cluster::world::MonoNs;

use crate::gateway::{Gateway, MS, Send};
use crate::ledger::{Ledger, key};

const VOTERS: usize = 3;
const TICK_NS: u64 = MS;

/// Chance, repeatable.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub fn roll(&mut self) -> u64 {
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
    pub fn chance(&mut self, permille: u64) -> bool {
        self.roll() % 1_000 < permille
    }
}

/// What the network and the machines do.
#[derive(Clone, Copy)]
pub struct Weather {
    /// One way, in ns.
    pub delay: (u64, u64),
    /// Messages in a thousand that take up to `late_ns`.
    pub late_permille: u64,
    pub late_ns: u64,
    pub loss_permille: u64,
    pub twice_permille: u64,
    /// Append and commit, in ns.
    pub commit: (u64, u64),
    /// Clock rates differ by up to this many millionths either way.
    pub drift_ppm: u64,
}

impl Weather {
    pub const CALM: Self = Self {
        delay: (150_000, 350_000),
        late_permille: 0,
        late_ns: 0,
        loss_permille: 0,
        twice_permille: 0,
        commit: (450_000, 900_000),
        drift_ppm: 0,
    };
    pub const STORM: Self = Self {
        late_permille: 50,
        late_ns: 400 * MS,
        loss_permille: 50,
        twice_permille: 50,
        commit: (450_000, 60 * MS),
        drift_ppm: 450,
        ..Self::CALM
    };
}

enum Event {
    Request { gateway: usize, cost: u64 },
    Manage { gateway: usize },
    Asked { voter: usize, gateway: usize, send: Sent },
    Told { gateway: usize, what: Told },
    Pump { voter: usize },
    Commit { term: u64, entry: Stamped },
    Apply { voter: usize },
    Noticed { voter: usize, term: u64 },
    Elect { voter: usize },
}

#[derive(Clone)]
enum Sent {
    Register(u128),
    Ask(Ask),
}

#[derive(Clone)]
enum Told {
    Reply { session: SessionId, seq: u64, reply: Result<quorumgate_cluster::lease::AskReply, AskError> },
    Session { nonce: u128, session: Result<SessionId, AskError> },
    Push(Push),
}

/// A clock of one machine: its own zero and its own rate.
#[derive(Clone, Copy)]
struct OwnClock {
    zero: u64,
    ppm: i64,
}

impl OwnClock {
    fn read(self, now: u64) -> u64 {
        let gone = i128::from(now) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        self.zero + u64::try_from(gone).expect("time is positive")
    }
}

struct Voter {
    own: OwnClock,
    ledger: Ledger,
    clock: ClusterClock,
    applied: usize,
    apply_at: u64,
    lender: Option<Lender>,
}

/// Whom a ticket belongs to.
enum Asker {
    Batch { gateway: usize, session: SessionId, seq: u64 },
    Register { gateway: usize, nonce: u128 },
}

pub struct Model {
    pub now: u64,
    weather: Weather,
    pub dice: Dice,
    limit: Limit,
    count: u64,
    events: BTreeMap<(u64, u64), Event>,
    log: Vec<(u64, Option<Stamped>)>,
    term: u64,
    in_flight: Option<(u64, Stamped)>,
    voters: Vec<Voter>,
    gateways: Vec<Gateway>,
    clocks: Vec<OwnClock>,
    managed: Vec<bool>,
    tickets: BTreeMap<Ticket, Asker>,
    /// True time and cost of every admission.
    pub admissions: Vec<(u64, u64)>,
    pub entries: u64,
    pub messages: u64,
}

impl Model {
    pub fn new(seed: u64, weather: Weather, limit: Limit, gateways: usize) -> Self {
        let mut dice = Dice::new(seed);
        let mut own = || OwnClock {
            zero: dice.within(0, 1_000_000 * MS),
            ppm: i64::try_from(dice.within(0, 2 * weather.drift_ppm)).expect("small")
                - i64::try_from(weather.drift_ppm).expect("small"),
        };
        let voters = (0..VOTERS)
            .map(|_| {
                let own = own();
                let ledger = Ledger::new(limit);
                let clock = ClusterClock::restarted(Tau(0), 0, MonoNs(own.read(0)));
                Voter { own, ledger, clock, applied: 0, apply_at: 0, lender: None }
            })
            .collect();
        let clocks: Vec<OwnClock> = (0..gateways).map(|_| own()).collect();
        let fresh = |g: usize| Gateway::new(key(7), limit, g as u128 + 1, VOTERS);
        let mut model = Self {
            now: 0,
            weather,
            dice,
            limit,
            count: 0,
            events: BTreeMap::new(),
            log: Vec::new(),
            term: 0,
            in_flight: None,
            voters,
            gateways: (0..gateways).map(fresh).collect(),
            clocks,
            managed: vec![false; gateways],
            tickets: BTreeMap::new(),
            admissions: Vec::new(),
            entries: 0,
            messages: 0,
        };
        model.elect(0);
        for gateway in 0..gateways {
            model.manage_later(gateway, 0);
        }
        model
    }

    /// A request comes to a gateway at a true time.
    pub fn request(&mut self, at: u64, gateway: usize, cost: u64) {
        self.at(at, Event::Request { gateway, cost });
    }

    /// Runs until a true time.
    pub fn run_to(&mut self, until: u64) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    /// The leader is gone; another is elected after a while. What was in flight is kept or lost; the old leader
    /// notices sooner or later, and may have restarted.
    pub fn depose(&mut self) {
        let Some(old) =
            self.voters.iter().position(|v| v.lender.as_ref().is_some_and(|l| l.term() == self.term))
        else {
            return;
        };
        let term = self.term;
        self.term += 1;
        if let Some((term, entry)) = self.in_flight.take()
            && self.dice.chance(500)
        {
            self.append(term, Some(entry));
        }
        if self.dice.chance(300) {
            let voter = &mut self.voters[old];
            voter.lender = None;
            voter.own.zero = self.dice.within(0, 1_000_000 * MS);
            let mono = MonoNs(voter.own.read(self.now));
            voter.clock = ClusterClock::restarted(voter.ledger.state.tau(), voter.applied as u64, mono);
        } else {
            let after = self.dice.within(0, 900 * MS);
            self.at(self.now + after, Event::Noticed { voter: old, term });
        }
        let next = (old + 1 + usize::try_from(self.dice.within(0, 1)).expect("small")) % VOTERS;
        let gap = self.dice.within(20 * MS, 900 * MS);
        self.at(self.now + gap, Event::Elect { voter: next });
    }

    /// A gateway's process dies and starts again, knowing nothing.
    pub fn crash(&mut self, gateway: usize) {
        let nonce = u128::from(self.dice.roll()) << 64 | u128::from(self.dice.roll());
        self.gateways[gateway] = Gateway::new(key(7), self.limit, nonce, VOTERS);
        self.manage_later(gateway, self.now);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request { gateway, cost } => {
                let own = self.clocks[gateway].read(self.now);
                self.gateways[gateway].request(cost, own);
                self.manage(gateway);
            }
            Event::Manage { gateway } => {
                self.managed[gateway] = false;
                self.manage(gateway);
            }
            Event::Asked { voter, gateway, send } => self.asked(voter, gateway, send),
            Event::Told { gateway, what } => self.told(gateway, what),
            Event::Pump { voter } => self.pump(voter),
            Event::Commit { term, entry } => {
                if self.term == term && self.in_flight.take().is_some() {
                    self.append(term, Some(entry));
                }
            }
            Event::Apply { voter } => self.apply(voter),
            Event::Noticed { voter, term } => self.step_down(voter, term),
            Event::Elect { voter } => self.elect(voter),
        }
    }

    fn elect(&mut self, voter: usize) {
        self.term += 1;
        self.append(self.term, None);
        let chosen = &mut self.voters[voter];
        if let Some(lender) = chosen.lender.take() {
            let answers = lender.end();
            self.answer(voter, answers);
        }
        let chosen = &mut self.voters[voter];
        chosen.clock.lead(self.term, self.log.len() as u64);
        chosen.lender = Some(Lender::new(self.term));
    }

    fn append(&mut self, term: u64, entry: Option<Stamped>) {
        self.log.push((term, entry));
        for voter in 0..VOTERS {
            let lag = if self.voters[voter].lender.as_ref().is_some_and(|l| l.term() == term) {
                0
            } else {
                self.delay()
            };
            let at = self.voters[voter].apply_at.max(self.now + lag);
            self.voters[voter].apply_at = at;
            self.at(at, Event::Apply { voter });
        }
    }

    fn apply(&mut self, at: usize) {
        let voter = &mut self.voters[at];
        let (term, entry) = self.log[voter.applied].clone();
        voter.applied += 1;
        let mono = MonoNs(voter.own.read(self.now));
        let index = voter.applied as u64;
        let outcome = entry.as_ref().map(|entry| voter.ledger.apply(entry));
        voter.clock.applied(index, term, entry.map(|entry| entry.stamp), mono);
        if voter.lender.as_ref().is_some_and(|lender| lender.term() < term) {
            let old = voter.lender.as_ref().map_or(0, Lender::term);
            self.step_down(at, old);
        } else if let (Some(lender), Some(outcome)) = (&mut voter.lender, outcome)
            && lender.term() == term
        {
            let closed = lender.applied(&outcome, &voter.ledger.state);
            self.carry_out(at, closed);
        }
        self.pump(at);
    }

    fn step_down(&mut self, at: usize, term: u64) {
        let voter = &mut self.voters[at];
        if let Some(lender) = voter.lender.take_if(|lender| lender.term() == term) {
            voter.clock.follow();
            let answers = lender.end();
            self.answer(at, answers);
        }
    }

    fn pump(&mut self, at: usize) {
        let voter = &mut self.voters[at];
        let Some(lender) = &mut voter.lender else { return };
        let (own, now) = (voter.own, self.now);
        match lender.wants_close(MonoNs(own.read(now))) {
            Wish::Now => {
                let closed = lender.close(&voter.ledger.state, &mut voter.clock, || MonoNs(own.read(now)));
                self.carry_out(at, closed);
            }
            Wish::At(instant) => {
                let wait = instant.0 - own.read(now);
                self.at(now + wait + 1_000, Event::Pump { voter: at });
            }
            Wish::Nothing => {}
        }
    }

    fn carry_out(&mut self, at: usize, closed: Closed) {
        if let Some(entry) = closed.entry {
            self.entries += 1;
            if entry.term == self.term {
                self.in_flight = Some((entry.term, entry.clone()));
            }
            let (low, high) = self.weather.commit;
            let commit = if self.dice.chance(self.weather.late_permille.max(1)) {
                high
            } else {
                low.midpoint(high.min(2 * low))
            };
            self.at(self.now + commit, Event::Commit { term: entry.term, entry });
        }
        self.answer(at, closed.answers);
        for (node, push) in closed.pushes {
            let gateway = usize::try_from(node.0).expect("small");
            self.tell(gateway, Told::Push(push));
        }
    }

    fn answer(&mut self, _at: usize, answers: Vec<Answer>) {
        for (ticket, reply) in answers {
            let asker = self.tickets.remove(&ticket).expect("each ticket is answered once");
            match (asker, reply) {
                (Asker::Batch { gateway, session, seq }, Reply::Batch(reply)) => {
                    self.tell(gateway, Told::Reply { session, seq, reply });
                }
                (Asker::Register { gateway, nonce }, Reply::Session(session)) => {
                    self.tell(gateway, Told::Session { nonce, session });
                }
                _ => panic!("a ticket is answered with what it asked for"),
            }
        }
    }

    fn asked(&mut self, at: usize, gateway: usize, send: Sent) {
        self.count += 1;
        let (ticket, node) = (Ticket(self.count), RaftId(gateway as u64));
        let asker = match &send {
            Sent::Register(nonce) => Asker::Register { gateway, nonce: *nonce },
            Sent::Ask(ask) => Asker::Batch { gateway, session: ask.session, seq: ask.seq },
        };
        self.tickets.insert(ticket, asker);
        let voter = &mut self.voters[at];
        let now = MonoNs(voter.own.read(self.now));
        let answer = match (&mut voter.lender, send) {
            (Some(lender), Sent::Register(nonce)) => lender.register(ticket, Register { node, nonce }),
            (Some(lender), Sent::Ask(ask)) => lender.ask(node, ticket, ask, now),
            (None, Sent::Register(_)) => Some((ticket, Reply::Session(Err(AskError::NotLeader)))),
            (None, Sent::Ask(_)) => Some((ticket, Reply::Batch(Err(AskError::NotLeader)))),
        };
        self.answer(at, answer.into_iter().collect());
        self.pump(at);
    }

    fn told(&mut self, at: usize, what: Told) {
        let own = self.clocks[at].read(self.now);
        let gateway = &mut self.gateways[at];
        match what {
            Told::Reply { session, seq, reply } => gateway.replied(session, seq, reply, own),
            Told::Session { nonce, session } => gateway.registered(nonce, session),
            Told::Push(push) => gateway.pushed(&push),
        }
        self.manage(at);
    }

    fn manage(&mut self, at: usize) {
        let own = self.clocks[at].read(self.now);
        let gateway = &mut self.gateways[at];
        let send = gateway.manage(own);
        let (voter, busy) = (gateway.voter, gateway.is_busy());
        let admitted = std::mem::take(&mut gateway.admitted);
        self.admissions.extend(admitted.into_iter().map(|cost| (self.now, cost)));
        if let Some(send) = send {
            let send = match send {
                Send::Register(nonce) => Sent::Register(nonce),
                Send::Ask(ask) => Sent::Ask(ask),
            };
            for at_ns in self.deliveries() {
                self.at(at_ns, Event::Asked { voter, gateway: at, send: send.clone() });
            }
        }
        if busy {
            self.manage_later(at, self.now + TICK_NS);
        }
    }

    fn manage_later(&mut self, gateway: usize, at: u64) {
        if !std::mem::replace(&mut self.managed[gateway], true) {
            self.at(at, Event::Manage { gateway });
        }
    }

    fn tell(&mut self, gateway: usize, what: Told) {
        for at in self.deliveries() {
            self.at(at, Event::Told { gateway, what: what.clone() });
        }
    }

    /// When copies of a message arrive: mostly one, sometimes none or two.
    fn deliveries(&mut self) -> Vec<u64> {
        self.messages += 1;
        if self.dice.chance(self.weather.loss_permille) {
            return Vec::new();
        }
        let copies = if self.dice.chance(self.weather.twice_permille) { 2 } else { 1 };
        (0..copies).map(|_| self.now + self.delay()).collect()
    }

    fn delay(&mut self) -> u64 {
        let (low, high) = self.weather.delay;
        let high = if self.dice.chance(self.weather.late_permille) { self.weather.late_ns } else { high };
        self.dice.within(low, high)
    }
}
