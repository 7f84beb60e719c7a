//! A second, plain writing of the ledger's rules (quota.md 3), for one limit: what the lender is tried against.

use std::collections::{BTreeMap, BTreeSet};

use config::quota::Limit;
use quorumgate_cluster::leader::books::{Account, Books, LeaseSeen};
use quorumgate_cluster::leader::sizing::Level;
use quorumgate_cluster::state::command::{BatchOutcome, Item, ItemOutcome, Stamped, StampedOutcome};
use quorumgate_cluster::state::ids::{Key, LeaseId, LimitId, RaftId, SessionId, Tau, Tokens};

#[derive(Clone)]
pub struct Ledger {
    limit: Limit,
    tau: Tau,
    next: u64,
    sessions: BTreeMap<SessionId, Session>,
    buckets: BTreeMap<Key, Bucket>,
}

#[derive(Clone)]
struct Session {
    node: RaftId,
    nonce: u128,
    last_seq: u64,
}

#[derive(Clone)]
pub struct Bucket {
    limit: Limit,
    central: i128,
    rem: i128,
    at: u64,
    leases: Vec<(SessionId, LeaseSeen, Tokens)>,
}

impl Bucket {
    fn out(&self) -> i128 {
        self.leases.iter().map(|(_, lease, _)| i128::from(lease.out)).sum()
    }

    fn refill_to(&mut self, to: u64) {
        if to <= self.at {
            return;
        }
        let dt = i128::from(to - self.at);
        self.at = to;
        let room = i128::from(self.limit.burst) - self.central - self.out();
        let come = dt * i128::from(self.limit.tokens) + self.rem;
        let (add, rem) = (come / i128::from(self.limit.per_ns), come % i128::from(self.limit.per_ns));
        (self.central, self.rem) =
            if add >= room { (self.central + room.max(0), 0) } else { (self.central + add, rem) };
    }

    fn advance(&mut self, to: u64) {
        while let Some(end) =
            self.leases.iter().map(|(_, lease, _)| lease.exp.0).filter(|exp| *exp <= to).min()
        {
            self.refill_to(end);
            self.leases.retain(|(_, lease, _)| lease.exp.0 > end);
        }
        self.refill_to(to);
    }

    fn find(&self, session: SessionId) -> Option<usize> {
        self.leases.iter().position(|(of, _, _)| *of == session)
    }
}

impl Account for Bucket {
    fn level(&self) -> Level {
        Level {
            limit: self.limit,
            central: self.central.try_into().expect("small"),
            out: self.out().try_into().expect("small"),
            rem: self.rem.try_into().expect("below per_ns"),
        }
    }
    fn lease(&self, session: SessionId) -> Option<LeaseSeen> {
        self.find(session).map(|i| self.leases[i].1)
    }
    fn leases(&self) -> Vec<(SessionId, Tokens)> {
        self.leases.iter().map(|(session, lease, _)| (*session, lease.out)).collect()
    }
    fn report(&mut self, session: SessionId, lid: Option<LeaseId>, held: Tokens, spent: Tokens) -> bool {
        let Some(i) = self.find(session) else { return held == 0 };
        let (_, lease, spent_last) = &mut self.leases[i];
        if lid == Some(lease.lid) {
            assert!(held <= lease.out, "a gateway claims {held} tokens of {lease:?}");
            let (gone, spent_now) = (i128::from(lease.out - held), i128::from(spent - *spent_last));
            self.central += (gone - spent_now).max(0);
            (lease.out, *spent_last) = (held, spent);
            return true;
        }
        self.central += i128::from(lease.out);
        self.leases.remove(i);
        held == 0
    }
    fn grant(&mut self, _: SessionId, tokens: Tokens) {
        self.central -= i128::from(tokens);
    }
}

impl Ledger {
    pub fn new(limit: Limit) -> Self {
        Self { limit, tau: Tau(0), next: 0, sessions: BTreeMap::new(), buckets: BTreeMap::new() }
    }

    pub fn apply(&mut self, entry: &Stamped) -> StampedOutcome {
        assert!(entry.stamp >= self.tau, "stamps never fall along the log");
        self.tau = entry.stamp;
        let mut sessions = Vec::new();
        for register in &entry.registers {
            let known =
                self.sessions.iter().find(|(_, s)| s.node == register.node && s.nonce == register.nonce);
            let id = known.map(|(id, _)| *id).unwrap_or_else(|| {
                self.next += 1;
                SessionId(self.next)
            });
            let fresh = Session { node: register.node, nonce: register.nonce, last_seq: 0 };
            self.sessions.entry(id).or_insert(fresh);
            sessions.push(id);
        }
        let mut batches = Vec::new();
        for batch in &entry.batches {
            let Some(session) = self.sessions.get_mut(&batch.session) else {
                batches.push(BatchOutcome::UnknownSession);
                continue;
            };
            if batch.seq <= session.last_seq {
                batches.push(BatchOutcome::Stale);
                continue;
            }
            session.last_seq = batch.seq;
            batches.push(BatchOutcome::Applied(
                batch.items.iter().map(|i| self.item(batch.session, i)).collect(),
            ));
        }
        StampedOutcome { document: None, sessions, batches }
    }

    fn item(&mut self, session: SessionId, item: &Item) -> ItemOutcome {
        let (tau, limit) = (self.tau, self.limit);
        let full = Bucket { limit, central: limit.burst.into(), rem: 0, at: tau.0, leases: Vec::new() };
        let bucket = self.buckets.entry(item.key).or_insert(full);
        bucket.advance(tau.0);
        let keep = bucket.report(session, item.lid, item.held, item.spent);
        let fits = bucket.central >= i128::from(item.min.max(1));
        let grant = if fits { i128::from(item.max).min(bucket.central) } else { 0 };
        let grant = u64::try_from(grant).expect("not negative");
        bucket.central -= i128::from(grant);
        let i = bucket.find(session).unwrap_or_else(|| {
            self.next += 1;
            bucket.leases.push((session, LeaseSeen { lid: LeaseId(self.next), out: 0, exp: tau }, 0));
            bucket.leases.len() - 1
        });
        let lease = &mut bucket.leases[i].1;
        lease.out += grant;
        let exp = Tau(tau.0 + item.ttl_ns);
        lease.exp = if item.held > 0 { lease.exp.max(exp) } else { exp };
        let lease = *lease;
        if lease.out == 0 {
            bucket.leases.remove(i);
        }
        assert!(
            bucket.central + bucket.out() <= i128::from(limit.burst),
            "central and leases are within the burst"
        );
        ItemOutcome {
            keep,
            lid: (lease.out > 0).then_some(lease.lid),
            grant,
            ttl_ns: lease.exp.0 - tau.0,
            left: bucket.central.try_into().expect("small"),
            unknown: false,
        }
    }
}

impl Books for Ledger {
    type Bucket = Bucket;
    fn tau(&self) -> Tau {
        self.tau
    }
    fn last_seq(&self, session: SessionId) -> Option<u64> {
        self.sessions.get(&session).map(|s| s.last_seq)
    }
    fn node_of(&self, session: SessionId) -> Option<RaftId> {
        self.sessions.get(&session).map(|s| s.node)
    }
    fn nodes(&self) -> BTreeSet<RaftId> {
        self.sessions.values().map(|s| s.node).collect()
    }
    fn shadow(&self, key: Key, stamp: Tau) -> Option<Bucket> {
        let full = || Bucket {
            limit: self.limit,
            central: self.limit.burst.into(),
            rem: 0,
            at: stamp.0,
            leases: Vec::new(),
        };
        let mut bucket = self.buckets.get(&key).cloned().unwrap_or_else(full);
        bucket.advance(stamp.0);
        Some(bucket)
    }
    fn changed_limits(&self) -> Vec<LimitId> {
        Vec::new()
    }
}
