//! Routes: which request goes where, who may send it, and which quotas count it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{IssuerName, QuotaName, RouteName, UpstreamName};

/// Which requests a route takes. All given conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Path prefix by whole segments: begins with `/`, has no trailing one (but the root itself).
    pub path: String,
    /// Methods in capitals; empty: all.
    pub methods: Vec<String>,
    /// Hosts in lower case without a port; empty: all.
    pub hosts: Vec<String>,
}

impl Match {
    /// Methods, and hosts, of one route.
    pub const ALTERNATIVES_MAX: usize = 64;
}

/// Who may use a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Anyone, without a token.
    Public,
    /// The bearer of a token of one of these issuers, which grants all these scopes.
    Token {
        /// At least one.
        issuers: Vec<IssuerName>,
        /// May be empty.
        scopes: Vec<String>,
    },
}

/// A quota that counts a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Which quota.
    pub quota: QuotaName,
    /// Tokens a request costs, 1 to `Limit::COST_MAX`, and no more than the smallest burst of the quota.
    pub cost: u64,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its name in logs and metrics.
    pub name: RouteName,
    /// Which requests it takes.
    pub matches: Match,
    /// Where they go.
    pub upstream: UpstreamName,
    /// Who may send them.
    pub access: Access,
    /// In the document's order; at most 8.
    pub charges: Vec<Charge>,
    /// From the request's head to the response's head, stands over the upstream's.
    pub timeout: Option<Duration>,
    /// Whether the matched prefix is cut off before forwarding.
    pub strip_prefix: bool,
}

impl Route {
    /// The most quotas that one request is charged to.
    pub const CHARGES_MAX: usize = 8;
}
