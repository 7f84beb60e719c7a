//! A tree of nodes → a draft, collecting every mistake on the way.
//!
//! The functions below never stop early. What cannot be read is noted and stands as `None`, or as a harmless
//! stand-in, so that everything around it is still looked at; a draft with notes never becomes a value.

mod action;
mod amount;
mod clients;
mod flag;
mod identity;
mod lifecycle;
mod matching;
pub(crate) mod node;
mod quota;
pub(crate) mod route;
mod upstream;

use std::collections::BTreeMap;

use crate::action::{Action, Headers, Mirror, Partition, PartitionBy, Rewrite};
use crate::flag::{Flag, FlagName};
use crate::gateway::GatewayDocument;
use crate::identity::Issuer;
use crate::ids::{IssuerName, PlanName, QuotaName, RouteName, TenantId, UpstreamName};
use crate::lifecycle::Lifecycle;
use crate::quota::{Plan, Quota, Tenant};
use crate::route::{Access, Charge, Match, Route};
use crate::spot::{Notes, Spot};
use crate::tree::Node;
use crate::upstream::Upstream;

/// A gateway document as far as it could be read. A name whose value is `None` was declared, and wrongly.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub upstreams: BTreeMap<UpstreamName, Option<Upstream>>,
    pub issuers: BTreeMap<IssuerName, Option<Issuer>>,
    pub quotas: BTreeMap<QuotaName, Option<Quota>>,
    pub plans: BTreeMap<PlanName, Plan>,
    pub tenants: BTreeMap<TenantId, Tenant>,
    pub flags: BTreeMap<FlagName, Option<Flag>>,
    /// In the document's order, one for each item of the list.
    pub routes: Vec<RouteDraft>,
}

/// A route as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct RouteDraft {
    pub name: Option<RouteName>,
    pub matches: Option<Match>,
    pub priority: i16,
    pub action: Option<Action>,
    pub access: Option<Access>,
    pub charges: Vec<Option<Charge>>,
    pub timeout: Option<std::time::Duration>,
    pub strip_prefix: bool,
    pub rewrite: Option<Rewrite>,
    pub upgrades: Vec<String>,
    pub headers: Headers,
    pub mirror: Option<Mirror>,
    pub lifecycle: Option<Lifecycle>,
    pub flags: Vec<FlagName>,
}

impl Draft {
    /// Reads what can be read; `notes` has everything else.
    pub fn read(tree: &Node, notes: &mut Notes) -> Self {
        let mut draft = Self::default();
        let root = Spot::root(tree);
        let sections = ["upstreams", "issuers", "quotas", "plans", "tenants", "flags", "routes"];
        let Some(mut sections) = root.fields(notes, &sections) else { return draft };
        if let Some(spot) = sections.required(notes, "upstreams") {
            draft.upstreams = spot.named(notes, 1_000, UpstreamName::parse, upstream::read);
        }
        if let Some(spot) = sections.optional("issuers") {
            draft.issuers = spot.named(notes, 1_000, IssuerName::parse, identity::read);
        }
        if let Some(spot) = sections.optional("quotas") {
            draft.quotas = spot.named(notes, 1_000, QuotaName::parse, quota::read);
        }
        if let Some(spot) = sections.optional("plans") {
            draft.plans = spot.named(notes, 1_000, PlanName::parse, quota::read_plan);
        }
        if let Some(spot) = sections.optional("tenants") {
            draft.tenants =
                spot.named(notes, GatewayDocument::TENANTS_MAX, TenantId::parse, quota::read_tenant);
        }
        if let Some(spot) = sections.optional("flags") {
            draft.flags = spot.named(notes, GatewayDocument::FLAGS_MAX, FlagName::parse, flag::read);
        }
        if let Some(spot) = sections.required(notes, "routes") {
            let routes = spot.items(notes, GatewayDocument::ROUTES_MAX);
            draft.routes = routes.iter().map(|spot| route::read(notes, spot)).collect();
        }
        draft
    }

    /// The document, if nothing is missing.
    pub fn complete(self) -> Option<GatewayDocument> {
        Some(GatewayDocument {
            upstreams: self.upstreams.into_values().collect::<Option<_>>()?,
            issuers: self.issuers.into_values().collect::<Option<_>>()?,
            quotas: self.quotas.into_values().collect::<Option<_>>()?,
            plans: self.plans.into_values().collect(),
            tenants: self.tenants.into_values().collect(),
            flags: self.flags.into_values().collect::<Option<_>>()?,
            routes: self.routes.into_iter().map(RouteDraft::complete).collect::<Option<_>>()?,
        })
    }
}

impl RouteDraft {
    /// As [`Route::claims`].
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        let parted = match &self.action {
            Some(Action::Partition(Partition { by: PartitionBy::Claim(name), .. })) => Some(name),
            _ => None,
        };
        let matched = self.matches.iter().flat_map(|matches| matches.claims.keys());
        matched.chain(parted).map(String::as_str)
    }

    fn complete(self) -> Option<Route> {
        Some(Route {
            name: self.name?,
            matches: self.matches?,
            priority: self.priority,
            action: self.action?,
            access: self.access?,
            charges: self.charges.into_iter().collect::<Option<_>>()?,
            timeout: self.timeout,
            strip_prefix: self.strip_prefix,
            rewrite: self.rewrite,
            upgrades: self.upgrades,
            headers: self.headers,
            mirror: self.mirror,
            lifecycle: self.lifecycle,
            flags: self.flags,
        })
    }
}

/// A complete document seen as a draft, so that both are checked by the same rules.
impl From<&GatewayDocument> for Draft {
    fn from(document: &GatewayDocument) -> Self {
        let route = |route: &Route| RouteDraft {
            name: Some(route.name.clone()),
            matches: Some(route.matches.clone()),
            priority: route.priority,
            action: Some(route.action.clone()),
            access: Some(route.access.clone()),
            charges: route.charges.iter().cloned().map(Some).collect(),
            timeout: route.timeout,
            strip_prefix: route.strip_prefix,
            rewrite: route.rewrite.clone(),
            upgrades: route.upgrades.clone(),
            headers: route.headers.clone(),
            mirror: route.mirror.clone(),
            lifecycle: route.lifecycle.clone(),
            flags: route.flags.clone(),
        };
        Self {
            upstreams: document.upstreams.iter().map(|it| (it.name.clone(), Some(it.clone()))).collect(),
            issuers: document.issuers.iter().map(|it| (it.name.clone(), Some(it.clone()))).collect(),
            quotas: document.quotas.iter().map(|it| (it.name.clone(), Some(it.clone()))).collect(),
            plans: document.plans.iter().map(|it| (it.name.clone(), it.clone())).collect(),
            tenants: document.tenants.iter().map(|it| (it.id.clone(), it.clone())).collect(),
            flags: document.flags.iter().map(|it| (it.name.clone(), Some(it.clone()))).collect(),
            routes: document.routes.iter().map(route).collect(),
        }
    }
}
