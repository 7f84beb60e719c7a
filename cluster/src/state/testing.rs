//! The one door through which the state's tests make documents, entries and batches.

use std::time::Duration;

use config::gateway::GatewayDocument;
use config::ids::{NodeName, QuotaName, TenantId};
use config::quota::{KeyPart, Limit, OnQuorumLoss, Quota, Tenant};

use super::State;
use super::command::*;
use super::ids::*;
use super::key::{KeyValues, key};
use super::ledger::SWEEP_PAGES;
use super::pages::PAGES;

pub(super) const SECRET: [u8; 16] = [7; 16];
pub(super) const MS: u64 = 1_000_000;
pub(super) const S: u64 = 1_000 * MS;

/// `per_s` tokens a second, up to `burst`.
pub(super) fn limit(per_s: u64, burst: u64) -> Limit {
    Limit { tokens: per_s, per_ns: S, burst }
}

pub(super) fn quota(name: &str, key: &[KeyPart], per_s: u64, burst: u64) -> Quota {
    Quota {
        name: QuotaName::parse(name).expect("a good name"),
        key: key.to_vec(),
        limit: limit(per_s, burst),
        wait: None::<Duration>,
        on_quorum_loss: OnQuorumLoss::Deny,
    }
}

/// A document with one quota `q` by tenant, and amounts of their own for some tenants.
pub(super) fn document(default: Limit, own: &[(&str, Limit)]) -> GatewayDocument {
    let mut quota = quota("q", &[KeyPart::Tenant], 1, 1);
    quota.limit = default;
    let tenant = |(id, limit): &(&str, Limit)| Tenant {
        id: TenantId::parse(id).expect("a good name"),
        plan: None,
        limits: [(quota.name.clone(), *limit)].into(),
    };
    GatewayDocument {
        tenants: own.iter().map(tenant).collect(),
        quotas: vec![quota],
        ..GatewayDocument::default()
    }
}

/// The bucket of a tenant.
pub(super) fn key_of(tenant: &str) -> Key {
    let values = KeyValues { tenant: Some(tenant), ..KeyValues::default() };
    key(&SECRET, &quota("q", &[KeyPart::Tenant], 1, 1), &values)
}

pub(super) fn item(key: Key, lid: Option<LeaseId>, held: u64, spent: u64, max: u64, ttl_ns: u64) -> Item {
    Item { key, lid, held, spent, min: 0, max, ttl_ns }
}

/// A founded cluster, driven entry by entry.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub state: State,
    index: u64,
    seqs: std::collections::BTreeMap<SessionId, u64>,
}

impl Cluster {
    pub fn founded() -> Self {
        let mut state = State::default();
        let founder = member("n1");
        let found = Command::Found { cluster_id: 1, secret: SECRET, founder };
        assert_eq!(state.apply(1, 1, &found), Outcome::Founded(true));
        Self { state, index: 1, seqs: Default::default() }
    }

    /// With one quota of `per_s` and `burst`, applied at 0.
    pub fn with(per_s: u64, burst: u64) -> Self {
        let mut cluster = Self::founded();
        cluster.document(0, &document(limit(per_s, burst), &[])).expect("a good document");
        cluster
    }

    pub fn apply(&mut self, stamped: Stamped) -> StampedOutcome {
        self.index += 1;
        let outcome = self.state.apply(self.index, stamped.term, &Command::Stamped(stamped));
        let Outcome::Stamped(outcome) = outcome else { panic!("found {outcome:?}") };
        self.state.check_all();
        outcome
    }

    pub fn document(&mut self, at: u64, document: &GatewayDocument) -> Result<Revision, DocumentRefused> {
        let json = serde_json::to_string(document).expect("plain data").into();
        let request_id = u128::from(self.index);
        let change = DocumentChange { json, expected: None, request_id };
        let outcome = self.apply(Stamped { document: Some(change), ..stamped(at) });
        outcome.document.expect("a document was changed")
    }

    pub fn session(&mut self, node: u64) -> SessionId {
        let register = Register { node: RaftId(node), nonce: 1 };
        let at = self.state.tau().0;
        self.apply(Stamped { registers: vec![register], ..stamped(at) }).sessions[0]
    }

    pub fn batch(&mut self, at: u64, session: SessionId, items: Vec<Item>) -> Vec<ItemOutcome> {
        let seq = self.seqs.entry(session).or_default();
        *seq += 1;
        let batch = Batch { session, seq: *seq, items };
        match self.apply(Stamped { batches: vec![batch], ..stamped(at) }).batches.remove(0) {
            BatchOutcome::Applied(outcomes) => outcomes,
            other => panic!("found {other:?}"),
        }
    }

    pub fn one(&mut self, at: u64, session: SessionId, item: Item) -> ItemOutcome {
        self.batch(at, session, vec![item]).remove(0)
    }

    /// Lets time pass until the sweep has seen everything `times` times.
    pub fn sweep(&mut self, at: u64, times: usize) {
        for _ in 0..times * PAGES / SWEEP_PAGES + times {
            self.apply(stamped(at));
        }
    }
}

pub(super) fn member(name: &str) -> Member {
    Member { name: NodeName::parse(name).expect("a good name"), address: format!("{name}:1") }
}

pub(super) fn stamped(at: u64) -> Stamped {
    Stamped { term: 1, stamp: Tau(at), document: None, registers: Vec::new(), batches: Vec::new() }
}
