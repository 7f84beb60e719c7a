//! What a lessee does while no leader answers, and that it does nothing of the kind while one would.

use super::*;

const SHARED: OnQuorumLoss = OnQuorumLoss::LocalShare;
/// One a minute, ten at most: a fifth of it is a token in five minutes, and two at most.
const SLOW: Limit = Limit { tokens: 1, per_ns: 60 * SECOND, burst: 10 };

impl Bench {
    /// A gateway of five that has run for long enough to have a full local share.
    fn of_five(limit: Limit) -> Self {
        let mut bench = Self::new(limit);
        let quotas = [QuotaName::parse("q").expect("a good name")].into();
        bench.lessee.viewed(bench.now, &quotas, 5);
        bench.collect();
        bench.calm(900);
        bench
    }

    /// Seconds pass in which the leader answers everything.
    fn calm(&mut self, seconds: u64) {
        let end = self.now.0 + seconds * SECOND;
        while self.now.0 < end {
            while !self.asks.is_empty() {
                self.answer(MS);
            }
            let next = self.wake.map_or(end, |at| at.0.min(end));
            self.pass(next.saturating_sub(self.now.0));
        }
    }

    /// A leader that was silent answers the newest batch.
    fn heal(&mut self) {
        while self.asks.len() > 1 {
            self.asks.remove(0);
        }
        if self.asks.is_empty() {
            self.pass(3 * SECOND);
        }
        self.calm(1);
    }

    /// Verdicts since the last look.
    fn seen(&mut self) -> Vec<Verdict> {
        self.verdicts.drain(..).map(|(_, verdict)| verdict).collect()
    }
}

fn is_ready(verdicts: &[Verdict]) -> bool {
    matches!(verdicts, [Verdict::Ready(_)])
}

#[test]
fn a_gateway_that_asked_nothing_for_long_asks_before_it_touches_its_share() {
    // given a gateway whose leader is well, and that had no traffic for minutes
    let mut bench = Bench::of_five(SLOW);
    // when a request comes
    bench.admit(&[charge(1, 1, SLOW, SHARED)]);
    // then it waits for the leader's word
    assert!(bench.seen().is_empty());
    bench.answer(MS);
    assert!(is_ready(&bench.seen()));
    let counts = &bench.entries.values().next().expect("the key is held").counts;
    assert_eq!(counts.read().shared, 0);
}

#[test]
fn a_leader_that_comes_and_goes_refills_no_share() {
    // given a full share of two, and three silences with an answer, a lost session and a long calm between them
    let mut bench = Bench::of_five(SLOW);
    let one = charge(1, 1, SLOW, SHARED);
    let mut admitted = Vec::new();
    for round in 0..3 {
        // when the leader falls silent for longer than a failover and any lease
        bench.admit(std::slice::from_ref(&one));
        bench.pass(5 * SECOND);
        let _ = bench.seen();
        // then the share gives what it has
        for _ in 0..9 {
            bench.admit(std::slice::from_ref(&one));
        }
        admitted.push(bench.seen().iter().filter(|verdict| matches!(verdict, Verdict::Ready(_))).count());
        if round == 0 {
            let ask = bench.asks.pop().expect("it goes on asking");
            bench.lessee.answered(bench.now, ask.session, ask.seq, Err(AskError::UnknownSession));
            bench.lessee.registered(bench.now, 8, Ok(SessionId(2)));
            bench.collect();
        }
        bench.heal();
        bench.calm(20);
    }
    // and that is two, once: a token of it takes five minutes
    assert_eq!(admitted, [2, 0, 0]);
}

#[test]
fn an_empty_share_answers_at_once_and_says_when_to_come_back() {
    // given a gateway that is cut off and has spent its share
    let mut bench = Bench::of_five(SLOW);
    let one = charge(1, 1, SLOW, SHARED);
    bench.admit(std::slice::from_ref(&one));
    bench.pass(5 * SECOND);
    bench.admit(std::slice::from_ref(&one));
    bench.admit(std::slice::from_ref(&one));
    let _ = bench.seen();
    // when another request comes
    bench.admit(&[one]);
    // then it is undecided, not refused, without a wait; the next token comes within five minutes
    let seen = bench.seen();
    let [Verdict::Undecided { places, retry_after: Some(wait) }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(places[..], [0]);
    assert!((Duration::from_secs(200)..=Duration::from_secs(300)).contains(wait), "{wait:?}");
}

#[test]
fn who_waits_for_a_leader_keeps_nobody_from_the_share() {
    // given a request that still waits for the leader when the share opens
    let mut bench = Bench::of_five(SLOW);
    let one = charge(1, 1, SLOW, SHARED);
    bench.admit(std::slice::from_ref(&one));
    bench.pass(2400 * MS);
    bench.verdicts.clear();
    bench.admit(std::slice::from_ref(&one));
    assert!(bench.seen().is_empty());
    bench.pass(150 * MS);
    let _ = bench.seen();
    // when the next one comes
    bench.admit(&[one]);
    // then it has its token
    assert!(is_ready(&bench.seen()));
}

#[test]
fn a_share_is_not_charged_for_what_another_quota_leaves_undecided() {
    // given two quotas, of which one only admits what a leader lends, and no leader
    let mut bench = Bench::of_five(SLOW);
    let both = [charge(1, 1, SLOW, SHARED), charge(2, 1, SLOW, OnQuorumLoss::Deny)];
    bench.admit(&both);
    bench.pass(5 * SECOND);
    let _ = bench.seen();
    // when requests come for both
    for _ in 0..5 {
        bench.admit(&both);
    }
    bench.pass(5 * SECOND);
    // then none is admitted and none refused
    let seen = bench.seen();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|verdict| matches!(verdict, Verdict::Undecided { .. })), "{seen:?}");
    // and the share is whole
    for _ in 0..2 {
        bench.admit(&both[..1]);
        assert!(is_ready(&bench.seen()));
    }
}
