//! Bounds of single values and lists. For a text its reader holds them, with better words: it notes what is out of them, and
//! leaves it out. A replicated document is not believed.

use std::ops::RangeInclusive;

use super::{Findings, Trail};
use crate::action::Mirror;
use crate::draft::route::parse_protocol;
use crate::draft::{Draft, RouteDraft};
use crate::flag::Flag;
use crate::route::Route;
use crate::tree::quote;
use crate::units::{show_duration, show_size};
use crate::upstream::Upstream;

pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    for upstream in draft.upstreams.values().flatten() {
        check_upstream(upstream, findings);
    }
    for flag in draft.flags.values().flatten() {
        let trail = Trail::default().key("flags").key(&flag.name).key("tenants");
        at_most(findings, trail, flag.tenants.len(), Flag::TENANTS_MAX);
    }
    for (index, route) in draft.routes.iter().enumerate() {
        check_route(route, || Trail::default().key("routes").index(index), findings);
    }
}

fn check_upstream(upstream: &Upstream, findings: &mut Findings) {
    let trail = |key: &str| Trail::default().key("upstreams").key(&upstream.name).key(key);
    within(findings, trail("endpoints"), upstream.endpoints.len(), 1..=Upstream::ENDPOINTS_MAX, |it| {
        format!("{it} endpoints")
    });
    for (key, timeout) in [
        ("connect_timeout", upstream.connect_timeout),
        ("response_timeout", upstream.response_timeout),
        ("body_idle_timeout", upstream.body_idle_timeout),
        ("idle_timeout", upstream.idle_timeout),
        ("tunnel_idle_timeout", upstream.tunnel_idle_timeout),
    ] {
        within(findings, trail(key), timeout, Upstream::TIMEOUTS, |it| show_duration(*it));
    }
    for (key, count, range) in [
        ("connections_max", upstream.connections_max, Upstream::CONNECTIONS),
        ("streams_max", upstream.streams_max, Upstream::STREAMS),
    ] {
        within(findings, trail(key), count, range, u32::to_string);
    }
}

fn check_route(route: &RouteDraft, trail: impl Fn() -> Trail, findings: &mut Findings) {
    if let Some(timeout) = route.timeout {
        within(findings, trail().key("timeout"), timeout, Upstream::TIMEOUTS, |it| show_duration(*it));
    }
    at_most(findings, trail().key("quotas"), route.charges.len(), Route::CHARGES_MAX);
    at_most(findings, trail().key("upgrades"), route.upgrades.len(), Route::UPGRADES_MAX);
    at_most(findings, trail().key("flags"), route.flags.len(), Route::FLAGS_MAX);
    each_once(findings, || trail().key("upgrades"), &route.upgrades, String::as_str);
    each_once(findings, || trail().key("flags"), &route.flags, |flag| flag.as_str());
    for (at, protocol) in route.upgrades.iter().enumerate() {
        let wanted = match parse_protocol(protocol) {
            Ok(lower) if lower == *protocol => continue,
            Ok(_) => "a protocol in lower case".to_owned(),
            Err(wanted) => wanted.wanted,
        };
        findings.add(trail().key("upgrades").index(at), quote(protocol), wanted);
    }
    if let Some(mirror) = &route.mirror {
        let trail = |key: &str| trail().key("mirror").key(key);
        let sizes = 0..=Mirror::BODY_BYTES_MAX;
        within(findings, trail("body_bytes_max"), mirror.body_bytes_max, sizes, |it| show_size(*it));
        within(findings, trail("timeout"), mirror.timeout, Upstream::TIMEOUTS, |it| show_duration(*it));
    }
}

fn within<T: PartialOrd>(
    findings: &mut Findings,
    trail: Trail,
    value: T,
    range: RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) {
    if !range.contains(&value) {
        let wanted = format!("{} to {}", show(range.start()), show(range.end()));
        findings.add(trail, show(&value), wanted);
    }
}

fn at_most(findings: &mut Findings, trail: Trail, len: usize, len_max: usize) {
    if len > len_max {
        findings.add(trail, format!("{len} of them"), format!("at most {len_max}"));
    }
}

fn each_once<T: PartialEq>(
    findings: &mut Findings,
    trail: impl Fn() -> Trail,
    list: &[T],
    show: impl Fn(&T) -> &str,
) {
    for (at, item) in list.iter().enumerate() {
        if list[..at].contains(item) {
            findings.add(trail().index(at), format!("{} again", quote(show(item))), "each once");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::gateway::{GatewayDocument, parse};

    const TEXT: &str = r#"
upstreams:
  a: {endpoints: ["http://a"]}
  b: {endpoints: ["http://b"]}
flags: {one: {}}
routes:
  - name: r
    match: {path: /}
    upstream: a
    access: public
    upgrades: [websocket]
    mirror: {upstream: b, share: 1%}
    flags: [one]
"#;

    /// What the reader of a complete document finds in it after `change`.
    fn found(change: impl Fn(&mut GatewayDocument)) -> Vec<String> {
        let mut document = parse(TEXT).expect("it is well-formed").value;
        change(&mut document);
        let read = GatewayDocument::from_canonical_json(&document.to_canonical_json());
        let mistakes = read.err().unwrap_or_default();
        mistakes.into_iter().map(|it| format!("{}: {}, {}", it.path, it.found, it.wanted)).collect()
    }

    #[test]
    fn a_complete_document_is_held_to_the_bounds_of_a_text() {
        assert_eq!(found(|_| {}), [""; 0]);
        // when a document comes that no reader of a text would have made
        let mistakes = found(|document| {
            let upstream = &mut document.upstreams[0];
            upstream.endpoints.clear();
            upstream.connect_timeout = Duration::ZERO;
            (upstream.connections_max, upstream.streams_max) = (u32::MAX, u32::MAX);
            let route = &mut document.routes[0];
            route.timeout = Some(Duration::from_secs(1 << 40));
            route.upgrades = vec!["h2c".into(), "WebSocket".into()];
            route.flags = vec![route.flags[0].clone(); 2];
            let mirror = route.mirror.as_mut().expect("it has one");
            (mirror.body_bytes_max, mirror.timeout) = (u64::MAX, Duration::ZERO);
        });
        // then all of it is found
        let paths: Vec<&str> = mistakes.iter().filter_map(|it| it.split(": ").next()).collect();
        let wanted = [
            "upstreams.a.endpoints",
            "upstreams.a.connect_timeout",
            "upstreams.a.connections_max",
            "upstreams.a.streams_max",
            "routes[0].timeout",
            "routes[0].flags[1]",
            "routes[0].upgrades[0]",
            "routes[0].upgrades[1]",
            "routes[0].mirror.body_bytes_max",
            "routes[0].mirror.timeout",
        ];
        assert_eq!(paths, wanted, "{mistakes:#?}");
    }
}
