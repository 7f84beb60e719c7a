//! Why the gateway answered in the upstream's place.
//!
//! The `Display` text is for logs. What the client is told, and with which status, is decided in `response` alone.

use std::sync::Arc;
use std::time::Duration;

use config::ids::{UpstreamName, VersionName};
use http::Method;

use crate::auth::AuthRefusal;
use crate::quota::{QuotaRule, Refused, Violation};

/// Whose fault a refusal was: decides log level and who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The client's request.
    Client,
    /// The service behind the gateway.
    Upstream,
    /// The gateway or its cluster.
    Gateway,
}

/// Why the gateway answered in the upstream's place. One variant a reason.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request can be read in two ways, or in none.
    #[error("malformed request: {why}")]
    Malformed {
        /// For the log and the client.
        why: &'static str,
    },
    /// The head has more fields than this node takes.
    #[error("more than {fields_max} fields")]
    TooManyFields {
        /// `limits.headers_max`.
        fields_max: usize,
    },
    /// The body is larger than this node takes.
    #[error("body larger than {bytes_max} bytes")]
    BodyTooLarge {
        /// `limits.body_bytes_max`.
        bytes_max: u64,
    },
    /// The client fell silent inside its body, or sends too little of it.
    #[error("client too slow inside its body")]
    BodyTooSlow,
    /// The client went away inside its body; nobody reads the answer.
    #[error("client went away inside its body")]
    ClientGone,
    /// Something of HTTP that this gateway does not do.
    #[error("not supported: {what}")]
    NotSupported {
        /// For the log and the client.
        what: &'static str,
    },

    /// Something other than 100 is expected.
    #[error("an expectation other than 100-continue")]
    ExpectationFailed,

    /// No gateway document was applied yet.
    #[error("no gateway document was applied yet")]
    NoConfiguration,
    /// The view may be older than its lease allows: a revoked policy could be in force.
    #[error("the view of the cluster is stale")]
    StaleView,

    /// No route takes this host and path.
    #[error("no route for {method} {path}")]
    NoRoute {
        /// The request's.
        method: Method,
        /// The request's.
        path: String,
    },
    /// Routes take this host and path, with other methods.
    #[error("{method} not allowed, but {}", allowed.join(", "))]
    MethodNotAllowed {
        /// The request's.
        method: Method,
        /// Sorted, without repetition.
        allowed: Vec<String>,
    },

    /// The route's version has ended.
    #[error("version {version} is gone")]
    VersionGone {
        /// Which.
        version: VersionName,
    },
    /// No upstream of its route holds its part.
    #[error("no upstream of its route holds its part")]
    NoPartition,

    /// The token is missing, not good, or grants too little.
    #[error(transparent)]
    Auth(#[from] AuthRefusal),

    /// A quota is used up: a leader said so.
    #[error("over quota {} for {retry_after:?}", names(violated.iter().map(|violation| &violation.standing.quota)))]
    OverQuota {
        /// At least one.
        violated: Vec<Violation>,
        /// When tokens may be there.
        retry_after: Duration,
    },
    /// No leader could say in time whether the quota allows it.
    #[error("quota undecided: {}", names(quotas))]
    QuotaUndecided {
        /// Those that nobody could decide.
        quotas: Vec<Arc<QuotaRule>>,
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// A quota has as many keys as the cluster keeps, and this request would be another one. The leader said so; a node
    /// is as well as before, which a 5xx would make load balancers doubt.
    #[error("no room for another key of quota {}", quota.name)]
    TooManyKeys {
        /// Which quota.
        quota: Arc<QuotaRule>,
        /// When there may be room.
        retry_after: Duration,
    },
    /// A bound of this process is reached.
    #[error("overloaded: {what}")]
    Overloaded {
        /// Which bound, for the log.
        what: &'static str,
    },

    /// No connection to the upstream came up.
    #[error("upstream {upstream}: no connection: {why}")]
    UpstreamUnreachable {
        /// Which.
        upstream: UpstreamName,
        /// For the log.
        why: String,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("upstream {upstream}: no response: {why}")]
    UpstreamBroken {
        /// Which.
        upstream: UpstreamName,
        /// For the log.
        why: String,
    },
    /// No response's head came in time.
    #[error("upstream {upstream}: no response within {waited:?}")]
    UpstreamSlow {
        /// Which.
        upstream: UpstreamName,
        /// How long it was given.
        waited: Duration,
    },

    /// A bug of ours.
    #[error("internal: {why}")]
    Internal {
        /// For the log.
        why: &'static str,
    },
}

fn names<'a>(quotas: impl IntoIterator<Item = &'a Arc<QuotaRule>>) -> String {
    quotas.into_iter().map(|quota| quota.name.as_str()).collect::<Vec<_>>().join(", ")
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Over { violated, retry_after } => Self::OverQuota { violated, retry_after },
            Refused::Undecided { quotas, retry_after } => Self::QuotaUndecided { quotas, retry_after },
            Refused::KeysFull { quota, retry_after } => Self::TooManyKeys { quota, retry_after },
            Refused::Overloaded => Self::Overloaded { what: "requests waiting for quotas" },
        }
    }
}

impl Refusal {
    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Malformed { .. }
            | Self::TooManyFields { .. }
            | Self::BodyTooLarge { .. }
            | Self::BodyTooSlow
            | Self::ClientGone
            | Self::NotSupported { .. }
            | Self::ExpectationFailed
            | Self::NoRoute { .. }
            | Self::MethodNotAllowed { .. }
            | Self::VersionGone { .. }
            | Self::NoPartition
            | Self::Auth(_)
            | Self::OverQuota { .. }
            | Self::TooManyKeys { .. } => Fault::Client,
            Self::UpstreamUnreachable { .. } | Self::UpstreamBroken { .. } | Self::UpstreamSlow { .. } => {
                Fault::Upstream
            }
            Self::NoConfiguration
            | Self::StaleView
            | Self::QuotaUndecided { .. }
            | Self::Overloaded { .. }
            | Self::Internal { .. } => Fault::Gateway,
        }
    }

    /// A stable word for metrics, logs and problem types.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::TooManyFields { .. } => "too-many-fields",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::BodyTooSlow => "body-too-slow",
            Self::ClientGone => "client-gone",
            Self::NotSupported { .. } => "not-supported",
            Self::ExpectationFailed => "expectation-failed",
            Self::NoConfiguration => "no-configuration",
            Self::StaleView => "stale-view",
            Self::NoRoute { .. } => "no-route",
            Self::MethodNotAllowed { .. } => "method-not-allowed",
            Self::VersionGone { .. } => "version-gone",
            Self::NoPartition => "no-partition",
            Self::Auth(AuthRefusal::Missing) => "no-token",
            Self::Auth(AuthRefusal::InsufficientScope { .. }) => "insufficient-scope",
            Self::Auth(AuthRefusal::MissingClaim { .. }) => "missing-claim",
            Self::Auth(_) => "invalid-token",
            Self::OverQuota { .. } => "over-quota",
            Self::QuotaUndecided { .. } => "quota-undecided",
            Self::TooManyKeys { .. } => "too-many-keys",
            Self::Overloaded { .. } => "overloaded",
            Self::UpstreamUnreachable { .. } => "upstream-unreachable",
            Self::UpstreamBroken { .. } => "upstream-broken",
            Self::UpstreamSlow { .. } => "upstream-slow",
            Self::Internal { .. } => "internal",
        }
    }
}
