//! What the lender promises the shell, told one question at a time.

use config::quota::Limit;
use quorumgate_cluster::clock::ClusterClock;
use quorumgate_cluster::leader::{Answer, Closed, Lender, NotChanged, Reply, Ticket, Wish};
use quorumgate_cluster::lease::{Ask, AskError, AskItem, AskReply, Push};
use quorumgate_cluster::state::command::{DocumentChange, Register};
use quorumgate_cluster::state::ids::{Key, LeaseId, RaftId, SessionId, Tau};
use quorumgate_cluster::world::MonoNs;

use crate::gateway::MS;
use crate::ledger::{Ledger, document, key};

const TERM: u64 = 4;

/// A leader of a limit of 10 a second, burst 10, with a session on node 1 and one on node 2.
struct Leader {
    ledger: Ledger,
    clock: ClusterClock,
    lender: Lender,
    index: u64,
    now: u64,
}

impl Leader {
    fn new() -> Self {
        let limit = Limit { tokens: 10, per_ns: 1_000 * MS, burst: 10 };
        let mut clock = ClusterClock::restarted(Tau(0), 0, MonoNs(0));
        clock.lead(TERM, 1);
        clock.applied(1, TERM, None, MonoNs(0));
        let mut leader =
            Self { ledger: Ledger::new(limit), clock, lender: Lender::new(TERM), index: 1, now: MS };
        for node in [1, 2] {
            let register = Register { node: RaftId(node), nonce: 0 };
            assert_eq!(leader.lender.register(Ticket(100 + node), register), None);
        }
        let answers = leader.round().answers;
        let session = |id| Reply::Session(Ok(SessionId(id)));
        assert_eq!(answers, [(Ticket(101), session(1)), (Ticket(102), session(2))]);
        leader
    }

    fn ask(&mut self, ticket: u64, node: u64, seq: u64, items: Vec<AskItem>) -> Option<Answer> {
        let ask = Ask { session: SessionId(node), seq, items };
        self.lender.ask(RaftId(node), Ticket(ticket), ask, MonoNs(self.now))
    }

    fn close(&mut self) -> Closed {
        let now = self.now;
        self.lender.close(&self.ledger.state, &mut self.clock, || MonoNs(now))
    }

    /// Closes, commits, applies: all answers and pushes of it.
    fn round(&mut self) -> Closed {
        let mut closed = self.close();
        if let Some(entry) = closed.entry.take() {
            self.index += 1;
            let outcome = self.ledger.apply(&entry);
            self.clock.applied(self.index, TERM, Some(entry.stamp), MonoNs(self.now));
            let landed = self.lender.applied(&outcome, &self.ledger.state);
            closed.answers.extend(landed.answers);
            closed.pushes.extend(landed.pushes);
        }
        closed
    }
}

/// A gateway that holds nothing and has `need` waiters of cost 1.
fn waiting(value: u64, need: u64) -> AskItem {
    let (min, demand_per_ks) = (need.min(1), 10_000);
    AskItem { key: key(value), lid: None, held: 0, spent: 0, need, min, want: need, demand_per_ks }
}

fn batch(answer: &Answer) -> &AskReply {
    match &answer.1 {
        Reply::Batch(Ok(reply)) => reply,
        other => panic!("a reply to a batch was wanted, found {other:?}"),
    }
}

fn refused(ticket: u64, error: AskError) -> Answer {
    (Ticket(ticket), Reply::Batch(Err(error)))
}

#[test]
fn a_grant_is_answered_after_commit_and_a_denial_at_once_without_the_log() {
    // given a gateway that wants all of the bucket
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 1, 1, vec![waiting(7, 10)]), None);
    // when it is closed, nothing is answered before the entry is applied
    let closed = leader.close();
    let entry = closed.entry.expect("a grant is logged");
    assert_eq!(closed.answers, []);
    let outcome = leader.ledger.apply(&entry);
    let answers = leader.lender.applied(&outcome, &leader.ledger.state).answers;
    assert_eq!((answers[0].0, batch(&answers[0]).items[0].grant), (Ticket(1), 10));
    // and another gateway that comes now is told at once that it gets nothing
    assert_eq!(leader.ask(2, 2, 1, vec![waiting(7, 1)]), None);
    let closed = leader.close();
    let told = &batch(&closed.answers[0]).items[0];
    assert_eq!(closed.entry, None);
    assert!(told.grant == 0 && told.retry_after_ns > 0 && told.keep);
    assert!(!leader.lender.in_flight());
}

#[test]
fn a_batch_has_one_reply_even_if_only_one_of_its_items_needs_the_log() {
    // given a gateway that took all of key 7
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 1, 1, vec![waiting(7, 10)]), None);
    leader.round();
    // when the other asks for keys 7 and 8
    assert_eq!(leader.ask(2, 2, 1, vec![waiting(7, 1), waiting(8, 2)]), None);
    let closed = leader.round();
    // then there is one answer, in its order, with the denial and the grant
    let [answer] = &closed.answers[..] else { panic!("one answer") };
    let grants: Vec<(Key, u64)> = batch(answer).items.iter().map(|i| (i.key, i.grant)).collect();
    assert_eq!(grants, [(key(7), 0), (key(8), 2)]);
}

#[test]
fn a_newer_batch_voids_the_one_that_waits_and_a_delayed_one_is_void() {
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 1, 2, vec![waiting(7, 1)]), None);
    assert_eq!(leader.ask(2, 1, 3, vec![waiting(7, 1)]), Some(refused(1, AskError::Overloaded)));
    assert_eq!(leader.ask(3, 1, 1, vec![waiting(7, 1)]), Some(refused(3, AskError::Overloaded)));
    let answers = leader.round().answers;
    assert_eq!((answers.len(), batch(&answers[0]).seq), (1, 3));
    // and one that comes when a later one is already applied
    assert_eq!(leader.ask(4, 1, 2, vec![waiting(7, 1)]), None);
    assert_eq!(leader.round().answers, [refused(4, AskError::NotLeader)]);
}

#[test]
fn the_queue_is_bounded() {
    let mut leader = Leader::new();
    let most = u64::try_from(Lender::ASKS_MAX).expect("small");
    for node in 0..most {
        assert_eq!(leader.ask(node, node, 1, vec![waiting(7, 1)]), None);
    }
    assert_eq!(leader.ask(999, 999, 1, vec![]), Some(refused(999, AskError::Overloaded)));
    let huge = vec![waiting(7, 1); Ask::ITEMS_MAX + 1];
    assert_eq!(leader.ask(998, 0, 9, huge), Some(refused(998, AskError::Overloaded)));
}

#[test]
fn a_session_that_the_ledger_does_not_know_registers_again() {
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 3, 1, vec![waiting(7, 1)]), None);
    assert_eq!(leader.round().answers, [refused(1, AskError::UnknownSession)]);
}

#[test]
fn a_leader_that_has_not_applied_its_blank_entry_lets_everyone_wait() {
    // given a leader of term 9 with nothing applied yet
    let mut leader = Leader::new();
    leader.lender = Lender::new(9);
    leader.clock.lead(9, 50);
    assert_eq!(leader.ask(1, 1, 1, vec![waiting(7, 1)]), None);
    // then closing does nothing, and does not even read the clock
    let closed =
        leader.lender.close(&leader.ledger.state, &mut leader.clock, || panic!("the clock was read"));
    assert_eq!(closed, Closed::default());
    assert_eq!(leader.lender.wants_close(MonoNs(leader.now)), Wish::Now);
}

#[test]
fn the_last_seconds_of_a_lost_leadership_answer_every_ticket() {
    // given one batch in flight, and a batch, a session and a document that wait
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 1, 1, vec![waiting(7, 1)]), None);
    assert!(leader.close().entry.is_some());
    assert_eq!(leader.lender.wants_close(MonoNs(leader.now)), Wish::Nothing);
    assert_eq!(leader.ask(2, 2, 1, vec![waiting(7, 1)]), None);
    assert_eq!(leader.lender.register(Ticket(3), Register { node: RaftId(3), nonce: 1 }), None);
    let change = DocumentChange { json: "{}".into(), expected: None, request_id: 1 };
    assert_eq!(leader.lender.document(Ticket(4), change), None);
    // when the leadership ends
    let answers = leader.lender.end();
    // then each has its answer
    let expected = [
        refused(1, AskError::NotLeader),
        refused(2, AskError::NotLeader),
        (Ticket(3), Reply::Session(Err(AskError::NotLeader))),
        (Ticket(4), Reply::Document(Err(NotChanged::NotProposed))),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn a_document_whose_proposal_failed_may_have_been_applied() {
    let mut leader = Leader::new();
    let change = DocumentChange { json: "{}".into(), expected: None, request_id: 1 };
    assert_eq!(leader.lender.document(Ticket(1), change), None);
    assert!(leader.close().entry.is_some());
    assert_eq!(leader.lender.failed(), [(Ticket(1), Reply::Document(Err(NotChanged::Unknown)))]);
}

#[test]
fn entries_follow_at_once_while_there_are_few_and_every_two_ms_when_there_are_many() {
    // given a leader that has been idle
    let mut leader = Leader::new();
    leader.now = 1_000 * MS;
    // when there is always something to log
    let (mut entries, start) = (0, leader.now);
    for seq in 1.. {
        if leader.now >= start + 1_000 * MS {
            break;
        }
        assert_eq!(leader.ask(seq, 1, seq, vec![waiting(1_000 + seq, 1)]), None);
        if let Wish::At(instant) = leader.lender.wants_close(MonoNs(leader.now)) {
            assert!(instant.0 > leader.now && instant.0 <= leader.now + Lender::ENTRY_EVERY_NS);
            leader.now = instant.0;
        }
        assert_eq!(leader.lender.wants_close(MonoNs(leader.now)), Wish::Now);
        leader.round();
        entries += 1;
    }
    // then a second sees 500 entries, and a short burst more
    assert!((500..=527).contains(&entries), "{entries}");
}

#[test]
fn a_gateway_with_tokens_to_spare_is_recalled_but_not_more_than_every_20_ms() {
    // given a gateway that took the bucket and fell silent
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 1, 1, vec![waiting(7, 10)]), None);
    leader.round();
    // when the other asks every 5 ms
    let mut recalls = Vec::new();
    for i in 0..6 {
        leader.now += 5 * MS;
        assert_eq!(leader.ask(10 + i, 2, 1 + i, vec![waiting(7, 1)]), None);
        let closed = leader.round();
        let told = &batch(&closed.answers[0]).items[0];
        assert!(told.hold && told.retry_after_ns <= 4 * MS, "what comes back is worth waiting for: {told:?}");
        recalls.extend(closed.pushes);
    }
    // then the first was asked twice in 30 ms
    assert_eq!(recalls, [(RaftId(1), Push::Recall(key(7))), (RaftId(1), Push::Recall(key(7)))]);
}

#[test]
fn a_lease_that_is_void_is_told_through_the_log() {
    // given a gateway that claims a lease that the ledger does not have
    let mut leader = Leader::new();
    let item = AskItem { lid: Some(LeaseId(77)), held: 3, spent: 1, ..waiting(7, 0) };
    assert_eq!(leader.ask(1, 1, 1, vec![item]), None);
    // then its report is logged, and its tokens are dropped
    let closed = leader.close();
    let entry = closed.entry.expect("a void lease is logged");
    let outcome = leader.ledger.apply(&entry);
    let answers = leader.lender.applied(&outcome, &leader.ledger.state).answers;
    assert!(!batch(&answers[0]).items[0].keep);
}

#[test]
fn a_lease_is_renewed_in_the_log_only_when_a_quarter_of_it_is_over() {
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 1, 1, vec![waiting(7, 4)]), None);
    let first = leader.round().answers;
    let lid = batch(&first[0]).items[0].lid;
    let held = AskItem { lid, held: 4, ..waiting(7, 0) };
    // when it is reported unchanged after a second: no entry
    leader.now += 1_000 * MS;
    assert_eq!(leader.ask(2, 1, 2, vec![held.clone()]), None);
    let closed = leader.close();
    assert!(closed.entry.is_none() && batch(&closed.answers[0]).items[0].ttl_ns == 0);
    // and after two: renewed for its whole life
    leader.now += 1_000 * MS;
    assert_eq!(leader.ask(3, 1, 3, vec![held]), None);
    let renewed = leader.round().answers;
    assert_eq!(batch(&renewed[0]).items[0].ttl_ns, 6_250 * MS);
}

#[test]
fn a_document_that_changes_amounts_is_told_to_every_node_with_a_session() {
    // given a document that raises the limit, and a batch that waits
    let mut leader = Leader::new();
    let raised = document(Limit { tokens: 20, per_ns: 1_000 * MS, burst: 20 });
    assert_eq!(leader.lender.document(Ticket(1), raised), None);
    assert_eq!(leader.ask(2, 1, 1, vec![waiting(7, 1)]), None);
    // when it is applied
    let closed = leader.round();
    // then it has its revision, both nodes are told, and the batch is sized by the new amount in the next entry
    let [(Ticket(1), Reply::Document(Ok(_)))] = closed.answers[..] else { panic!("{:?}", closed.answers) };
    let changed = Push::Changed(key(7).limit);
    assert_eq!(closed.pushes, [(RaftId(1), changed.clone()), (RaftId(2), changed)]);
    let next = leader.round().answers;
    assert_eq!(batch(&next[0]).items[0].limit.burst, 20);
}

#[test]
fn a_gateway_whose_lease_has_expired_is_told_so_through_the_log() {
    // given a gateway with a lease of which it has spent everything and reported nothing, until it expired
    let mut leader = Leader::new();
    assert_eq!(leader.ask(1, 1, 1, vec![waiting(7, 1)]), None);
    let granted = leader.round();
    let lid = batch(&granted.answers[0]).items[0].lid;
    assert!(lid.is_some());
    leader.now += 20_000 * MS;
    // when it reports, as it does again and again while it stops and thinks that it holds something
    let report = AskItem { lid, spent: 1, need: 0, min: 0, want: 0, ..waiting(7, 0) };
    assert_eq!(leader.ask(2, 1, 2, vec![report]), None);
    let closed = leader.close();
    // then the log ends the lease for both, and only then it is told
    let entry = closed.entry.expect("the end of a lease is logged");
    let outcome = leader.ledger.apply(&entry);
    let answers = leader.lender.applied(&outcome, &leader.ledger.state).answers;
    let told = &batch(&answers[0]).items[0];
    assert_eq!((told.lid, told.keep, told.grant), (None, true, 0));
}
