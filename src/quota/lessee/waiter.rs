//! Requests that wait. Ids rise with arrival, and every queue is ordered by them: an older request is never overtaken, and
//! the oldest of all stands first wherever it queues, so that requests with several keys can not lock each other out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::world::BootNs;
use smallvec::SmallVec;

use crate::quota::entry::Entry;
use crate::quota::hold::Hold;
use crate::quota::rule::Charge;

/// A waiting request; rises with arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// The charges of one request.
pub type Charges = SmallVec<[Charge; 4]>;

/// What became of a request that waited.
#[derive(Debug)]
pub enum Verdict {
    /// Tokens are set aside on every key. The receiver reads the clock and commits; that is the admission.
    Ready(Hold<Arc<Entry>>),
    /// The leader refused: places in the request's charges, and when tokens may be there.
    Over(Vec<(usize, Duration)>),
    /// No leader answered.
    Undecided {
        /// Places in the request's charges.
        places: Vec<usize>,
        /// When the local share may have tokens; none: nobody knows when a leader will answer.
        retry_after: Option<Duration>,
    },
    /// The ledger has no room for another key: a place in the request's charges.
    KeysFull(usize),
    /// Bounds are reached.
    Overloaded,
}

/// One of them.
#[derive(Debug)]
pub struct Waiter {
    pub(super) charges: Charges,
    /// Without any leader's answer until then it is undecided; once a leader asked it to hold on, it is over then.
    pub(super) deadline: BootNs,
    /// How long it may be held for tokens that a leader sees coming.
    pub(super) hold_until: BootNs,
    /// Times that a leader said "hold on".
    pub(super) held_on: u8,
    /// Demand has counted it.
    pub(super) counted: bool,
    /// A place in `charges`, and until when the leader's last refusal for it stands.
    pub(super) refused: Option<(usize, BootNs)>,
    /// Places in `charges` whose queues it stands in.
    pub(super) lacking: SmallVec<[usize; 4]>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Waiters {
    pub(super) by_id: BTreeMap<WaiterId, Waiter>,
    pub(super) by_deadline: BTreeSet<(BootNs, WaiterId)>,
    last: u64,
}

impl Waiters {
    /// A new one's id.
    pub(super) fn next_id(&mut self) -> WaiterId {
        self.last += 1;
        WaiterId(self.last)
    }
    pub(super) fn insert(&mut self, id: WaiterId, waiter: Waiter) {
        self.by_deadline.insert((waiter.deadline, id));
        self.by_id.insert(id, waiter);
    }
    /// A leader asked it to hold on: from now on its time for that counts.
    pub(super) fn hold_on(&mut self, id: WaiterId) {
        let Some(waiter) = self.by_id.get_mut(&id) else { return };
        self.by_deadline.remove(&(waiter.deadline, id));
        waiter.deadline = waiter.deadline.min(waiter.hold_until);
        self.by_deadline.insert((waiter.deadline, id));
    }
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.by_id.remove(&id)?;
        self.by_deadline.remove(&(waiter.deadline, id));
        Some(waiter)
    }
    pub(super) fn first_deadline(&self) -> Option<(BootNs, WaiterId)> {
        self.by_deadline.first().copied()
    }
}
