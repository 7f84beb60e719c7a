//! The real replicated state, founded and with one quota.

use config::gateway::GatewayDocument;
use config::ids::{NodeName, QuotaName};
use config::quota::{Limit, OnQuorumLoss, Quota};
use quorumgate_cluster::state::State;
use quorumgate_cluster::state::command::{Command, DocumentChange, Member, Outcome, Stamped, StampedOutcome};
use quorumgate_cluster::state::ids::{Key, Tau};
use quorumgate_cluster::state::key::limit_id;

/// One voter's state. Its log begins with two entries that all voters share: the founding and the document.
#[derive(Clone)]
pub struct Ledger {
    pub state: State,
    index: u64,
}

impl Ledger {
    /// A cluster whose only quota has this amount.
    pub fn new(limit: Limit) -> Self {
        let mut ledger = Self { state: State::default(), index: 0 };
        let name = NodeName::parse("founder").expect("a good name");
        let founder = Member { name, address: "founder:1".to_owned() };
        ledger.command(1, &Command::Found { cluster_id: 1, secret: [1; 16], founder });
        let change = document(limit);
        let entry =
            Stamped { term: 1, stamp: Tau(0), document: Some(change), registers: vec![], batches: vec![] };
        let outcome = ledger.apply(&entry);
        assert!(matches!(outcome.document, Some(Ok(_))), "the document is accepted: {outcome:?}");
        ledger
    }

    /// Applies an entry of the term in which it was stamped.
    pub fn apply(&mut self, entry: &Stamped) -> StampedOutcome {
        match self.command(entry.term, &Command::Stamped(entry.clone())) {
            Outcome::Stamped(outcome) => outcome,
            other => panic!("a stamped entry has a stamped outcome, found {other:?}"),
        }
    }

    fn command(&mut self, term: u64, command: &Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, term, command)
    }
}

/// A document with one quota of this amount.
pub fn document(limit: Limit) -> DocumentChange {
    let document = GatewayDocument { quotas: vec![quota(limit)], ..GatewayDocument::default() };
    let json = serde_json::to_string(&document).expect("a document can be written");
    DocumentChange {
        json: json.into(),
        expected: None,
        request_id: u128::from(limit.burst) << 64 | u128::from(limit.tokens),
    }
}

/// A bucket of the quota.
pub fn key(value: u64) -> Key {
    let any = Limit { tokens: 1, per_ns: 1, burst: 1 };
    Key { limit: limit_id(&quota(any)), tenant: 0, value }
}

fn quota(limit: Limit) -> Quota {
    let name = QuotaName::parse("only").expect("a good name");
    Quota { name, key: Vec::new(), limit, wait: None, on_quorum_loss: OnQuorumLoss::Deny }
}
