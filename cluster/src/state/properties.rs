//! Any honest traffic against a slow perfect bucket, and any state through a snapshot.

use std::collections::BTreeMap;

use config::quota::Limit;
use proptest::prelude::*;

use super::ids::*;
use super::snapshot::{HeadV1, PartV1, Rebuilt, parts};
use super::testing::*;
use crate::peer::codec;

#[derive(Clone, Debug)]
enum Step {
    /// Time passes, in tenths of a millisecond.
    Wait(u64),
    /// A gateway spends up to so many tokens.
    Spend(u64, u64),
    /// A gateway reports; it keeps what it holds or not, asks for so much, and may lose the reply.
    Report { gateway: u64, keep: bool, max: u64, ttl_ms: u64, lost: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_000_u64).prop_map(Step::Wait),
        (0..3_u64, 0..8_u64).prop_map(|(gateway, tokens)| Step::Spend(gateway, tokens)),
        (0..3_u64, any::<bool>(), 0..20_u64, 1..400_u64, any::<bool>())
            .prop_map(|(gateway, keep, max, ttl_ms, lost)| Step::Report { gateway, keep, max, ttl_ms, lost }),
    ]
}

/// A perfect bucket in units of 1/per tokens: no rounding.
struct Perfect {
    level: i128,
    at: i128,
}

impl Perfect {
    fn spend(&mut self, limit: &Limit, at: u64, tokens: u64) {
        let (per, cap) = (i128::from(limit.per_ns), i128::from(limit.burst) * i128::from(limit.per_ns));
        let refill = (i128::from(at) - self.at) * i128::from(limit.tokens);
        self.level = cap.min(self.level + refill) - i128::from(tokens) * per;
        self.at = at.into();
        assert!(self.level >= 0, "over-admission of {} / {per} tokens", -self.level);
    }
}

#[derive(Clone, Default)]
struct Cell {
    lid: Option<LeaseId>,
    held: u64,
    spent: u64,
    deadline: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn honest_gateways_never_pass_the_perfect_bucket(
        steps in proptest::collection::vec(step(), 1..60),
        tokens in 1..200_u64, burst in 1..20_u64,
    ) {
        let limit = Limit { tokens, per_ns: S, burst };
        let mut cluster = Cluster::founded();
        cluster.document(0, &document(limit, &[])).expect("a good document");
        let sessions: Vec<SessionId> = (0..3).map(|node| cluster.session(node)).collect();
        let mut cells: BTreeMap<u64, Cell> = (0..3).map(|gateway| (gateway, Cell::default())).collect();
        let mut perfect = Perfect { level: i128::from(burst) * i128::from(S), at: 0 };
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(tenths) => now += tenths * MS / 10,
                Step::Spend(gateway, tokens) => {
                    let cell = cells.get_mut(&gateway).expect("one of three");
                    let tokens = if now < cell.deadline { tokens.min(cell.held) } else { 0 };
                    cell.held -= tokens;
                    cell.spent += tokens;
                    perfect.spend(&limit, now, tokens);
                }
                Step::Report { gateway, keep, max, ttl_ms, lost } => {
                    let cell = cells.get_mut(&gateway).expect("one of three");
                    if !keep || now >= cell.deadline {
                        cell.held = 0;
                    }
                    let item = item(key_of("a"), cell.lid, cell.held, cell.spent, max, ttl_ms * MS);
                    let outcome = cluster.one(now, sessions[usize::try_from(gateway).expect("small")], item);
                    if lost {
                        continue;
                    }
                    if !outcome.keep {
                        cell.held = 0;
                    }
                    if outcome.lid != cell.lid {
                        (cell.lid, cell.spent) = (outcome.lid, 0);
                    }
                    cell.held += outcome.grant;
                    if outcome.ttl_ns > 0 {
                        cell.deadline = now + outcome.ttl_ns;
                    }
                }
            }
        }
    }

    #[test]
    fn a_snapshot_is_the_whole_state(
        items in proptest::collection::vec((0..6_u64, 0..5_u64, 1..3_000_u64), 0..30),
        bursts in proptest::collection::vec(1..50_u64, 0..4),
    ) {
        let mut cluster = Cluster::with(10, 10);
        let session = cluster.session(1);
        let mut now = 0;
        for (tenant, max, wait_ms) in items {
            now += wait_ms * MS;
            cluster.one(now, session, item(key_of(&format!("t{tenant}")), None, 0, 0, max, S));
        }
        for burst in bursts {
            now += S;
            let own = [("t1", limit(3, burst)), ("t9", limit(burst, 5))];
            cluster.document(now, &document(limit(10, burst), &own)).expect("a good document");
        }
        let head = codec::encode(&HeadV1::from(&cluster.state));
        let head: HeadV1 = codec::decode_stored(&head).expect("what was written can be read");
        let mut rebuilt = Rebuilt::new(head).expect("a good head");
        let mut restored = None;
        for part in parts(&cluster.state) {
            prop_assert!(restored.is_none(), "the end is last");
            let part: PartV1 = codec::decode_stored(&codec::encode(&part)).expect("it can be read");
            restored = rebuilt.add(part).expect("a good part");
        }
        let mut restored = restored.expect("the end was there");
        restored.check_all();
        prop_assert_eq!(restored.digest(), cluster.state.digest());
        prop_assert_eq!(&restored, &cluster.state);
        // and both go on alike
        let mut original = cluster.state;
        let next = super::command::Command::Stamped(stamped(now + S));
        prop_assert_eq!(restored.apply(99, 1, &next), original.apply(99, 1, &next));
        prop_assert_eq!(restored.digest(), original.digest());
    }
}
