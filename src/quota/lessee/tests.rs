//! The real lessee against a perfect leader, on a road that loses, delays and doubles.

use std::sync::Arc;
use std::time::Duration;

use cluster::lease::{Ask, AskError};
use cluster::state::ids::{Key, LimitId, SessionId};
use cluster::world::BootNs;
use config::ids::QuotaName;
use config::quota::{Limit, OnQuorumLoss};
use proptest::prelude::*;

use super::fake::Leader;
use super::*;
use crate::quota::rule::{Charge, QuotaRule};

mod flood;
mod loss;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn charge(value: u64, cost: u32, limit: Limit, loss: OnQuorumLoss) -> Charge {
    let name = QuotaName::parse("q").expect("a good name");
    let rule = QuotaRule { name, limit_id: LimitId(1), wait: None, on_quorum_loss: loss, limit };
    Charge { quota: Arc::new(rule), key: Key { limit: LimitId(1), tenant: 0, value }, cost }
}

fn limit(tokens: u64, burst: u64) -> Limit {
    Limit { tokens, per_ns: SECOND, burst }
}

/// A lessee whose session is open, its leader, and what came out.
struct Bench {
    lessee: Lessee,
    leader: Leader,
    now: BootNs,
    entries: std::collections::BTreeMap<Key, Arc<Entry>>,
    asks: Vec<Ask>,
    verdicts: Vec<(WaiterId, Verdict)>,
    wake: Option<BootNs>,
    drained: bool,
}

impl Bench {
    fn new(limit: Limit) -> Self {
        let bounds = Bounds { waiters_max: 100, keys_max: 100 };
        let mut bench = Self {
            lessee: Lessee::new(BootNs(SECOND), 7, bounds),
            leader: Leader::new(limit),
            now: BootNs(SECOND),
            entries: std::collections::BTreeMap::new(),
            asks: Vec::new(),
            verdicts: Vec::new(),
            wake: None,
            drained: false,
        };
        bench.lessee.registered(bench.now, 7, Ok(SessionId(1)));
        bench.collect();
        bench
    }

    fn collect(&mut self) {
        while let Some(output) = self.lessee.poll_output() {
            match output {
                Output::Send { ask, .. } => self.asks.push(ask),
                Output::Resolve(id, verdict) => self.verdicts.push((id, verdict)),
                Output::WakeAt(at) => self.wake = Some(at),
                Output::Publish(key, entry) => drop(self.entries.insert(key, entry)),
                Output::Withdraw(key) => drop(self.entries.remove(&key)),
                Output::Drained => self.drained = true,
                Output::Register { .. } => {}
            }
        }
    }

    fn admit(&mut self, charges: &[Charge]) -> WaiterId {
        let id = self.lessee.admit(self.now, charges.iter().cloned().collect());
        self.collect();
        id
    }

    /// Time passes, and the lessee is woken whenever it asked for it.
    fn pass(&mut self, ns: u64) {
        let end = self.now.0 + ns;
        while let Some(at) = self.wake.filter(|at| at.0 <= end) {
            self.now = self.now.max(at);
            self.wake = None;
            self.lessee.woke(self.now);
            self.collect();
        }
        self.now = BootNs(end);
    }

    /// The leader takes the next batch, and its reply arrives after `ns`.
    fn answer(&mut self, ns: u64) {
        let ask = self.asks.remove(0);
        let reply = self.leader.apply(&ask, self.now).ok_or(AskError::Unreachable);
        self.pass(ns);
        self.lessee.answered(self.now, ask.session, ask.seq, reply);
        self.collect();
    }

    fn admitted(&mut self) -> Vec<WaiterId> {
        let now = self.now;
        let ready = self.verdicts.drain(..).filter_map(|(id, verdict)| match verdict {
            Verdict::Ready(hold) => hold.commit(now, |_| {}).then_some(id),
            _ => None,
        });
        ready.collect()
    }
}

#[test]
fn waiters_are_served_in_order_from_one_question() {
    // given a bucket of two, and three requests that wait
    let mut bench = Bench::new(limit(1, 2));
    let one = charge(1, 1, limit(1, 2), OnQuorumLoss::Deny);
    let ids: Vec<WaiterId> = (0..3).map(|_| bench.admit(std::slice::from_ref(&one))).collect();
    // when the leader answers
    assert_eq!(bench.asks.len(), 1, "one question is on its way");
    for _ in 0..4 {
        if !bench.asks.is_empty() {
            bench.answer(MS);
        }
        bench.pass(2 * MS);
    }
    // then the first two have their tokens, and the third is refused by the leader
    assert!(bench.verdicts.iter().any(|(id, v)| *id == ids[2] && matches!(v, Verdict::Over(_))));
    assert_eq!(bench.admitted(), ids[..2]);
}

#[test]
fn a_request_that_arrives_behind_its_refusal_is_refused_and_not_left_undecided() {
    // given a spent bucket, whose leader has just refused somebody
    let mut bench = Bench::new(limit(1, 1));
    let one = charge(1, 1, limit(1, 1), OnQuorumLoss::Deny);
    bench.admit(std::slice::from_ref(&one));
    bench.answer(MS);
    assert_eq!(bench.admitted().len(), 1);
    bench.admit(std::slice::from_ref(&one));
    while !bench.verdicts.iter().any(|(_, verdict)| matches!(verdict, Verdict::Over(_))) {
        bench.pass(MS);
        if !bench.asks.is_empty() {
            bench.answer(MS);
        }
    }
    // when a request comes that was on its way then
    bench.verdicts.clear();
    let late = bench.admit(std::slice::from_ref(&one));
    // then it is told the same, at once
    assert!(matches!(bench.verdicts[..], [(id, Verdict::Over(_))] if id == late), "{:?}", bench.verdicts);
}

#[test]
fn a_key_is_forgotten_in_time_though_its_last_requests_were_refused_without_being_heard_of() {
    // given a spent bucket, whose leader has refused somebody
    let mut bench = Bench::new(limit(1, 1));
    let one = charge(1, 1, limit(1, 1), OnQuorumLoss::Deny);
    for _ in 0..2 {
        bench.admit(std::slice::from_ref(&one));
        while !bench.asks.is_empty() {
            bench.answer(MS);
        }
        bench.admitted();
    }
    let entry = Arc::clone(&bench.entries[&one.key]);
    assert!(entry.refused_for(bench.now).is_some());
    // when the last request comes a while later, finds the refusal, and goes
    bench.pass(400 * MS);
    assert!(entry.refused_for(bench.now).is_some());
    entry.missed(1, bench.now);
    let last = bench.now;
    // then the key goes as if it had come with the refusal's end at the latest
    while bench.entries.contains_key(&one.key) {
        bench.pass(10 * MS);
        while !bench.asks.is_empty() {
            bench.answer(MS);
        }
        assert!(bench.now.since(last) < 6_500 * MS, "it lingers");
    }
}

#[test]
fn a_request_that_turns_to_a_key_refused_meanwhile_is_told_at_once() {
    // given three requests for both keys, in one batch
    let of = |value, cost| charge(value, cost, limit(3, 3), OnQuorumLoss::Deny);
    let mut bench = Bench::new(limit(3, 3));
    bench.admit(&[of(9, 1)]);
    let ids = [(); 3].map(|()| bench.admit(&[of(1, 2), of(2, 1)]));
    bench.answer(MS);
    bench.verdicts.clear();
    // when the leader has enough of the first key for one of them and refuses the rest, and of the second for all
    let ask = bench.asks.remove(0);
    assert_eq!(ask.items.iter().map(|item| item.need).collect::<Vec<_>>(), [6, 3]);
    let mut reply = bench.leader.apply(&ask, bench.now).expect("it is new");
    reply.items[0].retry_after_ns = SECOND;
    bench.lessee.answered(bench.now, ask.session, ask.seq, Ok(reply));
    bench.collect();
    // then the others are refused now: nobody will be asked for them within the time that they may wait
    let told: Vec<_> = bench.verdicts.iter().map(|(id, verdict)| (*id, verdict)).collect();
    assert!(
        matches!(told[..], [(_, Verdict::Ready(_)), (_, Verdict::Over(_)), (_, Verdict::Over(_))]),
        "{told:?}"
    );
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
}

#[test]
fn a_request_gets_all_its_keys_or_none() {
    // given a key with tokens and one whose bucket is spent
    let mut bench = Bench::new(limit(1, 1));
    let keys = [1, 2].map(|value| charge(value, 1, limit(1, 1), OnQuorumLoss::Deny));
    bench.admit(&keys[1..]);
    bench.answer(MS);
    assert_eq!(bench.admitted().len(), 1);
    // when a request wants both
    bench.admit(&keys);
    while !bench.asks.is_empty() && bench.now.0 < 2 * SECOND - 100 * MS {
        bench.answer(MS);
    }
    // then it is refused, and the token of the other is free
    assert!(bench.verdicts.iter().all(|(_, v)| matches!(v, Verdict::Over(_))), "{:?}", bench.verdicts);
    let held = bench.entries[&keys[0].key].cell.held();
    assert_eq!(held.reserved, 0);
}

#[test]
fn without_any_leader_a_wait_ends_undecided() {
    // given a question that nobody answers
    let mut bench = Bench::new(limit(1, 1));
    bench.admit(&[charge(1, 1, limit(1, 1), OnQuorumLoss::Deny)]);
    // when the longest wait that nothing measured shortens has passed
    bench.pass(3 * SECOND / 2);
    // then the request is undecided, not refused
    assert!(matches!(bench.verdicts[..], [(_, Verdict::Undecided { .. })]), "{:?}", bench.verdicts);
}

#[test]
fn a_late_reply_is_void_and_its_grant_is_never_spent() {
    // given a batch that the leader applied
    let mut bench = Bench::new(limit(1, 5));
    bench.admit(&[charge(1, 1, limit(1, 5), OnQuorumLoss::Deny)]);
    let ask = bench.asks.remove(0);
    let reply = bench.leader.apply(&ask, bench.now).expect("it is the first");
    // when its reply comes after the batch was given up
    bench.pass(2 * SECOND);
    bench.lessee.answered(bench.now, ask.session, ask.seq, Ok(reply));
    bench.collect();
    // then nothing is held
    assert!(bench.entries.values().all(|entry| entry.cell.held().total() == 0));
}

#[test]
fn a_local_share_opens_only_after_a_failover_of_silence() {
    // given a quota that asks for a local share: 10 a second for one gateway
    let mut bench = Bench::new(limit(10, 10));
    let one = charge(1, 1, limit(10, 10), OnQuorumLoss::LocalShare);
    // when nobody answers, and requests come before and after the longest failover
    bench.admit(std::slice::from_ref(&one));
    bench.pass(2 * SECOND);
    let before = bench.admitted().len();
    bench.pass(SECOND);
    bench.admit(&[one]);
    // then only the later one is admitted
    assert_eq!((before, bench.admitted().len()), (0, 1));
}

#[test]
fn a_drained_lessee_holds_nothing() {
    // given a lease of some tokens
    let mut bench = Bench::new(limit(1, 9));
    bench.admit(&[charge(1, 1, limit(1, 9), OnQuorumLoss::Deny)]);
    bench.answer(MS);
    let _ = bench.admitted();
    // when it is drained
    bench.lessee.drain(bench.now);
    bench.collect();
    while !bench.asks.is_empty() {
        bench.answer(MS);
    }
    // then its leases are back, and it says so
    assert!(bench.drained);
    assert!(bench.entries.values().all(|entry| entry.cell.held().total() == 0));
}

#[test]
fn at_the_cap_of_waiters_more_are_turned_away() {
    // given as many waiters as may be
    let mut bench = Bench::new(limit(1, 1));
    let one = charge(1, 1, limit(1, 1), OnQuorumLoss::Deny);
    for _ in 0..100 {
        bench.admit(std::slice::from_ref(&one));
    }
    // when one more comes
    bench.admit(&[one]);
    // then it hears so at once
    assert!(matches!(bench.verdicts[..], [(_, Verdict::Overloaded)]));
}

/// What a road does with a batch.
#[derive(Clone, Copy, Debug)]
enum Road {
    Fine,
    LosesAsk,
    LosesReply,
    Late,
    Twice,
    NotLeader,
}

fn road() -> impl Strategy<Value = Road> {
    use Road::{Fine, Late, LosesAsk, LosesReply, NotLeader, Twice};
    prop::sample::select(vec![Fine, Fine, Fine, Fine, LosesAsk, LosesReply, Late, Twice, NotLeader])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn no_bad_road_admits_more_than_the_perfect_bucket(
        tokens in 1u64..50, burst in 1u64..20,
        steps in prop::collection::vec((0u64..60, 0usize..4, 1u32..3, road()), 1..200),
    ) {
        // given one gateway with a limit, and a road of moods
        let limit = limit(tokens, burst);
        let mut bench = Bench::new(limit);
        let mut perfect = (burst as f64, bench.now);
        let mut costs = std::collections::BTreeMap::new();
        let mut late: Vec<(Ask, Option<cluster::lease::AskReply>)> = Vec::new();
        for (ms, requests, cost, road) in steps {
            bench.pass(ms * MS);
            // when requests come, and batches meet the road
            let one = charge(1, cost.min(burst as u32), limit, OnQuorumLoss::Deny);
            for _ in 0..requests {
                costs.insert(bench.admit(std::slice::from_ref(&one)), one.cost);
            }
            prop_assert!(bench.asks.len() <= 1 || bench.asks.windows(2).all(|w| w[0].seq < w[1].seq));
            while bench.asks.len() > 1 {
                late.push((bench.asks.remove(0), None));
            }
            match (road, bench.asks.is_empty()) {
                (_, true) => {}
                (Road::Fine, _) => bench.answer(ms / 9 * MS),
                (Road::LosesAsk, _) => late.push((bench.asks.remove(0), None)),
                (Road::LosesReply, _) => {
                    let ask = bench.asks.remove(0);
                    bench.leader.apply(&ask, bench.now);
                }
                (Road::Late, _) => {
                    let ask = bench.asks.remove(0);
                    let reply = bench.leader.apply(&ask, bench.now);
                    late.push((ask, reply));
                }
                (Road::Twice, _) => {
                    let ask = bench.asks[0].clone();
                    bench.answer(0);
                    prop_assert!(bench.leader.apply(&ask, bench.now).is_none());
                }
                (Road::NotLeader, _) => {
                    let ask = bench.asks.remove(0);
                    bench.lessee.answered(bench.now, ask.session, ask.seq, Err(AskError::NotLeader));
                    bench.collect();
                }
            }
            if late.len() > 2 {
                let (ask, reply) = late.remove(0);
                let reply = reply.or_else(|| bench.leader.apply(&ask, bench.now));
                bench.lessee.answered(bench.now, ask.session, ask.seq, reply.ok_or(AskError::Unreachable));
                bench.collect();
            }
            // then all that was admitted fits one perfect bucket
            let spent: u32 = bench.verdicts.drain(..).map(|(id, verdict)| match verdict {
                Verdict::Ready(hold) => u32::from(hold.commit(bench.now, |_| {})) * costs[&id],
                _ => 0,
            }).sum();
            let dt = bench.now.since(perfect.1) as f64 / SECOND as f64;
            perfect = ((perfect.0 + dt * tokens as f64).min(burst as f64) - f64::from(spent), bench.now);
            prop_assert!(perfect.0 > -1e-6, "over by {}", -perfect.0);
        }
    }
}

#[test]
fn a_lease_ends_four_fifths_after_its_send_however_late_the_reply() {
    // given a batch that is answered after 40 ms
    let mut bench = Bench::new(limit(1, 3));
    let one = charge(1, 1, limit(1, 3), OnQuorumLoss::Deny);
    let sent = bench.now;
    bench.admit(std::slice::from_ref(&one));
    bench.answer(40 * MS);
    // then the deadline counts from the send
    let end = sent.plus(Duration::from_nanos(super::fake::TTL_NS / 5 * 4));
    assert_eq!(bench.entries[&one.key].cell.deadline_ns(), end.0);
}
