//! The whole state as plain data, in parts of a bounded size: what a snapshot file holds. A changed layout is another
//! version.
//!
//! ```text
//! head ─▶ editions ─▶ (table ─▶ its tenants)… ─▶ ghosts ─▶ buckets, page by page ─▶ end
//! ```
//! Lists are in ascending order of their keys, buckets in that order within each page.

use std::collections::{BTreeMap, VecDeque};

use config::ids::NodeName;
use config::quota::Limit;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::amounts::{Amounts, Class, Table, Tables};
use super::bucket::{Bucket, Lease, Tally};
use super::census::BUCKETS_MAX;
use super::command::Member;
use super::documents::{Documents, Edition};
use super::ghosts::Ghosts;
use super::ids::{Key, LeaseId, LimitId, RaftId, Revision, SessionId, Tau};
use super::ledger::{Ledger, Sweep};
use super::members::{Ended, Members, Operation};
use super::sessions::{Session, Sessions};
use super::{Founded, State};

/// The most elements of one part: some 60 KiB of buckets.
pub const PART_MAX: usize = 1024;

/// What is small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadV1 {
    /// Cluster id and secret.
    pub founded: Option<(u128, [u8; 16])>,
    /// Raft id, name, address.
    pub members: Vec<(RaftId, NodeName, String)>,
    /// Of these, the ones that never were members.
    pub waiting: Vec<RaftId>,
    /// The membership operation under way.
    pub operation: Option<Operation>,
    /// The last ones that ended, the newest at the end.
    pub ended: VecDeque<Ended>,
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
    /// Where the sweep of the ghosts is.
    pub ghost_cursor: Option<(LimitId, Option<u64>)>,
    /// Opened, refilled, spent, deemed spent, cut, forgotten.
    pub tally: [i128; 6],
    /// Where the sweep of the buckets is: page, last key, floor.
    pub sweep: (u64, Option<Key>, Revision),
}

/// What follows the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartV1 {
    /// A revision of the document: number, cluster time, canonical JSON, request.
    Edition(Revision, Tau, String, u128),
    /// A dated table of amounts: the document's revision, since when, amounts for all.
    Table(Revision, Tau, Vec<(LimitId, Amount)>),
    /// Amounts of tenants, in the table before: at most [`PART_MAX`].
    Tenants(Vec<((LimitId, u64), Amount)>),
    /// Ghosts: limit, tenant (none: all others), bucket; at most [`PART_MAX`].
    Ghosts(Vec<(LimitId, Option<u64>, BucketV1)>),
    /// Buckets: at most [`PART_MAX`].
    Buckets(Vec<(Key, BucketV1)>),
    /// That was all: how many buckets, and the state's digest.
    End(u64, u64),
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

impl From<&State> for HeadV1 {
    fn from(state: &State) -> Self {
        let ledger = &state.ledger;
        let session = |(id, it): (&SessionId, &Session)| {
            let Session { node, nonce, last_seq, heard, leases_end } = *it;
            (*id, SessionV1 { node, nonce, last_seq, heard, leases_end })
        };
        let member = |(id, it): (&RaftId, &Member)| (*id, it.name.clone(), it.address.clone());
        let Tally { opened, refilled, spent, deemed_spent, cut, forgotten } = ledger.tally;
        Self {
            founded: state.founded.map(|founded| (founded.cluster_id, founded.secret)),
            members: state.members.by_id.iter().map(member).collect(),
            waiting: state.members.waiting.iter().copied().collect(),
            operation: state.members.operation.clone(),
            ended: VecDeque::clone(&state.members.ended),
            tau: ledger.tau,
            next_lid: ledger.next_lid,
            last_session: ledger.sessions.last,
            session_cursor: ledger.sessions.cursor,
            sessions: ledger.sessions.by_id.iter().map(session).collect(),
            ghost_cursor: ledger.ghosts.cursor.map(|(limit, class)| (limit, tenant(class))),
            tally: [opened, refilled, spent, deemed_spent, cut, forgotten],
            sweep: (ledger.sweep.page as u64, ledger.sweep.after, ledger.sweep.floor),
        }
    }
}

/// What follows a state's head, one part after the other; none of them is made before it is asked for.
pub fn parts(state: &State) -> impl Iterator<Item = PartV1> {
    let ledger = &state.ledger;
    let edition =
        |it: &Edition| PartV1::Edition(it.revision, it.tau, it.json.as_ref().to_owned(), it.request_id);
    let table = |it: &Table| {
        let defaults = it.amounts.defaults.iter().map(|(id, limit)| (*id, amount(limit))).collect();
        PartV1::Table(it.revision, it.from, defaults)
    };
    let tenants = |it: &'_ Table| {
        let amounts = it.amounts.clone();
        let mut after = None;
        std::iter::from_fn(move || {
            use std::ops::Bound::{Excluded, Unbounded};
            let rest = amounts.tenants.range((after.map_or(Unbounded, Excluded), Unbounded));
            let part: Vec<_> = rest.take(PART_MAX).map(|(id, limit)| (*id, amount(limit))).collect();
            after = part.last().map(|(id, _)| *id).or(after);
            (!part.is_empty()).then_some(PartV1::Tenants(part))
        })
    };
    let ghosts = ledger.ghosts.by_class.iter();
    let ghosts = ghosts.map(|((limit, class), it)| (*limit, tenant(*class), it.into()));
    let buckets = ledger.pages.iter().map(|(key, bucket)| (*key, bucket.into()));
    let end = || PartV1::End(ledger.buckets(), state.digest());
    (state.documents.history().map(edition))
        .chain(ledger.tables.0.iter().flat_map(move |it| std::iter::once(table(it)).chain(tenants(it))))
        .chain(in_parts(ghosts).map(PartV1::Ghosts))
        .chain(in_parts(buckets).map(PartV1::Buckets))
        .chain(std::iter::once_with(end))
}

fn in_parts<T>(mut all: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let part: Vec<T> = all.by_ref().take(PART_MAX).collect();
        (!part.is_empty()).then_some(part)
    })
}

/// A state that is being put together from its parts.
#[derive(Debug)]
pub struct Rebuilt {
    state: State,
    history: VecDeque<Edition>,
    tables: Vec<(Revision, Tau, Amounts)>,
}

impl Rebuilt {
    /// Begins with the head.
    ///
    /// # Errors
    /// [`BadSnapshot`].
    pub fn new(head: HeadV1) -> Result<Self, BadSnapshot> {
        let mut ledger = Ledger::default();
        let page = usize::try_from(head.sweep.0).ok().filter(|page| *page < ledger.pages.count());
        let page = page.ok_or_else(|| BadSnapshot("the sweep stands on no page".to_owned()))?;
        let session = |(id, it): (SessionId, SessionV1)| {
            let SessionV1 { node, nonce, last_seq, heard, leases_end } = it;
            (id, Session { node, nonce, last_seq, heard, leases_end })
        };
        let sessions: BTreeMap<SessionId, Session> = head.sessions.into_iter().map(session).collect();
        ledger.tau = head.tau;
        ledger.next_lid = head.next_lid;
        ledger.sessions = Sessions::restored(head.last_session, head.session_cursor, sessions);
        let cursor = head.ghost_cursor.map(|(limit, tenant)| (limit, class(tenant)));
        ledger.ghosts = Ghosts { by_class: BTreeMap::new(), cursor };
        let [opened, refilled, spent, deemed_spent, cut, forgotten] = head.tally;
        ledger.tally = Tally { opened, refilled, spent, deemed_spent, cut, forgotten };
        ledger.sweep = Sweep { page, after: head.sweep.1, floor: head.sweep.2 };
        let members = head.members.into_iter();
        let state = State {
            founded: head.founded.map(|(cluster_id, secret)| Founded { cluster_id, secret }),
            members: Members {
                by_id: members.map(|(id, name, address)| (id, Member { name, address })).collect(),
                waiting: head.waiting.into_iter().collect(),
                operation: head.operation,
                ended: head.ended.into(),
            },
            documents: Documents::default(),
            ledger,
        };
        Ok(Self { state, history: VecDeque::new(), tables: Vec::new() })
    }

    /// Adds the next part; the whole state when it was the end.
    ///
    /// # Errors
    /// [`BadSnapshot`]: this is good for nothing then.
    pub fn add(&mut self, part: PartV1) -> Result<Option<State>, BadSnapshot> {
        let ledger = &mut self.state.ledger;
        match part {
            PartV1::Edition(revision, tau, json, request_id) => {
                self.history.push_back(Edition { revision, tau, json: json.into(), request_id });
            }
            PartV1::Table(revision, from, defaults) => {
                let defaults = defaults.into_iter().map(|(id, amount)| (id, limit(amount))).collect();
                self.tables.push((revision, from, Amounts { defaults, tenants: BTreeMap::new() }));
            }
            PartV1::Tenants(tenants) => {
                let (_, _, amounts) = self.tables.last_mut().ok_or_else(|| {
                    BadSnapshot("found amounts of tenants, wanted their table before them".to_owned())
                })?;
                amounts.tenants.extend(tenants.into_iter().map(|(id, amount)| (id, limit(amount))));
            }
            PartV1::Ghosts(ghosts) => {
                let ghosts = ghosts.into_iter();
                let ghosts = ghosts.map(|(limit, tenant, it)| ((limit, class(tenant)), it.into()));
                ledger.ghosts.by_class.extend(ghosts);
            }
            PartV1::Buckets(buckets) => {
                for (key, bucket) in buckets {
                    if ledger.buckets() >= BUCKETS_MAX {
                        return Err(BadSnapshot(format!("found more than {BUCKETS_MAX} buckets")));
                    }
                    if !ledger.pages.set(key, bucket.into()) {
                        return Err(BadSnapshot(format!("found a second bucket of {key:?}")));
                    }
                    ledger.census.add(key);
                }
            }
            PartV1::End(buckets, digest) => return self.end(buckets, digest).map(Some),
        }
        Ok(None)
    }

    fn end(&mut self, buckets: u64, digest: u64) -> Result<State, BadSnapshot> {
        let mut state = std::mem::take(&mut self.state);
        if self.tables.is_empty() {
            return Err(BadSnapshot("found no table of amounts, wanted at least one".to_owned()));
        }
        let tables = self.tables.drain(..);
        let table = |(revision, from, amounts): (Revision, Tau, Amounts)| Table {
            revision,
            from,
            amounts: amounts.into(),
        };
        state.ledger.tables = Tables(tables.map(table).collect());
        state.documents = Documents::restored(std::mem::take(&mut self.history)).map_err(BadSnapshot)?;
        let found = (state.ledger.buckets(), state.digest());
        if found != (buckets, digest) {
            return Err(BadSnapshot(format!(
                "found {} buckets and the digest {:016x}, wanted {buckets} and {digest:016x}",
                found.0, found.1
            )));
        }
        Ok(state)
    }
}

/// A snapshot that is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSnapshot(String);
