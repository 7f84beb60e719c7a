//! What each step hands to the next: proof that it happened.
//!
//! Fields are private and each value is made of the one before, so that a request reaches the upstream only through all
//! the steps, in their order. What a step has found out (a rule, an identity, an admission) goes in with it.

use std::sync::Arc;

use cluster::state::ids::Revision;
use config::ids::{IssuerName, TenantId};

use super::received::Received;

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
}

impl Screened {
    /// By `quota::screen` alone.
    pub(crate) fn new(routed: Routed) -> Self {
        Self { routed }
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
