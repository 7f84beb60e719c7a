//! The rules of the ledger one by one (quota.md 9 and 9.5), through `State::apply` as a log would.

use super::command::*;
use super::ids::*;
use super::rules::{Rule, without};
use super::testing::*;

const TTL: u64 = 3 * S;

/// Takes all of a bucket of 10 at 10/s at time 0 under a new lease.
fn taken() -> (Cluster, SessionId, LeaseId) {
    let mut cluster = Cluster::with(10, 10);
    let session = cluster.session(1);
    let given = cluster.one(0, session, item(key_of("a"), None, 0, 0, 10, TTL));
    assert_eq!((given.grant, given.left), (10, 0));
    (cluster, session, given.lid.expect("tokens are out"))
}

fn central(cluster: &Cluster, tenant: &str, at: u64) -> i64 {
    cluster.state.shadow(key_of(tenant), Tau(at)).expect("the quota exists").central()
}

#[test]
fn a_report_is_booked_after_the_refill_with_the_old_lease() {
    let spend_late = || {
        // given a full lease that lay idle for two seconds
        let (mut cluster, session, lid) = taken();
        // when its spends are reported at once
        let outcome = cluster.one(2 * S, session, item(key_of("a"), Some(lid), 0, 10, 10, TTL));
        outcome.grant
    };
    // then the idle time gave nothing, and without the rule it gives a second burst
    assert_eq!(spend_late(), 0);
    assert_eq!(without(Rule::RefillBeforeReport, spend_late), 10);
}

#[test]
fn tokens_out_count_towards_the_burst() {
    let idle = || {
        let (cluster, ..) = taken();
        central(&cluster, "a", S)
    };
    assert_eq!(idle(), 0);
    assert_eq!(without(Rule::CapCountsOut, idle), 10);
}

#[test]
fn tokens_of_an_expired_lease_are_spent_and_the_refill_begins_at_its_end() {
    let expired = || {
        let (cluster, ..) = taken();
        [central(&cluster, "a", TTL), central(&cluster, "a", TTL + S / 2)]
    };
    assert_eq!(expired(), [0, 5]);
    assert_eq!(without(Rule::ExpiredIsSpent, expired), [10, 10]);
}

#[test]
fn a_late_report_does_not_bring_an_expired_lease_back() {
    // given a lease that expired in the ledger
    let (mut cluster, session, lid) = taken();
    // when its gateway still claims tokens
    let outcome = cluster.one(TTL, session, item(key_of("a"), Some(lid), 6, 4, 0, TTL));
    // then they are void
    assert_eq!((outcome.keep, outcome.lid, outcome.left), (false, None, 0));
}

#[test]
fn a_batch_is_applied_once_and_in_order() {
    let (mut cluster, session, _) = taken();
    let batch = Batch { session, seq: 1, items: Vec::new() };
    let mut again = || cluster.apply(Stamped { batches: vec![batch.clone()], ..stamped(S) }).batches;
    assert_eq!(again(), [BatchOutcome::Stale]);
    assert_eq!(without(Rule::SeqRises, again), [BatchOutcome::Applied(Vec::new())]);
}

#[test]
fn a_batch_of_an_unknown_session_is_refused() {
    let mut cluster = Cluster::with(10, 10);
    let batch = Batch { session: SessionId(9), seq: 1, items: Vec::new() };
    let outcome = cluster.apply(Stamped { batches: vec![batch], ..stamped(0) });
    assert_eq!(outcome.batches, [BatchOutcome::UnknownSession]);
}

#[test]
fn a_lease_that_the_gateway_never_took_comes_back_whole() {
    // given a grant whose reply was lost
    let (mut cluster, session, old) = taken();
    // when the gateway asks again without a lease
    let outcome = cluster.one(S / 10, session, item(key_of("a"), None, 0, 0, 10, TTL));
    // then it has the tokens under another name
    assert_eq!((outcome.grant, outcome.keep), (10, true));
    assert_ne!(outcome.lid, Some(old));
}

#[test]
fn a_void_grant_comes_back_with_the_next_report() {
    // given a lease of 4, and 6 more in a reply that was lost
    let mut cluster = Cluster::with(10, 10);
    let session = cluster.session(1);
    let lid = cluster.one(0, session, item(key_of("a"), None, 0, 0, 4, TTL)).lid;
    cluster.one(0, session, item(key_of("a"), lid, 4, 0, 6, TTL));
    // when the gateway, which holds 3 and spent 1, reports
    let outcome = cluster.one(0, session, item(key_of("a"), lid, 3, 1, 0, TTL));
    // then the 6 are back
    assert_eq!((outcome.keep, outcome.left), (true, 6));
}

#[test]
fn a_kept_lease_is_never_shortened() {
    let (mut cluster, session, lid) = taken();
    let outcome = cluster.one(S / 10, session, item(key_of("a"), Some(lid), 10, 0, 0, S / 4));
    assert_eq!(outcome.ttl_ns, TTL - S / 10);
    assert_eq!(central(&cluster, "a", S), 0);
}

#[test]
fn at_least_min_is_granted_or_nothing() {
    let mut cluster = Cluster::with(10, 10);
    let session = cluster.session(1);
    let ask = |min, max| Item { min, ..item(key_of("a"), None, 0, 0, max, TTL) };
    assert_eq!(cluster.one(0, session, ask(11, 20)).grant, 0);
    assert_eq!(cluster.one(0, session, ask(5, 3)).grant, 0);
    assert_eq!(cluster.one(0, session, ask(10, 20)).grant, 10);
}

#[test]
fn claims_that_no_gateway_makes_void_the_lease() {
    // more held than is out; spends that fall; the same key twice in one batch
    let (mut cluster, session, lid) = taken();
    let more = cluster.one(0, session, item(key_of("a"), Some(lid), 11, 0, 0, TTL));
    assert_eq!((more.keep, more.lid, more.left), (false, None, 0));

    let (mut cluster, session, lid) = taken();
    cluster.one(0, session, item(key_of("a"), Some(lid), 5, 5, 0, TTL));
    let fallen = cluster.one(0, session, item(key_of("a"), Some(lid), 5, 4, 0, TTL));
    assert_eq!((fallen.keep, fallen.lid, fallen.left), (false, None, 0));

    let (mut cluster, session, lid) = taken();
    let kept = item(key_of("a"), Some(lid), 10, 0, 0, TTL);
    let twice = cluster.batch(0, session, vec![kept.clone(), kept]);
    assert_eq!((twice[0].keep, twice[1].keep, twice[1].lid, twice[1].left), (true, false, None, 0));
}

#[test]
fn spends_counted_twice_return_nothing_twice() {
    // given a report whose spends run ahead of what left the lease
    let (mut cluster, session, lid) = taken();
    cluster.one(0, session, item(key_of("a"), Some(lid), 6, 5, 0, TTL));
    // when the token that ran ahead leaves
    let outcome = cluster.one(0, session, item(key_of("a"), Some(lid), 5, 5, 0, TTL));
    // then it is spent
    assert_eq!(outcome.left, 0);
}

#[test]
fn a_raise_gives_nothing_at_once() {
    let raised = || {
        // given a bucket with 4 of 10
        let mut cluster = Cluster::with(10, 10);
        let session = cluster.session(1);
        let lid = cluster.one(0, session, item(key_of("a"), None, 0, 0, 6, TTL)).lid;
        cluster.one(0, session, item(key_of("a"), lid, 0, 6, 0, TTL));
        // when the burst becomes 100
        cluster.document(0, &document(limit(10, 100), &[])).expect("a good document");
        // then known and unknown keys stay where they are
        [central(&cluster, "a", 0), central(&cluster, "new", 0), central(&cluster, "new", S)]
    };
    assert_eq!(raised(), [4, 10, 20]);
    assert_eq!(without(Rule::RaiseGivesNothing, raised)[0], 94);
}

#[test]
fn a_lowering_makes_what_is_out_a_debt_that_refill_pays() {
    // given 10 of 10 out
    let (mut cluster, session, lid) = taken();
    // when the burst becomes 2
    cluster.document(0, &document(limit(10, 2), &[])).expect("a good document");
    assert_eq!(central(&cluster, "a", 0), -8);
    // then spent tokens are paid back by the refill first
    let outcome = cluster.one(0, session, item(key_of("a"), Some(lid), 0, 10, 10, TTL));
    assert_eq!((outcome.grant, outcome.left), (0, -8));
    assert_eq!([central(&cluster, "a", S / 2), central(&cluster, "a", S)], [-3, 2]);
}

#[test]
fn time_before_a_change_counts_at_the_old_rate() {
    // given an empty bucket at 10/s
    let (mut cluster, session, lid) = taken();
    cluster.one(0, session, item(key_of("a"), Some(lid), 0, 10, 0, TTL));
    // when after half a second the rate becomes 1/s, and nobody looks for another second
    cluster.document(S / 2, &document(limit(1, 10), &[])).expect("a good document");
    // then both halves count at their own rate
    assert_eq!(central(&cluster, "a", S / 2 + S), 5 + 1);
}

#[test]
fn a_started_token_is_rescaled() {
    let shrunk = || {
        // given a bucket at 1 token in 100 s, 99 s after it was emptied
        let mut cluster = Cluster::founded();
        let slow = config::quota::Limit { tokens: 1, per_ns: 100 * S, burst: 10 };
        cluster.document(0, &document(slow, &[])).expect("a good document");
        let session = cluster.session(1);
        let lid = cluster.one(0, session, item(key_of("a"), None, 0, 0, 10, TTL)).lid;
        cluster.one(0, session, item(key_of("a"), lid, 0, 10, 0, TTL));
        // when the amount becomes 1 a second
        let fast = config::quota::Limit { tokens: 1, per_ns: S, burst: 10 };
        cluster.document(99 * S, &document(fast, &[])).expect("a good document");
        central(&cluster, "a", 99 * S + 10 * MS)
    };
    assert_eq!(shrunk(), 1);
    assert_eq!(without(Rule::RemRescaled, shrunk), 10);
}

#[test]
fn a_tenant_that_enters_and_leaves_a_plan_mints_nothing() {
    let mut cluster = Cluster::with(1, 10);
    let gold = document(limit(1, 10), &[("a", limit(1, 100))]);
    let plain = document(limit(1, 10), &[]);
    // when a tenant without a bucket gets 100, nothing happens at once
    cluster.document(0, &gold).expect("a good document");
    assert_eq!([central(&cluster, "a", 0), central(&cluster, "a", 5 * S)], [10, 15]);
    // and when it leaves, its level is cut, others are untouched, and its ghost goes when it is like theirs
    cluster.document(5 * S, &plain).expect("a good document");
    assert_eq!([central(&cluster, "a", 5 * S), central(&cluster, "b", 5 * S)], [10, 10]);
    cluster.sweep(6 * S, 1);
    assert_eq!(cluster.state.ledger().ghosts.by_class.len(), 1);
}

#[test]
fn a_bucket_is_forgotten_only_when_a_new_one_equals_it() {
    // given a bucket whose tokens were spent
    let (mut cluster, session, lid) = taken();
    cluster.one(0, session, item(key_of("a"), Some(lid), 0, 10, 0, TTL));
    // when the sweep passes before and after it is full
    cluster.sweep(S - MS, 1);
    assert_eq!(cluster.state.ledger().buckets(), 1);
    cluster.sweep(S, 1);
    // then it goes with the second pass only
    assert_eq!(cluster.state.ledger().buckets(), 0);
}

#[test]
fn a_removed_quota_is_unknown_and_does_not_come_back_fresh_while_a_lease_lives() {
    // given 10 of 10 out
    let (mut cluster, session, _) = taken();
    // when the quota is removed and put back
    let none = config::gateway::GatewayDocument::default();
    cluster.document(S, &none).expect("a good document");
    let unknown = cluster.one(S, session, item(key_of("a"), None, 0, 0, 10, TTL));
    assert!(unknown.unknown && !unknown.keep);
    assert_eq!(cluster.state.shadow(key_of("a"), Tau(S)), None);
    cluster.sweep(S, 1);
    cluster.document(2 * S, &document(limit(10, 10), &[])).expect("a good document");
    // then its tokens are still out
    assert_eq!(central(&cluster, "a", 2 * S), 0);
    // and once the lease ended and the sweep has passed, the quota is gone for good and comes back as a new one
    cluster.document(3 * S, &none).expect("a good document");
    cluster.sweep(10 * S, 3);
    assert_eq!((cluster.state.ledger().buckets(), cluster.state.ledger().ghosts.by_class.len()), (0, 0));
    cluster.document(10 * S, &document(limit(10, 20), &[])).expect("a good document");
    assert_eq!(central(&cluster, "a", 10 * S), 20);
}

#[test]
fn old_tables_go_when_the_sweep_has_passed() {
    let (mut cluster, ..) = taken();
    for (at, burst) in [(1, 20), (2, 30), (3, 40)] {
        cluster.document(at, &document(limit(10, burst), &[])).expect("a good document");
    }
    assert!(cluster.state.ledger().tables.0.len() > 2);
    cluster.sweep(S, 3);
    assert_eq!(cluster.state.ledger().tables.0.len(), 1);
}

#[test]
fn silent_sessions_without_leases_are_dropped() {
    let (mut cluster, session, _) = taken();
    cluster.sweep(59 * S, 1);
    assert!(cluster.state.sessions().get(session).is_some());
    cluster.sweep(60 * S, 1);
    assert_eq!(cluster.state.sessions().get(session), None);
    assert_ne!(cluster.session(1), session, "numbers are never reused");
}

#[test]
fn the_same_process_has_the_same_session() {
    let mut cluster = Cluster::with(10, 10);
    let first = cluster.session(1);
    assert_eq!(cluster.session(1), first);
    assert_ne!(cluster.session(2), first);
}

#[test]
fn no_entry_touches_more_than_a_bounded_number_of_buckets() {
    let mut cluster = Cluster::with(1, 10);
    let session = cluster.session(1);
    for round in 0..40_u64 {
        let tenants = (0..25).map(|n| key_of(&format!("t{round}-{n}")));
        let items = tenants.map(|key| item(key, None, 0, 0, 1, TTL)).collect();
        cluster.batch(0, session, items);
    }
    let before = cluster.state.revision();
    cluster.document(S, &document(limit(1, 5), &[])).expect("a good document");
    let changed = |cluster: &Cluster| {
        let buckets = cluster.state.ledger().pages.iter();
        buckets.filter(|(_, bucket)| bucket.revision > before).count()
    };
    assert!(cluster.state.ledger().buckets() == 1000 && changed(&cluster) <= 8, "nothing is changed at once");
    assert!(cluster.state.ledger().clone().sweep(25) <= 2 * 25 + 8);
}

#[test]
fn an_entry_of_another_term_does_nothing() {
    let mut cluster = Cluster::with(10, 10);
    let before = cluster.state.clone();
    let late = Command::Stamped(Stamped { stamp: Tau(9), ..stamped(9) });
    assert_eq!(cluster.state.apply(9, 2, &late), Outcome::Fenced);
    assert_eq!(cluster.state, before);
}

#[test]
fn the_first_found_wins_and_ids_are_places_in_the_log() {
    let mut cluster = Cluster::founded();
    let again = Command::Found { cluster_id: 2, secret: [0; 16], founder: member("x") };
    assert_eq!(cluster.state.apply(5, 1, &again), Outcome::Founded(false));
    assert_eq!((cluster.state.cluster_id(), cluster.state.secret()), (Some(1), Some(SECRET)));
    assert_eq!(cluster.state.apply(7, 1, &Command::Admit(member("n2"))), Outcome::Admitted(RaftId(7)));
    let ids: Vec<RaftId> = cluster.state.members().by_id().keys().copied().collect();
    assert_eq!(ids, [RaftId(1), RaftId(7)]);
}

#[test]
fn a_document_is_changed_once_a_request_and_only_from_the_expected_revision() {
    let mut cluster = Cluster::with(10, 10);
    let json: std::sync::Arc<str> = serde_json::to_string(&document(limit(1, 1), &[])).expect("data").into();
    let mut change = |expected, json: &std::sync::Arc<str>, request_id| {
        let change = DocumentChange { json: json.clone(), expected, request_id };
        cluster.apply(Stamped { document: Some(change), ..stamped(0) }).document.expect("changed")
    };
    assert_eq!(change(Some(Revision(1)), &json, 77), Ok(Revision(2)));
    assert_eq!(change(Some(Revision(1)), &json, 77), Ok(Revision(2)));
    let stale = DocumentRefused::Stale { found: Revision(2), expected: Revision(1) };
    assert_eq!(change(Some(Revision(1)), &json, 78), Err(stale));
    assert!(matches!(change(None, &"{".into(), 79), Err(DocumentRefused::Unreadable(_))));
    for request_id in 100..150 {
        change(None, &json, request_id).expect("a good document");
    }
    assert_eq!(cluster.state.documents().history().count(), 32);
    assert_eq!(cluster.state.revision(), Revision(52));
}

#[test]
fn a_shadow_foretells_what_apply_does() {
    let (mut cluster, session, lid) = taken();
    let mut shadow = cluster.state.shadow(key_of("a"), Tau(S)).expect("the quota exists");
    let keep = shadow.report(session, Some(lid), 2, 5);
    let given = shadow.grant(session, 0, 2, TTL);
    let outcome = cluster.one(S, session, item(key_of("a"), Some(lid), 2, 5, 2, TTL));
    assert_eq!((outcome.keep, outcome.grant, outcome.left), (keep, given.grant, shadow.central()));
    assert_eq!(outcome.lid, given.lease.map(|(lid, _)| lid));
}
