//! One bucket and its leases: refill, report, grant, change of amount. Integers only.
//!
//! ```text
//! advance   expire leases one by one, refilling up to each end with the lease still counted     quota.md 3
//! report    what the gateway spent vanishes, what it gave back and void grants return            quota.md 3
//! grant     from central to the session's lease; expiry never falls                              decisions.md 2
//! change    another amount: rescale the started token, cut, give nothing                         quota.md 6
//! ```

use config::quota::Limit;
use smallvec::SmallVec;

use super::digest::Digester;
use super::ids::{LeaseId, Revision, SessionId, Tau, Tokens};
use super::rules::{Rule, all_hold, holds};

/// Tokens that a session may spend without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub session: SessionId,
    /// Its name.
    pub lid: LeaseId,
    /// Tokens out, > 0.
    pub out: Tokens,
    /// When they are booked as spent.
    pub exp: Tau,
    /// Spends under `lid` that are booked.
    pub booked: Tokens,
}

/// A bucket. Every method that changes it is pure: the same call gives the same bucket on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens in the ledger's hand. Negative: debt after a lowered amount.
    pub(super) central: i64,
    /// The started token, in 1/`per_ns` tokens: 0 ≤ rem < per_ns.
    pub(super) rem: u64,
    /// Up to when it is refilled.
    pub(super) at: Tau,
    /// The table of amounts that it was advanced with last.
    pub(super) revision: Revision,
    /// At most one a session.
    pub(super) leases: SmallVec<[Lease; 1]>,
}

/// Where tokens came from and went, for the sum check (I8). Sums over all buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In buckets when they were made.
    pub opened: i128,
    /// Refilled.
    pub refilled: i128,
    /// Reported as spent.
    pub spent: i128,
    /// Out in leases that expired or were void: booked as spent.
    pub deemed_spent: i128,
    /// Cut by a lowered amount.
    pub cut: i128,
    /// In buckets when they were forgotten.
    pub forgotten: i128,
}

impl Tally {
    /// What must be in the buckets.
    pub fn expected(&self) -> i128 {
        self.opened + self.refilled - self.spent - self.deemed_spent - self.cut - self.forgotten
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.refilled += other.refilled;
        self.spent += other.spent;
        self.deemed_spent += other.deemed_spent;
        self.cut += other.cut;
        self.forgotten += other.forgotten;
    }
}

/// What a grant came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The lease that is left, and its end; none: no tokens are out.
    pub lease: Option<(LeaseId, Tau)>,
    /// Tokens granted.
    pub grant: Tokens,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn full(limit: &Limit, at: Tau, revision: Revision) -> Self {
        let central = i64::try_from(limit.burst).expect("a burst fits 32 bits");
        Self { central, rem: 0, at, revision, leases: SmallVec::new() }
    }

    /// Tokens in the ledger's hand; negative: debt.
    pub fn central(&self) -> i64 {
        self.central
    }

    /// The started token, in 1/`per_ns` tokens.
    pub fn rem(&self) -> u64 {
        self.rem
    }

    /// Tokens out in leases.
    pub fn out_total(&self) -> Tokens {
        self.leases.iter().map(|lease| lease.out).sum()
    }

    /// All leases, in no order that means anything.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// The lease of a session.
    pub fn lease(&self, session: SessionId) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.session == session)
    }

    /// All tokens: in hand and out.
    pub(super) fn total(&self) -> i64 {
        self.central + signed(self.out_total())
    }

    /// Brings the bucket to `to`: expires leases in order, refills up to each end. Without a limit (the quota was
    /// removed) leases expire and nothing is refilled.
    pub(super) fn advance(&mut self, limit: Option<&Limit>, to: Tau, tally: &mut Tally) {
        while let Some(end) = self.leases.iter().map(|lease| lease.exp).filter(|exp| *exp <= to).min() {
            self.refill(limit, end, tally);
            let gone: Tokens =
                self.leases.iter().filter(|lease| lease.exp <= end).map(|lease| lease.out).sum();
            self.leases.retain(|lease| lease.exp > end);
            if holds(Rule::ExpiredIsSpent) {
                tally.deemed_spent += i128::from(gone);
            } else {
                self.central += signed(gone);
            }
        }
        self.refill(limit, to, tally);
        self.check(limit);
    }

    fn refill(&mut self, limit: Option<&Limit>, to: Tau, tally: &mut Tally) {
        let Some(dt_ns) = to.0.checked_sub(self.at.0).filter(|dt_ns| *dt_ns > 0) else { return };
        self.at = to;
        let Some(limit) = limit else { return };
        let out = if holds(Rule::CapCountsOut) { signed(self.out_total()) } else { 0 };
        let room = signed(limit.burst) - self.central - out;
        if room <= 0 {
            self.rem = 0;
            return;
        }
        // (2^64 − 1)² + 2^64 − 1 < 2^128.
        let x = u128::from(dt_ns) * u128::from(limit.tokens) + u128::from(self.rem);
        let per = u128::from(limit.per_ns);
        let add = if x / per >= room.unsigned_abs().into() {
            self.rem = 0;
            room
        } else {
            self.rem = u64::try_from(x % per).expect("less than per_ns");
            i64::try_from(x / per).expect("less than room")
        };
        self.central += add;
        tally.refilled += i128::from(add);
    }

    /// Another amount from now on. The bucket must be advanced to now with the old one. A raise gives nothing at once;
    /// a lowering cuts, and what is out above it becomes debt.
    pub(super) fn change(&mut self, old: Option<&Limit>, new: Option<&Limit>, tally: &mut Tally) {
        if old == new {
            return;
        }
        self.rem = match (old, new) {
            (Some(old), Some(new)) if holds(Rule::RemRescaled) => {
                let rem = u128::from(self.rem) * u128::from(new.per_ns) / u128::from(old.per_ns);
                u64::try_from(rem).expect("less than the new per_ns")
            }
            (Some(_), Some(_)) => self.rem,
            _ => 0,
        };
        if let Some(new) = new {
            let cap = signed(new.burst) - signed(self.out_total());
            if self.central >= cap {
                tally.cut += i128::from(self.central - cap);
                self.central = cap;
                self.rem = 0;
            } else if let Some(old) = old.filter(|_| !holds(Rule::RaiseGivesNothing)) {
                self.central = cap.min(self.central + (signed(new.burst) - signed(old.burst)).max(0));
            }
        }
        self.check(new);
    }

    /// Books what a session holds and has spent; whether the tokens that it holds stay good.
    ///
    /// A claim that no correct gateway makes (more held than is out, spends that fall) voids the lease: its tokens are
    /// booked as spent. Of spends above what left the lease only that much is booked; the rest waits for the tokens
    /// to leave it, so that no token comes back twice.
    pub fn report(
        &mut self,
        session: SessionId,
        lid: Option<LeaseId>,
        held: Tokens,
        spent: Tokens,
        tally: &mut Tally,
    ) -> bool {
        let Some(place) = self.leases.iter().position(|lease| lease.session == session) else {
            return held == 0;
        };
        let lease = &mut self.leases[place];
        if Some(lease.lid) != lid {
            // The gateway never took this lease: all of it comes back.
            self.central += signed(lease.out);
            self.leases.swap_remove(place);
            return held == 0;
        }
        if held > lease.out || spent < lease.booked {
            self.void(session, tally);
            return false;
        }
        let left = lease.out - held;
        let booked = left.min(spent - lease.booked);
        lease.out = held;
        lease.booked += booked;
        self.central += signed(left - booked);
        tally.spent += i128::from(booked);
        true
    }

    /// Ends a session's lease; its tokens are booked as spent.
    pub(super) fn void(&mut self, session: SessionId, tally: &mut Tally) {
        tally.deemed_spent += i128::from(self.lease(session).map_or(0, |lease| lease.out));
        self.leases.retain(|lease| lease.session != session);
    }

    /// Moves tokens to the session's lease, at least `min` or none, at most `max`, and lets the lease live until `exp` at
    /// least. A lease that this creates is called `next`. The bucket must be advanced, and the session's report booked.
    pub fn grant(&mut self, session: SessionId, min: Tokens, max: Tokens, exp: Tau, next: LeaseId) -> Given {
        let grant = max.min(u64::try_from(self.central).unwrap_or(0));
        let grant = if grant >= min.max(1) { grant } else { 0 };
        self.central -= signed(grant);
        let place = self.leases.iter().position(|lease| lease.session == session).unwrap_or_else(|| {
            self.leases.push(Lease { session, lid: next, out: 0, exp, booked: 0 });
            self.leases.len() - 1
        });
        let lease = &mut self.leases[place];
        lease.out += grant;
        lease.exp = lease.exp.max(exp);
        if lease.out == 0 {
            self.leases.swap_remove(place);
            return Given { lease: None, grant };
        }
        Given { lease: Some((lease.lid, lease.exp)), grant }
    }

    /// I1 and I2. Costs nothing in a release build.
    pub(super) fn check(&self, limit: Option<&Limit>) {
        if cfg!(debug_assertions) && all_hold() {
            self.verify(limit);
        }
    }

    /// I1 and I2.
    ///
    /// # Panics
    /// If one is broken.
    pub(super) fn verify(&self, limit: Option<&Limit>) {
        assert!(self.leases.iter().all(|lease| lease.out > 0), "I2: a lease has tokens out: {self:?}");
        if let Some(limit) = limit {
            assert!(self.total() <= signed(limit.burst), "I1: no more than the burst: {self:?} {limit:?}");
            assert!(self.rem < limit.per_ns, "I2: a started token is less than one: {self:?} {limit:?}");
        }
    }

    pub(super) fn digest(&self, into: &mut Digester) {
        into.number(self.central.cast_unsigned()).number(self.rem).number(self.at.0).number(self.revision.0);
        into.number(self.leases.len() as u64);
        for lease in &self.leases {
            into.number(lease.session.0).number(lease.lid.0).number(lease.out);
            into.number(lease.exp.0).number(lease.booked);
        }
    }
}

/// Counts of tokens are bounded by the burst, which fits 32 bits.
fn signed(tokens: Tokens) -> i64 {
    i64::try_from(tokens).expect("tokens are bounded by a burst of 32 bits")
}
