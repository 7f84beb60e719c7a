//! Minted keys: what they cost, whom they crowd out, and that nothing of them stays.

use std::time::Duration;

use config::gateway::GatewayDocument;
use config::quota::KeyPart;

use super::command::*;
use super::ids::*;
use super::ledger::Ledger;
use super::testing::*;

/// Items of an entry: more than a leader puts into one.
const BATCH: u64 = 4096;

/// A cluster with one quota of 10/s, B = 2, by tenant and client, in a ledger of `buckets_max`.
fn cluster(buckets_max: u64) -> (Cluster, SessionId) {
    let mut cluster = Cluster::founded();
    cluster.state.ledger = Ledger::with_bounds(super::pages::PAGES, buckets_max);
    let quotas = vec![quota("q", &[KeyPart::Tenant, KeyPart::Client], 10, 2)];
    let document = GatewayDocument { quotas, ..GatewayDocument::default() };
    cluster.document(0, &document).expect("a good document");
    let session = cluster.session(1);
    (cluster, session)
}

fn minted(tenant: &str, client: u64) -> Key {
    let clients = client.to_string();
    let values = super::key::KeyValues { tenant: Some(tenant), client: Some(&clients), ..Default::default() };
    super::key::key(&SECRET, &quota("q", &[KeyPart::Tenant, KeyPart::Client], 10, 2), &values)
}

/// One token of a new key, held for a second at most.
fn spend(key: Key) -> Item {
    item(key, None, 0, 0, 1, S)
}

#[test]
fn at_its_bound_a_tenant_gets_no_new_key_and_everybody_else_does() {
    // given a ledger of 64 buckets: 16 a quota, 4 a tenant
    let (mut cluster, session) = cluster(64);
    // when one tenant mints ten
    let flood = cluster.batch(S, session, (0..10).map(|n| spend(minted("acme", n))).collect());
    // then it has four, and is told so for the others, which nothing was booked for
    let full: Vec<bool> = flood.iter().map(|outcome| outcome.full).collect();
    assert_eq!(full, [[false; 4].as_slice(), &[true; 6]].concat());
    assert!(flood[4..].iter().all(|o| o.grant == 0 && !o.keep && !o.unknown && o.lid.is_none()));
    assert!(cluster.state.shadow(minted("acme", 9), Tau(S)).is_none(), "the leader foresees it");
    // and its old keys go on, and so do other tenants' new ones, up to the quota's own bound
    let held = item(minted("acme", 0), flood[0].lid, 1, 0, 1, S);
    assert_eq!(cluster.one(S, session, held).grant, 1);
    for tenant in ["b", "c", "d"] {
        let got = cluster.batch(S, session, (0..4).map(|n| spend(minted(tenant, n))).collect());
        assert!(got.iter().all(|outcome| outcome.grant == 1), "{got:?}");
    }
    assert!(cluster.one(S, session, spend(minted("e", 0))).full);
    // and once keys are full again, there is room
    cluster.sweep(10 * S, 2);
    assert_eq!(cluster.state.ledger().buckets(), 0);
    assert_eq!(cluster.one(10 * S, session, spend(minted("acme", 9))).grant, 1);
}

#[test]
fn a_flood_of_200_000_keys_costs_what_is_not_yet_full_again_and_leaves_nothing() {
    // given a key that has spent its burst, and a flood of new keys in full batches, 25 a second
    let (mut cluster, session) = cluster(1 << 22);
    let old = minted("globex", 0);
    let before = cluster.one(S, session, item(old, None, 0, 0, 2, 3600 * S));
    assert_eq!(before.grant, 2);
    let apply = |cluster: &mut Cluster, at: u64, seq: u64, items: Vec<Item>| {
        let batches = if items.is_empty() { vec![] } else { vec![Batch { session, seq, items }] };
        let entry = Command::Stamped(Stamped { batches, ..stamped(at) });
        match cluster.state.apply(100 + seq, 1, &entry) {
            Outcome::Stamped(outcome) => outcome,
            other => panic!("found {other:?}"),
        }
    };
    let (mut at, mut most) = (S, 0);
    let every = Duration::from_millis(40).as_nanos() as u64;
    let entries = 200_000 / BATCH;
    for entry in 0..entries {
        at += every;
        // Each spends its one token: held for so short that it is spent by the next entry.
        let items = (0..BATCH).map(|n| item(minted("acme", entry * BATCH + n), None, 0, 0, 1, MS)).collect();
        let outcome = apply(&mut cluster, at, 10 + entry, items);
        assert!(
            matches!(&outcome.batches[0], BatchOutcome::Applied(items) if items.iter().all(|i| i.grant == 1))
        );
        most = most.max(cluster.state.ledger().buckets());
    }
    // then what it holds is what comes in while a key fills, which is 100 ms, and while the sweep goes round, in which half as
    // many keys come as there are: twice as much together
    let while_one_fills = BATCH * (S / 10) / every;
    println!("at most {most} of {} keys at once, {while_one_fills} come while one fills", entries * BATCH);
    assert!(most <= 3 * while_one_fills, "{most}");
    // and the old key's lease stands
    let held = item(old, before.lid, 2, 0, 0, 3600 * S);
    assert!(apply(&mut cluster, at, 1_000, vec![held]).batches.len() == 1);
    cluster.state.check_all();
    // and when it is over, small entries forget all of it, and nothing is left but that key
    let mut small = 0;
    at += 2 * S;
    while cluster.state.ledger().buckets() > 1 {
        small += 1;
        apply(&mut cluster, at, 1_000 + small, Vec::new());
        assert!(
            small <= most / 8 + 2 * 4096,
            "the sweep stands still at {}",
            cluster.state.ledger().buckets()
        );
    }
    println!("forgotten by {small} entries without items");
    cluster.state.check_all();
    assert!(cluster.state.shadow(old, Tau(at)).is_some_and(|bucket| bucket.out_total() == 2));
}
