//! One gateway's session with the ledger, without any I/O: who waits, what to ask, what a reply means (quota.md 4).
//!
//! What it does not do: it reads no clock, sends nothing and admits nothing. Time comes in with each event, wishes go out as
//! [`Output`]s, and a request that waited gets a [`Hold`](super::hold::Hold), which it commits itself against the clock.

mod managed;
mod pace;
mod session;
mod share;
mod waiter;

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod town;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cluster::leader::trickles;
use cluster::lease::{Ask, Push};
use cluster::state::ids::Key;
use cluster::world::BootNs;
use config::ids::QuotaName;

use managed::{Managed, Told};
use session::Session;
use share::Share;
pub use waiter::{Charges, Verdict, WaiterId};
use waiter::{Waiter, Waiters};

use super::entry::{Counts, Entry};
use super::hold::Hold;

/// A waiter for tokens that flow is held so often, and not longer: more would make a long queue of a saturated key.
const HOLDS: u8 = 3;

/// What the shell should do next. Drain with [`Lessee::poll_output`] after every event.
#[derive(Debug)]
pub enum Output {
    /// Ask the ledger for a session; answer with [`Lessee::registered`]. Give up after `within`.
    Register {
        /// Names this life.
        nonce: u128,
        /// The lessee asks anew after this.
        within: Duration,
    },
    /// Send a batch; answer with [`Lessee::answered`]. Give up after `within`.
    Send {
        /// The batch.
        ask: Ask,
        /// It is void after this.
        within: Duration,
    },
    /// Call [`Lessee::woke`] then. Replaces the last one.
    WakeAt(BootNs),
    /// A request's wait is over.
    Resolve(WaiterId, Verdict),
    /// Takers may find this key from now on.
    Publish(Key, Arc<Entry>),
    /// And this one no more.
    Withdraw(Key),
    /// The drain is done.
    Drained,
}

/// How much a lessee may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests that wait at once.
    pub waiters_max: usize,
    /// Keys at once.
    pub keys_max: usize,
}

/// One gateway's session.
#[derive(Debug)]
pub struct Lessee {
    bounds: Bounds,
    born: BootNs,
    gateways: u64,
    session: Session,
    keys: BTreeMap<Key, Managed>,
    counts: BTreeMap<QuotaName, Arc<Counts>>,
    waiters: Waiters,
    /// Keys to look at when the next batch closes.
    dirty: BTreeSet<Key>,
    timers: BTreeSet<(BootNs, Key)>,
    armed: Option<BootNs>,
    draining: bool,
    drained: bool,
    outputs: VecDeque<Output>,
}

impl Lessee {
    /// A lessee without a session. `nonce` is random, of this life.
    pub fn new(now: BootNs, nonce: u128, bounds: Bounds) -> Self {
        let mut new = Self {
            bounds,
            born: now,
            gateways: 1,
            session: Session::new(now, nonce),
            keys: BTreeMap::new(),
            counts: BTreeMap::new(),
            waiters: Waiters::default(),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            armed: None,
            draining: false,
            drained: false,
            outputs: VecDeque::new(),
        };
        new.pump(now);
        new
    }

    /// The next wish.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Since when the ledger has left questions without an answer; none: it has not.
    pub fn silent_since(&self) -> Option<BootNs> {
        self.session.silent_since()
    }

    /// Requests that wait.
    fn waiting(&self) -> usize {
        self.waiters.by_id.len()
    }

    /// Where a quota's requests are counted.
    pub fn count_in(&mut self, quota: &QuotaName, counts: &Arc<Counts>) {
        if !self.counts.contains_key(quota) {
            self.counts.insert(quota.clone(), Arc::clone(counts));
        }
    }

    /// A request that found too few tokens. Its verdict comes as [`Output::Resolve`], perhaps at once.
    pub fn admit(&mut self, now: BootNs, charges: Charges) -> WaiterId {
        let id = self.waiters.next_id();
        if self.draining || self.waiting() >= self.bounds.waiters_max || !self.know(&charges, now) {
            self.outputs.push_back(Output::Resolve(id, Verdict::Overloaded));
        } else {
            let told = charges.iter().filter_map(|charge| charge.quota.wait).min();
            let usual = self.session.cycle.wait();
            let wait = told.unwrap_or(usual);
            let (hold_until, deadline) = (now.plus(wait), now.plus(wait.max(usual)));
            let lacking = smallvec::SmallVec::new();
            self.wanted(&charges, |wanted_by| wanted_by + 1);
            self.waiters.insert(
                id,
                Waiter { charges, deadline, hold_until, held_on: 0, counted: false, refused: None, lacking },
            );
            if !self.serve(id, now) {
                self.count_missed(id, now);
                self.refuse_late(id, now);
                self.send_away(id, now);
            }
        }
        self.pump(now);
        id
    }

    /// The instant of [`Output::WakeAt`] has come.
    pub fn woke(&mut self, now: BootNs) {
        self.armed = None;
        self.pump(now);
    }

    /// A taker saw a key run low.
    pub fn low(&mut self, now: BootNs, key: Key) {
        self.dirty.insert(key);
        self.pump(now);
    }

    /// The leader says something unasked.
    pub fn pushed(&mut self, now: BootNs, push: Push) {
        match push {
            Push::Recall(key) => {
                if let Some(managed) = self.keys.get_mut(&key) {
                    managed.recalled = true;
                    self.dirty.insert(key);
                }
            }
            Push::Changed(limit) => {
                let first = Key { limit, tenant: 0, value: 0 };
                let last = Key { limit, tenant: u64::MAX, value: u64::MAX };
                for (key, managed) in self.keys.range_mut(first..=last) {
                    managed.changed();
                    self.dirty.insert(*key);
                }
            }
        }
        self.pump(now);
    }

    /// The cluster's view changed: the quotas of its document, and its gateways.
    pub fn viewed(&mut self, now: BootNs, quotas: &BTreeSet<QuotaName>, gateways: usize) {
        self.gateways = gateways.max(1) as u64;
        let gone: Vec<Key> =
            self.keys.iter().filter(|(_, m)| !quotas.contains(&m.rule.name)).map(|(key, _)| *key).collect();
        for key in gone {
            self.release(key);
            self.dirty.insert(key);
        }
        self.pump(now);
    }

    /// Gives every lease back; ends with [`Output::Drained`]. No request is taken from now on.
    pub fn drain(&mut self, now: BootNs) {
        self.draining = true;
        let all: Vec<WaiterId> = self.waiters.by_id.keys().copied().collect();
        all.into_iter().for_each(|id| self.expire(id, now));
        self.dirty.extend(self.keys.keys());
        self.pump(now);
    }

    /// Every token dies at once: the process ends, or another lessee follows.
    pub fn drop_all(&mut self) {
        self.keys.values_mut().for_each(Managed::forget_lease);
    }

    /// Makes room for the keys of `charges`; false if there is none.
    fn know(&mut self, charges: &Charges, now: BootNs) -> bool {
        for charge in charges {
            if let Some(managed) = self.keys.get_mut(&charge.key) {
                managed.rule = Arc::clone(&charge.quota);
                continue;
            }
            if self.keys.len() >= self.bounds.keys_max {
                return false;
            }
            let counts = self.counts.get(&charge.quota.name).cloned().unwrap_or_default();
            let entry = Arc::new(Entry::new(charge.quota.limit, counts));
            self.outputs.push_back(Output::Publish(charge.key, Arc::clone(&entry)));
            self.keys.insert(charge.key, Managed::new(entry, Arc::clone(&charge.quota), now));
            self.dirty.insert(charge.key);
        }
        true
    }

    /// A leader's refusal may have come while this request was on its way here, or stood in another key's queue. It still
    /// stands, and nobody will be asked before it ends: without this the request would wait for an answer that was given
    /// before it came.
    fn refuse_late(&mut self, id: WaiterId, now: BootNs) {
        let Some(waiter) = self.waiters.by_id.get(&id) else { return };
        let refused = waiter.lacking.iter().find_map(|place| {
            let managed = self.keys.get(&waiter.charges[*place].key)?;
            Some((*place, managed.entry.refused_for(now)?))
        });
        if let Some((place, retry)) = refused {
            self.resolve(id, Verdict::Over(vec![(place, retry)]));
        }
    }

    /// Nobody waits for a local share: nothing is gained by a queue for it, and it knows when its next token comes.
    fn send_away(&mut self, id: WaiterId, now: BootNs) {
        let Some(waiter) = self.waiters.by_id.get(&id) else { return };
        let (silent, gateways) = (self.session.silent_since(), self.gateways);
        let mut empty = None;
        for place in &waiter.lacking {
            let charge = &waiter.charges[*place];
            let Some(managed) = self.keys.get(&charge.key).filter(|it| it.is_cut_off(now, silent)) else {
                continue;
            };
            let wait =
                managed.share.and_then(|share| share.wait(charge.cost, managed.entry.limit(), gateways));
            empty = empty.max(Some(wait));
        }
        if let Some(retry_after) = empty {
            let places = waiter.lacking.to_vec();
            self.resolve(id, Verdict::Undecided { places, retry_after });
        }
    }

    /// Demand counts a request when it comes, not when it is served.
    fn count_missed(&mut self, id: WaiterId, now: BootNs) {
        let Some(waiter) = self.waiters.by_id.get_mut(&id) else { return };
        waiter.counted = true;
        for charge in &waiter.charges {
            self.keys[&charge.key].entry.missed(charge.cost, now);
        }
    }

    /// Tries to set tokens aside for a waiter, on all keys or none; if some lack, it stands in the queues of those.
    fn serve(&mut self, id: WaiterId, now: BootNs) -> bool {
        let Some(waiter) = self.waiters.by_id.get(&id) else { return false };
        let silent = self.session.silent_since();
        let (mut hold, mut lacking, mut shared) = (Hold::default(), smallvec::SmallVec::new(), Vec::new());
        for (place, charge) in waiter.charges.iter().enumerate() {
            let managed = self.keys.get_mut(&charge.key).expect("a waiter's keys are kept while it waits");
            let first = managed.queue.first().is_none_or(|oldest| *oldest >= id);
            let served = if managed.is_cut_off(now, silent) {
                // Whoever queues here queues for a leader's word.
                let limit = managed.entry.limit();
                let share = managed.share.get_or_insert_with(|| Share::new(self.born));
                let taken = share.take(charge.cost, now, limit, self.gateways);
                shared.extend(taken.then_some((charge.key, charge.cost)));
                taken
            } else {
                first && managed.is_alive(now) && hold.reserve(Arc::clone(&managed.entry), charge.cost)
            };
            if !served {
                lacking.push(place);
            }
        }
        if lacking.is_empty() {
            for charge in &waiter.charges {
                self.keys.entry(charge.key).and_modify(|managed| managed.served(charge.cost, waiter.counted));
            }
            for (key, _) in shared {
                self.keys[&key].entry.counts.shared();
            }
            self.resolve(id, Verdict::Ready(hold));
            return true;
        }
        for (key, cost) in shared {
            let share = self.keys.get_mut(&key).and_then(|managed| managed.share.as_mut());
            share.expect("tokens were just taken from it").put_back(cost);
        }
        drop(hold);
        self.queue(id, lacking);
        false
    }

    /// Moves a waiter to the queues of the keys that it lacks now.
    fn queue(&mut self, id: WaiterId, lacking: smallvec::SmallVec<[usize; 4]>) {
        let Some(waiter) = self.waiters.by_id.get_mut(&id) else { return };
        for (place, charge) in waiter.charges.iter().enumerate() {
            let Some(managed) = self.keys.get_mut(&charge.key) else { continue };
            let cost = u64::from(charge.cost);
            if lacking.contains(&place) {
                // Marked only when it is new: a look at a stuck queue must not ask for another look.
                if managed.queue.insert(id) {
                    managed.queued_cost += cost;
                    self.dirty.insert(charge.key);
                }
            } else if managed.queue.remove(&id) {
                managed.queued_cost -= cost;
                self.dirty.insert(charge.key);
            }
            managed.entry.set_waiting(managed.queue.len());
        }
        waiter.lacking = lacking;
    }

    fn resolve(&mut self, id: WaiterId, verdict: Verdict) {
        self.queue(id, smallvec::SmallVec::new());
        if let Some(waiter) = self.waiters.remove(id) {
            self.wanted(&waiter.charges, |wanted_by| wanted_by - 1);
            self.outputs.push_back(Output::Resolve(id, verdict));
        }
    }

    /// A waiter's time is up: over if a leader refused it meanwhile, else nobody decided.
    fn expire(&mut self, id: WaiterId, now: BootNs) {
        let Some(waiter) = self.waiters.by_id.get(&id) else { return };
        let verdict = match waiter.refused {
            Some((place, at)) => Verdict::Over(vec![(
                place,
                Duration::from_nanos(at.since(now)).max(Duration::from_millis(1)),
            )]),
            None => Verdict::Undecided { places: waiter.lacking.to_vec(), retry_after: None },
        };
        self.resolve(id, verdict);
    }

    /// Serves a key's queue in order, as far as its tokens go.
    fn serve_queue(&mut self, key: Key, now: BootNs) {
        while let Some(first) = self.keys.get(&key).and_then(|managed| managed.queue.first().copied()) {
            let served = self.serve(first, now);
            if !served {
                self.refuse_late(first, now);
            }
            let stuck = self.keys.get(&key).is_some_and(|managed| managed.queue.first() == Some(&first));
            if !served && stuck {
                break;
            }
        }
    }

    /// What a refusal means for those who still wait.
    fn refuse_queue(&mut self, key: Key, told: Told, now: BootNs) {
        let queue: Vec<WaiterId> =
            self.keys.get(&key).map(|managed| managed.queue.iter().copied().collect()).unwrap_or_default();
        let Some(limit) = self.keys.get(&key).map(|managed| managed.entry.limit()) else { return };
        let mut ahead = 0;
        for id in queue {
            let Some(waiter) = self.waiters.by_id.get_mut(&id) else { continue };
            let place = waiter.charges.iter().position(|c| c.key == key).expect("it queues for its own key");
            ahead += u64::from(waiter.charges[place].cost);
            match told {
                Told::Fine => {}
                Told::HoldOn(retry) => {
                    waiter.held_on = waiter.held_on.saturating_add(1);
                    waiter.refused = Some((place, now.plus(retry)));
                    // All that a recall can bring is a burst.
                    let in_vain = ahead > limit.burst || waiter.held_on >= HOLDS && !trickles(&limit);
                    if in_vain || now.plus(retry) >= waiter.hold_until {
                        self.resolve(id, Verdict::Over(vec![(place, retry)]));
                    } else {
                        self.waiters.hold_on(id);
                    }
                }
                Told::Refused(retry) => self.resolve(id, Verdict::Over(vec![(place, retry)])),
            }
        }
    }

    /// Nobody decides for this key: its quota is gone from the document. What it held is reported and forgotten in time, never
    /// at once: the ledger takes a lease that its holder does not name for one that was never spent.
    fn release(&mut self, key: Key) {
        let Some(managed) = self.keys.get_mut(&key) else { return };
        managed.drop_tokens();
        let queue: Vec<WaiterId> = managed.queue.iter().copied().collect();
        for id in queue {
            let places = self.waiters.by_id.get(&id).map(|w| w.lacking.to_vec()).unwrap_or_default();
            self.resolve(id, Verdict::Undecided { places, retry_after: None });
        }
    }

    /// The ledger has no room for this key.
    fn turn_away(&mut self, key: Key) {
        let queue: Vec<WaiterId> =
            self.keys.get(&key).map(|managed| managed.queue.iter().copied().collect()).unwrap_or_default();
        for id in queue {
            let Some(waiter) = self.waiters.by_id.get(&id) else { continue };
            let place = waiter.charges.iter().position(|c| c.key == key).expect("it queues for its own key");
            self.resolve(id, Verdict::KeysFull(place));
        }
    }

    fn wanted(&mut self, charges: &Charges, change: impl Fn(u32) -> u32) {
        for charge in charges {
            let managed = self.keys.get_mut(&charge.key).expect("a waiter's keys are kept while it waits");
            managed.wanted_by = change(managed.wanted_by);
        }
    }

    /// Forgets a key that holds nothing and has nothing to report.
    fn forget(&mut self, key: Key) {
        let Some(mut managed) = self.keys.remove(&key) else { return };
        managed.forget_lease();
        if let Some(at) = managed.check_at {
            self.timers.remove(&(at, key));
        }
        self.dirty.remove(&key);
        self.outputs.push_back(Output::Withdraw(key));
    }
}
