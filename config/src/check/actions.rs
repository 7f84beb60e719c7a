//! Whether what becomes of a route's requests fits the rest of the route.

use super::{Findings, Trail};
use crate::action::{Action, NewPath, Partition, PartitionBy, SplitBy};
use crate::draft::{Draft, RouteDraft};
use crate::path::{Path, Segment};
use crate::route::Access;
use crate::spot::nearest;
use crate::tree::quote;

pub(super) fn check(draft: &Draft, route: &RouteDraft, trail: impl Fn() -> Trail, findings: &mut Findings) {
    let trail = &trail;
    match &route.action {
        Some(Action::Upstream(_)) => check_upstreams(draft, route, |_| trail().key("upstream"), findings),
        Some(Action::Split(split)) => {
            let branches = || trail().key("split").key("branches");
            check_upstreams(draft, route, |place| branches().index(place).key("upstream"), findings);
            let by = match split.by {
                SplitBy::Tenant => Some("tenant"),
                SplitBy::Client => Some("client"),
                SplitBy::Address | SplitBy::Request => None,
            };
            if let (Some(by), Some(Access::Public)) = (by, &route.access) {
                let found = format!("`{by}` on a public route");
                findings.add(trail().key("split").key("by"), found, "`address` or `request`").help =
                    Some("without a token there is no tenant and no client".into());
            }
        }
        Some(Action::Partition(partition)) => check_partition(draft, route, partition, trail, findings),
        Some(action @ (Action::Redirect(_) | Action::Respond(_))) => {
            check_unreached(route, action, trail, findings);
            if let Action::Redirect(redirect) = action {
                check_path(route, redirect.path.as_ref(), || trail().key("redirect"), findings);
            }
        }
        None => {}
    }
    for (at, flag) in route.flags.iter().enumerate().filter(|(_, name)| !draft.flags.contains_key(*name)) {
        let known = draft.flags.keys().map(|name| name.as_str());
        findings.dangling(trail().key("flags").index(at), flag.as_str(), "a flag", known);
    }
    if let Some(mirror) = &route.mirror {
        let trail = || trail().key("mirror").key("upstream");
        let name = mirror.upstream.as_str();
        if !draft.upstreams.contains_key(&mirror.upstream) {
            let known = draft.upstreams.keys().map(|name| name.as_str());
            findings.dangling(trail(), name, "an upstream", known);
        } else if route.action.iter().flat_map(Action::upstreams).any(|it| *it == mirror.upstream) {
            let found = format!("{}, where the requests themselves go", quote(name));
            findings.add(trail(), found, "another upstream");
        }
    }
    if let Some(rewrite) = &route.rewrite {
        let trail = || trail().key("rewrite");
        check_path(route, rewrite.path.as_ref(), trail, findings);
        if let Some(path) = rewrite.path.as_ref().filter(|_| route.strip_prefix) {
            let found = format!("`{}` beside `strip_prefix: true`", path.key());
            let wanted = "one of the two";
            findings.add(trail().key(path.key()), found, wanted).of_key = true;
        }
    }
}

fn check_partition(
    draft: &Draft,
    route: &RouteDraft,
    partition: &Partition,
    trail: &impl Fn() -> Trail,
    findings: &mut Findings,
) {
    let trail = || trail().key("partition");
    let parts: Vec<&String> = partition.upstreams.keys().collect();
    let place = |place: usize| match parts.get(place) {
        Some(part) => trail().key("upstreams").key(part),
        None => trail().key("otherwise"),
    };
    check_upstreams(draft, route, place, findings);
    let by = match partition.by {
        PartitionBy::Tenant => "tenant",
        PartitionBy::Claim(_) => "claim",
        PartitionBy::Header(_) => return,
    };
    if route.access == Some(Access::Public) {
        let found = format!("`{by}` on a public route");
        findings.add(trail().key("by"), found, "a header, or access by token").help =
            Some("without a token there is no tenant and no claim".into());
    }
}

fn check_upstreams(
    draft: &Draft,
    route: &RouteDraft,
    trail: impl Fn(usize) -> Trail,
    findings: &mut Findings,
) {
    let upstreams = route.action.iter().flat_map(Action::upstreams);
    for (place, upstream) in upstreams.enumerate().filter(|(_, name)| !draft.upstreams.contains_key(*name)) {
        let known = draft.upstreams.keys().map(|name| name.as_str());
        findings.dangling(trail(place), upstream.as_str(), "an upstream", known);
    }
}

/// What concerns an upstream is a slip where none is reached.
fn check_unreached(route: &RouteDraft, action: &Action, trail: &impl Fn() -> Trail, findings: &mut Findings) {
    let given = [
        ("timeout", route.timeout.is_some()),
        ("strip_prefix", route.strip_prefix),
        ("rewrite", route.rewrite.is_some()),
        ("upgrades", !route.upgrades.is_empty()),
        ("mirror", route.mirror.is_some()),
        ("flags", !route.flags.is_empty()),
    ];
    let of_route = given.into_iter().filter(|(_, given)| *given).map(|(key, _)| (key, trail().key(key)));
    let edits =
        (!route.headers.request.is_empty()).then(|| ("request", trail().key("headers").key("request")));
    for (key, trail) in of_route.chain(edits) {
        let found = format!("`{key}` beside `{}`", action.key());
        findings.add(trail, found, "`upstream`, `split` or `partition` beside it").of_key = true;
    }
}

/// A new path needs something to be made of.
fn check_path(
    route: &RouteDraft,
    path: Option<&NewPath>,
    trail: impl Fn() -> Trail,
    findings: &mut Findings,
) {
    let (Some(path), Some(matches)) = (path, &route.matches) else { return };
    let trail = || trail().key(path.key());
    match (path, &matches.path) {
        (NewPath::Path(_), _) | (NewPath::Prefix(_), Path::Prefix(_)) => {}
        (NewPath::Prefix(_), other) => {
            let found = format!("a new prefix beside {other}");
            findings.add(trail(), found, "a match whose path is a prefix").help =
                Some("there is no prefix to replace".into());
        }
        (NewPath::Template(template), held) => {
            let held = || match held {
                Path::Template(held) => Some(held.segments()),
                _ => None,
            };
            let known = || held().into_iter().flatten().filter_map(name);
            for segment in template.segments() {
                let there = held().into_iter().flatten().any(|it| it == segment);
                if let Some(name) = name(segment).filter(|_| !there) {
                    let found = format!("the unknown capture {segment}");
                    findings.add(trail(), found, "captures of the match's template").help =
                        nearest(name, known());
                }
            }
        }
    }
}

fn name(segment: Segment<'_>) -> Option<&str> {
    match segment {
        Segment::Literal(_) => None,
        Segment::Capture(name) | Segment::Rest(name) => Some(name),
    }
}
