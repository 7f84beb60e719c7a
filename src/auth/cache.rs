//! Tokens that were verified lately.
//!
//! A hit costs one look into a concurrent map without a lock, keyed by the last bytes of the signature, and one comparison
//! of the whole token (a shared tail is a miss, never a mistake). Only verified tokens get in, so that nobody can fill the
//! map with garbage. Times, issuer, scopes and claims are checked on every hit: the cache spares the signature and the
//! parsing, nothing else.
//!
//! Eviction is a clock with a second chance: an entry that was used since the hand last passed gets another round. Only
//! inserting moves the hand, under a lock, and happens once a verification, which costs a hundred times more.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cluster::state::ids::Revision;
use parking_lot::Mutex;

use super::policy::Verified;

/// Verified tokens, bounded. Shared by all data-plane threads.
#[derive(Debug)]
pub struct Cache {
    entries: papaya::HashMap<Tail, Arc<Entry>, BuildHasherDefault<TailHasher>>,
    /// The keys of `entries`, oldest first. Held whenever `entries` changes.
    order: Mutex<VecDeque<Tail>>,
    entries_max: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The last eight bytes of a token, which are part of its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tail(u64);

impl Tail {
    fn of(token: &str) -> Option<Self> {
        token.as_bytes().last_chunk::<8>().map(|bytes| Self(u64::from_le_bytes(*bytes)))
    }
}

/// Spreads a tail's bits; base64 letters alone use too few of them.
#[derive(Default)]
struct TailHasher(u64);

impl Hasher for TailHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        // The golden ratio's bits (Knuth, volume 3, section 6.4), folded so that the high ones matter to all.
        let product = (u128::from(self.0 ^ word)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Entry {
    token: Box<str>,
    /// Of the verifiers that believed it.
    since: Revision,
    verified: Verified,
    used: AtomicBool,
}

/// Hits and misses since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Tokens held.
    pub entries: u64,
    /// Requests whose token was held.
    pub hits: u64,
    /// Requests whose token had to be verified.
    pub misses: u64,
}

impl Cache {
    /// Holds up to `entries_max` tokens; 0 turns it off.
    pub fn new(entries_max: u32) -> Self {
        Self {
            entries: papaya::HashMap::with_hasher(BuildHasherDefault::default()),
            order: Mutex::default(),
            entries_max: entries_max as usize,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What verifiers of revision `since` have found out about exactly this token. The caller checks its times.
    pub fn get(&self, token: &str, since: Revision) -> Option<Verified> {
        let found = Tail::of(token).and_then(|tail| {
            let entries = self.entries.pin();
            let entry = entries.get(&tail)?;
            if entry.since != since || *entry.token != *token {
                return None;
            }
            if !entry.used.load(Ordering::Relaxed) {
                entry.used.store(true, Ordering::Relaxed);
            }
            Some(entry.verified.clone())
        });
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Remembers a token that verifiers of revision `since` have just believed.
    pub fn insert(&self, token: &str, since: Revision, verified: Verified) {
        let Some(tail) = Tail::of(token) else { return };
        if self.entries_max == 0 {
            return;
        }
        let entry = Arc::new(Entry { token: token.into(), since, verified, used: AtomicBool::new(false) });
        let mut order = self.order.lock();
        let entries = self.entries.pin();
        if entries.contains_key(&tail) {
            entries.insert(tail, entry);
            return; // Same place in the order.
        }
        while order.len() >= self.entries_max {
            // One round and one step at most: the first round takes away every second chance.
            let Some(oldest) = order.pop_front() else { break };
            let used = entries.get(&oldest).is_some_and(|entry| entry.used.swap(false, Ordering::Relaxed));
            if used {
                order.push_back(oldest);
            } else {
                entries.remove(&oldest);
            }
        }
        entries.insert(tail, entry);
        order.push_back(tail);
        debug_assert_eq!(order.len(), entries.len(), "every entry is in the order once");
    }

    /// Figures for metrics.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.order.lock().len() as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::tests::{NOW, believed};
    use super::*;

    #[test]
    fn a_token_is_served_only_for_the_revision_that_verified_it() {
        // given a token that revision 1 believed
        let cache = Cache::new(4);
        let (token, verified) = believed("acme");
        cache.insert(&token, Revision(1), verified.clone());
        // then revision 1 gets it, and revision 2 must look for itself
        assert_eq!(cache.get(&token, Revision(1)), Some(verified));
        assert_eq!(cache.get(&token, Revision(2)), None);
    }

    #[test]
    fn a_token_that_only_shares_its_tail_is_a_miss() {
        let cache = Cache::new(4);
        let (token, verified) = believed("acme");
        cache.insert(&token, Revision(1), verified);
        assert_eq!(cache.get(&format!("x{token}"), Revision(1)), None);
        assert_eq!(cache.get(&token[token.len() - 8..], Revision(1)), None);
        assert_eq!(cache.get("short", Revision(1)), None);
    }

    #[test]
    fn the_cache_stays_within_its_bound_and_keeps_what_is_used() {
        // given a cache of four, and one token that is used all the time
        let cache = Cache::new(4);
        let (hot, verified) = believed("hot");
        cache.insert(&hot, Revision(1), verified);
        // when a hundred others come by
        for number in 0..100 {
            let (token, verified) = believed(&format!("t{number}"));
            cache.insert(&token, Revision(1), verified);
            assert!(cache.get(&hot, Revision(1)).is_some(), "after {number}");
            assert!(cache.stats().entries <= 4);
        }
    }

    #[test]
    fn every_token_that_is_always_used_still_leaves_room() {
        let cache = Cache::new(3);
        for number in 0..20 {
            let (token, verified) = believed(&format!("t{number}"));
            cache.insert(&token, Revision(1), verified);
            assert!(cache.get(&token, Revision(1)).is_some());
            assert!(cache.stats().entries <= 3);
        }
    }

    #[test]
    fn a_cache_of_none_holds_none() {
        let cache = Cache::new(0);
        let (token, verified) = believed("acme");
        cache.insert(&token, Revision(1), verified.clone());
        assert_eq!(cache.get(&token, Revision(1)), None);
        assert_eq!(verified.times.check(NOW), Ok(()));
    }
}
