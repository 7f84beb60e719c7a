//! The leader's single-flight slot: everything stamped goes through it, one entry at a time.
//!
//! ```text
//! questions ─▶ lender ─▶ close (batches first, then the clock) ─▶ propose in our term ─▶ applied ─▶ answers
//! ```
//!
//! A lender exists only while this node leads; before it serves, a majority has confirmed the term, and the clock stamps
//! nothing before all that the log held then is applied (quota.md 3.1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::core::{Core, Seat};
use crate::HISTORY;
use crate::hooks::panic_point;
use crate::leader::{Answer, Lender, NotChanged, Reply, Ticket, Wish};
use crate::lease::{Ask, AskError, AskReply, Push};
use crate::raft::machine::Replicated;
use crate::raft::types::{Local, ProgressResponder, ReadPolicy, Written};
use crate::state::command::{Command, DocumentChange, Outcome, Register, Stamped};
use crate::state::ids::{RaftId, Revision, SessionId};

/// Questions that may wait for the slot.
pub(crate) const QUESTIONS_MAX: usize = 256;
const TAKEN_AT_ONCE: usize = 64;
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(20);

/// What the slot is asked.
pub(crate) enum Question {
    /// A gateway's batch.
    Ask(RaftId, Ask, oneshot::Sender<Result<AskReply, AskError>>),
    /// A gateway's session.
    Register(Register, oneshot::Sender<Result<SessionId, AskError>>),
    /// A new document.
    Document(DocumentChange, oneshot::Sender<Result<Revision, NotChanged>>),
}

impl Question {
    /// Answers that this node does not lead. Whoever asked may be gone, which is its right.
    fn refuse(self) {
        match self {
            Self::Ask(_, _, reply) => drop(reply.send(Err(AskError::NotLeader))),
            Self::Register(_, reply) => drop(reply.send(Err(AskError::NotLeader))),
            Self::Document(_, reply) => drop(reply.send(Err(NotChanged::NotProposed))),
        }
    }
}

enum Asker {
    Ask(oneshot::Sender<Result<AskReply, AskError>>),
    Register(oneshot::Sender<Result<SessionId, AskError>>),
    Document(oneshot::Sender<Result<Revision, NotChanged>>),
}

/// Runs as long as the seat's consensus core.
pub(crate) async fn run(core: Arc<Core>, seat: Arc<Seat>, mut questions: mpsc::Receiver<Question>) {
    let mut role = seat.role.clone();
    loop {
        let leading = role.borrow_and_update().leading;
        if let Some(term) = leading {
            Slot::new(&core, &seat, term).serve(&mut questions).await;
            sleep(AGAIN).await;
            continue;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            question = questions.recv() => match question {
                Some(question) => question.refuse(),
                None => return,
            },
        }
    }
}

type Flight = oneshot::Receiver<Written>;

struct Slot<'a> {
    core: &'a Arc<Core>,
    seat: &'a Seat,
    term: u64,
    lender: Lender,
    askers: BTreeMap<Ticket, Asker>,
    next: u64,
}

impl<'a> Slot<'a> {
    fn new(core: &'a Arc<Core>, seat: &'a Seat, term: u64) -> Self {
        Self { core, seat, term, lender: Lender::new(term), askers: BTreeMap::new(), next: 0 }
    }

    fn leads(&self) -> bool {
        self.seat.role.borrow().leading == Some(self.term)
    }

    async fn serve(mut self, questions: &mut mpsc::Receiver<Question>) {
        // A new leader rejects writes until a majority has answered it.
        while self.leads() {
            match timeout(CONFIRM_WITHIN, self.seat.raft.get_read_log_id(ReadPolicy::ReadIndex)).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) | Err(_) => sleep(AGAIN).await,
            }
        }
        let gate = self.seat.log.last_index().unwrap_or(0);
        self.seat.shared.replicated.lock().clock.lead(self.term, gate);
        tracing::info!(term = self.term, gate, "this node leads");
        tracing::debug!(target: HISTORY, term = self.term, "leads");
        self.lend(questions).await;
        self.seat.shared.replicated.lock().clock.follow();
        let lender = std::mem::replace(&mut self.lender, Lender::new(self.term));
        self.deliver(lender.end());
        tracing::info!(term = self.term, "this node no longer leads");
    }

    async fn lend(&mut self, questions: &mut mpsc::Receiver<Question>) {
        let mut role = self.seat.role.clone();
        let mut applied = self.seat.shared.applied.clone();
        let mut flight: Option<Flight> = None;
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        while self.leads() {
            let mut pause = None;
            if flight.is_none() {
                applied.borrow_and_update();
                match self.lender.wants_close(self.core.world.clock.mono()) {
                    Wish::Now => {
                        if let Some(entry) = self.close() {
                            flight = self.propose(entry).await;
                            continue;
                        }
                    }
                    Wish::At(then) => {
                        let now = self.core.world.clock.mono();
                        pause = Some(Duration::from_nanos(then.since(now)).max(Duration::from_micros(100)));
                    }
                    Wish::Nothing => {}
                }
            }
            let idle = flight.is_none();
            tokio::select! {
                biased;
                result = async { flight.as_mut().expect("guarded by the branch's condition").await }, if !idle => {
                    flight = None;
                    let written = result.ok().and_then(Result::ok).map(|response| response.data.0);
                    self.landed(written).await;
                }
                changed = role.changed() => if changed.is_err() { return },
                // The clock may stamp once the gate is applied.
                changed = applied.changed(), if idle => if changed.is_err() { return },
                count = questions.recv_many(&mut taken, TAKEN_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    for question in taken.drain(..) {
                        self.take(question);
                    }
                }
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    fn take(&mut self, question: Question) {
        panic_point("slot");
        let ticket = Ticket(self.next);
        self.next += 1;
        let answer = match question {
            Question::Ask(from, ask, reply) => {
                self.askers.insert(ticket, Asker::Ask(reply));
                self.lender.ask(from, ticket, ask, self.core.world.clock.mono())
            }
            Question::Register(register, reply) => {
                self.askers.insert(ticket, Asker::Register(reply));
                self.lender.register(ticket, register)
            }
            Question::Document(change, reply) => {
                self.askers.insert(ticket, Asker::Document(reply));
                self.lender.document(ticket, change)
            }
        };
        self.deliver(answer);
    }

    fn close(&mut self) -> Option<Stamped> {
        let closed = {
            let mut replicated = self.seat.shared.replicated.lock();
            let Replicated { state, clock, .. } = &mut *replicated;
            self.lender.close(&*state, clock, || self.core.world.clock.mono())
        };
        self.deliver(closed.answers);
        self.push(closed.pushes);
        closed.entry
    }

    async fn propose(&mut self, entry: Stamped) -> Option<Flight> {
        let (responder, done) = ProgressResponder::complete_only();
        let request = self.seat.raft.write(Local(Command::Stamped(entry))).with_leader(self.term);
        match request.responder(responder).await {
            Ok(()) => Some(done),
            Err(fatal) => {
                tracing::error!(%fatal, "the consensus core takes no proposals");
                let answers = self.lender.failed();
                self.deliver(answers);
                None
            }
        }
    }

    async fn landed(&mut self, outcome: Option<Outcome>) {
        let Some(Outcome::Stamped(outcome)) = outcome else {
            // Refused, fenced off, or lost with the leadership.
            let answers = self.lender.failed();
            self.deliver(answers);
            sleep(AGAIN).await;
            return;
        };
        let closed = {
            let replicated = self.seat.shared.replicated.lock();
            self.lender.applied(&outcome, &replicated.state)
        };
        self.deliver(closed.answers);
        self.push(closed.pushes);
    }

    fn deliver(&mut self, answers: impl IntoIterator<Item = Answer>) {
        for (ticket, reply) in answers {
            // An asker that stopped waiting does not take its answer: nothing is lost by it.
            match (self.askers.remove(&ticket), reply) {
                (Some(Asker::Ask(to)), Reply::Batch(answer)) => drop(to.send(answer)),
                (Some(Asker::Register(to)), Reply::Session(answer)) => drop(to.send(answer)),
                (Some(Asker::Document(to)), Reply::Document(answer)) => drop(to.send(answer)),
                _ => debug_assert!(false, "each ticket is answered once, with its own kind"),
            }
        }
    }

    fn push(&self, pushes: Vec<(RaftId, Push)>) {
        for (to, push) in pushes {
            match push {
                Push::Recall(_) => tracing::debug!(target: HISTORY, "leases recalled"),
                Push::Changed(_) => tracing::debug!(target: HISTORY, "changed limits announced"),
            }
            self.core.push(self.seat, to, &push);
        }
    }
}
