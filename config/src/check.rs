//! What one section of a gateway document may say about another. One set of rules for documents as they are
//! written and for complete ones that a node was sent.

mod actions;
mod amounts;
mod bounds;
mod routes;

use crate::draft::Draft;
use crate::identity::{Algorithm, KeyMaterial};
use crate::ids::QuotaName;
use crate::mistake::{Mistake, Severity};
use crate::quota::{KeyPart, Limit};
use crate::spot::nearest;
use crate::tree::{Node, Place, Value, quote};

/// A step from a value into it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The way from the root to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trail(Vec<Step>);

impl Trail {
    fn key(mut self, key: impl ToString) -> Self {
        self.0.push(Step::Key(key.to_string()));
        self
    }

    fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.0 {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.extend([".", key]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}

/// A mistake that has no place yet.
#[derive(Debug)]
pub(crate) struct Finding {
    severity: Severity,
    trail: Trail,
    /// Whether the last key of the trail is meant, not the value behind it.
    of_key: bool,
    found: String,
    wanted: String,
    help: Option<String>,
}

impl Finding {
    /// The mistake at its place in `tree`; what was left out there stands at what would hold it.
    pub fn in_tree(self, tree: &Node) -> Mistake {
        let place = locate(tree, &self.trail.0, self.of_key);
        self.at(place.line, place.column)
    }

    /// The mistake in a document that is no text.
    pub fn nowhere(self) -> Mistake {
        self.at(0, 0)
    }

    fn at(self, line: u64, column: u64) -> Mistake {
        let path = self.trail.path();
        let Self { severity, found, wanted, help, .. } = self;
        Mistake { severity, line, column, path, found, wanted, help }
    }
}

fn locate(tree: &Node, trail: &[Step], of_key: bool) -> Place {
    let (mut node, mut place) = (tree, tree.place);
    for (depth, step) in trail.iter().enumerate() {
        let next = match (step, &node.value) {
            (Step::Key(name), Value::Map(entries)) => {
                entries.iter().find(|(key, _)| key.text == *name).map(|(key, value)| {
                    let is_last = depth + 1 == trail.len();
                    (value, if is_last && of_key { key.place } else { value.place })
                })
            }
            (Step::Index(index), Value::List(list)) => list.get(*index).map(|value| (value, value.place)),
            // A single text stands for a list of one.
            (Step::Index(0), _) => Some((node, node.place)),
            _ => None,
        };
        let Some((value, at)) = next else { break };
        (node, place) = (value, at);
    }
    place
}

/// Collects findings.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, trail: Trail, found: impl Into<String>, wanted: impl Into<String>) -> &mut Finding {
        let (severity, of_key, help) = (Severity::Error, false, None);
        let (found, wanted) = (found.into(), wanted.into());
        self.0.push(Finding { severity, trail, of_key, found, wanted, help });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// A name that nothing has.
    fn dangling<'k>(
        &mut self,
        trail: Trail,
        name: &str,
        what: &str,
        known: impl Iterator<Item = &'k str>,
    ) -> &mut Finding {
        let help = nearest(name, known);
        let finding = self.add(trail, quote(name), format!("the name of {what}"));
        finding.help = help;
        finding
    }
}

/// Checks a draft as a whole. What it could not read is taken for right.
pub(crate) fn check(draft: &Draft) -> Vec<Finding> {
    let mut findings = Findings::default();
    check_issuers(draft, &mut findings);
    check_plans_and_tenants(draft, &mut findings);
    amounts::check(draft, &mut findings);
    bounds::check(draft, &mut findings);
    routes::check(draft, &mut findings);
    findings.0
}

/// Holds by construction for a text; a replicated document is not believed. See `draft::identity` for the words.
fn check_issuers(draft: &Draft, findings: &mut Findings) {
    for (name, issuer) in
        draft.issuers.iter().filter_map(|(name, it)| it.as_ref().map(|issuer| (name, issuer)))
    {
        let symmetric = issuer.keys.iter().filter(|key| key.algorithm.is_symmetric()).count();
        let fitting = issuer.keys.iter().all(|key| {
            matches!(key.material, KeyMaterial::Secret { .. }) == matches!(key.algorithm, Algorithm::HS256)
        });
        if (symmetric != 0 && symmetric != issuer.keys.len()) || !fitting {
            let wanted = "keys of one family, each with what verifies its algorithm";
            // The reader of a text has noted it already, with better words; it left such a key out.
            findings.add(Trail::default().key("issuers").key(name).key("keys"), "others", wanted);
        }
    }
}

fn check_plans_and_tenants(draft: &Draft, findings: &mut Findings) {
    let plans = || draft.plans.keys().map(|name| name.as_str());
    for (name, plan) in &draft.plans {
        let trail = || Trail::default().key("plans").key(name).key("limits");
        plan.limits.keys().for_each(|quota| check_tenant_quota(draft, findings, trail, quota));
    }
    for (id, tenant) in &draft.tenants {
        let trail = || Trail::default().key("tenants").key(id);
        if let Some(plan) = tenant.plan.as_ref().filter(|plan| !draft.plans.contains_key(*plan)) {
            findings.dangling(trail().key("plan"), plan.as_str(), "a plan", plans());
        }
        tenant
            .limits
            .keys()
            .for_each(|quota| check_tenant_quota(draft, findings, || trail().key("limits"), quota));
    }
}

fn check_tenant_quota(draft: &Draft, findings: &mut Findings, limits: impl Fn() -> Trail, name: &QuotaName) {
    match draft.quotas.get(name) {
        None => {
            let known = draft.quotas.keys().map(|name| name.as_str());
            findings.dangling(limits().key(name), name.as_str(), "a quota", known).of_key = true;
        }
        Some(Some(quota)) if !quota.key.contains(&KeyPart::Tenant) => {
            let wanted = "a quota whose key includes `tenant`";
            findings.add(limits().key(name), quote(name.as_str()), wanted).of_key = true;
        }
        Some(_) => {}
    }
}

/// Every amount that a quota has somewhere, and where.
fn every_amount(draft: &Draft) -> impl Iterator<Item = (&QuotaName, Limit, Source<'_>)> {
    let quotas = draft.quotas.iter().filter_map(|(name, quota)| {
        quota.as_ref().map(|quota| (name, quota.limit, Source { section: "quotas", name: name.as_str() }))
    });
    let plans = draft.plans.iter().flat_map(|(name, plan)| {
        let source = Source { section: "plans", name: name.as_str() };
        plan.limits.iter().map(move |(quota, limit)| (quota, *limit, source))
    });
    let tenants = draft.tenants.iter().flat_map(|(id, tenant)| {
        let source = Source { section: "tenants", name: id.as_str() };
        tenant.limits.iter().map(move |(quota, limit)| (quota, *limit, source))
    });
    quotas.chain(plans).chain(tenants)
}

/// Where an amount stands.
#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    section: &'static str,
    name: &'a str,
}

impl Source<'_> {
    fn trail(self, quota: &QuotaName) -> Trail {
        let holder = Trail::default().key(self.section).key(self.name);
        if self.section == "quotas" { holder.key("limit") } else { holder.key("limits").key(quota) }
    }
}
