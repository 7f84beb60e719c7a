//! What happened, as promises see it. Its debug form is a line of the history.

use std::sync::Arc;

use crate::clock::TrueNs;
use crate::edition::Target;
use crate::host::HostNumber;

/// Names one request of a run.
pub type RequestNumber = u64;

/// What a caller shows for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// One that is good.
    Good,
    /// None at all.
    None,
    /// One whose signature is another's.
    Forged,
    /// One that ended long ago.
    Expired,
}

impl Token {
    /// As plans have them.
    pub const WORDS: [(&str, Self); 4] =
        [("good", Self::Good), ("none", Self::None), ("forged", Self::Forged), ("expired", Self::Expired)];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, token)| *token == self).expect("every token has a word").0
    }
}

/// A request as its caller means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub number: RequestNumber,
    /// The node it is sent to.
    pub node: HostNumber,
    /// The route, and what is asked of it.
    pub route: Arc<Target>,
    /// Whether sending it twice means the same as once.
    pub idempotent: bool,
    /// As claimed by the token.
    pub tenant: String,
    /// As claimed by the token.
    pub client: String,
    /// What it shows.
    pub token: Token,
}

/// Tokens of one bucket that a request was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The quota's name.
    pub quota: String,
    /// The bucket: limit, tenant and value, hashed.
    pub key: String,
    /// Tokens.
    pub cost: u64,
    /// The true time of the admission.
    pub at: TrueNs,
}

/// How much a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The node.
    pub host: HostNumber,
    /// Tokens in its leases.
    pub tokens: u64,
    /// Keys with a lease cell, or that had one lately.
    pub cells: u64,
    /// Requests that wait for tokens.
    pub waiting: u64,
    /// Keys with a bucket in the ledger.
    pub buckets: u64,
    /// Gateways' lives that the ledger knows.
    pub sessions: u64,
    /// Entries in its log.
    pub log_entries: u64,
}

/// What became of a request, as its caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A whole answer.
    Answered {
        /// Its status.
        status: u16,
        /// The request that the upstream says it answers.
        echo: Option<RequestNumber>,
        /// The gateway's name for what is wrong; empty: nothing, or the upstream answered.
        why: String,
    },
    /// The connection failed, or was never made. `reused`: it had served before, and may have been closed since.
    Broken { reused: bool },
    /// Neither, for as long as a caller waits.
    Silent,
}

/// What became of a request, as those who count answers tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// 2xx or 3xx.
    Served,
    /// 429.
    OverQuota,
    /// 401 or 403.
    Unauthorized,
    /// Any other status.
    Failed,
    /// None.
    Broken,
}

impl Fate {
    /// Of which sort it is.
    pub fn answer(&self) -> Answer {
        match self {
            Self::Answered { status: 200..=399, .. } => Answer::Served,
            Self::Answered { status: 429, .. } => Answer::OverQuota,
            Self::Answered { status: 401 | 403, .. } => Answer::Unauthorized,
            Self::Answered { .. } => Answer::Failed,
            Self::Broken { .. } | Self::Silent => Answer::Broken,
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process was started on a host.
    Began { host: HostNumber, life: u64 },
    /// A process has ended by itself; `fault`: of the program, not of its disk or its setting.
    Ended { host: HostNumber, why: String, fault: bool },
    /// A host's process was killed, or its machine lost its power.
    Down { host: HostNumber },
    /// A host's process stands still, or goes on.
    Paused { host: HostNumber, paused: bool },
    /// A trouble of the weather has begun.
    Trouble(String),
    /// A trouble of the weather has ended.
    Cleared(String),
    /// All troubles have ended.
    Calm,
    /// A node applied an entry. After it, gateways may have spent `given` tokens: those that the ledger booked as spent, and
    /// those in leases.
    Applied { host: HostNumber, index: u64, term: u64, digest: u64, given: u64 },
    /// A node leads a term.
    Leads { host: HostNumber, term: u64 },
    /// A node installed a snapshot.
    Installed { host: HostNumber, index: u64 },
    /// A caller sent a request.
    Sent(Request),
    /// A caller that waits for too many answers of a node did not send that node one more.
    HeldBack { node: HostNumber, route: Arc<Target>, tenant: String, client: String },
    /// What became of it.
    Done { number: RequestNumber, node: HostNumber, fate: Fate },
    /// A caller or an upstream took a message for whole that is not the one that was sent.
    Garbled { number: RequestNumber, found: String },
    /// A caller began to send a head to whose end it never comes; `number` names its connection.
    Dawdles { number: RequestNumber, node: HostNumber },
    /// Its connection has ended.
    TurnedAway { number: RequestNumber },
    /// A request reached an upstream through a node.
    Reached { number: RequestNumber, node: HostNumber, upstream: Arc<str>, charges: Vec<Charge> },
    /// The operator sends a document with these amounts.
    Ordered { edition: usize },
    /// The cluster says that it is in force.
    InForce { edition: usize, revision: u64 },
    /// What a node says of itself.
    Status { host: HostNumber, revision: u64, applied: u64 },
    /// How much a node holds, by its own count.
    Holds(Held),
    /// After all troubles, every node is ready and shows the same.
    Converged { revision: u64, applied: u64 },
}
