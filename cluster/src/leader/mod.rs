//! The leader's quota service: collects what gateways ask, decides who gets how much, and forms log entries.
//!
//! ```text
//! ask / register / document  ->  queue                             bounded; a newer batch voids the older
//! wants_close                ->  Now, At(instant) or Nothing       one entry in flight, at most 500 a second
//! close                      ->  entry to propose, answers, pushes
//! applied / failed / end     ->  answers, pushes
//! ```
//!
//! It is volatile: a [`Lender`] serves one leadership, and its memory may be lost at any time without harm. Exactness
//! is the ledger's alone ([`crate::state`]). It does not send, wait, propose or read a clock on its own account.

mod decide;
mod demand;
mod flight;
mod sizing;
pub mod times;

use std::collections::{BTreeSet, VecDeque};

use self::decide::{Decided, Sizing};
use self::demand::Demands;
use self::flight::{Boarded, Flight};
pub use self::sizing::trickles;
use self::times::{FAILOVER_MAX, ns};
use crate::clock::ClusterClock;
use crate::lease::{Ask, AskError, AskReply, Push};
use crate::state::State;
use crate::state::command::{Batch, DocumentChange, DocumentRefused, Register, Stamped, StampedOutcome};
use crate::state::ids::{RaftId, Revision, SessionId};
use crate::world::MonoNs;

/// Names one question of the shell's; unique while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The end of one question. Each ticket gets exactly one.
pub type Answer = (Ticket, Reply);

/// What a ticket is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Lender::ask`].
    Batch(Result<AskReply, AskError>),
    /// To [`Lender::register`].
    Session(Result<SessionId, AskError>),
    /// To [`Lender::document`].
    Document(Result<Revision, NotChanged>),
}

/// Why there is no new document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// The ledger refused it.
    #[error(transparent)]
    Refused(#[from] DocumentRefused),
    /// It was never proposed: nothing was done.
    #[error("the change was not proposed")]
    NotProposed,
    /// It was proposed, and this leader does not know what became of it.
    #[error("the change may or may not have been applied")]
    Unknown,
}

/// When [`Lender::close`] is worth calling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Now.
    Now,
    /// Then, unless something happens before.
    At(MonoNs),
    /// Not before something happens.
    Nothing,
}

/// What the shell does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Propose this with the lender's term, then call [`Lender::applied`] or [`Lender::failed`].
    pub entry: Option<Stamped>,
    /// Send these.
    pub answers: Vec<Answer>,
    /// Send these; lost ones do no harm.
    pub pushes: Vec<(RaftId, Push)>,
}

/// The quota service of one leadership.
#[derive(Debug)]
pub struct Lender {
    term: u64,
    asks: VecDeque<Waiting>,
    queued_items: usize,
    registers: VecDeque<(Ticket, Register)>,
    documents: VecDeque<(Ticket, DocumentChange)>,
    flight: Option<Flight>,
    demands: Demands,
    /// When the next entry would be due at the sustained pace.
    due: MonoNs,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    from: RaftId,
    since: MonoNs,
    ask: Ask,
}

impl Lender {
    /// Batches that may wait; one a session.
    pub const ASKS_MAX: usize = 64;
    /// Items that may wait in them.
    pub const QUEUED_ITEMS_MAX: usize = 8 * Ask::ITEMS_MAX;
    /// Items of one entry.
    pub const ENTRY_ITEMS_MAX: usize = Ask::ITEMS_MAX;
    /// Sessions that may wait for registration, and that one entry registers.
    pub const REGISTERS_MAX: usize = 64;
    /// Document changes that may wait.
    pub const DOCUMENTS_MAX: usize = 16;
    /// Sustained pace of entries.
    pub const ENTRY_EVERY_NS: u64 = 2_000_000;
    /// How far entries may run ahead of that pace: 25 of them.
    pub const ENTRY_AHEAD_NS: u64 = 25 * Self::ENTRY_EVERY_NS;

    /// The service of the leader of `term`.
    pub fn new(term: u64) -> Self {
        Self {
            term,
            asks: VecDeque::new(),
            queued_items: 0,
            registers: VecDeque::new(),
            documents: VecDeque::new(),
            flight: None,
            demands: Demands::default(),
            due: MonoNs::default(),
        }
    }

    /// The term whose entries it forms.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// A gateway's batch. What comes back is the end of a ticket: of this one if it can not be queued, or of the batch
    /// of the same session that it voids.
    #[must_use = "every ticket must be answered"]
    pub fn ask(&mut self, from: RaftId, ticket: Ticket, ask: Ask, now: MonoNs) -> Option<Answer> {
        let void = |ticket| Some((ticket, Reply::Batch(Err(AskError::Overloaded))));
        if ask.items.len() > Ask::ITEMS_MAX {
            return void(ticket);
        }
        let older = self.asks.iter_mut().find(|waiting| waiting.ask.session == ask.session);
        if let Some(older) = older {
            // A batch that the network delayed is void: its gateway has given it up for the later one.
            if ask.seq <= older.ask.seq {
                return void(ticket);
            }
            self.queued_items = self.queued_items - older.ask.items.len() + ask.items.len();
            let voided = older.ticket;
            *older = Waiting { ticket, from, since: now, ask };
            return void(voided);
        }
        if self.asks.len() >= Self::ASKS_MAX || self.queued_items + ask.items.len() > Self::QUEUED_ITEMS_MAX {
            return void(ticket);
        }
        self.queued_items += ask.items.len();
        self.asks.push_back(Waiting { ticket, from, since: now, ask });
        None
    }

    /// A gateway process wants a session; answered after commit. What comes back is the ticket's end: too many wait.
    #[must_use = "every ticket must be answered"]
    pub fn register(&mut self, ticket: Ticket, register: Register) -> Option<Answer> {
        if self.registers.len() >= Self::REGISTERS_MAX {
            return Some((ticket, Reply::Session(Err(AskError::Overloaded))));
        }
        self.registers.push_back((ticket, register));
        None
    }

    /// A new document; answered after it was applied here. What comes back is the ticket's end: too many wait.
    #[must_use = "every ticket must be answered"]
    pub fn document(&mut self, ticket: Ticket, change: DocumentChange) -> Option<Answer> {
        if self.documents.len() >= Self::DOCUMENTS_MAX {
            return Some((ticket, Reply::Document(Err(NotChanged::NotProposed))));
        }
        self.documents.push_back((ticket, change));
        None
    }

    /// Whether an entry is in flight.
    pub fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// When to call [`Lender::close`].
    pub fn wants_close(&self, now: MonoNs) -> Wish {
        let idle = self.asks.is_empty() && self.registers.is_empty() && self.documents.is_empty();
        if idle || self.flight.is_some() {
            return Wish::Nothing;
        }
        let earliest = MonoNs(self.due.0.saturating_sub(Self::ENTRY_AHEAD_NS));
        if now >= earliest { Wish::Now } else { Wish::At(earliest) }
    }

    /// Closes what has been asked, decides on it, and forms the next entry.
    ///
    /// The set of batches is closed by the call itself; `mono` reads the clock ([`crate::world::Clock::mono`]) and is
    /// called afterwards, so that no spend that a batch reports is younger than its stamp (rule C4). Does nothing while
    /// `clock` may not stamp for this term (rule C3): whoever asked goes on waiting.
    ///
    /// # Panics
    /// If an entry is in flight.
    pub fn close(
        &mut self,
        state: &State,
        clock: &mut ClusterClock,
        mono: impl FnOnce() -> MonoNs,
    ) -> Closed {
        assert!(
            self.flight.is_none(),
            "one entry is in flight at a time, or stamps could overtake each other"
        );
        if !clock.may_stamp(self.term) {
            return Closed::default();
        }
        let document = self.documents.pop_front();
        // Amounts change with a document; items are sized by those that will be in force.
        let asks = if document.is_some() { Vec::new() } else { self.take_asks() };
        let registers: Vec<(Ticket, Register)> = self.registers.drain(..).collect();

        let now = mono();
        let Some(stamp) = clock.stamp(self.term, state.tau(), now) else { return Closed::default() };

        let mut closed = Closed::default();
        let (document_ticket, document) = document.unzip();
        let (register_tickets, registers): (Vec<_>, Vec<_>) = registers.into_iter().unzip();
        let mut flight =
            Flight { document: document_ticket, registers: register_tickets, batches: Vec::new() };
        let asks = self.screen(state, asks, now, &mut closed.answers);
        let mut sizing = Sizing::new(state, &mut self.demands, stamp, now);
        let reports: Vec<Vec<_>> = asks
            .iter()
            .map(|w| w.ask.items.iter().map(|item| sizing.report(w.ask.session, item)).collect())
            .collect();
        let mut batches = Vec::new();
        for (waiting, reported) in asks.into_iter().zip(reports) {
            let Ask { session, seq, items } = waiting.ask;
            let decided: Vec<Decided> =
                items.iter().zip(reported).map(|(item, said)| sizing.decide(session, item, said)).collect();
            let logged: Vec<_> = decided.iter().filter_map(|decided| decided.item.clone()).collect();
            let boarded = Boarded::new(waiting.ticket, session, seq, decided);
            if logged.is_empty() {
                closed.answers.push(boarded.answered_at_once());
            } else {
                flight.batches.push(boarded);
                batches.push(Batch { session, seq, items: logged });
            }
        }
        closed.pushes = sizing.recalls;
        self.demands.tend(now);
        if document.is_some() || !registers.is_empty() || !batches.is_empty() {
            self.due = MonoNs(self.due.0.max(now.0) + Self::ENTRY_EVERY_NS);
            self.flight = Some(flight);
            closed.entry = Some(Stamped { term: self.term, stamp, document, registers, batches });
        }
        closed
    }

    /// The entry in flight was applied here; `state` is that after it.
    ///
    /// # Panics
    /// If no entry is in flight, or the outcome is another entry's.
    pub fn applied(&mut self, outcome: &StampedOutcome, state: &State) -> Closed {
        let flight = self.flight.take().expect("only the entry in flight can be applied");
        let pushes = if matches!(outcome.document, Some(Ok(_))) { changed(state) } else { Vec::new() };
        Closed { entry: None, answers: flight.landed(outcome), pushes }
    }

    /// The proposal was refused or lost, or the entry was fenced off: whatever it carried is void. The leadership is
    /// as good as over.
    pub fn failed(&mut self) -> Vec<Answer> {
        self.flight.take().map(Flight::lost).unwrap_or_default()
    }

    /// The leadership is over: ends every open ticket.
    pub fn end(mut self) -> Vec<Answer> {
        let mut answers = self.failed();
        answers.extend(self.asks.into_iter().map(|w| (w.ticket, Reply::Batch(Err(AskError::NotLeader)))));
        answers
            .extend(self.registers.into_iter().map(|(t, _)| (t, Reply::Session(Err(AskError::NotLeader)))));
        let unsaid = |(ticket, _)| (ticket, Reply::Document(Err(NotChanged::NotProposed)));
        answers.extend(self.documents.into_iter().map(unsaid));
        answers
    }

    /// The oldest batches that fit an entry. Those that nobody needs tokens in come first: what they release is then in
    /// the bucket when the ledger comes to the others.
    fn take_asks(&mut self) -> Vec<Waiting> {
        let (mut asks, mut items) = (Vec::new(), 0);
        while let Some(next) = self.asks.front().map(|waiting| waiting.ask.items.len()) {
            if !asks.is_empty() && items + next > Self::ENTRY_ITEMS_MAX {
                break;
            }
            items += next;
            asks.extend(self.asks.pop_front());
        }
        self.queued_items -= items;
        asks.sort_by_key(|waiting| waiting.ask.items.iter().any(|item| item.need > 0));
        asks
    }

    /// Answers the batches that are of no use, and hears the others' demand.
    fn screen(
        &mut self,
        state: &State,
        asks: Vec<Waiting>,
        now: MonoNs,
        answers: &mut Vec<Answer>,
    ) -> Vec<Waiting> {
        let mut good = Vec::with_capacity(asks.len());
        for waiting in asks {
            let Ask { session, seq, ref items } = waiting.ask;
            let refused = match state.sessions().get(session) {
                None => Some(AskError::UnknownSession),
                Some(known) if known.node != waiting.from => Some(AskError::UnknownSession),
                Some(known) if seq <= known.last_seq => Some(AskError::NotLeader),
                // Its gateway has stopped waiting; a grant would lie idle.
                Some(_) if now.since(waiting.since) > ns(FAILOVER_MAX) => Some(AskError::Overloaded),
                Some(_) => None,
            };
            if let Some(error) = refused {
                answers.push((waiting.ticket, Reply::Batch(Err(error))));
                continue;
            }
            for item in items {
                self.demands.hear(item.key, session, item.demand_per_ks, now);
            }
            good.push(waiting);
        }
        good
    }
}

/// `Changed` for each changed limit, to every node with a session.
fn changed(state: &State) -> Vec<(RaftId, Push)> {
    let limits = state.changed_limits();
    let nodes: BTreeSet<RaftId> = state.sessions().iter().map(|(_, session)| session.node).collect();
    let to = |node| limits.iter().map(move |limit| (node, Push::Changed(*limit)));
    nodes.into_iter().flat_map(to).collect()
}
