use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use config::action::{Action, Headers};
use config::ids::{RouteName, UpstreamName};
use config::path::{PathPattern, Template};
use config::pattern::Pattern;
use config::route::{Access, Condition, Match};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::entry::Preference;
use super::super::explain::Why;
use super::*;

/// A request of a test.
#[derive(Clone, Debug)]
struct Question {
    method: &'static str,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    address: IpAddr,
    /// Of its token, which is good.
    claims: BTreeMap<String, Vec<String>>,
}

impl Question {
    fn get(host: &str, path: &str) -> Self {
        let (host, path) = (host.to_owned(), path.to_owned());
        let address = IpAddr::from([10, 0, 0, 7]);
        let claims = BTreeMap::new();
        Self { method: "GET", host, path, query: None, headers: HeaderMap::new(), address, claims }
    }

    fn header(mut self, name: &str, value: &[u8]) -> Self {
        let name = HeaderName::try_from(name).expect("a field's name");
        self.headers.append(name, HeaderValue::from_bytes(value).expect("a field's value"));
        self
    }

    fn claim(mut self, name: &str, text: &str) -> Self {
        self.claims.entry(name.to_owned()).or_default().push(text.to_owned());
        self
    }

    /// Whether its token agrees with a route.
    fn agrees<T>(&self, entry: &Entry<T>) -> bool {
        let has =
            |name: &str, text: &str| self.claims.get(name).is_some_and(|it| it.contains(&text.to_owned()));
        entry.unmet_claim(has).is_none()
    }

    fn asked(&self) -> Asked<'_> {
        let Self { method, host, path, query, headers, address, .. } = self;
        Asked { method, host, path, query: query.as_deref(), headers, address: *address }
    }
}

/// Routes as the document writes them: name → the rest.
fn routes(rest: &[(&str, &str)]) -> Vec<Route> {
    let mut text = "upstreams: {u: {endpoints: \"http://127.0.0.1:9000\"}}\n\
        issuers: {i: {issuer: i, audiences: [a], keys: [{algorithm: HS256, secret: {file: s}}]}}\nroutes:\n"
        .to_owned();
    for (name, rest) in rest {
        let access = if rest.contains("claims:") { "{issuers: [i]}" } else { "public" };
        text.push_str(&format!("  - {{name: {name}, upstream: u, access: {access}, {rest}}}\n"));
    }
    config::gateway::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}")).value.routes
}

fn table(routes: &[Route]) -> Table<String> {
    Table::new(routes.iter().map(|route| (route, route.name.to_string())))
}

/// The name of the route that takes a request, or `none`, or the methods that would do.
fn winner(table: &Table<String>, question: &Question) -> String {
    match table.find(&question.asked(), |entry| question.agrees(entry)) {
        Ok(name) => name.clone(),
        Err(none) if none.allowed.is_empty() => "none".to_owned(),
        Err(none) => none.allowed.join(", "),
    }
}

#[test]
fn a_prefix_is_matched_by_whole_segments() {
    let table = table(&routes(&[("api", "match: {path: /api}")]));
    for path in ["/api", "/api/", "/api/x/y"] {
        assert_eq!(winner(&table, &Question::get("h", path)), "api", "{path}");
    }
    for path in ["/", "/apix", "/ap", "/x/api", "*", ""] {
        assert_eq!(winner(&table, &Question::get("h", path)), "none", "{path}");
    }
}

#[test]
fn each_kind_of_path_takes_what_it_says() {
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("{exact: /a/b}", &["/a/b"], &["/a/b/", "/a", "/a/b/c", "/"]),
        ("{exact: /}", &["/"], &["/a"]),
        ("{prefix: /a}", &["/a", "/a/", "/a/b"], &["/ab", "/"]),
        (
            "{template: '/u/{user}/o/{order}'}",
            &["/u/1/o/2", "/u/u/o/o"],
            &["/u/1/o", "/u/1/o/", "/u/1/o/2/", "/u/1/o/2/3", "/u//o/2"],
        ),
        ("{template: '/f/{rest*}'}", &["/f/a", "/f/a/", "/f/a/b/c"], &["/f", "/f/", "/g/a"]),
        ("{regex: '/v[0-9]+/.*'}", &["/v1/", "/v20/a/b"], &["/v/a", "/v1", "/x/v1/a", "/v1x/a"]),
    ];
    for (path, takes, leaves) in cases {
        let table = table(&routes(&[("r", &format!("match: {{path: {path}}}"))]));
        for (paths, wanted) in [(takes, "r"), (leaves, "none")] {
            for asked in paths {
                assert_eq!(winner(&table, &Question::get("h", asked)), wanted, "{path} asked for {asked}");
            }
        }
    }
}

#[test]
fn a_wildcard_stands_for_one_label_or_more() {
    let table = table(&routes(&[
        ("any", "match: {path: /}"),
        ("wide", "match: {path: /, hosts: ['*.example.com']}"),
        ("near", "match: {path: /, hosts: ['*.eu.example.com']}"),
        ("itself", "match: {path: /, hosts: [a.eu.example.com]}"),
    ]));
    let cases = [
        ("a.eu.example.com", "itself"),
        ("b.eu.example.com", "near"),
        ("b.c.eu.example.com", "near"),
        ("eu.example.com", "wide"),
        ("example.com", "any"),
        (".example.com", "any"),
        ("badexample.com", "any"),
    ];
    for (host, wanted) in cases {
        assert_eq!(winner(&table, &Question::get(host, "/x")), wanted, "{host}");
    }
}

#[test]
fn one_of_several_values_of_a_header_is_enough() {
    let table = table(&routes(&[
        ("equal", "match: {path: /, headers: {x-a: '1'}}, priority: 4"),
        ("regex", "match: {path: /, headers: {x-a: {regex: '[2-4]'}}}, priority: 3"),
        ("there", "match: {path: /, headers: {x-a: {present: true}}}, priority: 2"),
        ("absent", "match: {path: /, headers: {x-a: {present: false}}}, priority: 1"),
    ]));
    let get = || Question::get("h", "/");
    assert_eq!(winner(&table, &get()), "absent");
    assert_eq!(winner(&table, &get().header("x-a", b"0").header("x-a", b"1")), "equal");
    assert_eq!(winner(&table, &get().header("x-a", b"0").header("x-a", b"3")), "regex");
    assert_eq!(winner(&table, &get().header("x-a", b"33")), "there");
    assert_eq!(winner(&table, &get().header("x-a", b"")), "there");
    assert_eq!(winner(&table, &get().header("x-a", b"1\xff")), "there", "it is no text");
    assert_eq!(winner(&table, &get().header("x-b", b"1")), "absent");
}

#[test]
fn a_parameter_is_compared_after_it_is_decoded() {
    let table = table(&routes(&[
        ("equal", "match: {path: /, query: {a b: 'ä +'}}, priority: 2"),
        ("there", "match: {path: /, query: {a b: {present: true}}}, priority: 1"),
        ("absent", "match: {path: /, query: {a b: {present: false}}}"),
    ]));
    let get = |query: &str| Question { query: Some(query.to_owned()), ..Question::get("h", "/") };
    for (query, wanted) in [
        ("a+b=%C3%A4+%2B", "equal"),
        ("x=1&a%20b=0&&a+b=%c3%a4%20%2b", "equal"),
        ("a+b", "there"),
        ("a+b=%zz", "there"),
        ("a+b=%ff", "there"),
        ("a%zzb=1", "absent"),
        ("A+b=1", "absent"),
        ("", "absent"),
    ] {
        assert_eq!(winner(&table, &get(query)), wanted, "{query}");
    }
    assert_eq!(winner(&table, &Question::get("h", "/")), "absent");
}

#[test]
fn a_cookie_is_found_in_every_field() {
    let table = table(&routes(&[
        ("beta", "match: {path: /, cookies: {stage: beta}}, priority: 1"),
        ("none", "match: {path: /, cookies: {stage: {present: false}}}"),
    ]));
    let get = || Question::get("h", "/");
    assert_eq!(winner(&table, &get().header("cookie", b"a=b; stage=beta")), "beta");
    assert_eq!(winner(&table, &get().header("cookie", b"a=b").header("cookie", b"stage=beta;c=d")), "beta");
    assert_eq!(winner(&table, &get().header("cookie", b"Stage=beta; xstage=beta; stage")), "none");
    assert_eq!(winner(&table, &get()), "none");
}

#[test]
fn a_source_is_the_connections_other_end() {
    let table = table(&routes(&[
        ("inside", "match: {path: /, sources: [10.0.0.0/8, 'fd00::/8']}"),
        ("all", "match: {path: /}"),
    ]));
    for (address, wanted) in [
        ("10.9.9.9", "inside"),
        ("::ffff:10.9.9.9", "inside"),
        ("fd00::1", "inside"),
        ("192.0.2.1", "all"),
        ("::1", "all"),
    ] {
        let address = address.parse().expect("an address");
        assert_eq!(winner(&table, &Question { address, ..Question::get("h", "/") }), wanted, "{address}");
    }
}

#[test]
fn a_claim_is_had_in_one_of_its_texts() {
    let table = table(&routes(&[
        ("gold", "match: {path: /, claims: {plan: gold, region: [eu, us]}}"),
        ("some", "match: {path: /, claims: {plan: [gold, silver]}}"),
        ("all", "match: {path: /}"),
    ]));
    let get = || Question::get("h", "/");
    assert_eq!(winner(&table, &get()), "all");
    assert_eq!(winner(&table, &get().claim("plan", "gold").claim("region", "us")), "gold");
    assert_eq!(winner(&table, &get().claim("plan", "gold").claim("region", "asia")), "some");
    assert_eq!(winner(&table, &get().claim("plan", "x").claim("plan", "silver")), "some");
    assert_eq!(winner(&table, &get().claim("plan", "Gold")), "all");
}

#[test]
fn a_token_is_looked_at_only_where_a_route_with_claims_would_win() {
    let table = table(&routes(&[
        ("gold", "match: {path: /a, claims: {plan: gold}}"),
        ("by-header", "match: {path: /a/b, headers: {x: '1'}}"),
        ("get", "match: {path: /c, methods: [GET], claims: {plan: gold}}"),
        ("get-d", "match: {path: /d, methods: [GET], claims: {plan: gold}}"),
        ("post-d", "match: {path: /d, methods: [POST]}"),
    ]));
    let looks = |question: &Question| {
        let mut count = 0;
        let found = table.find(&question.asked(), |entry| {
            count += 1;
            question.agrees(entry)
        });
        (found.cloned().map_err(|none| (none.allowed.join(" "), none.lacking.cloned())), count)
    };
    let get = |path| Question::get("h", path);
    // another path, and a route that is preferred anyway
    assert_eq!(looks(&get("/b")), (Err((String::new(), None)), 0));
    assert_eq!(looks(&get("/a/b").header("x", b"1")), (Ok("by-header".to_owned()), 0));
    assert_eq!(looks(&get("/a/b").claim("plan", "gold")), (Ok("gold".to_owned()), 1));
    // where it decides, whoever lacks the claim is told of the route, and learns of no methods
    let lacks = |name: &str| Err((String::new(), Some(name.to_owned())));
    assert_eq!(looks(&get("/a")).0, lacks("gold"));
    let put = |path| Question { method: "PUT", ..get(path) };
    assert_eq!(looks(&put("/c")).0, lacks("get"));
    assert_eq!(looks(&put("/c").claim("plan", "gold")).0, Err(("GET".to_owned(), None)));
    // and none is looked at where a route without claims has other methods
    assert_eq!(looks(&put("/d")), (Err(("POST".to_owned(), None)), 0));
}

#[test]
fn each_rule_of_the_order_decides_when_those_before_it_do_not() {
    // given for each rule a route that it prefers, and one that all rules behind it would prefer
    let cases = [
        ("match: {path: /}, priority: 1", "match: {path: {exact: /a/b}}", Preference::Priority),
        ("match: {path: {exact: /a/b}}", "match: {path: /a/b, hosts: [h.x]}", Preference::ExactPath),
        (
            "match: {path: {regex: '/a/b'}}",
            "match: {path: {template: '/a/{x}'}, hosts: [h.x]}",
            Preference::LiteralSegments,
        ),
        ("match: {path: {template: '/a/{x}'}}", "match: {path: /a, hosts: [h.x]}", Preference::Segments),
        ("match: {path: /a}", "match: {path: {regex: '/a/.*'}, hosts: [h.x]}", Preference::PathKind),
        ("match: {path: {template: '/{x}/b'}}", "match: {path: /a}", Preference::Segments),
        (
            "match: {path: /a, hosts: [h.x]}",
            "match: {path: /a, hosts: ['*.x'], methods: [GET]}",
            Preference::Host,
        ),
        (
            "match: {path: /a, methods: [GET]}",
            "match: {path: /a, headers: {b: {present: false}}}",
            Preference::Methods,
        ),
        (
            "match: {path: /a, headers: {b: {present: false}}}",
            "match: {path: /a, query: {b: {present: false}}}",
            Preference::Headers,
        ),
        (
            "match: {path: /a, query: {b: {present: false}}}",
            "match: {path: /a, cookies: {b: {present: false}}}",
            Preference::Query,
        ),
        (
            "match: {path: /a, cookies: {b: {present: false}}}",
            "match: {path: /a, claims: {plan: gold}}",
            Preference::Cookies,
        ),
        (
            "match: {path: /a, claims: {plan: gold}}",
            "match: {path: /a, sources: [10.0.0.0/8]}",
            Preference::Claims,
        ),
        ("match: {path: /a, sources: [10.0.0.0/8]}", "match: {path: /a}", Preference::Sources),
    ];
    for (better, worse, preference) in cases {
        // when the preferred one has the later name, and comes second
        let table = table(&routes(&[("a", worse), ("b", better)]));
        let question = Question::get("h.x", "/a/b").claim("plan", "gold");
        let explained = table.explain(&question.asked(), &question.claims);
        // then it wins, by that rule
        assert_eq!(winner(&table, &question), "b", "{better}");
        assert_eq!(explained.winner.map(|entry| entry.name().to_string()).as_deref(), Ok("b"));
        assert_eq!(explained.others.len(), 1);
        assert_eq!(explained.others[0].1, Why::Lost(preference), "{better}");
    }
    let alike = table(&routes(&[
        ("b", "match: {path: /a, headers: {x: {present: false}}}"),
        ("a", "match: {path: /a, headers: {y: {present: false}}}"),
    ]));
    let question = Question::get("h", "/a");
    assert_eq!(alike.explain(&question.asked(), &question.claims).others[0].1, Why::Lost(Preference::Name));
    assert_eq!(winner(&alike, &question), "a");
}

#[test]
fn methods_that_would_do_are_told() {
    let table = table(&routes(&[
        ("a", "match: {path: /a, methods: [PUT, GET]}"),
        ("b", "match: {path: /a/b, methods: [POST, GET]}"),
        ("c", "match: {path: /a/b, methods: [PATCH], headers: {x: '1'}}"),
        ("d", "match: {path: {exact: /a/b}, methods: [HEAD]}"),
        ("e", "match: {path: {regex: '/a/x.*'}, methods: [TRACE]}"),
    ]));
    let delete = |path| Question { method: "DELETE", ..Question::get("h", path) };
    assert_eq!(winner(&table, &delete("/a/b/c")), "GET, POST, PUT");
    assert_eq!(winner(&table, &delete("/a/b/c").header("x", b"1")), "GET, PATCH, POST, PUT");
    assert_eq!(winner(&table, &delete("/b")), "none");
}

#[test]
fn a_shorter_path_takes_what_the_longer_does_not() {
    let table = table(&routes(&[
        ("long", "match: {path: /a/b, methods: [GET]}"),
        ("capture", "match: {path: {template: '/a/{x}'}, headers: {x: '1'}}"),
        ("short", "match: {path: /a}"),
    ]));
    let put = Question { method: "PUT", ..Question::get("h", "/a/b") };
    assert_eq!(winner(&table, &put), "short");
    assert_eq!(winner(&table, &put.header("x", b"1")), "capture");
}

/// The next number of a sequence that looks like chance. Source: Knuth, MMIX.
fn step(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits")
}

#[test]
fn ten_thousand_routes_in_any_order_give_the_same_winners_after_a_few_looks() {
    // given as many routes as a document may have, of all kinds
    let made: Vec<(String, String)> = (0..10_000)
        .map(|n| {
            let (group, kind) = (n / 10, n % 10);
            let matches = match kind {
                0 => format!("path: /g{group}"),
                1 => format!("path: {{exact: /g{group}/x}}"),
                2 => format!("path: {{template: '/g{group}/{{id}}'}}"),
                3 => format!("path: {{template: '/g{group}/{{id}}/{{rest*}}'}}"),
                4 => format!("path: {{regex: '/g{group}/v[0-9]+/.*'}}"),
                5 => format!("path: /g{group}, hosts: ['*.h{}.x']", group % 7),
                6 => format!("path: /g{group}/x, methods: [PUT, POST]"),
                7 => format!("path: /g{group}, headers: {{x-stage: beta}}"),
                8 => format!("path: {{template: '/{{any}}/g{group}'}}"),
                _ => format!("path: /g{group}/x/y, sources: [10.0.0.0/8]"),
            };
            (format!("r{n}"), format!("match: {{{matches}}}, priority: {}", n % 3))
        })
        .collect();
    let made: Vec<(&str, &str)> = made.iter().map(|(name, rest)| (name.as_str(), rest.as_str())).collect();
    let mut routes = routes(&made);
    let mut questions = Vec::new();
    for group in (0..1_000).step_by(37) {
        for path in ["", "/", "/x", "/x/y", "/7", "/v1/a", "/7/8/9", "/g3"] {
            for host in ["h", "a.h3.x"] {
                let question = Question::get(host, &format!("/g{group}{path}"));
                questions.extend([question.clone(), question.header("x-stage", b"beta")]);
            }
        }
    }
    let winners = |routes: &[Route]| -> Vec<String> {
        let table = table(routes);
        let found = |question: &Question| {
            let (_, looked) = table.search(&question.asked(), &mut |_| true);
            // A path reaches a few nodes with a few routes each, whatever the others are.
            assert!(looked <= 12, "{looked} routes were looked at for {question:?}");
            winner(&table, question)
        };
        questions.iter().map(found).collect()
    };
    let expected = winners(&routes);
    assert!(expected.iter().collect::<BTreeSet<_>>().len() > 100);
    // when the document's order is another one, then the winners are the same
    let mut state = 1;
    for _ in 0..4 {
        for last in (1..routes.len()).rev() {
            routes.swap(last, step(&mut state) % (last + 1));
        }
        assert_eq!(winners(&routes), expected);
    }
}

/// A route, and how many literal segments and segments its path has.
type Sized = (Route, usize, usize);

/// Parameters as they are sent, and what they mean: none, if nothing.
const VALUES: [(&str, Option<&str>); 5] =
    [("1", Some("1")), ("2", Some("2")), ("%31", Some("1")), ("+", Some(" ")), ("%zz", None)];

/// The reference: tries every route, and says what the words on top of the table say.
fn naive<'r>(routes: &'r [Sized], question: &Question) -> Result<&'r str, (Vec<String>, Option<&'r str>)> {
    let but_claims = || routes.iter().filter(|(route, ..)| naive_but_method(&route.matches, question));
    let agrees = |(route, ..): &&Sized| {
        route.matches.claims.iter().all(|(name, wanted)| {
            question.claims.get(name).into_iter().flatten().any(|text| wanted.contains(text))
        })
    };
    let here = || but_claims().filter(agrees);
    let takes = |(route, ..): &&Sized| {
        route.matches.methods.is_empty() || route.matches.methods.iter().any(|it| it == question.method)
    };
    let order = |(route, literals, segments): &&Sized| {
        let it = &route.matches;
        let kind = ["template", "prefix", "regex"].iter().position(|kind| *kind == it.path.kind());
        let host = it.hosts.iter().filter(|host| naive_host(host, &question.host));
        let host = host.map(|host| if host.starts_with('*') { host.len() } else { 1_000 }).max();
        let path = (it.path.kind() != "exact", Reverse(*literals), Reverse(*segments), kind);
        let conditions = (Reverse(it.headers.len()), Reverse(it.query.len()), Reverse(it.cookies.len()));
        let conditions = (conditions, Reverse(it.claims.len()));
        let named = (Reverse(host), it.methods.is_empty(), conditions, it.sources.is_empty());
        (Reverse(route.priority), path, named, route.name.clone())
    };
    let name = |(route, ..): &'r Sized| route.name.as_str();
    if let Some(best) = here().filter(takes).min_by_key(order) {
        return Ok(name(best));
    }
    let has_claims = |(route, ..): &&Sized| !route.matches.claims.is_empty();
    let methods = |routes: Vec<&Sized>| -> BTreeSet<String> {
        routes.into_iter().flat_map(|(route, ..)| route.matches.methods.clone()).collect()
    };
    let open = methods(here().filter(|it| !has_claims(it)).collect());
    let lacking = || but_claims().filter(|it| !agrees(it));
    let but_method = || lacking().filter(|_| open.is_empty()).min_by_key(order);
    let lacking = lacking().filter(takes).min_by_key(order).or_else(but_method).map(name);
    let allowed = if open.is_empty() { methods(here().collect()) } else { open.clone() };
    Err((allowed.into_iter().collect(), lacking))
}

fn naive_host(wanted: &str, host: &str) -> bool {
    match wanted.strip_prefix('*') {
        Some(below) => host.len() > below.len() && host.ends_with(below),
        None => host == wanted,
    }
}

fn naive_but_method(it: &Match, question: &Question) -> bool {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let header = |name: &str| -> Vec<Option<String>> {
        let fields = question.headers.iter().filter(|(field, _)| field.as_str() == name);
        fields.map(|(_, value)| text(value.as_bytes())).collect()
    };
    let parameter = |name: &str| -> Vec<Option<String>> {
        let parts = question.query.iter().flat_map(|query| query.split('&'));
        let pairs = parts.filter_map(|part| part.split_once('=')).filter(|(key, _)| *key == name);
        pairs
            .map(|(_, raw)| {
                let (_, means) = VALUES.iter().find(|(sent, _)| *sent == raw).expect("a value of the test");
                means.map(str::to_owned)
            })
            .collect()
    };
    let cookie = |name: &str| -> Vec<Option<String>> {
        let fields = header("cookie");
        let parts = fields.iter().flatten().flat_map(|field| field.split("; "));
        let pairs = parts.filter_map(|part| part.split_once('=')).filter(|(key, _)| *key == name);
        pairs.map(|(_, value)| Some(value.to_owned())).collect()
    };
    let all = |wanted: &BTreeMap<String, Condition>, values: &dyn Fn(&str) -> Vec<Option<String>>| {
        wanted.iter().all(|(name, condition)| match condition {
            Condition::Present(present) => values(name).is_empty() != *present,
            Condition::Equal(text) => values(name).contains(&Some(text.clone())),
            Condition::Regex(pattern) => values(name).iter().flatten().any(|value| pattern.fits(value)),
        })
    };
    naive_path(&it.path, &question.path)
        && (it.hosts.is_empty() || it.hosts.iter().any(|host| naive_host(host, &question.host)))
        && all(&it.headers, &header)
        && all(&it.query, &parameter)
        && all(&it.cookies, &cookie)
        && (it.sources.is_empty()
            || it.sources.iter().any(|net| net.contains(&question.address.to_canonical())))
}

fn naive_path(wanted: &Path, path: &str) -> bool {
    match wanted {
        Path::Prefix(prefix) => {
            let below = |text: &str| format!("{}/", text.trim_end_matches('/'));
            below(path).starts_with(&below(prefix))
        }
        Path::Exact(exact) => exact == path,
        Path::Regex(regex) => regex.fits(path),
        Path::Template(template) => {
            let (wanted, found): (Vec<&str>, Vec<&str>) =
                (template.as_str().split('/').collect(), path.split('/').collect());
            let fits = |(wanted, found): (&&str, &&str)| {
                if wanted.starts_with('{') { !found.is_empty() } else { wanted == found }
            };
            let rest = wanted.last().is_some_and(|last| last.ends_with("*}"));
            let long = if rest { found.len() >= wanted.len() } else { found.len() == wanted.len() };
            long && wanted.iter().zip(&found).all(fits)
        }
    }
}

fn paths() -> impl Strategy<Value = (Path, usize, usize)> {
    let plain = || vec("[ab]", 0..4);
    let slashed = |segments: &[String]| format!("/{}", segments.join("/"));
    let prefix = plain().prop_map(move |it| (Path::Prefix(slashed(&it)), it.len(), it.len()));
    let exact = plain().prop_map(move |it| (Path::Exact(slashed(&it)), it.len(), it.len()));
    let template = (vec(select(vec!["a", "b", "*"]), 0..3), any::<bool>()).prop_map(|(segments, rest)| {
        let mut text = String::new();
        for (at, segment) in segments.iter().enumerate() {
            text.push_str(&if *segment == "*" { format!("/{{c{at}}}") } else { format!("/{segment}") });
        }
        text.push_str(if rest { "/{r*}" } else { "/{l}" });
        let literals = segments.iter().filter(|segment| **segment != "*").count();
        (Path::Template(Template::parse(&text).expect(&text)), literals, segments.len() + 1)
    });
    let regexes = [
        ("/.*", 0),
        ("/[ab]", 0),
        ("/a|/b/.*", 0),
        ("/a/.*", 1),
        ("/a(/.*)?", 0),
        ("/(a)/[ab]", 1),
        ("/a/b/[ab].*", 2),
        ("/a/b", 2),
        ("/b/(?i)A", 1),
    ];
    let regex = select(regexes.to_vec())
        .prop_map(|(text, length)| (Path::Regex(PathPattern::parse(text).expect(text)), length, length));
    prop_oneof![prefix, exact, template, regex]
}

fn conditions() -> impl Strategy<Value = BTreeMap<String, Condition>> {
    let condition = prop_oneof![
        select(vec!["1", "2", " "]).prop_map(|text| Condition::Equal(text.to_owned())),
        select(vec!["[12]", "2|", ".*"]).prop_map(|text| Condition::Regex(Pattern::parse(text).expect(text))),
        any::<bool>().prop_map(Condition::Present),
    ];
    let some = btree_map("[xy]", condition, 1..3);
    option::weighted(0.3, some).prop_map(Option::unwrap_or_default)
}

/// Names and texts of claims.
fn claims() -> impl Strategy<Value = BTreeMap<String, Vec<String>>> {
    let some = btree_map("[xy]", vec("[12]", 1..3), 1..3);
    option::weighted(0.3, some).prop_map(Option::unwrap_or_default)
}

fn all_routes() -> impl Strategy<Value = Vec<Sized>> {
    let hosts = vec(select(vec!["h.x", "g.h.x", "*.x", "*.h.x", "i"]), 0..3);
    let hosts = option::weighted(0.4, hosts).prop_map(Option::unwrap_or_default);
    let methods = vec(select(vec!["GET", "PUT", "POST"]), 0..3);
    let methods = option::weighted(0.4, methods).prop_map(Option::unwrap_or_default);
    let sources = vec(select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0"]), 0..2);
    let sources = option::weighted(0.3, sources).prop_map(Option::unwrap_or_default);
    let priority = prop_oneof![3 => Just(0), 1 => -1..=1_i16];
    let conditions = (conditions(), conditions(), conditions(), claims());
    let one = (paths(), hosts, methods, conditions, sources, priority);
    vec(one, 0..16).prop_map(|all| {
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        let made = |(number, (path, hosts, methods, conditions, sources, priority)): (usize, _)| {
            let ((path, literals, segments), (headers, query, cookies, claims)) = (path, conditions);
            let sources: Vec<&str> = sources;
            let sources = sources.iter().map(|net| net.parse().expect("a network")).collect();
            let matches = Match {
                path,
                methods: owned(methods),
                hosts: owned(hosts),
                headers,
                query,
                cookies,
                sources,
                claims,
            };
            let route = Route {
                name: RouteName::parse(&format!("r{number}")).expect("a name"),
                matches,
                priority,
                action: Action::Upstream(UpstreamName::parse("u").expect("a name")),
                access: Access::Public,
                charges: vec![],
                timeout: None,
                strip_prefix: false,
                rewrite: None,
                upgrades: vec![],
                headers: Headers::default(),
                mirror: None,
                lifecycle: None,
                flags: vec![],
            };
            (route, literals, segments)
        };
        all.into_iter().enumerate().map(made).collect()
    })
}

fn questions() -> impl Strategy<Value = Question> {
    let path = (vec("[abc]", 0..5), any::<bool>()).prop_map(|(segments, slash)| {
        let path = format!("/{}", segments.join("/"));
        if slash && path != "/" { path + "/" } else { path }
    });
    let hosts = vec!["h.x", "g.h.x", "k.g.h.x", "i", "j", "x", ".x"];
    let query = vec(("[xy]", select(VALUES.map(|(sent, _)| sent).to_vec())), 0..3);
    let pairs = |pairs: Vec<(String, &str)>, between: &str| {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(between)
    };
    let headers = vec(("[xy]", select(vec!["1", "2", "3", ""])), 0..3);
    let cookies = vec(("[xy]", select(vec!["1", "2", "3", ""])), 0..3);
    let addresses = ["10.0.0.1", "10.1.0.1", "192.0.2.1", "::1", "::ffff:10.0.0.1"];
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    let methods = select(vec!["GET", "PUT", "POST", "DELETE"]);
    (methods, select(hosts), path, query, headers, cookies, (select(addresses), claims())).prop_map(
        move |(method, host, path, query, headers, cookies, (address, claims))| {
            let query = (!query.is_empty()).then(|| pairs(query, "&"));
            let mut question = Question { method, query, address, claims, ..Question::get(host, &path) };
            for (name, value) in headers {
                question = question.header(&name, value.as_bytes());
            }
            if !cookies.is_empty() {
                question = question.header("cookie", pairs(cookies, "; ").as_bytes());
            }
            question
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn the_tree_finds_what_trying_every_route_finds(routes in all_routes(), asked in vec(questions(), 8)) {
        let plain: Vec<Route> = routes.iter().map(|(route, ..)| route.clone()).collect();
        let table = table(&plain);
        for question in asked {
            let found = table.find(&question.asked(), |entry| question.agrees(entry)).cloned();
            let told = found.as_ref().map(String::as_str);
            let told = told.map_err(|none| (none.allowed.clone(), none.lacking.map(String::as_str)));
            prop_assert_eq!(told, naive(&routes, &question), "{:?}", question);
            // and what is explained is what happens
            let explained = table.explain(&question.asked(), &question.claims);
            prop_assert_eq!(explained.winner.map(|entry| entry.name().to_string()), found);
        }
    }

    #[test]
    fn the_documents_order_decides_nothing(routes in all_routes(), question in questions()) {
        let plain: Vec<Route> = routes.into_iter().map(|(route, ..)| route).collect();
        let reversed: Vec<Route> = plain.iter().rev().cloned().collect();
        let (one, other) = (table(&plain), table(&reversed));
        prop_assert_eq!(one.find(&question.asked(), |it| question.agrees(it)), other.find(&question.asked(), |it| question.agrees(it)));
    }
}
