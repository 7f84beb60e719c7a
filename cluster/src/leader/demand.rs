//! What the leader remembers of gateways between their batches: who wants how much of a key, and when it was heard.
//!
//! Volatile and of no weight for the bound: a new leader begins with nothing and is right within a batch of each.

use std::collections::BTreeMap;

use crate::state::ids::{Key, SessionId};
use crate::world::MonoNs;

const MS: u64 = 1_000_000;

/// A demand counts in full for this long after it was heard: about the time over which gateways average it. Longer,
/// and clients that hop between gateways leave too little for the one that they are at.
const FRESH_NS: u64 = 200 * MS;
/// Then it halves in each of these.
const HALVED_EVERY_NS: u64 = 200 * MS;
/// And is forgotten after this.
const FORGOTTEN_NS: u64 = 10_000 * MS;
/// A gateway is asked at most this often to give a key's tokens back.
const RECALL_EVERY_NS: u64 = 20 * MS;
/// A gateway that leaves recalls unanswered for this long is believed dead: recalled seldom, and not waited for. Longer
/// than a busy gateway needs to end the batch under way and send the next.
const UNANSWERED_MAX_NS: u64 = 300 * MS;
/// How often a gateway believed dead is recalled.
const RECALL_DEAD_EVERY_NS: u64 = 500 * MS;
/// Keys looked at for forgotten gateways each time.
const TENDED_KEYS: usize = 64;

/// One gateway's word on one key.
#[derive(Clone, Copy, Debug)]
struct Heard {
    demand_per_ks: u64,
    at: MonoNs,
    recalled_at: Option<MonoNs>,
    /// The first recall since it was heard.
    unanswered_since: Option<MonoNs>,
}

/// Whether a gateway with tokens to spare was asked for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recalled {
    /// Ask it now.
    Now,
    /// It was asked a moment ago.
    Before,
    /// It does not answer.
    Dead,
}

/// Key → session → what it said last. Bounded by [`Demands::HEARD_MAX`]; what does not fit is not remembered.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    keys: BTreeMap<Key, BTreeMap<SessionId, Heard>>,
    /// Entries in all of `keys`.
    heard: usize,
    /// Where tending goes on.
    next: Option<Key>,
}

impl Demands {
    /// About 100 bytes each.
    pub const HEARD_MAX: usize = 1 << 17;

    /// A session said what it wants of `key`.
    pub fn hear(&mut self, key: Key, session: SessionId, demand_per_ks: u64, now: MonoNs) {
        let known = self.keys.get(&key).is_some_and(|sessions| sessions.contains_key(&session));
        if !known {
            if self.heard >= Self::HEARD_MAX {
                return;
            }
            self.heard += 1;
        }
        let sessions = self.keys.entry(key).or_default();
        let recalled_at = sessions.get(&session).and_then(|heard| heard.recalled_at);
        sessions.insert(session, Heard { demand_per_ks, at: now, recalled_at, unanswered_since: None });
    }

    /// Demand of all sessions for `key`, per 1000 s.
    pub fn total_per_ks(&self, key: Key, now: MonoNs) -> u64 {
        let sessions = self.keys.get(&key).into_iter().flat_map(BTreeMap::values);
        sessions.fold(0, |sum, heard| sum.saturating_add(heard.weighed(now)))
    }

    /// How long ago a session spoke of `key`, in ns, and its demand then; none if that is forgotten.
    pub fn last(&self, key: Key, session: SessionId, now: MonoNs) -> Option<(u64, u64)> {
        let heard = self.keys.get(&key)?.get(&session)?;
        Some((now.since(heard.at), heard.demand_per_ks))
    }

    /// The leader would like `session` to give tokens of `key` back.
    pub fn recall(&mut self, key: Key, session: SessionId, now: MonoNs) -> Recalled {
        if self.last(key, session, now).is_none() {
            // A lease from before this leadership.
            self.hear(key, session, 0, now);
        }
        let Some(heard) = self.keys.get_mut(&key).and_then(|sessions| sessions.get_mut(&session)) else {
            return Recalled::Dead;
        };
        let dead = heard.unanswered_since.is_some_and(|since| now.since(since) >= UNANSWERED_MAX_NS);
        let every = if dead { RECALL_DEAD_EVERY_NS } else { RECALL_EVERY_NS };
        match heard.recalled_at {
            Some(at) if now.since(at) < every => {
                if dead {
                    Recalled::Dead
                } else {
                    Recalled::Before
                }
            }
            _ => {
                heard.recalled_at = Some(now);
                heard.unanswered_since.get_or_insert(now);
                Recalled::Now
            }
        }
    }

    /// Forgets some of what is old. Cheap; called once an entry.
    pub fn tend(&mut self, now: MonoNs) {
        let from = self.next.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        let visited: Vec<Key> = self
            .keys
            .range((from, std::ops::Bound::Unbounded))
            .map(|(key, _)| *key)
            .take(TENDED_KEYS + 1)
            .collect();
        self.next = visited.get(TENDED_KEYS).copied();
        for key in visited.into_iter().take(TENDED_KEYS) {
            let sessions = self.keys.entry(key).or_default();
            let before = sessions.len();
            sessions.retain(|_, heard| now.since(heard.at) < FORGOTTEN_NS);
            self.heard -= before - sessions.len();
            if sessions.is_empty() {
                self.keys.remove(&key);
            }
        }
    }
}

impl Heard {
    fn weighed(&self, now: MonoNs) -> u64 {
        let old = now.since(self.at).saturating_sub(FRESH_NS);
        let halvings = u32::try_from(old.div_ceil(HALVED_EVERY_NS)).unwrap_or(u32::MAX);
        self.demand_per_ks.checked_shr(halvings).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ids::LimitId;

    fn key(value: u64) -> Key {
        Key { limit: LimitId(1), tenant: 0, value }
    }
    fn ms(ms: u64) -> MonoNs {
        MonoNs(ms * MS)
    }
    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    #[test]
    fn a_silent_gateways_demand_fades() {
        // given two gateways, heard at 0
        let mut demands = Demands::default();
        demands.hear(key(1), A, 800, ms(0));
        demands.hear(key(1), B, 200, ms(0));
        assert_eq!(demands.total_per_ks(key(1), ms(200)), 1_000);
        // when one of them goes on and the other falls silent
        demands.hear(key(1), B, 200, ms(600));
        // then its word counts less and less
        assert_eq!(demands.total_per_ks(key(1), ms(600)), 200 + 200);
        assert_eq!(demands.total_per_ks(key(1), ms(9_000)), 0);
    }

    #[test]
    fn a_gateway_is_recalled_at_most_every_20_ms_and_not_waited_for_once_it_seems_dead() {
        // given a gateway that never answers
        let mut demands = Demands::default();
        // when it is recalled again and again
        let told: Vec<Recalled> = (0..45).map(|i| demands.recall(key(1), A, ms(i * 10))).collect();
        // then every other try is sent, until it is given up
        let (now, before, dead) = (Recalled::Now, Recalled::Before, Recalled::Dead);
        assert_eq!(told[..4], [now, before, now, before]);
        assert_eq!(told[28..], [&[now, before][..], &[dead; 15]].concat());
        // and when it speaks it is back
        demands.hear(key(1), A, 1, ms(450));
        assert_eq!(demands.recall(key(1), A, ms(450)), now);
    }

    #[test]
    fn memory_is_bounded_and_what_is_old_is_forgotten() {
        // given more keys than are remembered
        let mut demands = Demands::default();
        let many = u64::try_from(Demands::HEARD_MAX).expect("fits") + 10;
        for value in 0..many {
            demands.hear(key(value), A, 1, ms(0));
        }
        assert_eq!(demands.heard, Demands::HEARD_MAX);
        // when they are tended after all of them fell silent
        for _ in 0..=Demands::HEARD_MAX / TENDED_KEYS {
            demands.tend(ms(20_000));
        }
        // then nothing is left
        assert_eq!((demands.heard, demands.keys.len()), (0, 0));
    }
}
