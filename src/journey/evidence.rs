//! What each step hands to the next: proof that it happened.
//!
//! Fields are private and each value is made of the one before, so that a request reaches the upstream only through all
//! the steps, in their order. What a step has found out (a rule, an identity, an admission) goes in with it.

use std::sync::Arc;

use cluster::state::ids::Revision;
use config::ids::{IssuerName, TenantId};
use http::request::Parts;
use smallvec::SmallVec;

use super::received::{Arrival, Received};
use crate::quota::{Admission, Charge};
use crate::upstream::body::ClientBody;

/// What one request was charged to.
pub type Charges = SmallVec<[Charge; 4]>;

/// Charges that were spent, all at one instant.
#[derive(Debug)]
pub struct Spent {
    /// In the document's order.
    pub charges: Charges,
    /// From the keeper.
    pub admission: Admission,
}

/// A route as this node uses it, compiled from one revision of the document; shared by all its requests.
#[derive(Debug)]
pub struct RouteRule {
    /// As the document has it.
    pub route: config::route::Route,
    /// Where its requests go.
    pub upstream: Arc<config::upstream::Upstream>,
    /// The document's revision.
    pub revision: Revision,
}

/// Who sent a request, as a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose token it was.
    pub issuer: IssuerName,
    /// From the issuer's tenant claim; none: the token has none.
    pub tenant: Option<TenantId>,
    /// From the issuer's client claim; none: the token has none.
    pub client: Option<Arc<str>>,
}

/// The router knows where it goes.
#[derive(Debug)]
pub struct Routed {
    received: Received,
    rule: Arc<RouteRule>,
}

impl Routed {
    /// By `router::route` alone.
    pub(crate) fn new(received: Received, rule: Arc<RouteRule>) -> Self {
        Self { received, rule }
    }

    /// The request.
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// Its route.
    pub fn rule(&self) -> &Arc<RouteRule> {
        &self.rule
    }
}

/// Within the quotas that count by address or route.
#[derive(Debug)]
pub struct Screened {
    routed: Routed,
    spent: Spent,
}

impl Screened {
    /// By `quota::screen` alone.
    pub(crate) fn new(routed: Routed, spent: Spent) -> Self {
        Self { routed, spent }
    }

    /// The request.
    pub fn received(&self) -> &Received {
        &self.routed.received
    }

    /// Its route.
    pub fn rule(&self) -> &Arc<RouteRule> {
        &self.routed.rule
    }
}

/// Allowed to use its route.
#[derive(Debug)]
pub struct Authenticated {
    screened: Screened,
    identity: Option<Arc<Identity>>,
}

impl Authenticated {
    /// By `auth::authenticate` alone. No identity: the route is public.
    pub(crate) fn new(screened: Screened, identity: Option<Arc<Identity>>) -> Self {
        Self { screened, identity }
    }

    /// The request.
    pub fn received(&self) -> &Received {
        self.screened.received()
    }

    /// Its route.
    pub fn rule(&self) -> &Arc<RouteRule> {
        self.screened.rule()
    }

    /// Who sent it; none: the route is public.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }
}

/// Debited: whatever happens now, its tokens are spent.
#[derive(Debug)]
pub struct Admitted {
    authenticated: Authenticated,
    spent: Spent,
}

impl Admitted {
    /// By `quota::admit` alone.
    pub(crate) fn new(authenticated: Authenticated, spent: Spent) -> Self {
        Self { authenticated, spent }
    }

    /// Its route.
    pub fn rule(&self) -> &Arc<RouteRule> {
        self.authenticated.rule()
    }

    /// What the screen took before authentication, then what was taken after it.
    pub fn spent(&self) -> [&Spent; 2] {
        [&self.authenticated.screened.spent, &self.spent]
    }

    /// For the upstream.
    pub(crate) fn into_parts(self) -> (Parts, ClientBody, Arrival, [Spent; 2]) {
        let Screened { routed, spent } = self.authenticated.screened;
        let (parts, body, arrival) = routed.received.into_parts();
        (parts, body, arrival, [spent, self.spent])
    }
}
