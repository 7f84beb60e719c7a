//! Routes: which request goes where, who may send it, and which quotas count it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::action::{Action, Headers, Mirror, Partition, PartitionBy, Rewrite};
use crate::flag::FlagName;
use crate::ids::{IssuerName, QuotaName, RouteName, UpstreamName};
use crate::lifecycle::Lifecycle;
use crate::path::Path;
use crate::pattern::Pattern;
use crate::tree::quote;

/// Which requests a route takes. All given conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Without the query.
    pub path: Path,
    /// Methods in capitals; empty: all.
    pub methods: Vec<String>,
    /// Hosts in lower case without a port, or `*.` and what one or more labels stand before; empty: all.
    pub hosts: Vec<String>,
    /// Field name in lower case → condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Condition>,
    /// Parameter name, decoded → condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Condition>,
    /// Cookie name → condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, Condition>,
    /// Networks of the connection's other end; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpNet>,
    /// Claim → texts, of which the token's has one. Only with access by token, of which one of its issuers then is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, Vec<String>>,
}

impl Match {
    /// Methods, hosts, and sources, of one route.
    pub const ALTERNATIVES_MAX: usize = 64;
    /// Conditions on headers, on query parameters, on cookies, and on claims, of one route.
    pub const CONDITIONS_MAX: usize = 16;
    /// Different claims that routes of one document look at: so many texts are kept of each token.
    pub const CLAIMS_MAX: usize = 32;
    /// The longest name of a claim.
    pub const CLAIM_BYTES_MAX: usize = 256;

    /// All regular expressions.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        let path = match &self.path {
            Path::Regex(path) => Some(path.pattern()),
            Path::Prefix(_) | Path::Exact(_) | Path::Template(_) => None,
        };
        let conditions = self.headers.values().chain(self.query.values()).chain(self.cookies.values());
        path.into_iter().chain(conditions.filter_map(Condition::pattern))
    }

    /// All requests with this path.
    pub fn of(path: Path) -> Self {
        let (methods, hosts, sources) = (Vec::new(), Vec::new(), Vec::new());
        let (headers, query, cookies) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { path, methods, hosts, headers, query, cookies, sources, claims: BTreeMap::new() }
    }
}

/// What the values of one name must be like. A name may have several values, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub enum Condition {
    /// One of them is this.
    Equal(String),
    /// One of them fits, as a whole.
    Regex(Pattern),
    /// There is one, or there is none.
    Present(bool),
}

impl Condition {
    /// A text to compare with.
    pub const TEXT_BYTES_MAX: usize = 512;

    fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::Regex(pattern) => Some(pattern),
            Self::Equal(_) | Self::Present(_) => None,
        }
    }
}

/// How a reader of the document writes it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(text) => f.write_str(&quote(text)),
            Self::Regex(pattern) => write!(f, "{{regex: {}}}", quote(pattern.as_str())),
            Self::Present(present) => write!(f, "{{present: {present}}}"),
        }
    }
}

/// The canonical form of a condition.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Equal(String),
    Kind(Kind),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Regex(Pattern),
    Present(bool),
}

impl From<Form> for Condition {
    fn from(form: Form) -> Self {
        match form {
            Form::Equal(text) => Self::Equal(text),
            Form::Kind(Kind::Regex(pattern)) => Self::Regex(pattern),
            Form::Kind(Kind::Present(present)) => Self::Present(present),
        }
    }
}

impl From<Condition> for Form {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Equal(text) => Self::Equal(text),
            Condition::Regex(pattern) => Self::Kind(Kind::Regex(pattern)),
            Condition::Present(present) => Self::Kind(Kind::Present(present)),
        }
    }
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
    /// Of routes that take the same request, one with a higher priority wins. Of [`Route::PRIORITIES`], zero by default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i16,
    /// What becomes of them.
    #[serde(flatten)]
    pub action: Action,
    /// Who may send them.
    pub access: Access,
    /// In the document's order; at most 8.
    pub charges: Vec<Charge>,
    /// From the request's head to the response's head, stands over the upstream's.
    pub timeout: Option<Duration>,
    /// Whether the matched prefix is cut off before forwarding. Only with a prefix.
    pub strip_prefix: bool,
    /// What the upstream sees in place of the request's own path and host. Only where there is an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Protocols that a client may switch to, in lower case; at most 8. Only where there is an upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<String>,
    /// Header fields that are changed on the way.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// Who else gets a copy. Only where there is an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Where its version stands in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Flags of which the upstream is told whether they are on; at most [`Route::FLAGS_MAX`]. Only where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<FlagName>,
}

impl Route {
    /// The most protocols that a client may switch to.
    pub const UPGRADES_MAX: usize = 8;
    /// The most quotas that one request is charged to.
    pub const CHARGES_MAX: usize = 8;
    /// Flags of one route.
    pub const FLAGS_MAX: usize = 16;
    /// What a priority may be.
    pub const PRIORITIES: RangeInclusive<i16> = -1000..=1000;

    /// Where its requests may go: one, or each branch; none: the gateway answers them itself.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamName> {
        self.action.upstreams()
    }

    /// Claims that it looks at to find its way, besides those that its issuers name tenant, client and scopes by.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        let parted = match &self.action {
            Action::Partition(Partition { by: PartitionBy::Claim(name), .. }) => Some(name),
            _ => None,
        };
        self.matches.claims.keys().chain(parted).map(String::as_str)
    }

    /// The prefix that is cut off before forwarding.
    pub fn prefix_to_strip(&self) -> Option<&str> {
        match &self.matches.path {
            Path::Prefix(prefix) if self.strip_prefix => Some(prefix),
            _ => None,
        }
    }
}

fn is_zero(priority: &i16) -> bool {
    *priority == 0
}
