//! Routes: what they refer to, and which of them want the same requests.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Trail};
use crate::draft::{Draft, RouteDraft};
use crate::mistake::Severity;
use crate::route::{Access, Match};
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
        if let Some(upstream) = route.upstream.as_ref().filter(|name| !draft.upstreams.contains_key(*name)) {
            let known = draft.upstreams.keys().map(|name| name.as_str());
            findings.dangling(trail().key("upstream"), upstream.as_str(), "an upstream", known);
        }
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
        if let Some(matches) = &route.matches {
            check_overlap(&mut taken, index, matches, trail, findings);
        }
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

/// What one route takes: a path, and one host and method, or any.
type Taken<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// No two routes may list the same path, host and method, for nothing would choose between them.
fn check_overlap<'a>(
    taken: &mut BTreeMap<Taken<'a>, usize>,
    index: usize,
    matches: &'a Match,
    trail: impl Fn() -> Trail,
    findings: &mut Findings,
) {
    let any_or = |texts: &'a [String]| -> Vec<Option<&'a str>> {
        if texts.is_empty() { vec![None] } else { texts.iter().map(|text| Some(text.as_str())).collect() }
    };
    let (hosts, methods) = (any_or(&matches.hosts), any_or(&matches.methods));
    for host in &hosts {
        for method in &methods {
            let first = *taken.entry((&matches.path, *host, *method)).or_insert(index);
            if first != index {
                let what =
                    [method.unwrap_or("any method"), host.unwrap_or("any host"), &matches.path].join(" ");
                let wanted = format!("a match of its own; routes[{first}] takes the same requests");
                findings.add(trail().key("match"), what, wanted);
                return;
            }
        }
    }
}

fn check_unused(draft: &Draft, findings: &mut Findings) {
    let routes = || draft.routes.iter();
    let upstreams: BTreeSet<&str> =
        routes().filter_map(|route| route.upstream.as_ref()).map(|it| it.as_str()).collect();
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
}
