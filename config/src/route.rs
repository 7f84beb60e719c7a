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
        /// How long a node that has lost its cluster goes on with this route after its view's lease has ended. Zero, the
        /// default: not at all, so that what was revoked is refused everywhere once `apply` has answered. Whatever is
        /// changed meanwhile, a node without contact may serve the route as it was for so long.
        serve_stale_for: Duration,
    },
}

impl Access {
    /// The longest that a route may be served from a stale view.
    pub const SERVE_STALE_MAX: Duration = Duration::from_secs(24 * 3600);

    /// How long a token is believed under a stale view.
    pub fn serve_stale_for(&self) -> Duration {
        match self {
            Self::Public => Duration::ZERO,
            Self::Token { serve_stale_for, .. } => *serve_stale_for,
        }
    }
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
