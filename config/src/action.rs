//! What becomes of a route's requests: forwarded to an upstream, split or parted over several, sent elsewhere, or answered
//! at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::UpstreamName;
use crate::path::{Template, parse_exact, parse_prefix};
use crate::units::Part;

/// One of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// They go there.
    Upstream(UpstreamName),
    /// Their clients are told to ask elsewhere.
    Redirect(Redirect),
    /// The gateway answers them itself.
    Respond(Respond),
    /// They go to one of several upstreams.
    Split(Split),
    /// They go to the upstream that holds their part.
    Partition(Partition),
}

impl Action {
    /// Where requests may go. None: the gateway answers them.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamName> {
        let (one, branches, parts) = match self {
            Self::Upstream(name) => (Some(name), [].as_slice(), None),
            Self::Split(split) => (None, split.branches.as_slice(), None),
            Self::Partition(partition) => (None, [].as_slice(), Some(partition)),
            Self::Redirect(_) | Self::Respond(_) => (None, [].as_slice(), None),
        };
        let parts = parts.into_iter().flat_map(|it| it.upstreams.values().chain(&it.otherwise));
        one.into_iter().chain(branches.iter().map(|branch| &branch.upstream)).chain(parts)
    }

    /// Its key in the document.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Upstream(_) => "upstream",
            Self::Redirect(_) => "redirect",
            Self::Respond(_) => "respond",
            Self::Split(_) => "split",
            Self::Partition(_) => "partition",
        }
    }
}

/// Where a client is sent. What is left out stays as the client asked for it; the query stays always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// One of [`Redirect::STATUSES`].
    pub status: u16,
    /// With it, `host` or `port` the location is absolute. Without it, an absolute one is `http`, as the gateway speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// In lower case, without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// ≥ 1. Without it, an absolute location has its scheme's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The new path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<NewPath>,
}

impl Redirect {
    /// What its status may be.
    pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
}

/// How the other place is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Port 80.
    Http,
    /// Port 443.
    Https,
}

impl Scheme {
    /// As a location has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The one that a location leaves out.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A path in place of a request's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub enum NewPath {
    /// This one.
    Path(String),
    /// This one in place of the matched prefix; what stands behind it stays. Only with a prefix.
    Prefix(String),
    /// Made of what the matched template captures. Only with a template that has all these captures.
    Template(Template),
}

impl NewPath {
    /// Its key in the document.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Prefix(_) => "prefix",
            Self::Template(_) => "template",
        }
    }
}

/// The canonical form of a new path.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Path(String),
    Prefix(String),
    Template(String),
}

impl TryFrom<Form> for NewPath {
    type Error = String;
    fn try_from(form: Form) -> Result<Self, String> {
        let path = match form {
            Form::Path(text) => parse_exact(&text).map(Self::Path),
            Form::Prefix(text) => parse_prefix(&text).map(Self::Prefix),
            Form::Template(text) => Template::parse_new(&text).map(Self::Template),
        };
        path.map_err(|error| format!("found a bad path, wanted {}", error.wanted))
    }
}

impl From<NewPath> for Form {
    fn from(path: NewPath) -> Form {
        match path {
            NewPath::Path(text) => Form::Path(text),
            NewPath::Prefix(text) => Form::Prefix(text),
            NewPath::Template(template) => Form::Template(template.as_str().to_owned()),
        }
    }
}

/// An answer of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Respond {
    /// Of [`Respond::STATUSES`].
    pub status: u16,
    /// At most [`Respond::BODY_BYTES_MAX`]; none with a status of [`Respond::BODILESS`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Of the body, if there is one; without it, `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

impl Respond {
    /// What its status may be.
    pub const STATUSES: RangeInclusive<u16> = 200..=599;
    /// Its body.
    pub const BODY_BYTES_MAX: usize = 64 << 10;
    /// Statuses whose answers have no body. Source: RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
    pub const BODILESS: [u16; 3] = [204, 205, 304];
}

/// Several upstreams, and who goes to which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Requests that are alike in this go to the same branch as long as the weights stay.
    pub by: SplitBy,
    /// Of [`Split::BRANCHES`], with different upstreams. When weights change, only the shares between their sums move.
    pub branches: Vec<Branch>,
    /// For testers, no authorization: whoever sends it chooses.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub chosen_by: Option<ChosenBy>,
}

impl Split {
    /// How many branches there are.
    pub const BRANCHES: RangeInclusive<usize> = 2..=8;
}

/// What a request's branch follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// The token's tenant.
    Tenant,
    /// The token's client.
    Client,
    /// The client's address; IPv6 by its /64.
    Address,
    /// Each request anew.
    Request,
}

/// One upstream of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Where its requests go.
    pub upstream: UpstreamName,
    /// Its share of all weights, at most [`Branch::WEIGHT_MAX`]. Not all are 0.
    pub weight: u32,
}

impl Branch {
    /// The largest weight.
    pub const WEIGHT_MAX: u32 = 1000;
}

/// What of a request may name its branch's upstream itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChosenBy {
    /// The header field of this name, in lower case.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
}

/// Several upstreams, each of which holds some parts of what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// What names a request's part.
    pub by: PartitionBy,
    /// Part, compared byte by byte → where its requests go. At least one, at most [`Partition::PARTS_MAX`]; several may share
    /// an upstream.
    pub upstreams: BTreeMap<String, UpstreamName>,
    /// Where requests go that name another part, or none, or several; none: they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<UpstreamName>,
}

impl Partition {
    /// How many parts there are.
    pub const PARTS_MAX: usize = 1_000;
    /// The longest name of a part.
    pub const PART_BYTES_MAX: usize = 256;
}

/// What of a request names its part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionBy {
    /// The token's tenant.
    Tenant,
    /// The token's claim of this name.
    Claim(String),
    /// The header field of this name, in lower case. Whoever sends it chooses.
    Header(String),
}

/// Copies of a route's requests, sent to another upstream whose answers nobody reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Where copies go: none of the route's own.
    pub upstream: UpstreamName,
    /// Of all requests, each drawn by itself.
    pub share: Part,
    /// A request with a longer body is not copied. At most [`Mirror::BODY_BYTES_MAX`].
    pub body_bytes_max: u64,
    /// From the request's head to the last byte of the answer to its copy.
    pub timeout: Duration,
}

impl Mirror {
    /// As much of each body is held at once.
    pub const BODY_BYTES_MAX: u64 = 1 << 20;
    /// For a document that does not say.
    pub const BODY_BYTES_DEFAULT: u64 = 64 << 10;
    /// For a document that does not say.
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
}

/// What an upstream sees in place of what the client sent. The query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The new path; none: the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<NewPath>,
    /// What `Host` says, perhaps with a port; none: the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Header fields that a route changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// On the way to the upstream.
    #[serde(default, skip_serializing_if = "Edits::is_empty")]
    pub request: Edits,
    /// Of the upstream's answers, redirects and answers of the gateway's own, but not of refusals.
    #[serde(default, skip_serializing_if = "Edits::is_empty")]
    pub response: Edits,
}

impl Headers {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

/// Changes of header fields, carried out in this order. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edits {
    /// All fields of these names go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// The only field of its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// One more field of its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
}

impl Edits {
    /// Names in each of the three.
    pub const LEN_MAX: usize = 32;
    /// The longest value.
    pub const VALUE_BYTES_MAX: usize = 1 << 10;
    /// Fields that belong to the connection, the message's framing or the gateway.
    const NOT_TO_BE_EDITED: [&str; 13] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    ];

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether a field of this name may be removed.
    pub fn may_remove(name: &str) -> bool {
        !Self::NOT_TO_BE_EDITED.contains(&name) && !name.starts_with("quorumgate-")
    }

    /// Whether a field of this name may be set or added. No route lends its clients a credential.
    pub fn may_set(name: &str) -> bool {
        name != "authorization" && Self::may_remove(name)
    }
}
