//! The whole state as plain data: what a snapshot file holds. A changed layout is another version.
//!
//! Maps are lists of pairs in ascending order of their keys.

use std::collections::BTreeMap;

use config::ids::NodeName;
use config::quota::Limit;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::amounts::{Amounts, Class, Table, Tables};
use super::bucket::{Bucket, Lease, Tally};
use super::command::Member;
use super::documents::{Documents, Edition};
use super::ghosts::Ghosts;
use super::ids::{Key, LeaseId, LimitId, RaftId, Revision, SessionId, Tau};
use super::ledger::{Ledger, Sweep};
use super::members::{Ended, Members, Operation};
use super::sessions::{Session, Sessions};
use super::{Founded, State};

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotV1 {
    /// Cluster id and secret.
    pub founded: Option<(u128, [u8; 16])>,
    /// Raft id, name, address.
    pub members: Vec<(RaftId, NodeName, String)>,
    /// The membership operation under way.
    pub operation: Option<Operation>,
    /// The last one that ended.
    pub ended: Option<Ended>,
    /// Revision, cluster time, canonical JSON, request.
    pub history: Vec<(Revision, Tau, String, u128)>,
    /// Cluster time.
    pub tau: Tau,
    /// The last lease name given out.
    pub next_lid: u64,
    /// The last session number given out.
    pub last_session: u64,
    /// Where the sweep of the sessions is.
    pub session_cursor: SessionId,
    /// All sessions.
    pub sessions: Vec<(SessionId, SessionV1)>,
    /// Dated tables of amounts.
    pub tables: Vec<TableV1>,
    /// Ghosts: limit, tenant (none: all others), bucket.
    pub ghosts: Vec<(LimitId, Option<u64>, BucketV1)>,
    /// Where the sweep of the ghosts is.
    pub ghost_cursor: Option<(LimitId, Option<u64>)>,
    /// All buckets.
    pub buckets: Vec<(Key, BucketV1)>,
    /// Opened, refilled, spent, deemed spent, cut, forgotten.
    pub tally: [i128; 6],
    /// Where the sweep of the buckets is: page, last key, floor.
    pub sweep: (u64, Option<Key>, Revision),
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionV1 {
    /// Where it lives.
    pub node: RaftId,
    /// Of the process.
    pub nonce: u128,
    /// Last applied batch.
    pub last_seq: u64,
    /// Last heard of.
    pub heard: Tau,
    /// End of its last lease.
    pub leases_end: Tau,
}

/// A dated table of amounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableV1 {
    /// The document's.
    pub revision: Revision,
    /// Since when.
    pub from: Tau,
    /// For all.
    pub defaults: Vec<(LimitId, Amount)>,
    /// For one tenant.
    pub tenants: Vec<((LimitId, u64), Amount)>,
}

/// Tokens, nanoseconds, burst.
pub type Amount = (u64, u64, u64);

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketV1 {
    /// In the ledger's hand.
    pub central: i64,
    /// The started token.
    pub rem: u64,
    /// Refilled up to.
    pub at: Tau,
    /// The table it was advanced with.
    pub revision: Revision,
    /// Session, name, out, expiry, booked spends.
    pub leases: Vec<(SessionId, LeaseId, u64, Tau, u64)>,
}

fn amount(limit: &Limit) -> Amount {
    (limit.tokens, limit.per_ns, limit.burst)
}

fn limit((tokens, per_ns, burst): Amount) -> Limit {
    Limit { tokens, per_ns, burst }
}

fn tenant(class: Class) -> Option<u64> {
    match class {
        Class::Default => None,
        Class::Tenant(tenant) => Some(tenant),
    }
}

fn class(tenant: Option<u64>) -> Class {
    tenant.map_or(Class::Default, Class::Tenant)
}

impl From<&Bucket> for BucketV1 {
    fn from(it: &Bucket) -> Self {
        let leases = it.leases.iter().map(|l| (l.session, l.lid, l.out, l.exp, l.booked)).collect();
        Self { central: it.central, rem: it.rem, at: it.at, revision: it.revision, leases }
    }
}

impl From<BucketV1> for Bucket {
    fn from(it: BucketV1) -> Self {
        let lease = |(session, lid, out, exp, booked)| Lease { session, lid, out, exp, booked };
        let leases: SmallVec<_> = it.leases.into_iter().map(lease).collect();
        Self { central: it.central, rem: it.rem, at: it.at, revision: it.revision, leases }
    }
}

impl From<&Table> for TableV1 {
    fn from(it: &Table) -> Self {
        let defaults = it.amounts.defaults.iter().map(|(id, limit)| (*id, amount(limit))).collect();
        let tenants = it.amounts.tenants.iter().map(|(id, limit)| (*id, amount(limit))).collect();
        Self { revision: it.revision, from: it.from, defaults, tenants }
    }
}

impl From<TableV1> for Table {
    fn from(it: TableV1) -> Self {
        let defaults = it.defaults.into_iter().map(|(id, amount)| (id, limit(amount))).collect();
        let tenants = it.tenants.into_iter().map(|(id, amount)| (id, limit(amount))).collect();
        Self { revision: it.revision, from: it.from, amounts: Amounts { defaults, tenants }.into() }
    }
}

impl From<&State> for SnapshotV1 {
    fn from(state: &State) -> Self {
        let ledger = &state.ledger;
        let session = |(id, it): (&SessionId, &Session)| {
            let Session { node, nonce, last_seq, heard, leases_end } = *it;
            (*id, SessionV1 { node, nonce, last_seq, heard, leases_end })
        };
        let edition = |it: &Edition| (it.revision, it.tau, it.json.as_ref().to_owned(), it.request_id);
        let member = |(id, it): (&RaftId, &Member)| (*id, it.name.clone(), it.address.clone());
        let tally = &ledger.tally;
        let ghosts = ledger.ghosts.by_class.iter();
        Self {
            founded: state.founded.map(|founded| (founded.cluster_id, founded.secret)),
            members: state.members.by_id.iter().map(member).collect(),
            operation: state.members.operation.clone(),
            ended: state.members.ended.clone(),
            history: state.documents.history().map(edition).collect(),
            tau: ledger.tau,
            next_lid: ledger.next_lid,
            last_session: ledger.sessions.last,
            session_cursor: ledger.sessions.cursor,
            sessions: ledger.sessions.by_id.iter().map(session).collect(),
            tables: ledger.tables.0.iter().map(TableV1::from).collect(),
            ghosts: ghosts.map(|((limit, class), it)| (*limit, tenant(*class), it.into())).collect(),
            ghost_cursor: ledger.ghosts.cursor.map(|(limit, class)| (limit, tenant(class))),
            buckets: ledger.pages.iter().map(|(key, bucket)| (*key, bucket.into())).collect(),
            tally: [
                tally.opened,
                tally.refilled,
                tally.spent,
                tally.deemed_spent,
                tally.cut,
                tally.forgotten,
            ],
            sweep: (ledger.sweep.page as u64, ledger.sweep.after, ledger.sweep.floor),
        }
    }
}

impl TryFrom<SnapshotV1> for State {
    type Error = BadSnapshot;

    fn try_from(from: SnapshotV1) -> Result<Self, BadSnapshot> {
        let mut ledger = Ledger::default();
        let editions = from.history.into_iter();
        let history = editions.map(|(revision, tau, json, request_id)| {
            let json = json.into();
            Edition { revision, tau, json, request_id }
        });
        if from.tables.is_empty() {
            return Err(BadSnapshot("found no table of amounts, wanted at least one".to_owned()));
        }
        let page = usize::try_from(from.sweep.0).ok().filter(|page| *page < ledger.pages.count());
        let page = page.ok_or_else(|| BadSnapshot("the sweep stands on no page".to_owned()))?;
        let sessions: BTreeMap<SessionId, Session> = from
            .sessions
            .into_iter()
            .map(|(id, it)| {
                let SessionV1 { node, nonce, last_seq, heard, leases_end } = it;
                (id, Session { node, nonce, last_seq, heard, leases_end })
            })
            .collect();
        ledger.tau = from.tau;
        ledger.next_lid = from.next_lid;
        ledger.sessions = Sessions::restored(from.last_session, from.session_cursor, sessions);
        ledger.tables = Tables(from.tables.into_iter().map(Table::from).collect());
        let ghosts = from.ghosts.into_iter();
        ledger.ghosts = Ghosts {
            by_class: ghosts.map(|(limit, tenant, it)| ((limit, class(tenant)), it.into())).collect(),
            cursor: from.ghost_cursor.map(|(limit, tenant)| (limit, class(tenant))),
        };
        for (key, bucket) in from.buckets {
            ledger.census.add(key);
            ledger.pages.set(key, bucket.into());
        }
        let [opened, refilled, spent, deemed_spent, cut, forgotten] = from.tally;
        ledger.tally = Tally { opened, refilled, spent, deemed_spent, cut, forgotten };
        ledger.sweep = Sweep { page, after: from.sweep.1, floor: from.sweep.2 };
        let members = from.members.into_iter();
        Ok(Self {
            founded: from.founded.map(|(cluster_id, secret)| Founded { cluster_id, secret }),
            members: Members {
                by_id: members.map(|(id, name, address)| (id, Member { name, address })).collect(),
                operation: from.operation,
                ended: from.ended,
            },
            documents: Documents::restored(history.collect()).map_err(BadSnapshot)?,
            ledger,
        })
    }
}

/// A snapshot that is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot can not be read: {0}")]
pub struct BadSnapshot(String);
