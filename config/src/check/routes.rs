//! Routes: what they refer to, and which of them want the same requests.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Findings, Trail, actions};
use crate::action::Action;
use crate::draft::{Draft, RouteDraft};
use crate::mistake::Severity;
use crate::path::Path;
use crate::pattern::Pattern;
use crate::route::{Access, Condition, Match};
use crate::tree::quote;

pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    let mut names = BTreeMap::new();
    let mut taken = BTreeMap::new();
    for (index, route) in draft.routes.iter().enumerate() {
        let trail = || Trail::default().key("routes").index(index);
        if let Some(name) = &route.name
            && let Some(first) = names.insert(name, index)
        {
            let wanted = format!("a name of its own; routes[{first}] has this one");
            findings.add(trail().key("name"), format!("{} again", quote(name.as_str())), wanted);
        }
        actions::check(draft, route, trail, findings);
        if let Some(Access::Token { issuers, .. }) = &route.access {
            for (at, issuer) in
                issuers.iter().enumerate().filter(|(_, name)| !draft.issuers.contains_key(*name))
            {
                let known = draft.issuers.keys().map(|name| name.as_str());
                let trail = trail().key("access").key("issuers").index(at);
                findings.dangling(trail, issuer.as_str(), "an issuer", known);
            }
        }
        check_charges(draft, route, trail, findings);
        let claims = route.matches.as_ref().is_some_and(|it| !it.claims.is_empty());
        if claims && route.access == Some(Access::Public) {
            let trail = trail().key("match").key("claims");
            let finding = findings.add(trail, "claims on a public route", "access by token");
            finding.of_key = true;
            finding.help = Some("without a token there are no claims".into());
        }
        if let Some(matches) = &route.matches {
            check_overlap(&mut taken, index, route.priority, matches, trail, findings);
            if route.strip_prefix && !matches!(matches.path, Path::Prefix(_)) {
                let wanted = "false, or a path that is a prefix";
                findings
                    .add(trail().key("strip_prefix"), format!("true beside {}", matches.path), wanted)
                    .help = Some("there is no prefix to cut off".into());
            }
        }
    }
    let patterns =
        draft.routes.iter().filter_map(|route| route.matches.as_ref()).flat_map(Match::patterns).count();
    if patterns > Pattern::ALL_MAX {
        let wanted = format!("at most {} in one document", Pattern::ALL_MAX);
        findings.add(Trail::default().key("routes"), format!("{patterns} regular expressions"), wanted);
    }
    let claims: BTreeSet<&str> = draft.routes.iter().flat_map(RouteDraft::claims).collect();
    if claims.len() > Match::CLAIMS_MAX {
        let wanted = format!("at most {} in one document", Match::CLAIMS_MAX);
        let found = format!("{} different claims that routes look at", claims.len());
        findings.add(Trail::default().key("routes"), found, wanted);
    }
    check_unused(draft, findings);
}

fn check_charges(draft: &Draft, route: &RouteDraft, trail: impl Fn() -> Trail, findings: &mut Findings) {
    let mut charged = BTreeSet::new();
    for (at, charge) in route.charges.iter().enumerate().filter_map(|(at, it)| it.as_ref().map(|it| (at, it)))
    {
        let name = &charge.quota;
        let trail = || trail().key("quotas").index(at);
        if !charged.insert(name) {
            let wanted = "each quota once; `{quota: …, cost: 2}` charges it twice";
            findings.add(trail(), format!("{} again", quote(name.as_str())), wanted);
        }
        match draft.quotas.get(name) {
            None => {
                let known = draft.quotas.keys().map(|name| name.as_str());
                findings.dangling(trail(), name.as_str(), "a quota", known);
            }
            Some(Some(quota)) if route.access == Some(Access::Public) && !quota.is_screen() => {
                let found = format!("{} on a public route", quote(name.as_str()));
                findings.add(trail(), found, "a quota keyed by `address`, `route` or `all`").help =
                    Some("without a token there is no tenant and no client".into());
            }
            Some(_) => {}
        }
    }
}

/// What a route wants but for host and method. Equal: nothing but those tells two routes apart.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shape<'a> {
    path: (&'static str, String),
    /// Where, name, kind and text of each condition.
    conditions: Vec<(&'static str, &'a str, &'static str, &'a str)>,
    sources: BTreeSet<IpNet>,
    claims: BTreeMap<&'a str, BTreeSet<&'a str>>,
    priority: i16,
}

/// One host and method, or any → the first route that takes them.
type Taken<'a> = BTreeMap<(Option<&'a str>, Option<&'a str>), usize>;

impl<'a> Shape<'a> {
    fn of(priority: i16, matches: &'a Match) -> Self {
        let maps = [("headers", &matches.headers), ("query", &matches.query), ("cookies", &matches.cookies)];
        let each = |(key, map): (&'static str, &'a BTreeMap<String, Condition>)| {
            map.iter().map(move |(name, condition)| match condition {
                Condition::Equal(text) => (key, name.as_str(), "equal", text.as_str()),
                Condition::Regex(pattern) => (key, name.as_str(), "regex", pattern.as_str()),
                Condition::Present(true) => (key, name.as_str(), "present", "true"),
                Condition::Present(false) => (key, name.as_str(), "present", "false"),
            })
        };
        let conditions = maps.into_iter().flat_map(each).collect();
        let sources = matches.sources.iter().copied().collect();
        let texts = |texts: &'a Vec<String>| texts.iter().map(String::as_str).collect();
        let claims = matches.claims.iter().map(|(name, wanted)| (name.as_str(), texts(wanted))).collect();
        Self { path: matches.path.shape(), conditions, sources, claims, priority }
    }
}

/// No two routes may list the same path, host and method under the same conditions, for nothing would choose between them.
fn check_overlap<'a>(
    taken: &mut BTreeMap<Shape<'a>, Taken<'a>>,
    index: usize,
    priority: i16,
    matches: &'a Match,
    trail: impl Fn() -> Trail,
    findings: &mut Findings,
) {
    let any_or = |texts: &'a [String]| -> Vec<Option<&'a str>> {
        if texts.is_empty() { vec![None] } else { texts.iter().map(|text| Some(text.as_str())).collect() }
    };
    let (hosts, methods) = (any_or(&matches.hosts), any_or(&matches.methods));
    let taken = taken.entry(Shape::of(priority, matches)).or_default();
    for host in &hosts {
        for method in &methods {
            let first = *taken.entry((*host, *method)).or_insert(index);
            if first != index {
                let (method, host) = (method.unwrap_or("any method"), host.unwrap_or("any host"));
                let what = format!("{method} {host} {}", matches.path);
                let wanted = format!("a match of its own; routes[{first}] takes the same requests");
                findings.add(trail().key("match"), what, wanted);
                return;
            }
        }
    }
}

fn check_unused(draft: &Draft, findings: &mut Findings) {
    let routes = || draft.routes.iter();
    let upstreams: BTreeSet<&str> = routes()
        .filter_map(|route| route.action.as_ref())
        .flat_map(Action::upstreams)
        .chain(routes().filter_map(|route| route.mirror.as_ref()).map(|mirror| &mirror.upstream))
        .map(|it| it.as_str())
        .collect();
    let charges = routes().flat_map(|route| route.charges.iter().flatten());
    let quotas: BTreeSet<&str> = charges.map(|charge| charge.quota.as_str()).collect();
    let issuers: BTreeSet<&str> = routes()
        .filter_map(|route| match &route.access {
            Some(Access::Token { issuers, .. }) => Some(issuers),
            _ => None,
        })
        .flatten()
        .map(|name| name.as_str())
        .collect();
    let flags: BTreeSet<&str> = routes().flat_map(|route| &route.flags).map(|name| name.as_str()).collect();
    let mut unused = |section: &'static str, name: &str, used: &BTreeSet<&str>| {
        if !used.contains(name) {
            let trail = Trail::default().key(section).key(name);
            let finding = findings.add(trail, quote(name), "a route that uses it");
            finding.severity = Severity::Warning;
            finding.of_key = true;
        }
    };
    draft.upstreams.keys().for_each(|name| unused("upstreams", name.as_str(), &upstreams));
    draft.quotas.keys().for_each(|name| unused("quotas", name.as_str(), &quotas));
    draft.issuers.keys().for_each(|name| unused("issuers", name.as_str(), &issuers));
    draft.flags.keys().for_each(|name| unused("flags", name.as_str(), &flags));
}
