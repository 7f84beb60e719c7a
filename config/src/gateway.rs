//! The gateway document: what the cluster does, equal on every node.

use serde::{Deserialize, Serialize};

use crate::check::check;
use crate::draft::Draft;
use crate::flag::Flag;
use crate::identity::Issuer;
use crate::mistake::{Mistake, Parsed, Severity, conclude};
use crate::quota::{Plan, Quota, Tenant};
use crate::route::Route;
use crate::spot::Notes;
use crate::tree;
use crate::upstream::Upstream;

/// A complete, checked gateway document. Its canonical JSON is what the cluster replicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayDocument {
    /// Sorted by name.
    pub upstreams: Vec<Upstream>,
    /// Sorted by name.
    pub issuers: Vec<Issuer>,
    /// Sorted by name.
    pub quotas: Vec<Quota>,
    /// Sorted by name.
    pub plans: Vec<Plan>,
    /// Sorted by id.
    pub tenants: Vec<Tenant>,
    /// Sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
    /// In the document's order; the order decides nothing.
    pub routes: Vec<Route>,
}

/// Reads a gateway document as an operator writes it: YAML, or JSON of the same shape.
///
/// `config/schema/gateway.schema.json` describes the shape, `config/examples/three/gateway.yaml` shows it.
///
/// # Errors
/// Every mistake in the document, in its order; broken YAML alone.
pub fn parse(text: &str) -> Parsed<GatewayDocument> {
    let tree = tree::read(text).map_err(|mistake| vec![mistake])?;
    let mut notes = Notes::default();
    let draft = Draft::read(&tree, &mut notes);
    notes.mistakes.extend(check(&draft).into_iter().map(|finding| finding.in_tree(&tree)));
    conclude(notes.mistakes, draft.complete())
}

impl GatewayDocument {
    /// Routes in a document.
    pub const ROUTES_MAX: usize = 10_000;
    /// Tenants in a document.
    pub const TENANTS_MAX: usize = 100_000;
    /// Flags in a document.
    pub const FLAGS_MAX: usize = 1_000;

    /// Checks what sections say about each other, and that sorted lists are sorted. Mistakes have no place
    /// (line 0), for a complete document is no text. Warnings are among them.
    pub fn check(&self) -> Vec<Mistake> {
        let mut mistakes: Vec<Mistake> =
            check(&Draft::from(self)).into_iter().map(|finding| finding.nowhere()).collect();
        let mut sorted = |section: &str, is_sorted: bool| {
            if !is_sorted {
                mistakes.push(nowhere(section, "names out of order or repeated", "names that rise"));
            }
        };
        sorted("upstreams", self.upstreams.is_sorted_by(|a, b| a.name < b.name));
        sorted("issuers", self.issuers.is_sorted_by(|a, b| a.name < b.name));
        sorted("quotas", self.quotas.is_sorted_by(|a, b| a.name < b.name));
        sorted("plans", self.plans.is_sorted_by(|a, b| a.name < b.name));
        sorted("tenants", self.tenants.is_sorted_by(|a, b| a.id < b.id));
        sorted("flags", self.flags.is_sorted_by(|a, b| a.name < b.name));
        mistakes
    }

    /// Judges what reading the canonical form does not: regular expressions, and compiles them.
    ///
    /// # Errors
    /// A line for each route with a bad one.
    pub fn judge_patterns(&self) -> Result<(), String> {
        let judge = |route: &Route| {
            let judged = route.matches.patterns().map(|pattern| (pattern, pattern.judge()));
            judged
                .filter_map(|(pattern, judged)| {
                    let wanted = judged.err()?.wanted;
                    Some(format!("route {}: found {:?}, wanted {wanted}", route.name, pattern.as_str()))
                })
                .collect::<Vec<_>>()
        };
        let bad: Vec<String> = self.routes.iter().flat_map(judge).collect();
        if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
    }

    /// The document as one line of JSON. Equal documents give equal bytes.
    pub fn to_canonical_json(&self) -> String {
        // Keys are strings and numbers are whole: nothing in these types can fail to be JSON.
        serde_json::to_string(self).expect("a gateway document is plain data")
    }

    /// Reads what [`GatewayDocument::to_canonical_json`] wrote, and checks it again: a node believes no document
    /// that it was sent. This is not the form that operators write; see [`parse`] for that.
    ///
    /// # Errors
    /// What [`GatewayDocument::check`] found, warnings left out; or one mistake if it is no such JSON.
    pub fn from_canonical_json(json: &str) -> Result<Self, Vec<Mistake>> {
        let document: Self = serde_json::from_str(json).map_err(|error| {
            vec![nowhere("", &error.to_string(), "the canonical JSON of a gateway document")]
        })?;
        let mut mistakes = document.check();
        mistakes.retain(|mistake| mistake.severity == Severity::Error);
        if mistakes.is_empty() { Ok(document) } else { Err(mistakes) }
    }
}

fn nowhere(path: &str, found: &str, wanted: &str) -> Mistake {
    Mistake {
        severity: Severity::Error,
        line: 0,
        column: 0,
        path: path.to_owned(),
        found: found.to_owned(),
        wanted: wanted.to_owned(),
        help: None,
    }
}
