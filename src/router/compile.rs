//! From a gateway document to what requests read of it. Pure: the caller reads the secrets.
//!
//! One revision's routes, quotas and keys are made and published together, so that no request ever sees half a revision.
//! What has not changed since the revision before is shared with it: keys (so that verified tokens stay cached) and
//! quotas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::state::ids::{LimitId, Revision};
use cluster::state::key::{KeyValues, key, limit_id};
use config::action::{Action, SplitBy};
use config::flag::{Flag, FlagName};
use config::gateway::GatewayDocument;
use config::identity::{Issuer, SecretSource};
use config::ids::{QuotaName, TenantId, UpstreamName};
use config::quota::{KeyPart, Limit, Quota};
use config::route::{Access, Route};
use config::upstream::Upstream;
use http::HeaderValue;

use super::flags::FlagsRule;
use super::lifecycle::LifecycleRule;
use super::partition::PartitionRule;
use super::split::SplitRule;
use super::table::Table;
use crate::auth::secrets::Secret;
use crate::auth::{AccessRule, TokenRule, Verifiers};
use crate::direct::Direct;
use crate::edits::FieldEdits;
use crate::journey::evidence::{ChargeRule, Choice, KeyOf, RouteRule};
use crate::quota::QuotaRule;
use crate::upstream::mirror::MirrorRule;

/// Everything that requests read of one revision. Immutable.
#[derive(Debug)]
pub struct Published {
    /// Of the document.
    pub revision: Revision,
    /// Which route takes a request.
    pub table: Table<Arc<RouteRule>>,
    /// Whose tokens are good.
    pub verifiers: Arc<Verifiers>,
    /// All quotas, by number.
    pub quotas: BTreeMap<LimitId, Arc<QuotaRule>>,
    /// What `verifiers` was made of, fingerprints of secrets included.
    issuers: Vec<Issuer>,
    /// Claims that routes look at, of which `verifiers` keeps the texts.
    claims: BTreeSet<String>,
}

/// One revision as the cluster's view has it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its number.
    pub revision: Revision,
    /// Its document.
    pub document: Arc<GatewayDocument>,
    /// Keys the hashes of quota keys.
    pub secret: [u8; 16],
}

/// Makes a revision ready for requests. `read` reads a secret; it is not asked when the issuers are those of `last`.
///
/// # Errors
/// Why this node cannot serve the revision, a line each, with what to do.
pub fn compile(
    source: &Source,
    last: Option<&Published>,
    read: impl FnMut(&SecretSource) -> Result<Secret, String>,
) -> Result<Published, String> {
    let document = &source.document;
    document.judge_patterns()?;
    let claims: BTreeSet<String> =
        document.routes.iter().flat_map(Route::claims).map(str::to_owned).collect();
    let verifiers = match last {
        Some(last) if last.issuers == document.issuers && last.claims == claims => {
            Arc::clone(&last.verifiers)
        }
        _ => {
            let verifiers = Verifiers::compile(source.revision, &document.issuers, read)?;
            Arc::new(verifiers.keeping(claims.iter().map(String::as_str)))
        }
    };
    let quotas: BTreeMap<LimitId, Arc<QuotaRule>> =
        document.quotas.iter().map(|quota| rule_of(quota, last)).collect();
    let compiler = Compiler {
        source,
        verifiers: &verifiers,
        upstreams: document.upstreams.iter().map(|up| (up.name.clone(), Arc::new(up.clone()))).collect(),
        quotas: document.quotas.iter().map(|quota| (quota.name.clone(), Arc::new(quota.clone()))).collect(),
        rules: &quotas,
        flags: document.flags.iter().map(|flag| (flag.name.clone(), Arc::new(flag.clone()))).collect(),
    };
    let mut mistakes = Vec::new();
    let mut rules = Vec::with_capacity(document.routes.len());
    for route in &document.routes {
        match compiler.route(route) {
            Ok(rule) => rules.push(Arc::new(rule)),
            Err(why) => mistakes.push(format!("route {}: {why}", route.name)),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes.join("\n"));
    }
    let table = Table::new(rules.iter().map(|rule| (&rule.route, Arc::clone(rule))));
    let issuers = document.issuers.clone();
    Ok(Published { revision: source.revision, table, verifiers, quotas, issuers, claims })
}

/// A quota's rule; the last revision's own if nothing about it has changed.
fn rule_of(quota: &Quota, last: Option<&Published>) -> (LimitId, Arc<QuotaRule>) {
    let limit_id = limit_id(quota);
    let rule = QuotaRule {
        name: quota.name.clone(),
        limit_id,
        wait: quota.wait,
        on_quorum_loss: quota.on_quorum_loss,
        limit: quota.limit,
    };
    let kept = last.and_then(|last| last.quotas.get(&limit_id)).filter(|kept| ***kept == rule);
    (limit_id, kept.cloned().unwrap_or_else(|| Arc::new(rule)))
}

struct Compiler<'a> {
    source: &'a Source,
    verifiers: &'a Arc<Verifiers>,
    upstreams: BTreeMap<UpstreamName, Arc<Upstream>>,
    quotas: BTreeMap<QuotaName, Arc<Quota>>,
    rules: &'a BTreeMap<LimitId, Arc<QuotaRule>>,
    flags: BTreeMap<FlagName, Arc<Flag>>,
}

impl Compiler<'_> {
    // References were checked when the document was read. A mistake here means that a node of another version let it in:
    // then this node keeps what it has, and says so.
    fn route(&self, route: &Route) -> Result<RouteRule, String> {
        let upstream = |name: &UpstreamName| {
            self.upstreams.get(name).cloned().ok_or_else(|| format!("no upstream is called {name}"))
        };
        let upstreams = route.upstreams().map(upstream).collect::<Result<_, _>>()?;
        let (choice, direct) = match &route.action {
            Action::Upstream(_) => (None, None),
            Action::Split(split) => {
                (Some(Choice::Split(SplitRule::compile(split, self.source.secret)?)), None)
            }
            Action::Partition(partition) => {
                (Some(Choice::Partition(PartitionRule::compile(partition))), None)
            }
            Action::Redirect(redirect) => (None, Some(Direct::redirect(redirect)?)),
            Action::Respond(respond) => (None, Some(Direct::respond(respond)?)),
        };
        let mirror = match &route.mirror {
            Some(mirror) => {
                Some(MirrorRule::new(mirror.clone(), upstream(&mirror.upstream)?, self.source.secret))
            }
            None => None,
        };
        let flag = |name: &FlagName| {
            self.flags.get(name).cloned().ok_or_else(|| format!("no flag is called {name}"))
        };
        let flags = route.flags.iter().map(flag).collect::<Result<_, _>>()?;
        let (mut screens, mut charges) = (Vec::new(), Vec::new());
        let mut parts = Vec::new();
        let mut seen = Vec::new();
        for charge in &route.charges {
            let quota = self.quotas.get(&charge.quota);
            let quota = quota.ok_or_else(|| format!("no quota is called {}", charge.quota))?;
            let rule = self.charge(quota, charge.cost)?;
            if seen.contains(&rule.quota.limit_id) {
                return Err(format!("found quota {} twice, wanted each once", charge.quota));
            }
            seen.push(rule.quota.limit_id);
            parts.extend_from_slice(&quota.key);
            if quota.is_screen() { screens.push(rule) } else { charges.push(rule) }
        }
        if route.access == Access::Public && route.claims().next().is_some() {
            return Err("found claims on a public route, wanted access by token".to_owned());
        }
        let by = split_part(&route.action);
        if route.access == Access::Public && by.is_some() {
            return Err(
                "found a split by tenant or client on a public route, wanted access by token".to_owned()
            );
        }
        parts.extend(by);
        if route.access == Access::Public && !charges.is_empty() {
            return Err(
                "found a quota by tenant or client on a public route, wanted access by token".to_owned()
            );
        }
        Ok(RouteRule {
            route: route.clone(),
            upstreams,
            choice,
            mirror,
            flags: FlagsRule::new(flags, self.source.secret),
            lifecycle: route.lifecycle.as_ref().map(LifecycleRule::compile).transpose()?,
            direct,
            host: host_of(route)?,
            edits: [
                FieldEdits::compile(&route.headers.request)?,
                FieldEdits::compile(&route.headers.response)?,
            ],
            revision: self.source.revision,
            access: self.access(&route.access, &parts),
            screens: screens.into(),
            charges: charges.into(),
        })
    }

    fn charge(&self, quota: &Arc<Quota>, cost: u64) -> Result<ChargeRule, String> {
        let fits = (1..=Limit::COST_MAX).contains(&cost);
        let cost = u32::try_from(cost).ok().filter(|_| fits);
        let cost = cost
            .ok_or_else(|| format!("found a bad cost on {}, wanted 1 to {}", quota.name, Limit::COST_MAX))?;
        let rule = &self.rules[&limit_id(quota)];
        Ok(ChargeRule { quota: Arc::clone(rule), cost, key: key_of(Arc::clone(quota), self.source.secret) })
    }

    fn access(&self, access: &Access, parts: &[KeyPart]) -> AccessRule {
        match access {
            Access::Public => AccessRule::Public,
            Access::Token { issuers, scopes, .. } => {
                let mut scopes: Vec<Box<str>> = scopes.iter().map(|scope| scope.as_str().into()).collect();
                scopes.sort_unstable();
                scopes.dedup();
                AccessRule::Token(TokenRule {
                    verifiers: Arc::clone(self.verifiers),
                    issuers: issuers.clone().into(),
                    scopes: scopes.into(),
                    needs_tenant: parts.contains(&KeyPart::Tenant),
                    needs_client: parts.contains(&KeyPart::Client),
                })
            }
        }
    }
}

/// What a token must name for its request to find its branch.
fn split_part(action: &Action) -> Option<KeyPart> {
    match action {
        Action::Split(split) => match split.by {
            SplitBy::Tenant => Some(KeyPart::Tenant),
            SplitBy::Client => Some(KeyPart::Client),
            SplitBy::Address | SplitBy::Request => None,
        },
        // Who has no tenant is of another part.
        Action::Upstream(_) | Action::Partition(_) | Action::Redirect(_) | Action::Respond(_) => None,
    }
}

/// What `Host` says to a route's upstreams, if the route says it.
fn host_of(route: &Route) -> Result<Option<HeaderValue>, String> {
    let host = route.rewrite.as_ref().and_then(|rewrite| rewrite.host.as_ref());
    let value = |host: &String| HeaderValue::from_str(host).map_err(|_| format!("{host:?} is no host"));
    host.map(value).transpose()
}

/// Names a request's bucket without allocating.
fn key_of(quota: Arc<Quota>, secret: [u8; 16]) -> KeyOf {
    Box::new(move |rule, received, identity| {
        let values = KeyValues {
            tenant: identity.and_then(|who| who.tenant.as_ref()).map(TenantId::as_str),
            client: identity.and_then(|who| who.client.as_deref()),
            route: Some(rule.route.name.as_str()),
            address: Some(received.address()),
        };
        key(&secret, &quota, &values)
    })
}

#[cfg(test)]
#[path = "compile_tests.rs"]
pub(super) mod tests;
