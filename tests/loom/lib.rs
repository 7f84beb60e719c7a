//! Interleavings of the lease cell. Each test tries every order in which its threads can meet.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --manifest-path tests/loom/Cargo.toml`
#![cfg(loom)]

#[path = "../../src/quota/cell.rs"]
pub mod cell;
#[path = "../../src/quota/sync.rs"]
pub mod sync;

#[cfg(test)]
mod tests {
    use super::cell::Cell;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn two_takers_never_spend_one_token_twice() {
        loom::model(|| {
            // given one token
            let cell = Arc::new(Cell::new());
            cell.new_lease(1, 10);
            // when two take it at once
            let other = Arc::clone(&cell);
            let taker = thread::spawn(move || other.reserve(1).is_some_and(|r| other.commit(r)));
            let here = cell.reserve(1).is_some_and(|r| cell.commit(r));
            let there = taker.join().unwrap();
            // then one of them has it
            assert!(here ^ there);
            assert_eq!(cell.held().total(), 0);
        });
    }

    #[test]
    fn an_old_token_is_never_judged_by_a_new_deadline() {
        loom::model(|| {
            // given an old lease of one token that ends at 10, and a clock that stands at 15
            let cell = Arc::new(Cell::new());
            cell.new_lease(1, 10);
            // when a taker meets the change to a lease of one token that ends at 20
            let other = Arc::clone(&cell);
            let taker = thread::spawn(move || match other.reserve(1) {
                Some(r) if 15 < r.deadline_ns => other.commit(r),
                Some(r) => {
                    other.give_back(r);
                    false
                }
                None => false,
            });
            let died = cell.new_lease(1, 20);
            let spent = u64::from(taker.join().unwrap());
            // then what was admitted came from the new lease: the old token died, whole
            assert_eq!(died.total(), 1);
            assert_eq!(cell.held().total() + spent, 1);
        });
    }

    #[test]
    fn a_token_counted_as_spent_is_never_spent_again() {
        // Three threads: every order with at most three forced switches, else this takes minutes.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            // given two tokens
            let cell = Arc::new(Cell::new());
            cell.new_lease(2, 10);
            // when one taker gives back, another commits, and a batch closes that returns what is free
            let (giver, spender) = (Arc::clone(&cell), Arc::clone(&cell));
            let giver = thread::spawn(move || {
                if let Some(r) = giver.reserve(1) {
                    giver.give_back(r);
                }
            });
            let spender = thread::spawn(move || spender.reserve(1).is_some_and(|r| spender.commit(r)));
            let (returned, held) = cell.close(0);
            let reported_spent = 2 - returned - held.total();
            giver.join().unwrap();
            let spent = u64::from(spender.join().unwrap());
            let left = cell.held().total();
            // then nothing was reported spent that was not, and the rest is spent or still there
            assert!(reported_spent <= spent);
            assert_eq!(returned + spent + left, 2);
        });
    }

    #[test]
    fn a_dropped_reservation_is_not_admitted() {
        loom::model(|| {
            // given one token
            let cell = Arc::new(Cell::new());
            cell.new_lease(1, 10);
            // when it is dropped while a taker spends it
            let other = Arc::clone(&cell);
            let taker = thread::spawn(move || other.reserve(1).is_some_and(|r| other.commit(r)));
            let died = cell.drop_all().total();
            let spent = u64::from(taker.join().unwrap());
            // then it died or was spent, never both
            assert_eq!(died + spent, 1);
            assert_eq!(cell.held().total(), 0);
        });
    }
}
