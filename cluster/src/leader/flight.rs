//! The one entry in flight: whom to answer when it has landed.

use super::decide::Decided;
use super::sizing::OUTRUN;
use super::{Answer, NotChanged, Reply, Ticket};
use crate::lease::{AskError, AskReply, Granted};
use crate::state::command::{BatchOutcome, ItemOutcome, StampedOutcome};
use crate::state::ids::{SessionId, Tokens};

/// Who waits for the entry in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub document: Option<Ticket>,
    /// In the entry's order.
    pub registers: Vec<Ticket>,
    /// In the entry's order.
    pub batches: Vec<Boarded>,
}

impl Flight {
    /// The entry was applied.
    pub fn landed(self, outcome: &StampedOutcome) -> Vec<Answer> {
        assert_eq!(self.registers.len(), outcome.sessions.len(), "one session a register, in order");
        assert_eq!(self.batches.len(), outcome.batches.len(), "one outcome a batch, in order");
        assert_eq!(self.document.is_some(), outcome.document.is_some(), "one outcome a document");
        let document = self.document.into_iter().zip(outcome.document.clone());
        let registers = self.registers.into_iter().zip(&outcome.sessions);
        let batches = self.batches.into_iter().zip(&outcome.batches);
        document
            .map(|(ticket, revision)| (ticket, Reply::Document(revision.map_err(NotChanged::Refused))))
            .chain(registers.map(|(ticket, session)| (ticket, Reply::Session(Ok(*session)))))
            .chain(batches.map(|(boarded, outcome)| boarded.landed(outcome)))
            .collect()
    }

    /// Nobody knows what becomes of the entry.
    pub fn lost(self) -> Vec<Answer> {
        let document = self.document.map(|ticket| (ticket, Reply::Document(Err(NotChanged::Unknown))));
        let session = |ticket| (ticket, Reply::Session(Err(AskError::NotLeader)));
        let batch = |boarded: Boarded| (boarded.ticket, Reply::Batch(Err(AskError::NotLeader)));
        let registers = self.registers.into_iter().map(session);
        document.into_iter().chain(registers).chain(self.batches.into_iter().map(batch)).collect()
    }
}

/// A batch, decided.
#[derive(Debug)]
pub(crate) struct Boarded {
    ticket: Ticket,
    session: SessionId,
    seq: u64,
    seats: Vec<Seat>,
}

/// An item of it.
#[derive(Debug)]
struct Seat {
    granted: Granted,
    need: Tokens,
    held: Tokens,
    logged: bool,
}

impl Boarded {
    /// A batch of which the log gets the items that the decisions name.
    pub fn new(ticket: Ticket, session: SessionId, seq: u64, decided: Vec<Decided>) -> Self {
        let seat = |decided: Decided| Seat {
            granted: decided.granted,
            need: decided.need,
            held: decided.held,
            logged: decided.item.is_some(),
        };
        Self { ticket, session, seq, seats: decided.into_iter().map(seat).collect() }
    }

    /// The answer when nothing of the batch is logged.
    pub fn answered_at_once(self) -> Answer {
        debug_assert!(self.seats.iter().all(|seat| !seat.logged), "what is logged is answered after commit");
        let items = self.seats.into_iter().map(|seat| seat.granted).collect();
        (self.ticket, Reply::Batch(Ok(AskReply { session: self.session, seq: self.seq, items })))
    }

    fn landed(mut self, outcome: &BatchOutcome) -> Answer {
        let outcomes = match outcome {
            BatchOutcome::Applied(outcomes) => outcomes,
            BatchOutcome::UnknownSession => {
                return (self.ticket, Reply::Batch(Err(AskError::UnknownSession)));
            }
            BatchOutcome::Stale => return (self.ticket, Reply::Batch(Err(AskError::NotLeader))),
        };
        let logged: Vec<&mut Seat> = self.seats.iter_mut().filter(|seat| seat.logged).collect();
        assert_eq!(logged.len(), outcomes.len(), "one outcome an item, in order");
        for (seat, outcome) in logged.into_iter().zip(outcomes) {
            seat.landed(outcome);
        }
        let items = self.seats.into_iter().map(|seat| seat.granted).collect();
        (self.ticket, Reply::Batch(Ok(AskReply { session: self.session, seq: self.seq, items })))
    }
}

impl Seat {
    /// The ledger's word replaces what was foreseen.
    fn landed(&mut self, outcome: &ItemOutcome) {
        let granted = &mut self.granted;
        granted.keep = outcome.keep;
        granted.lid = outcome.lid;
        granted.grant = outcome.grant;
        granted.ttl_ns = outcome.ttl_ns;
        granted.left = outcome.left;
        (granted.unknown, granted.full) = (outcome.unknown, outcome.full);
        let held = if outcome.keep { self.held } else { 0 };
        let short = self.need > 0 && held.saturating_add(outcome.grant) < self.need;
        if short && granted.retry_after_ns == 0 && !outcome.unknown && !outcome.full {
            (granted.retry_after_ns, granted.hold) = (OUTRUN.retry_after_ns, OUTRUN.hold);
        }
    }
}
