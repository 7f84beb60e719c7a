//! One lease as takers see it: a word {generation, reserved, tokens} and a deadline.
//!
//! Takers *reserve* tokens, read the clock, compare it with the deadline that they loaded **before** the reservation, and
//! then *commit* (the tokens are spent) or *give back*. Both happen only if the generation is the one of the reservation;
//! else the tokens are gone. Nobody takes tokens without a reservation, not even for a single key: a taker that is put to
//! sleep between its take and its clock read would be booked as spent by a batch that closes meanwhile, the bucket
//! would refill from then on, and the taker would be admitted later all the same: B + 1 in one instant. Reserved tokens
//! count as held, so the refill waits for the taker.
//!
//! The manager (one thread at a time) closes, adds, renews and drops.
//!
//! Interleavings are explored by loom: `RUSTFLAGS="--cfg loom" cargo test --release --manifest-path tests/loom/Cargo.toml`.
//! A package of its own, since tokio and hyper do not build under `cfg(loom)`.

use super::sync::{AtomicU64, Ordering};

const TOKENS_BITS: u32 = 32;
const RESERVED_BITS: u32 = 24;
const TOKENS_MAX: u64 = (1 << TOKENS_BITS) - 1;
const RESERVED_MAX: u64 = (1 << RESERVED_BITS) - 1;

/// The word, taken apart. `generation` changes whenever tokens die, so that reservations of dead tokens do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    generation: u8,
    reserved: u64,
    tokens: u64,
}

impl Word {
    fn unpack(bits: u64) -> Self {
        Self {
            generation: (bits >> (TOKENS_BITS + RESERVED_BITS)) as u8,
            reserved: (bits >> TOKENS_BITS) & RESERVED_MAX,
            tokens: bits & TOKENS_MAX,
        }
    }

    fn pack(self) -> u64 {
        assert!(self.tokens <= TOKENS_MAX && self.reserved <= RESERVED_MAX, "a cell counts within its word");
        u64::from(self.generation) << (TOKENS_BITS + RESERVED_BITS)
            | self.reserved << TOKENS_BITS
            | self.tokens
    }
}

/// A lease that many threads spend.
#[derive(Debug)]
pub struct Cell {
    word: AtomicU64,
    deadline_ns: AtomicU64,
}

/// Tokens of one cell set aside for one request. Ends in [`Cell::commit`] or [`Cell::give_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a reservation that is neither committed nor given back keeps its tokens until the lease dies"]
pub struct Reserved {
    generation: u8,
    cost: u32,
    /// The deadline that these tokens are judged by (CLOCK_BOOTTIME, ns); loaded before they were taken.
    pub deadline_ns: u64,
    /// Tokens left in the cell after the reservation.
    pub left: u32,
}

/// What the manager reads of a cell at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Tokens that nobody has reserved.
    pub tokens: u64,
    /// Tokens reserved and not yet committed.
    pub reserved: u64,
}

impl Held {
    /// All that is not spent.
    pub fn total(self) -> u64 {
        self.tokens + self.reserved
    }
}

impl Default for Cell {
    fn default() -> Self {
        Self::new()
    }
}

impl Cell {
    /// A cell without a lease.
    pub fn new() -> Self {
        Self { word: AtomicU64::new(0), deadline_ns: AtomicU64::new(0) }
    }

    /// Taker: sets `cost` tokens aside; none if there are fewer.
    pub fn reserve(&self, cost: u32) -> Option<Reserved> {
        let deadline_ns = self.deadline_ns.load(Ordering::Acquire);
        let cost_wide = u64::from(cost);
        let before = self
            .change(|word| {
                let tokens = word.tokens.checked_sub(cost_wide)?;
                let reserved = word.reserved.checked_add(cost_wide).filter(|r| *r <= RESERVED_MAX)?;
                Some(Word { tokens, reserved, ..word })
            })
            .ok()?;
        let left = (before.tokens - cost_wide) as u32;
        Some(Reserved { generation: before.generation, cost, deadline_ns, left })
    }

    /// Taker: the reserved tokens are spent. False: they had died; the request is not admitted.
    pub fn commit(&self, reserved: Reserved) -> bool {
        let cost = u64::from(reserved.cost);
        self.change(|word| {
            (word.generation == reserved.generation)
                .then(|| Word { reserved: Self::settled(word.reserved, cost), ..word })
        })
        .is_ok()
    }

    /// Taker: the reserved tokens are free again. False: they had died.
    pub fn give_back(&self, reserved: Reserved) -> bool {
        let cost = u64::from(reserved.cost);
        self.change(|word| {
            (word.generation == reserved.generation).then(|| Word {
                reserved: Self::settled(word.reserved, cost),
                tokens: word.tokens + cost,
                ..word
            })
        })
        .is_ok()
    }

    fn settled(reserved: u64, cost: u64) -> u64 {
        reserved.checked_sub(cost).expect("a live generation holds every reservation made in it")
    }

    /// Anyone: what is held, in one read.
    pub fn held(&self) -> Held {
        let word = Word::unpack(self.word.load(Ordering::Acquire));
        Held { tokens: word.tokens, reserved: word.reserved }
    }

    /// Anyone: until when the tokens may be spent (CLOCK_BOOTTIME, ns); 0: there is no lease.
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns.load(Ordering::Acquire)
    }

    /// Manager, at the close of a batch: takes out all free tokens but `keep`, and says how many went and what is still
    /// held, both of one instant. `keep = u64::MAX` only looks.
    pub fn close(&self, keep: u64) -> (u64, Held) {
        let before = self
            .change(|word| Some(Word { tokens: word.tokens.min(keep), ..word }))
            .expect("this change never declines");
        let tokens = before.tokens.min(keep);
        (before.tokens - tokens, Held { tokens, reserved: before.reserved })
    }

    /// Manager: every token dies, reserved ones too. Says what died; none of it was spent, and none will be.
    pub fn drop_all(&self) -> Held {
        let before = self
            .change(|word| Some(Word { generation: word.generation.wrapping_add(1), reserved: 0, tokens: 0 }))
            .expect("this change never declines");
        Held { tokens: before.tokens, reserved: before.reserved }
    }

    /// Manager: a lease of another life. Whatever the cell held dies first, then the deadline is set, then the tokens are
    /// added: no token of the old lease is ever judged by the new deadline. Says what died.
    pub fn new_lease(&self, tokens: u64, deadline_ns: u64) -> Held {
        let died = self.drop_all();
        self.deadline_ns.store(deadline_ns, Ordering::Release);
        self.add(tokens);
        died
    }

    /// Manager: the same lease lives longer. A deadline never moves back: each one that was ever computed for a lease ends
    /// before the ledger's expiry, which never falls.
    pub fn renew(&self, deadline_ns: u64) {
        let latest = deadline_ns.max(self.deadline_ns.load(Ordering::Acquire));
        self.deadline_ns.store(latest, Ordering::Release);
    }

    /// Manager: tokens granted under the present lease.
    pub fn add(&self, tokens: u64) {
        self.change(|word| Some(Word { tokens: word.tokens + tokens, ..word }))
            .expect("this change never declines");
    }

    /// Changes the word in one step; says what it was, or nothing if `next` declined.
    fn change(&self, next: impl Fn(Word) -> Option<Word>) -> Result<Word, ()> {
        let mut bits = self.word.load(Ordering::Acquire);
        loop {
            let wanted = next(Word::unpack(bits)).ok_or(())?.pack();
            match self.word.compare_exchange_weak(bits, wanted, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Word::unpack(bits)),
                Err(found) => bits = found,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cell(tokens: u64) -> Cell {
        let cell = Cell::new();
        cell.new_lease(tokens, 100);
        cell
    }

    #[test]
    fn a_cell_never_goes_below_zero() {
        // given two tokens
        let cell = cell(2);
        // when three are asked for, one by one
        let got: Vec<bool> = (0..3).map(|_| cell.reserve(1).is_some_and(|r| cell.commit(r))).collect();
        // then the third is refused
        assert_eq!(got, [true, true, false]);
        assert_eq!(cell.held(), Held::default());
    }

    #[test]
    fn a_reservation_of_a_dead_lease_neither_spends_nor_returns() {
        // given a reservation
        let cell = cell(5);
        let reserved = cell.reserve(2).expect("five are there");
        // when the lease is replaced
        let died = cell.new_lease(7, 200);
        // then the reserved tokens died with the others, and the reservation is void both ways
        assert_eq!(died, Held { tokens: 3, reserved: 2 });
        assert!(!cell.commit(reserved));
        assert!(!cell.give_back(reserved));
        assert_eq!(cell.held(), Held { tokens: 7, reserved: 0 });
    }

    #[test]
    fn a_close_counts_reservations_as_held_and_returns_only_free_tokens() {
        // given five tokens, two of them reserved
        let cell = cell(5);
        let reserved = cell.reserve(2).expect("five are there");
        // when everything is returned
        let (returned, held) = cell.close(0);
        // then the reserved ones stay, and can still be spent
        assert_eq!((returned, held), (3, Held { tokens: 0, reserved: 2 }));
        assert!(cell.commit(reserved));
    }

    #[test]
    fn a_renewal_never_shortens() {
        // given a lease until 100
        let cell = cell(1);
        // when renewals come with an earlier and a later end
        cell.renew(50);
        let after_earlier = cell.deadline_ns();
        cell.renew(150);
        // then only the later one counts
        assert_eq!((after_earlier, cell.deadline_ns()), (100, 150));
    }

    proptest! {
        #[test]
        fn a_word_survives_packing(generation: u8, reserved in 0..=RESERVED_MAX, tokens in 0..=TOKENS_MAX) {
            let word = Word { generation, reserved, tokens };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }

        #[test]
        fn no_token_is_made_or_lost_without_a_name(steps in prop::collection::vec((0u8..6, 1u32..9), 0..200)) {
            // given any sequence of operations, when they are run in that order
            let cell = Cell::new();
            let (mut added, mut spent, mut gone) = (0u64, 0u64, 0u64);
            let mut open: Vec<Reserved> = Vec::new();
            for (what, n) in steps {
                match what {
                    0 => { cell.add(u64::from(n)); added += u64::from(n); }
                    1 => open.extend(cell.reserve(n)),
                    2 => if let Some(r) = open.pop() && cell.commit(r) { spent += u64::from(r.cost); },
                    3 => if let Some(r) = open.pop() { cell.give_back(r); },
                    4 => gone += cell.close(u64::from(n)).0,
                    _ => gone += cell.drop_all().total(),
                }
                // then after each: added = spent + returned or died + held
                prop_assert_eq!(added, spent + gone + cell.held().total());
            }
        }
    }
}
