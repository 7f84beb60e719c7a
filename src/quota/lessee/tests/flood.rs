//! A flood of minted keys through a real lessee, a real leader and a real ledger.

use cluster::clock::ClusterClock;
use cluster::leader::{Lender, Reply, Ticket};
use cluster::state::State;
use cluster::state::command::{Command, DocumentChange, Member, Outcome, Register, Stamped};
use cluster::state::ids::{RaftId, Tau};
use cluster::state::key::limit_id;
use cluster::world::MonoNs;
use config::gateway::GatewayDocument;
use config::ids::NodeName;
use config::quota::{KeyPart, Quota};

use super::*;

const TERM: u64 = 1;
const KEYS_MAX: usize = 50_000;

/// One gateway and its leader, a millisecond a step, on a road that takes none.
struct House {
    lessee: Lessee,
    lender: Lender,
    clock: ClusterClock,
    state: State,
    quota: Arc<QuotaRule>,
    now: BootNs,
    index: u64,
    tickets: u64,
    asked: std::collections::BTreeMap<Ticket, (SessionId, u64)>,
    wake: Option<BootNs>,
    /// Keys that takers find.
    published: usize,
    published_most: usize,
    buckets_most: u64,
    verdicts: std::collections::BTreeMap<WaiterId, &'static str>,
}

impl House {
    fn new() -> Self {
        let quota = Quota {
            name: QuotaName::parse("q").expect("a good name"),
            key: vec![KeyPart::Tenant, KeyPart::Client],
            limit: limit(100, 100),
            wait: None,
            on_quorum_loss: OnQuorumLoss::Deny,
        };
        let rule = QuotaRule {
            name: quota.name.clone(),
            limit_id: limit_id(&quota),
            wait: None,
            on_quorum_loss: OnQuorumLoss::Deny,
            limit: quota.limit,
        };
        let document = GatewayDocument { quotas: vec![quota], ..GatewayDocument::default() };
        let json = document.to_canonical_json().into();
        let founder = Member { name: NodeName::parse("n1").expect("a good name"), address: "n1:1".into() };
        let mut state = State::default();
        state.apply(1, TERM, &Command::Found { cluster_id: 1, secret: [7; 16], founder });
        let change = DocumentChange { json, expected: None, request_id: 1 };
        let (registers, batches) = (Vec::new(), Vec::new());
        let first = Stamped { term: TERM, stamp: Tau(0), document: Some(change), registers, batches };
        state.apply(2, TERM, &Command::Stamped(first));
        let mut clock = ClusterClock::restarted(Tau(0), 1, MonoNs(0));
        clock.lead(TERM, 2);
        clock.applied(2, TERM, None, MonoNs(0));
        let now = BootNs(SECOND);
        let mut house = Self {
            lessee: Lessee::new(now, 7, Bounds { waiters_max: 10_000, keys_max: KEYS_MAX }),
            lender: Lender::new(TERM),
            clock,
            state,
            quota: Arc::new(rule),
            now,
            index: 2,
            tickets: 0,
            asked: Default::default(),
            wake: None,
            published: 0,
            published_most: 0,
            buckets_most: 0,
            verdicts: Default::default(),
        };
        house.step();
        house
    }

    fn admit(&mut self, tenant: u64, value: u64) -> WaiterId {
        let key = Key { limit: self.quota.limit_id, tenant, value };
        let charge = Charge { quota: Arc::clone(&self.quota), key, cost: 1 };
        let id = self.lessee.admit(self.now, [charge].into_iter().collect());
        self.collect();
        id
    }

    /// A millisecond passes, and everything that was asked is answered.
    fn step(&mut self) {
        self.now = self.now.plus(Duration::from_millis(1));
        if self.wake.is_some_and(|at| at <= self.now) {
            self.wake = None;
            self.lessee.woke(self.now);
        }
        self.collect();
        let mono = MonoNs(self.now.0);
        let mut closed = self.lender.close(&self.state, &mut self.clock, || mono);
        if let Some(entry) = closed.entry.take() {
            self.index += 1;
            let stamp = entry.stamp;
            let outcome = self.state.apply(self.index, TERM, &Command::Stamped(entry));
            let Outcome::Stamped(outcome) = outcome else { panic!("found {outcome:?}") };
            self.clock.applied(self.index, TERM, Some(stamp), mono);
            closed.answers.extend(self.lender.applied(&outcome, &self.state).answers);
        }
        for (ticket, reply) in closed.answers {
            match reply {
                Reply::Session(answer) => self.lessee.registered(self.now, 7, answer),
                Reply::Batch(answer) => {
                    let (session, seq) = self.asked.remove(&ticket).expect("it was asked");
                    self.lessee.answered(self.now, session, seq, answer);
                }
                Reply::Document(_) => panic!("no document is changed here"),
            }
        }
        self.collect();
        self.published_most = self.published_most.max(self.published);
        self.buckets_most = self.buckets_most.max(self.state.ledger().buckets());
    }

    fn collect(&mut self) {
        while let Some(output) = self.lessee.poll_output() {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            match output {
                Output::Register { nonce, .. } => {
                    assert_eq!(self.lender.register(ticket, Register { node: RaftId(1), nonce }), None);
                }
                Output::Send { ask, .. } => {
                    self.asked.insert(ticket, (ask.session, ask.seq));
                    assert_eq!(self.lender.ask(RaftId(1), ticket, ask, MonoNs(self.now.0)), None);
                }
                Output::WakeAt(at) => self.wake = Some(at),
                Output::Resolve(id, verdict) => {
                    let word = match verdict {
                        Verdict::Ready(hold) => {
                            if hold.commit(self.now, |_| {}) {
                                "admitted"
                            } else {
                                "late"
                            }
                        }
                        Verdict::Over(_) => "over",
                        Verdict::Undecided { .. } => "undecided",
                        Verdict::KeysFull(_) => "keys full",
                        Verdict::Overloaded => "overloaded",
                    };
                    self.verdicts.insert(id, word);
                }
                Output::Publish(..) => self.published += 1,
                Output::Withdraw(_) => self.published -= 1,
                Output::Drained => panic!("nobody drains here"),
            }
        }
    }
}

#[test]
fn a_flood_of_200_000_keys_stays_within_bounds_harms_nobody_and_is_forgotten() {
    // given a tenant with its own key that sends 100 a second
    let mut house = House::new();
    let mut normal = Vec::new();
    let mut flood = Vec::new();
    // when another mints 20 keys a millisecond for ten seconds
    for ms in 0..10_000_u64 {
        if ms % 20 == 0 {
            normal.push(house.admit(1, 1));
        }
        flood.extend((0..20).map(|n| house.admit(2, ms * 20 + n)));
        house.step();
    }
    let told = |house: &House, ids: &[WaiterId]| {
        let mut counts = std::collections::BTreeMap::new();
        for id in ids {
            *counts.entry(house.verdicts.get(id).copied().unwrap_or("waits")).or_insert(0) += 1;
        }
        counts
    };
    println!("flood {:?}, normal {:?}", told(&house, &flood), told(&house, &normal));
    println!("at most {} keys here, {} in the ledger", house.published_most, house.buckets_most);
    // then this node keeps no more keys than it may, the ledger those that are not full again, and the tenant saw nothing
    assert!(house.published_most <= KEYS_MAX);
    assert!(house.buckets_most <= 20_000, "{}", house.buckets_most);
    assert_eq!(told(&house, &normal).into_keys().collect::<Vec<_>>(), ["admitted"]);
    assert!(told(&house, &flood)["overloaded"] > 0, "the bound of keys was met");
    // and when it is over, everything is forgotten but the tenant's own
    let most = house.published_most as u64 * 3;
    let mut passed = 0;
    while house.published > 1 || house.state.ledger().buckets() > 1 {
        if passed % 20 == 0 {
            house.admit(1, 1);
        }
        house.step();
        passed += 1;
        assert!(
            passed < most,
            "{} keys here, {} in the ledger",
            house.published,
            house.state.ledger().buckets()
        );
    }
    println!("forgotten after {passed} ms");
    house.state.check_all();
}
