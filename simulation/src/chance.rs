//! Chance that follows from the seed: SplitMix64, the same for ever, whatever a library's next version draws.

use std::ops::RangeInclusive;

/// A stream of draws. Each purpose has a stream of its own, so that removing a fault disturbs the rest little.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The stream of `seed` for `purpose`.
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a: purposes are short words of our own.
        let name = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut chance = Self { state: seed ^ name };
        chance.draw();
        chance
    }

    /// 64 bits. Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`. The bias of the remainder is below 2^-32 for the small ranges drawn here.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = range.into_inner();
        assert!(start <= end, "an empty range {start}..={end} has no number");
        match (end - start).checked_add(1) {
            Some(size) => start + self.draw() % size,
            None => self.draw(),
        }
    }

    /// True once in `count` draws.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.within(1..=count) == 1
    }

    /// One of `all`.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        assert!(!all.is_empty(), "nothing to pick from");
        let last = all.len() as u64 - 1;
        &all[usize::try_from(self.within(0..=last)).expect("an index of a slice")]
    }

    /// Puts `all` in another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = usize::try_from(self.within(0..=last as u64)).expect("an index of a slice");
            all.swap(last, other);
        }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let drawn = self.draw().to_le_bytes();
            piece.copy_from_slice(&drawn[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_draws_the_same_and_one_purpose_does_not_move_another() {
        let draws = |purpose| {
            let mut chance = Chance::new(7, purpose);
            [chance.draw(), chance.draw(), chance.draw()]
        };
        assert_eq!(draws("network"), draws("network"));
        assert_ne!(draws("network"), draws("plan"));
    }

    #[test]
    fn draws_stay_within_their_range_and_reach_its_ends() {
        let mut chance = Chance::new(1, "test");
        let drawn: Vec<u64> = (0..200).map(|_| chance.within(3..=5)).collect();
        assert!(drawn.iter().all(|number| (3..=5).contains(number)));
        assert!([3, 4, 5].iter().all(|number| drawn.contains(number)));
        assert_eq!(chance.within(9..=9), 9);
    }
}
