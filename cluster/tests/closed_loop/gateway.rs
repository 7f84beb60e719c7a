//! A small model of a gateway's side of the protocol (quota.md 4): one cell, whole tokens, no threads.

use std::collections::VecDeque;

use config::quota::Limit;
use quorumgate_cluster::lease::{Ask, AskError, AskItem, AskReply, Granted, Push};
use quorumgate_cluster::state::ids::{Key, LeaseId, SessionId, Tokens};

pub const MS: u64 = 1_000_000;
const WAIT_NS: u64 = 50 * MS;
const WAITERS_MAX: usize = 16;
const ASKS_MAX: u32 = 3;
const WINDOW_NS: u64 = 20 * MS;

/// What a gateway wants to be sent.
pub enum Send {
    Register(u128),
    Ask(Ask),
}

pub struct Waiter {
    since: u64,
    cost: Tokens,
    asked: u32,
}

/// All times are of this node's own clock.
pub struct Gateway {
    pub key: Key,
    pub limit: Limit,
    pub nonce: u128,
    pub session: Option<SessionId>,
    seq: u64,
    outstanding: Option<Outstanding>,
    registering_until: u64,
    /// Which voter it believes to lead.
    pub voter: usize,
    pub voters: usize,
    cycle_ns: u64,
    tokens: Tokens,
    deadline: u64,
    lid: Option<LeaseId>,
    spent: Tokens,
    reported_spent: Tokens,
    reported_at: u64,
    neg_until: u64,
    ask_at: u64,
    nopre: u64,
    tight: bool,
    plenty: bool,
    must_report: bool,
    recalled: bool,
    last_request: u64,
    waiters: VecDeque<Waiter>,
    demand: Demand,
    /// Costs admitted since they were last taken.
    pub admitted: Vec<Tokens>,
}

struct Outstanding {
    seq: u64,
    sent: u64,
    asked_for_waiters: bool,
}

/// Tokens per 1000 s, averaged over some 200 ms.
#[derive(Default)]
struct Demand {
    per_ks: u64,
    window: u64,
    count: u64,
}

impl Demand {
    fn roll(&mut self, now: u64) {
        let window = now / WINDOW_NS;
        for _ in 0..(window - self.window).min(200) {
            self.per_ks = self.per_ks - self.per_ks.div_ceil(10) + self.count * 5_000;
            self.count = 0;
        }
        self.window = window;
    }
    fn now(&self) -> u64 {
        self.per_ks + self.count * 5_000
    }
}

impl Gateway {
    pub fn new(key: Key, limit: Limit, nonce: u128, voters: usize) -> Self {
        Self {
            key,
            limit,
            nonce,
            session: None,
            seq: 0,
            outstanding: None,
            registering_until: 0,
            voter: 0,
            voters,
            cycle_ns: 25 * MS,
            tokens: 0,
            deadline: 0,
            lid: None,
            spent: 0,
            reported_spent: 0,
            reported_at: 0,
            neg_until: 0,
            ask_at: 0,
            nopre: 0,
            tight: false,
            plenty: false,
            must_report: false,
            recalled: false,
            last_request: 0,
            waiters: VecDeque::new(),
            demand: Demand::default(),
            admitted: Vec::new(),
        }
    }

    /// A request comes in.
    pub fn request(&mut self, cost: Tokens, now: u64) {
        self.demand.roll(now);
        self.demand.count += cost;
        self.last_request = now;
        if self.waiters.is_empty() && self.take(cost, now) {
            return;
        }
        if now < self.neg_until || cost > self.limit.burst || self.waiters.len() >= WAITERS_MAX {
            return;
        }
        self.waiters.push_back(Waiter { since: now, cost, asked: 0 });
    }

    fn take(&mut self, cost: Tokens, now: u64) -> bool {
        if self.tokens < cost {
            return false;
        }
        self.tokens -= cost;
        self.spent += cost;
        if now >= self.deadline {
            return false;
        }
        self.admitted.push(cost);
        true
    }

    /// Whether time alone may bring something about.
    pub fn is_busy(&self) -> bool {
        self.tokens > 0
            || !self.waiters.is_empty()
            || self.outstanding.is_some()
            || self.must_report
            || self.spent > self.reported_spent
            || self.session.is_none()
    }

    /// Closes a batch if one is due.
    pub fn manage(&mut self, now: u64) -> Option<Send> {
        self.demand.roll(now);
        while self.waiters.front().is_some_and(|w| now >= w.since + WAIT_NS) {
            self.waiters.pop_front();
        }
        let Some(session) = self.session else {
            if now < self.registering_until {
                return None;
            }
            self.voter = (self.voter + 1) % self.voters;
            self.registering_until = now + 100 * MS;
            return Some(Send::Register(self.nonce));
        };
        if let Some(out) = &self.outstanding {
            if now < out.sent + (4 * self.cycle_ns).clamp(100 * MS, 2_500 * MS) {
                return None;
            }
            self.cycle_ns = (self.cycle_ns * 2).min(1_000 * MS);
            self.voter = (self.voter + 1) % self.voters;
            self.voided();
        }
        if now >= self.deadline && self.tokens > 0 {
            self.tokens = 0;
            self.must_report = true;
        }
        let demand = self.demand.now();
        let idle_ns = match (self.tight, self.plenty) {
            (true, _) => 50 * MS,
            (_, true) => 1_000 * MS,
            _ => 500 * MS,
        };
        let quiet = now - self.last_request;
        let recent = quiet < 200 * MS;
        let age = now - self.reported_at;
        let in_time = |ns: u64| demand.saturating_mul(ns / 1_000) / 1_000_000_000;
        let waits = !self.waiters.is_empty() && now >= self.ask_at;
        let hold_ns =
            (self.limit.burst * 1_000_000_000_000 / (2 * demand.max(1))).clamp(250 * MS, 3_000 * MS);
        let low = if self.plenty {
            age >= 100 * MS && self.tokens < in_time(hold_ns / 2).max(2)
        } else {
            self.tokens < in_time(2 * self.cycle_ns)
        };
        let prefetch = low && recent && now >= self.nopre;
        let idle = self.tokens > 0 && quiet >= idle_ns;
        let report_iv =
            (self.limit.burst * self.limit.per_ns / (20 * self.limit.tokens)).clamp(10 * MS, 500 * MS);
        let unreported = self.spent > self.reported_spent;
        let report = unreported && (age >= report_iv || (self.tight && self.tokens == 0));
        let renew = self.tokens > 0 && recent && self.deadline - now < 2_500 * MS && age >= 20 * MS;
        if !(waits || prefetch || idle || self.recalled || self.must_report || report || renew) {
            return None;
        }
        if idle {
            self.tokens = 0;
        } else if self.recalled {
            let gone = quiet > (4_000_000_000_000 / demand.max(1)).clamp(MS, 30 * MS);
            self.tokens = if gone { 0 } else { self.tokens / 2 };
        }
        let need: Tokens = self.waiters.iter().map(|w| w.cost).sum();
        let first = self.waiters.front().map_or(0, |w| w.cost.saturating_sub(self.tokens));
        let item = AskItem {
            key: self.key,
            lid: self.lid,
            held: self.tokens,
            spent: self.spent,
            need,
            min: first,
            want: if idle || self.recalled && need == 0 {
                0
            } else {
                in_time(3_000 * MS).max(need).min(self.limit.burst)
            },
            demand_per_ks: demand,
        };
        for waiter in &mut self.waiters {
            waiter.asked += 1;
        }
        (self.recalled, self.must_report) = (false, false);
        (self.reported_spent, self.reported_at) = (self.spent, now);
        self.seq += 1;
        self.outstanding = Some(Outstanding { seq: self.seq, sent: now, asked_for_waiters: need > 0 });
        Some(Send::Ask(Ask { session, seq: self.seq, items: vec![item] }))
    }

    fn voided(&mut self) {
        self.outstanding = None;
        self.must_report = true;
    }

    pub fn registered(&mut self, nonce: u128, session: Result<SessionId, AskError>) {
        if let (Ok(session), true, None) = (session, nonce == self.nonce, self.session) {
            self.session = Some(session);
        }
    }

    /// An answer to the batch `seq` of `session`.
    pub fn replied(&mut self, session: SessionId, seq: u64, reply: Result<AskReply, AskError>, now: u64) {
        let Some(out) = self.outstanding.take_if(|o| o.seq == seq && self.session == Some(session)) else {
            return;
        };
        match reply {
            Ok(reply) => {
                self.cycle_ns = (self.cycle_ns * 7 + (now - out.sent)) / 8;
                for granted in &reply.items {
                    self.granted(granted, &out, now);
                }
            }
            Err(AskError::UnknownSession) => {
                self.session = None;
                self.nonce += 1 << 64;
                (self.tokens, self.lid, self.spent, self.reported_spent) = (0, None, 0, 0);
            }
            Err(AskError::Overloaded) => self.voided(),
            Err(AskError::NotLeader | AskError::Unreachable) => {
                self.voter = (self.voter + 1) % self.voters;
                self.voided();
            }
        }
    }

    fn granted(&mut self, granted: &Granted, out: &Outstanding, now: u64) {
        assert!(!granted.unknown, "the model's only limit is known");
        if !granted.keep {
            self.tokens = 0;
        }
        if granted.ttl_ns > 0 {
            if granted.lid != self.lid {
                (self.lid, self.spent, self.reported_spent) = (granted.lid, 0, 0);
            }
            self.deadline = out.sent + granted.ttl_ns / 10 * 8;
        }
        self.tokens += granted.grant;
        (self.tight, self.plenty) = (granted.tight, granted.plenty);
        let retry = granted.retry_after_ns.min(1_000 * MS);
        (self.neg_until, self.ask_at) = (0, 0);
        if retry > 0 {
            self.nopre = now + retry.max(10 * MS);
            self.ask_at = now + retry;
            if out.asked_for_waiters && !granted.hold {
                self.neg_until = now + retry;
            }
        }
        while let Some(waiter) = self.waiters.front() {
            let cost = waiter.cost;
            if !self.take(cost, now) {
                break;
            }
            self.waiters.pop_front();
        }
        if retry > 0 {
            self.waiters.retain(|w| granted.hold && w.asked < ASKS_MAX);
        }
    }

    pub fn pushed(&mut self, push: &Push) {
        match push {
            Push::Recall(_) if self.tokens > 0 || self.spent > self.reported_spent => self.recalled = true,
            Push::Recall(_) => {}
            Push::Changed(_) => (self.neg_until, self.nopre, self.must_report) = (0, 0, true),
        }
    }
}
