//! The conversation itself: one session, one batch on its way, and what happens when nobody answers.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::HISTORY;
use cluster::lease::{Ask, AskError, AskReply};
use cluster::state::ids::{Key, SessionId, Tokens};
use cluster::world::BootNs;

use super::pace::Cycle;
use super::{Lessee, Output};

/// Between a failure that came at once and the next try; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Half of it is lost refill at the end of a failover, for a key that is always empty.
const BACKOFF_MAX: Duration = Duration::from_millis(40);

/// Where the conversation stands.
#[derive(Debug)]
pub struct Session {
    pub(super) cycle: Cycle,
    id: Option<SessionId>,
    nonce: u128,
    seq: u64,
    /// Until when a registration is awaited.
    registering: Option<BootNs>,
    outstanding: Option<Outstanding>,
    /// Nothing is sent before.
    quiet_until: BootNs,
    backoff: Duration,
    /// When the first question was sent since a leader answered last; none: nothing was asked since.
    unanswered: Option<BootNs>,
}

#[derive(Debug)]
struct Outstanding {
    ask: Ask,
    sent: BootNs,
    void_at: BootNs,
}

impl Session {
    pub(super) fn new(now: BootNs, nonce: u128) -> Self {
        Self {
            cycle: Cycle::new(),
            id: None,
            nonce,
            seq: 0,
            registering: None,
            outstanding: None,
            quiet_until: now,
            backoff: BACKOFF_MIN,
            unanswered: None,
        }
    }

    /// Since when questions have been without an answer. A gateway that asked nothing heard nothing, which says nothing of
    /// the leader.
    pub(super) fn silent_since(&self) -> Option<BootNs> {
        self.unanswered
    }

    fn asks(&mut self, now: BootNs) {
        self.unanswered.get_or_insert(now);
    }

    fn heard(&mut self, now: BootNs) {
        (self.unanswered, self.backoff, self.quiet_until) = (None, BACKOFF_MIN, now);
    }

    fn failed(&mut self, now: BootNs) {
        self.quiet_until = now.plus(self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    fn next_wake(&self, has_work: bool) -> Option<BootNs> {
        let busy = self.outstanding.as_ref().map(|o| o.void_at).or(self.registering);
        busy.or((has_work || self.id.is_none()).then_some(self.quiet_until))
    }
}

impl Lessee {
    /// The ledger's answer to [`Output::Register`]. Ignored unless it is to the present nonce.
    pub fn registered(&mut self, now: BootNs, nonce: u128, answer: Result<SessionId, AskError>) {
        if nonce == self.session.nonce && self.session.id.is_none() {
            self.session.registering = None;
            match answer {
                Ok(id) => {
                    tracing::debug!(target: HISTORY, "sessions begun");
                    (self.session.id, self.session.seq) = (Some(id), 0);
                    self.session.heard(now);
                }
                Err(_) => self.session.failed(now),
            }
        }
        self.pump(now);
    }

    /// The ledger's answer to [`Output::Send`]. Ignored unless it is to the batch on its way: others are void for ever.
    pub fn answered(
        &mut self,
        now: BootNs,
        session: SessionId,
        seq: u64,
        answer: Result<AskReply, AskError>,
    ) {
        let awaited = |o: &mut super::session::Outstanding| o.ask.session == session && o.ask.seq == seq;
        let in_time = self.session.outstanding.as_ref().is_some_and(|o| now < o.void_at);
        if in_time && let Some(batch) = self.session.outstanding.take_if(awaited) {
            match answer {
                Ok(reply) => self.take(batch, reply, now),
                Err(error) => {
                    self.void(&batch.ask);
                    self.session.failed(now);
                    tracing::debug!(target: HISTORY, "batches refused");
                    if error == AskError::UnknownSession {
                        tracing::debug!(target: HISTORY, "sessions lost");
                        // Its leases are of a session that the ledger has forgotten: they run out unspent.
                        self.drop_all();
                        self.session.id = None;
                        self.session.nonce = self.session.nonce.wrapping_add(1);
                        self.session.heard(now);
                    }
                }
            }
        } else {
            tracing::debug!(target: HISTORY, "answers to void batches");
        }
        self.pump(now);
    }

    fn take(&mut self, batch: Outstanding, reply: AskReply, now: BootNs) {
        self.session.cycle.answered(Duration::from_nanos(now.since(batch.sent)));
        self.session.heard(now);
        for (item, granted) in batch.ask.items.iter().zip(&reply.items) {
            assert_eq!(item.key, granted.key, "a reply answers the items in their order");
            self.dirty.insert(item.key);
            if granted.unknown {
                self.release(item.key);
                continue;
            }
            let Some(managed) = self.keys.get_mut(&item.key) else { continue };
            let told = managed.take(item, granted, batch.sent, now);
            if granted.full {
                self.turn_away(item.key);
                continue;
            }
            self.serve_queue(item.key, now);
            self.refuse_queue(item.key, told, now);
        }
    }

    /// A batch without an answer: its keys say everything again, with fresh figures.
    fn void(&mut self, ask: &Ask) {
        for item in &ask.items {
            if let Some(managed) = self.keys.get_mut(&item.key) {
                managed.must_report = true;
                self.dirty.insert(item.key);
            }
        }
    }

    /// Every event ends here: what is due is done, and the next wake is set.
    pub(super) fn pump(&mut self, now: BootNs) {
        while let Some((at, key)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, key));
            self.dirty.insert(key);
            if let Some(managed) = self.keys.get_mut(&key) {
                managed.check_at = None;
            }
        }
        if let Some(batch) = self.session.outstanding.take_if(|o| o.void_at <= now) {
            tracing::debug!(target: HISTORY, "batches timed out");
            self.session.cycle.timed_out();
            self.void(&batch.ask);
        }
        while let Some((_, id)) = self.waiters.first_deadline().filter(|(at, _)| *at <= now) {
            self.expire(id, now);
        }
        self.talk(now);
        self.arm(now);
    }

    fn finish(&mut self) {
        self.drained = true;
        self.outputs.push_back(Output::Drained);
    }

    fn talk(&mut self, now: BootNs) {
        if self.drained {
            return;
        }
        if self.session.registering.is_some_and(|until| until <= now) {
            self.session.registering = None;
            self.session.cycle.timed_out();
        }
        if now < self.session.quiet_until || self.session.registering.is_some() {
            return;
        }
        let within = self.session.cycle.batch_timeout();
        let Some(id) = self.session.id else {
            if self.draining {
                return self.finish();
            }
            self.session.registering = Some(now.plus(within));
            self.session.asks(now);
            self.outputs.push_back(Output::Register { nonce: self.session.nonce, within });
            return;
        };
        if self.session.outstanding.is_some() {
            return;
        }
        let items = self.close(now);
        if items.is_empty() {
            if self.draining && self.keys.values().all(|managed| !managed.has_lease()) {
                self.finish();
            }
            return;
        }
        self.session.seq += 1;
        self.session.asks(now);
        let ask = Ask { session: id, seq: self.session.seq, items };
        self.session.outstanding =
            Some(Outstanding { ask: ask.clone(), sent: now, void_at: now.plus(within) });
        self.outputs.push_back(Output::Send { ask, within });
    }

    /// Closes the dirty keys; those that have nothing to say get a time for the next look.
    fn close(&mut self, now: BootNs) -> Vec<cluster::lease::AskItem> {
        let mut items = Vec::new();
        let mut closed = BTreeSet::new();
        let mut again = BTreeSet::new();
        while items.len() < Ask::ITEMS_MAX
            && let Some(key) = self.dirty.pop_first()
        {
            if closed.contains(&key) {
                again.insert(key);
                continue;
            }
            self.serve_queue(key, now);
            let first_cost = self.first_cost(key);
            let (cycle, drain, gateways) = (self.session.cycle, self.draining, self.gateways);
            let Some(managed) = self.keys.get_mut(&key) else { continue };
            if let Some(item) = managed.close(key, first_cost, now, cycle, drain) {
                items.push(item);
                closed.insert(key);
                continue;
            }
            let limit = managed.entry.limit();
            let share_unused = managed.share.as_mut().is_none_or(|share| share.is_full(now, limit, gateways));
            if managed.is_forgettable(now) && share_unused && managed.wanted_by == 0 {
                self.forget(key);
            } else {
                self.look_at(key, now);
            }
        }
        // Serving another key's queue may have marked a closed key again: it is looked at after the reply.
        self.dirty.append(&mut again);
        items
    }

    fn first_cost(&self, key: Key) -> Tokens {
        let first = self.keys.get(&key).and_then(|managed| managed.queue.first());
        let charges = first.and_then(|id| self.waiters.by_id.get(id)).map(|waiter| &waiter.charges);
        charges.and_then(|c| c.iter().find(|c| c.key == key)).map_or(0, |c| u64::from(c.cost))
    }

    fn look_at(&mut self, key: Key, now: BootNs) {
        let Some(managed) = self.keys.get_mut(&key) else { return };
        let at = managed.next_look(now);
        if let Some(old) = managed.check_at.replace(at) {
            self.timers.remove(&(old, key));
        }
        self.timers.insert((at, key));
    }

    fn arm(&mut self, now: BootNs) {
        if self.drained {
            return;
        }
        let looks = self.timers.first().map(|(at, _)| *at);
        let waits = self.waiters.first_deadline().map(|(at, _)| at);
        let talks = self.session.next_wake(!self.dirty.is_empty());
        let Some(next) = [looks, waits, talks].into_iter().flatten().min() else { return };
        let next = next.max(now.plus(Duration::from_micros(100)));
        if self.armed.is_none_or(|armed| next < armed) {
            self.armed = Some(next);
            self.outputs.push_back(Output::WakeAt(next));
        }
    }
}
