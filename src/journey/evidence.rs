//! What each step hands to the next: proof that it happened.
//!
//! Fields are private, and the step is the only constructor, made of the value before it: a request reaches the upstream
//! through all the steps, in their order, or not at all.

use std::sync::Arc;

use cluster::state::ids::{Key, Revision};
use config::ids::TenantId;
use http::HeaderValue;
use http::request::Parts;
use smallvec::SmallVec;

use super::Gateway;
use super::received::{Arrival, Received};
use crate::auth::{AccessRule, Bearer, Identity, Looked};
use crate::direct::Direct;
use crate::edits::FieldEdits;
use crate::quota::{Admission, Charge, Keeper, QuotaRule};
use crate::refusal::Refusal;
use crate::router::Asked;
use crate::router::flags::FlagsRule;
use crate::router::lifecycle::LifecycleRule;
use crate::router::partition::PartitionRule;
use crate::router::split::SplitRule;
use crate::upstream::body::ClientBody;
use crate::upstream::mirror::MirrorRule;
use crate::upstream::upgrade;

/// A route as this node uses it, compiled by the router from one revision of the document; shared by all its requests.
pub struct RouteRule {
    /// As the document has it.
    pub route: config::route::Route,
    /// Where its requests go: one, or one for each branch, in the document's order. Empty: see `direct`.
    pub upstreams: Box<[Arc<config::upstream::Upstream>]>,
    /// Which of several upstreams takes a request. None: there is one, or none.
    pub choice: Option<Choice>,
    /// Who else gets copies.
    pub mirror: Option<MirrorRule>,
    /// Flags of which the upstream is told.
    pub flags: Option<FlagsRule>,
    /// Where its version stands in its life.
    pub lifecycle: Option<LifecycleRule>,
    /// What the gateway answers where there is no upstream.
    pub direct: Option<Direct>,
    /// What `Host` says to the upstream in place of its endpoint.
    pub host: Option<HeaderValue>,
    /// Changes of requests' fields, and of answers'.
    pub edits: [FieldEdits; 2],
    /// The document's revision.
    pub revision: Revision,
    /// Who may use it.
    pub access: AccessRule,
    /// Quotas that count by address or route alone, in the document's order.
    pub screens: Box<[ChargeRule]>,
    /// All others, in the document's order.
    pub charges: Box<[ChargeRule]>,
}

impl RouteRule {
    /// What is changed of a request on its way to the upstream.
    pub fn request_edits(&self) -> &FieldEdits {
        &self.edits[0]
    }

    /// Which of the upstreams takes a request; none: it is answered here.
    fn place(&self, received: &Received, identity: Option<&Identity>) -> Result<Option<usize>, Refusal> {
        let asked = Asked::of(received);
        match &self.choice {
            None => Ok((!self.upstreams.is_empty()).then_some(0)),
            Some(Choice::Split(split)) => {
                let name = self.route.name.as_str();
                Ok(Some(split.branch(name, &asked, identity, received.arrival().id)))
            }
            Some(Choice::Partition(partition)) => {
                partition.place(&asked, identity).map(Some).ok_or(Refusal::NoPartition)
            }
        }
    }

    /// What is changed of an answer that is no refusal.
    pub fn response_edits(&self) -> &FieldEdits {
        &self.edits[1]
    }
}

impl std::fmt::Debug for RouteRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RouteRule({}, revision {})", self.route.name, self.revision.0)
    }
}

/// Which of a route's upstreams takes a request.
#[derive(Debug)]
pub enum Choice {
    /// By shares.
    Split(SplitRule),
    /// By what it holds.
    Partition(PartitionRule),
}

/// A quota that counts a route's requests, compiled.
pub struct ChargeRule {
    /// Which quota.
    pub quota: Arc<QuotaRule>,
    /// Tokens a request costs.
    pub cost: u32,
    /// Names a request's bucket: the router's closure over the quota's key expression and the cluster's secret.
    /// The identity is none before authentication, and on a public route.
    pub key: KeyOf,
}

/// Names a request's bucket.
pub type KeyOf = Box<dyn Fn(&RouteRule, &Received, Option<&Identity>) -> Key + Send + Sync>;

/// What one request was charged to.
pub type Charges = SmallVec<[Charge; 2]>;

/// Charges that were spent, all at one instant.
#[derive(Debug)]
pub struct Spent {
    /// In the document's order.
    pub charges: Charges,
    /// From the keeper.
    pub admission: Admission,
}

impl Spent {
    /// Spends what `rules` ask of this request, all or none.
    async fn on(
        keeper: &Keeper,
        gateway: &Gateway,
        rules: &[ChargeRule],
        rule: &RouteRule,
        received: &Received,
        identity: Option<&Identity>,
    ) -> Result<Self, Refusal> {
        if rules.is_empty() {
            let admission = Admission { at: gateway.world.clock.boot(), standings: SmallVec::new() };
            return Ok(Self { charges: Charges::new(), admission });
        }
        let charge = |charge: &ChargeRule| Charge {
            quota: charge.quota.clone(),
            key: (charge.key)(rule, received, identity),
            cost: charge.cost,
        };
        let charges: Charges = rules.iter().map(charge).collect();
        let admission = keeper.admit(&charges).await?;
        Ok(Self { charges, admission })
    }
}

/// The router knows where it goes.
#[derive(Debug)]
pub struct Routed {
    received: Received,
    rule: Arc<RouteRule>,
    /// What the router had to know of the token. Authentication takes it, and does not verify twice.
    looked: Option<Looked>,
}

impl Routed {
    /// Finds the route.
    ///
    /// # Errors
    /// No configuration, no route, or not with this method or protocol; or no leader's word yet that this is the
    /// configuration.
    pub fn find(gateway: &Gateway, received: Received) -> Result<Self, Refusal> {
        let now = || gateway.world.clock.wall();
        let mut bearer = Bearer::new(&gateway.tokens, received.headers(), &now);
        let found = gateway.routes.find(&received, &mut bearer);
        let looked = bearer.into_looked();
        if !matches!(found, Err(Refusal::NoConfiguration)) && !gateway.freshness.serves() {
            return Err(Refusal::StaleView);
        }
        let rule = found?;
        if received.protocol().is_some_and(|protocol| !upgrade::permits(&rule.route.upgrades, protocol)) {
            return Err(Refusal::NotSupported { what: "this protocol is not spoken here" });
        }
        Ok(Self { rule, looked, received })
    }

    /// Its route.
    pub fn rule(&self) -> &Arc<RouteRule> {
        &self.rule
    }
}

/// Within the quotas that count by address or route, so that floods of bad tokens end here.
#[derive(Debug)]
pub struct Screened {
    routed: Routed,
    spent: Spent,
}

impl Screened {
    /// Spends what can be counted before anybody is known, if the route's version is still there.
    ///
    /// # Errors
    /// Version gone; over quota, undecided, overloaded.
    pub async fn pass(gateway: &Gateway, routed: Routed) -> Result<Self, Refusal> {
        let (rule, received) = (&routed.rule, &routed.received);
        if let Some(lifecycle) = &rule.lifecycle
            && lifecycle.is_over(gateway.world.clock.wall())
        {
            return Err(Refusal::VersionGone { version: lifecycle.version.clone() });
        }
        let spent = Spent::on(&gateway.keeper, gateway, &rule.screens, rule, received, None).await?;
        Ok(Self { routed, spent })
    }

    /// What it cost so far.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }
}

/// Allowed to use its route.
#[derive(Debug)]
pub struct Authenticated {
    screened: Screened,
    /// None: the route is public.
    identity: Option<Arc<Identity>>,
}

impl Authenticated {
    /// Looks at the token, if the route wants one, under a view that is fresh enough to know what was revoked.
    ///
    /// # Errors
    /// A stale view, or what `auth` says of the token.
    pub fn prove(gateway: &Gateway, mut screened: Screened) -> Result<Self, Refusal> {
        let looked = screened.routed.looked.take();
        let Routed { received, rule, .. } = &screened.routed;
        if matches!(rule.access, AccessRule::Public) {
            return Ok(Self { screened, identity: None });
        }
        if !gateway.freshness.trusts(rule.route.access.serve_stale_for()) {
            return Err(Refusal::StaleView);
        }
        let now = gateway.world.clock.wall();
        let identity = gateway.tokens.authenticate(&rule.access, received.headers(), looked, now)?;
        Ok(Self { screened, identity })
    }
}

/// Debited: whatever happens now, its tokens are spent.
#[derive(Debug)]
pub struct Admitted {
    authenticated: Authenticated,
    spent: Spent,
    /// Its upstream's, among the route's. None: it goes to none.
    place: Option<usize>,
}

impl Admitted {
    /// Spends what its sender is charged, if there is somewhere to go.
    ///
    /// # Errors
    /// Of no part that an upstream holds; over quota, undecided, overloaded.
    pub async fn spend(gateway: &Gateway, authenticated: Authenticated) -> Result<Self, Refusal> {
        let Routed { received, rule, .. } = &authenticated.screened.routed;
        let identity = authenticated.identity.as_deref();
        let place = rule.place(received, identity)?;
        let spent = Spent::on(&gateway.keeper, gateway, &rule.charges, rule, received, identity).await?;
        Ok(Self { authenticated, spent, place })
    }

    /// Its route.
    pub fn rule(&self) -> &Arc<RouteRule> {
        &self.authenticated.screened.routed.rule
    }

    /// What its sender was charged.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }

    /// The flags that are on for it; none: none is.
    pub fn flags(&self) -> Option<HeaderValue> {
        let flags = self.rule().flags.as_ref()?;
        flags.on(&Asked::of(self.received()), self.authenticated.identity.as_deref())
    }

    /// Its sender's tenant, if its token names one.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.authenticated.identity.as_ref()?.tenant.as_ref()
    }

    /// The request.
    pub fn received(&self) -> &Received {
        &self.authenticated.screened.routed.received
    }

    /// Where it goes: to one of its route's upstreams, or nowhere.
    pub fn aim(self) -> Aim {
        match self.place {
            Some(place) => Aim::Upstream(Aimed { admitted: self, place }),
            None => Aim::Here(self),
        }
    }

    /// For the upstream: the request, and what was spent before authentication and after it.
    pub(crate) fn into_parts(self) -> (Parts, ClientBody, Arrival, [Spent; 2]) {
        let Screened { routed, spent } = self.authenticated.screened;
        let (parts, body, arrival) = routed.received.into_parts();
        (parts, body, arrival, [spent, self.spent])
    }
}

/// Where an admitted request goes.
#[derive(Debug)]
pub enum Aim {
    /// To an upstream.
    Upstream(Aimed),
    /// Nowhere: the route has an answer of its own.
    Here(Admitted),
}

/// On its way to one of its route's upstreams.
#[derive(Debug)]
pub struct Aimed {
    admitted: Admitted,
    place: usize,
}

impl Aimed {
    /// The upstream's place among its route's.
    pub fn place(&self) -> usize {
        self.place
    }

    /// The request, and its upstream's place.
    pub(crate) fn into_parts(self) -> (Admitted, usize) {
        (self.admitted, self.place)
    }
}
