//! What an operator sees: all mistakes at once, each at its line and column.

use std::path::Path;

use quorumgate_config::mistake::{Mistake, Parsed, render};
use quorumgate_config::{gateway, node};

fn errors<T: std::fmt::Debug>(parsed: Parsed<T>) -> Vec<Mistake> {
    parsed.unwrap_err()
}

/// A document around one route.
fn document(quotas: &str, route: &str) -> String {
    format!(
        "upstreams: {{echo: {{endpoints: [\"http://127.0.0.1:9000\"]}}}}\n\
         issuers: {{dev: {{issuer: i, audiences: [a], keys: [{{kid: k, algorithm: HS256, secret: {{file: s}}}}]}}}}\n\
         quotas: {{{quotas}}}\n\
         routes: [{{name: r, match: {{path: /r}}, upstream: echo, {route}}}]\n"
    )
}

#[test]
fn five_different_mistakes_are_all_reported_in_their_places() {
    // given a document with a bad unit, a slip in a key, a missing key, a wrong type and a dangling reference
    let text = r#"upstreams:
  echo:
    endpoints: ["http://127.0.0.1:9000"]
    connect_timeout: 5
quotas:
  per-tenant: {key: tenant, limit: 100/s, busrt: 100}
  hourly: {key: client}
issuers:
  dev: {issuer: dev, audiences: [a], keys: [{algorithm: HS256, secret: {file: s}}]}
routes:
  - name: orders
    match: {path: /orders}
    upstream: ehco
    strip_prefix: sometimes
    access: {issuers: [dev]}
    quotas: [per-tenant, hourly]
"#;
    // when it is read
    let mistakes = errors(gateway::parse(text));
    // then there are these five and no others
    let expected = r#"gateway.yaml:4:22: error: upstreams.echo.connect_timeout: found 5, wanted a duration from 1ms to 1h, such as 250ms, 10s, 5m or 1h
    4 |     connect_timeout: 5
      |                      ^
  help: add a unit, as in 10s
gateway.yaml:6:43: error: quotas.per-tenant.busrt: found the unknown key "busrt", wanted one of key, limit, burst, wait, on_quorum_loss
    6 |   per-tenant: {key: tenant, limit: 100/s, busrt: 100}
      |                                           ^
  help: did you mean `burst`?
gateway.yaml:7:3: error: quotas.hourly.limit: found nothing, wanted a value for `limit`
    7 |   hourly: {key: client}
      |   ^
gateway.yaml:13:15: error: routes[0].upstream: found "ehco", wanted the name of an upstream
   13 |     upstream: ehco
      |               ^
  help: did you mean `echo`?
gateway.yaml:14:19: error: routes[0].strip_prefix: found "sometimes", wanted true or false
   14 |     strip_prefix: sometimes
      |                   ^
"#;
    assert_eq!(render("gateway.yaml", text, &mistakes), expected);
}

/// Quotas and the rest of a route → path, found and wanted of the only mistake (a part of it).
const SINGLE: &[(&str, &str, &str)] = &[
    (
        "",
        "access: {issuers: [dev]}, quotas: [x]",
        "routes[0].quotas[0]: found \"x\", wanted the name of a quota",
    ),
    (
        "",
        "access: {issuers: [der]}",
        "routes[0].access.issuers[0]: found \"der\", wanted the name of an issuer",
    ),
    ("", "access: {issuers: []}", "wanted at least one issuer"),
    ("", "access: open", "wanted `public`, or"),
    ("", "access: public, name: s", "routes[0].name: found \"name\" again"),
    ("", "access: public, timeout: 0s", "routes[0].timeout: found \"0s\""),
    ("q: {key: tenant, limit: 9/s}", "access: public, quotas: [q]", "found \"q\" on a public route"),
    ("q: {key: all, limit: 9/s}", "access: public, quotas: [q, q]", "routes[0].quotas[1]: found \"q\" again"),
    (
        "q: {key: all, limit: 9/s}",
        "access: public, quotas: [{quota: q, cost: 10}]",
        "found a cost of 10, wanted at most",
    ),
    (
        "q: {key: all, limit: 9}",
        "access: public, quotas: [q]",
        "quotas.q.limit: found 9, wanted a rate such as",
    ),
    ("q: {key: all, limit: 9/s, burst: 0}", "access: public, quotas: [q]", "quotas.q.burst: found 0"),
    ("q: {key: [], limit: 9/s}", "access: public, quotas: [q]", "quotas.q.key: found a list, wanted a part"),
    (
        "q: {key: [route, route], limit: 9/s}",
        "access: public, quotas: [q]",
        "quotas.q.key[1]: found \"route\"",
    ),
    (
        "q: {key: all, limit: {at_most: 1 in any 1h}}",
        "access: public, quotas: [q]",
        "wanted a bound of 2 or more",
    ),
    ("q: {key: all, limit: 10 in any 1h}", "access: public, quotas: [q]", "wanted a rate such as"),
    (
        "q: {key: all, limit: {at_most: 9 in any 1h, burst: 9}}",
        "access: public, quotas: [q]",
        "a burst from 1 to 8",
    ),
    ("q: {key: all, limit: {burst: 9}}", "access: public, quotas: [q]", "found neither `rate` nor `at_most`"),
    ("Q: {key: all, limit: 9/s}", "access: public", "quotas.Q: found \"Q\", wanted 1 to 64 of a-z"),
];

#[test]
fn one_mistake_is_one_report() {
    for (quotas, route, expected) in SINGLE {
        let text = document(quotas, route);
        let mistakes = errors(gateway::parse(&text));
        let shown = render("f", &text, &mistakes);
        assert_eq!(mistakes.len(), 1, "{shown}");
        assert!(mistakes[0].to_string().contains(expected), "wanted {expected} in {shown}");
        assert!(mistakes[0].line >= 3, "{shown}");
    }
}

#[test]
fn plans_and_tenants_may_only_change_what_counts_by_tenant() {
    // given a plan for a quota keyed by address, and a tenant on a plan that is not there
    let text = document("q: {key: address, limit: 9/s}", "access: public, quotas: [q]")
        + "plans: {gold: {limits: {q: 9/s}}}\ntenants: {acme: {plan: glod, limits: {p: 1/s}}}\n";
    // when, then
    let shown: Vec<String> = errors(gateway::parse(&text)).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "error: plans.gold.limits.q: found \"q\", wanted a quota whose key includes `tenant`",
            "error: tenants.acme.plan: found \"glod\", wanted the name of a plan",
            "error: tenants.acme.limits.p: found \"p\", wanted the name of a quota",
        ]
    );
}

#[test]
fn no_two_routes_want_the_same_requests() {
    // given two routes that share a method and a host
    let route = |name, hosts, methods| {
        format!(
            "  - {{name: {name}, upstream: echo, access: public, match: {{path: /a, hosts: [{hosts}], methods: [{methods}]}}}}\n"
        )
    };
    let head = "upstreams: {echo: {endpoints: \"http://127.0.0.1:9000\"}}\nroutes:\n";
    let apart = head.to_owned() + &route("a", "x, y", "GET") + &route("b", "x, y", "POST");
    let shared = head.to_owned() + &route("a", "x, y", "GET") + &route("b", "y", "POST, GET");
    // when, then the first pair is fine and the second is not
    assert!(gateway::parse(&apart).is_ok());
    let mistakes = errors(gateway::parse(&shared));
    assert_eq!(mistakes.len(), 1);
    assert_eq!((mistakes[0].line, mistakes[0].path.as_str()), (4, "routes[1].match"));
}

/// A match and the rest of a route → found and wanted of the only mistake (a part of it), and a part of its help.
const MATCHES: &[(&str, &str, &str)] = &[
    (
        "{path: /a/}",
        "routes[0].match.path: found \"/a/\", wanted a path such as /orders: visible",
        "leave the last",
    ),
    ("{path: 7}", "routes[0].match.path: found 7, wanted a path such as /orders: visible", "in quotes"),
    (
        "{path: {}}",
        "match.path: found a map, wanted exactly one of `exact`, `prefix`, `template`, `regex`",
        "",
    ),
    ("{path: {exact: /a, prefix: /a}}", "match.path: found a map, wanted exactly one of", ""),
    ("{path: {exact: /a/}}", "match.path.exact: found \"/a/\"", "`prefix` takes everything below"),
    ("{path: {prefix: /a/*}}", "match.path.prefix: found \"/a/*\"", "leave the `*` out"),
    ("{path: {template: '/:a'}}", "match.path.template: found \"/:a\"", "write a capture as {name}"),
    ("{path: {template: '/{a}/{a}'}}", "match.path.template: found", "a name of its own"),
    ("{path: {regex: '^/a'}}", "match.path.regex: found \"^/a\"", "needs no `^`"),
    (
        "{path: {regex: '/('}}",
        "match.path.regex: found \"/(\", wanted a regular expression",
        "unclosed group",
    ),
    ("{path: {regex: '/\\w{400}'}}", "wanted one that takes at most 256 KiB when compiled", "count less"),
    ("{path: /a, hosts: ['*']}", "match.hosts[0]: found \"*\"", "leave `hosts` out"),
    ("{path: /a, hosts: [a.*.b]}", "match.hosts[0]: found \"a.*.b\"", "*.example.com"),
    ("{path: /a, hosts: [A]}", "match.hosts[0]: found \"A\", wanted a host in lower case", ""),
    ("{path: /a, header: {a: b}}", "found the unknown key \"header\"", "did you mean `headers`?"),
    (
        "{path: /a, headers: {X-A: b}}",
        "match.headers.X-A: found \"X-A\", wanted the name of a header",
        "write x-a",
    ),
    ("{path: /a, headers: {x-a: 2}}", "match.headers.x-a: found 2, wanted a text, `{regex: …}`", "in quotes"),
    ("{path: /a, headers: {x-a: [b]}}", "match.headers.x-a: found a list, wanted a text", ""),
    ("{path: /a, headers: {x-a: {present: yes, regex: a}}}", "wanted exactly one of `regex`, `present`", ""),
    (
        "{path: /a, headers: {x-a: {present: 'true'}}}",
        "x-a.present: found \"true\", wanted true or false",
        "",
    ),
    ("{path: /a, headers: {x-a: ' b'}}", "x-a: found \" b\", wanted a text without white space", "`regex`"),
    (
        "{path: /a, headers: {}}",
        "match.headers: found a map, wanted at least one header",
        "leave `headers` out",
    ),
    ("{path: /a, query: {'': a}}", "wanted the name of a query parameter", ""),
    ("{path: /a, query: {a: {regex: '['}}}", "match.query.a.regex: found", "unclosed character class"),
    ("{path: /a, cookies: {'a b': a}}", "wanted the name of a cookie", ""),
    (
        "{path: /a, sources: [10.0.0.7]}",
        "match.sources[0]: found \"10.0.0.7\", wanted a network",
        "10.0.0.7/32",
    ),
    ("{path: /a, sources: [10.0.0.7/8]}", "wanted a network such as", "write 10.0.0.0/8, or 10.0.0.7/32"),
    ("{path: /a, sources: ['::ffff:10.0.0.0/104']}", "wanted a network such as", "write the IPv4 network"),
    ("{path: /a, sources: []}", "found a list, wanted at least one network", "leave `sources` out"),
    ("{path: /a, sources: [x]}", "found \"x\", wanted a network", ""),
    (
        "{path: /a}, priority: 1001",
        "routes[0].priority: found 1001, wanted a whole number from -1000 to 1000",
        "",
    ),
    ("{path: /a}, priority: high", "routes[0].priority: found \"high\"", ""),
    (
        "{path: {exact: /a}}, strip_prefix: true",
        "routes[0].strip_prefix: found true beside exact /a, wanted false, or a path that is a prefix",
        "no prefix",
    ),
];

#[test]
fn a_mistake_in_a_match_is_one_report() {
    for (rest, expected, help) in MATCHES {
        let text = document("", "access: {issuers: [dev]}").replace("{path: /r}", rest);
        let mistakes = errors(gateway::parse(&text));
        let shown = render("f", &text, &mistakes);
        assert_eq!(mistakes.len(), 1, "{rest}: {shown}");
        assert!(mistakes[0].to_string().contains(expected), "wanted {expected} in {shown}");
        assert!(mistakes[0].help.as_deref().unwrap_or("").contains(help), "wanted {help} in {shown}");
        assert_eq!(mistakes[0].line, 4, "{shown}");
    }
}

#[test]
fn conditions_are_bounded_in_number() {
    let list =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    for (count, rest) in [
        (16, list(17, &|n| format!("h{n}: a"))),
        (64, list(65, &|n| format!("10.0.{n}.0/24"))),
        (64, list(65, &|n| format!("'*.h{n}'"))),
    ] {
        for key in ["headers", "query", "cookies", "sources", "hosts"] {
            let value = match (key, rest.as_bytes()[0]) {
                ("headers" | "query" | "cookies", b'h') => format!("{{{rest}}}"),
                ("sources", b'1') | ("hosts", b'\'') => format!("[{rest}]"),
                _ => continue,
            };
            let matches = format!("{{path: /a, {key}: {value}}}");
            let text = document("", "access: {issuers: [dev]}").replace("{path: /r}", &matches);
            let shown: Vec<String> = errors(gateway::parse(&text)).iter().map(ToString::to_string).collect();
            let many = count + 1;
            assert_eq!(
                shown,
                [format!("error: routes[0].match.{key}: found {many} of them, wanted at most {count}")]
            );
        }
    }
}

#[test]
fn routes_that_differ_in_one_condition_are_told_apart_and_equal_ones_are_not() {
    let pair = |one: &str, other: &str| {
        let head = "upstreams: {echo: {endpoints: \"http://127.0.0.1:9000\"}}\nroutes:\n";
        let route = |name: &str, rest: &str| {
            format!("  - {{name: {name}, upstream: echo, access: public, match: {rest}}}\n")
        };
        gateway::parse(&(head.to_owned() + &route("a", one) + &route("b", other)))
    };
    let apart = [
        ("{path: /a}", "{path: {exact: /a}}"),
        ("{path: /a}", "{path: /a}, priority: 1"),
        ("{path: /a}", "{path: /a, headers: {x: y}}"),
        ("{path: /a, headers: {x: y}}", "{path: /a, query: {x: y}}"),
        ("{path: /a, cookies: {x: y}}", "{path: /a, cookies: {x: {regex: y}}}"),
        ("{path: /a, sources: [10.0.0.0/8]}", "{path: /a, sources: [10.0.0.0/9]}"),
        ("{path: /a, sources: [10.0.0.0/8]}", "{path: /a, sources: [10.0.0.0/9], hosts: [a]}"),
        ("{path: /a, hosts: [a.b]}", "{path: /a, hosts: ['*.b']}"),
        ("{path: {template: '/{a}'}}", "{path: {template: '/{b}'}, methods: [GET]}"),
    ];
    for (one, other) in apart {
        assert!(pair(one, other).is_ok(), "{one} {other}");
    }
    let alike = [
        ("{path: /a}", "{path: {prefix: /a}}", "any method any host /a"),
        (
            "{path: {template: '/{a}'}, hosts: ['*.b', c]}",
            "{path: {template: '/{b}'}, hosts: [d, '*.b']}",
            "any method *.b template /{b}",
        ),
        (
            "{path: /a, headers: {x: y, z: {present: true}}}",
            "{path: /a, headers: {z: {present: true}, x: y}}",
            "any method any host /a",
        ),
        (
            "{path: /a, sources: [10.0.0.0/8, 11.0.0.0/8]}",
            "{path: /a, sources: [11.0.0.0/8, 10.0.0.0/8]}",
            "any method any host /a",
        ),
    ];
    for (one, other, found) in alike {
        let mistakes = errors(pair(one, other));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert_eq!((mistakes[0].path.as_str(), mistakes[0].found.as_str()), ("routes[1].match", found));
    }
}

#[test]
fn keys_of_two_families_never_meet() {
    let keys = |keys: &str| {
        document("", "access: {issuers: [dev]}")
            .replace("{kid: k, algorithm: HS256, secret: {file: s}}", keys)
    };
    let secret = "{kid: a, algorithm: HS256, secret: {file: s}}";
    let public = "{kid: b, algorithm: ES256, public_key: {file: p}}";
    let cases = [
        (format!("{secret}, {public}"), "found ES256 beside HS256"),
        (format!("{secret}, {secret}"), "found kid \"a\" again"),
        ("{algorithm: HS256, public_key: {file: p}}".to_owned(), "found a public key for HS256"),
        ("{algorithm: EdDSA, secret: {env: P}}".to_owned(), "found a secret for EdDSA"),
        ("{algorithm: HS256, secret: hunter2}".to_owned(), "found a text, wanted `{file: …}` or `{env: …}`"),
        ("{algorithm: none, secret: {env: P}}".to_owned(), "wanted one of HS256, RS256, ES256, EdDSA"),
        (
            "{algorithm: ES256, public_key: {pem: \"-----BEGIN PRIVATE KEY-----\"}}".to_owned(),
            "found a private key",
        ),
    ];
    for (text, expected) in cases {
        let mistakes = errors(gateway::parse(&keys(&text)));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].to_string().contains(expected), "{}", mistakes[0]);
        assert!(!mistakes[0].found.contains("hunter2"), "a secret is never shown");
    }
    let others = keys(&format!("{public}, {}", public.replace("kid: b, ", "")));
    assert!(gateway::parse(&others).is_ok());
}

#[test]
fn what_works_oddly_is_a_warning() {
    // given a bucket too small for its rate, and a quota of no use
    let quotas = "q: {key: all, limit: 100/s, burst: 5}, unused: {key: all, limit: 1/1h, burst: 1}";
    let text = document(quotas, "access: {issuers: [dev]}, quotas: [q]");
    // when it is read
    let checked = gateway::parse(&text).unwrap();
    // then it works, and both are mentioned
    let shown: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "warning: quotas.q.limit: found a burst of 5, wanted 6 or more, for the rate to be fully used",
            "warning: quotas.unused: found \"unused\", wanted a route that uses it",
        ]
    );
}

#[test]
fn plaintext_stays_on_its_machine() {
    // given a file that listens everywhere without TLS, and an open admin side
    let text = "name: a\ndata: d\nhttp: {listen: \"0.0.0.0:80\"}\nadmin: {listen: \"0.0.0.0:9\"}\ncluster:\n  \
                listen: 0.0.0.0:7\n  advertise: b.example:7\n  peers: {c: \"localhost:7\", d: \"10.0.0.1:7\", a: \"[::1]:7\"}\n  \
                plaintext: true\n";
    // when it is read
    let mistakes = errors(node::parse(text, Path::new("")));
    // then each such address is a mistake, and this node is no peer of itself
    let paths: Vec<&str> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    assert_eq!(
        paths,
        ["admin.listen", "cluster.listen", "cluster.advertise", "cluster.peers.d", "cluster.peers.a"]
    );
    // and one of TLS and plaintext must be chosen
    for (tls, found) in [("", "neither"), ("plaintext: true, tls: {ca: a, certificate: b, key: c}", "both")] {
        let text = format!(
            "name: a\ndata: d\nhttp: {{listen: \"0.0.0.0:80\"}}\ncluster: {{listen: \"127.0.0.1:7\", {tls}}}"
        );
        let mistakes = errors(node::parse(&text, Path::new("")));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].found.starts_with(found), "{}", mistakes[0]);
    }
}

/// The clients' side of a node file → its only mistake (a part of it).
const CLIENTS: &[(&str, &str)] = &[
    ("", "http: found nothing, wanted a value for `http`"),
    ("http: {workers: 2}", "http.listen: found nothing, wanted a value for `listen`"),
    ("https: {listen: \"[::]:443\"}", "https.certificates: found nothing"),
    ("https: {listen: \"[::]:443\", certificates: []}", "wanted one certificate or more"),
    (
        "https: {listen: \"[::]:443\", certificates: [{certificate: a.pem}]}",
        "https.certificates[0].key: found nothing",
    ),
    (
        "https: {listen: \"[::]:443\", certificates: [{certificate: a, key: b}], client_certificate: optional}",
        "found `client_certificate` without `client_ca`",
    ),
    (
        "https: {listen: \"[::]:443\", certificates: [{certificate: a, key: b}], min_version: tls1.1}",
        "wanted one of tls1.2, tls1.3",
    ),
    ("http: {listen: \"[::]:80\", trusted_proxies: [10.0.0.1]}", "wanted a network such as 10.0.0.0/8"),
    ("http: {listen: \"[::]:80\", proxy_protocol: {}}", "http.proxy_protocol.from: found nothing"),
    (
        "http: {listen: \"[::]:80\"}\nlimits: {http2: {frame_bytes_max: 1KiB}}",
        "limits.http2.frame_bytes_max: found \"1KiB\"",
    ),
    (
        "http: {listen: \"[::]:80\"}\nlimits: {http2: {streams_max: 0}}",
        "wanted a whole number from 1 to 10000",
    ),
    (
        "http: {listen: \"[::]:80\"}\nlimits: {http2: {connection_window_bytes: 1MiB}}",
        "found \"1MiB\", wanted `stream_window_bytes` times `streams_max`, 6553600 bytes, or more",
    ),
    (
        "http: {listen: \"[::]:80\"}\nlimits: {http2: {streams_max: 10000, stream_window_bytes: 1MiB}}",
        "limits.http2: found `stream_window_bytes` times `streams_max` of 10485760000 bytes",
    ),
];

#[test]
fn mistakes_about_the_clients_side_are_told_in_their_places() {
    let node = |clients: &str| {
        let text =
            format!("name: a\ndata: d\ncluster: {{listen: \"127.0.0.1:7\", plaintext: true}}\n{clients}\n");
        node::parse(&text, Path::new("/etc/gate"))
    };
    for (clients, wanted) in CLIENTS {
        let mistakes = errors(node(clients));
        assert!(mistakes.len() == 1 && mistakes[0].to_string().contains(wanted), "{clients}: {mistakes:?}");
    }
    // and a port for TLS alone is enough
    let alone =
        node("https: {listen: \"[::]:443\", certificates: [{certificate: a, key: b}]}").expect("good").value;
    let https = alone.https.expect("it is there");
    assert_eq!((alone.http.listen, https.certificates[0].key.as_path()), (None, Path::new("/etc/gate/b")));
    // and a connection's window that is not given has room for all streams' windows
    for (http2, wanted) in [
        ("{}", 6_553_600),
        ("{streams_max: 7, stream_window_bytes: 1MiB}", 7 << 20),
        ("{streams_max: 1, stream_window_bytes: 1KiB}", 64 << 10),
        ("{streams_max: 7, stream_window_bytes: 1MiB, connection_window_bytes: 8MiB}", 8 << 20),
    ] {
        let file = node(&format!("http: {{listen: \"[::]:80\"}}\nlimits: {{http2: {http2}}}")).expect("good");
        assert_eq!(file.value.limits.http2.connection_window_bytes, wanted, "{http2}");
    }
}

/// A route of one path and what becomes of its requests; two upstreams.
fn acting(route: &str) -> Parsed<gateway::GatewayDocument> {
    let upstreams = "{blue: {endpoints: \"http://a\"}, green: {endpoints: \"http://b\"}}";
    let issuers = "{dev: {issuer: i, audiences: [a], keys: [{kid: k, algorithm: HS256, secret: {file: s}}]}}";
    gateway::parse(&format!("upstreams: {upstreams}\nissuers: {issuers}\nroutes:\n- {{name: r, {route}}}\n"))
}

/// A route → its only mistake (a part of it).
const ACTIONS: &[(&str, &str)] = &[
    (
        "match: {path: /r}, access: public",
        "routes[0]: found none of them, wanted exactly one of `upstream`, `redirect`",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, respond: {status: 200}",
        "routes[0].respond: found `respond` beside `upstream`, wanted exactly one",
    ),
    ("match: {path: /r}, access: public, redirect: {path: /n}", "routes[0].redirect.status: found nothing"),
    ("match: {path: /r}, access: public, redirect: {status: 308}", "routes[0].redirect: found none of them"),
    (
        "match: {path: /r}, access: public, redirect: {status: 300, path: /n}",
        "wanted one of 301, 302, 303, 307, 308",
    ),
    (
        "match: {path: /r}, access: public, redirect: {status: 308, path: /n, prefix: /m}",
        "routes[0].redirect.prefix: found `prefix` beside `path`",
    ),
    (
        "match: {path: /r}, access: public, redirect: {status: 308, path: //evil}",
        "routes[0].redirect.path: found",
    ),
    (
        "match: {path: /r}, access: public, redirect: {status: 308, path: \"/a\\r\\nb\"}",
        "routes[0].redirect.path: found",
    ),
    (
        "match: {path: /r}, access: public, redirect: {status: 308, host: \"*.a\"}",
        "routes[0].redirect.host: found",
    ),
    (
        "match: {path: /r}, access: public, redirect: {status: 308, host: a/b}",
        "routes[0].redirect.host: found",
    ),
    ("match: {path: /r}, access: public, redirect: {status: 308, scheme: htps}", "did you mean `https`?"),
    (
        "match: {path: /r}, access: public, redirect: {status: 308, port: 0}",
        "routes[0].redirect.port: found 0",
    ),
    (
        "match: {path: {exact: /r}}, access: public, redirect: {status: 308, prefix: /n}",
        "routes[0].redirect.prefix: found a new prefix beside exact /r, wanted a match whose path is a prefix",
    ),
    (
        "match: {path: {template: \"/u/{user}\"}}, access: public, redirect: {status: 308, template: \"/n/{usr}\"}",
        "routes[0].redirect.template: found the unknown capture {usr}, wanted captures of the match's template",
    ),
    (
        "match: {path: {template: \"/u/{user*}\"}}, access: public, upstream: blue, rewrite: {template: \"/n/{user}\"}",
        "routes[0].rewrite.template: found the unknown capture {user}",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, rewrite: {template: \"/n\"}",
        "write `path` for a path without captures",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, rewrite: {}",
        "routes[0].rewrite: found none of them",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, rewrite: {host: \"a:99999\"}",
        "routes[0].rewrite.host: found",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, strip_prefix: true, rewrite: {prefix: /n}",
        "routes[0].rewrite.prefix: found `prefix` beside `strip_prefix: true`",
    ),
    (
        "match: {path: /r}, access: public, respond: {status: 200}, rewrite: {path: /n}",
        "routes[0].rewrite: found `rewrite` beside `respond`, wanted `upstream`, `split` or `partition` beside it",
    ),
    (
        "match: {path: /r}, access: public, respond: {status: 200}, timeout: 1s",
        "routes[0].timeout: found `timeout` beside",
    ),
    (
        "match: {path: /r}, access: public, respond: {status: 200}, headers: {request: {remove: [a]}}",
        "routes[0].headers.request: found `request` beside `respond`",
    ),
    (
        "match: {path: /r}, access: public, respond: {status: 200}, upgrades: [websocket]",
        "routes[0].upgrades: found `upgrades` beside `respond`",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, upgrades: [h2c]",
        "routes[0].upgrades[0]: found \"h2c\", wanted a protocol that carries no HTTP requests, such as websocket",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, upgrades: [\"web socket\"]",
        "wanted a protocol, such as websocket",
    ),
    ("match: {path: /r}, access: public, respond: {status: 199}", "a whole number from 200 to 599"),
    (
        "match: {path: /r}, access: public, respond: {status: 204, body: a}",
        "found a body with status 204, wanted none",
    ),
    ("match: {path: /r}, access: public, respond: {status: 200, body: 7}", "put it in quotes"),
    (
        "match: {path: /r}, access: public, respond: {status: 200, content_type: a/b}",
        "wanted a `body` beside it",
    ),
    (
        "match: {path: /r}, access: public, respond: {status: 200, body: a, content_type: html}",
        "wanted a media type",
    ),
    (
        "match: {path: /r}, access: public, split: {by: request, branches: [{upstream: blue, weight: 1}]}",
        "routes[0].split.branches: found 1 of them, wanted 2 to 8 branches",
    ),
    (
        "match: {path: /r}, access: public, split: {by: request, branches: [{upstream: blue, weight: 1}, {upstream: blue, weight: 1}]}",
        "routes[0].split.branches[1].upstream: found \"blue\" again",
    ),
    (
        "match: {path: /r}, access: public, split: {by: request, branches: [{upstream: blue, weight: 0}, {upstream: green, weight: 0}]}",
        "routes[0].split.branches: found weights of 0 alone",
    ),
    (
        "match: {path: /r}, access: public, split: {by: request, branches: [{upstream: blue, weight: 1001}, {upstream: green, weight: 0}]}",
        "routes[0].split.branches[0].weight: found 1001",
    ),
    (
        "match: {path: /r}, access: public, split: {by: request, branches: [{upstream: blue, weight: 1}, {upstream: gren, weight: 1}]}",
        "routes[0].split.branches[1].upstream: found \"gren\", wanted the name of an upstream",
    ),
    (
        "match: {path: /r}, access: public, split: {by: tenant, branches: [{upstream: blue, weight: 1}, {upstream: green, weight: 1}]}",
        "routes[0].split.by: found `tenant` on a public route, wanted `address` or `request`",
    ),
    (
        "match: {path: /r}, access: public, split: {by: request, branches: [{upstream: blue, weight: 1}, {upstream: green, weight: 1}], override: {}}",
        "routes[0].split.override: found a map, wanted exactly one of `header`, `cookie`",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: tenent, upstreams: {a: blue}}",
        "routes[0].partition.by: found \"tenent\", wanted `tenant`, `{claim: …}` or `{header: …}`",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: {header: x, claim: y}, upstreams: {a: blue}}",
        "routes[0].partition.by: found a map, wanted exactly one of `claim`, `header`",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: {claim: region}, upstreams: {a: blue}}",
        "routes[0].partition.by: found `claim` on a public route, wanted a header, or access by token",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: {header: X-Region}, upstreams: {a: blue}}",
        "write x-region",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: {header: x}, upstreams: {}}",
        "routes[0].partition.upstreams: found a map, wanted at least one part",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: {header: x}, upstreams: {a: blue, ' b': blue}}",
        "without white space at the ends",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: {header: x}, upstreams: {a: blue, b: gren}}",
        "routes[0].partition.upstreams.b: found \"gren\", wanted the name of an upstream",
    ),
    (
        "match: {path: /r}, access: public, partition: {by: {header: x}, upstreams: {a: blue}, otherwise: refuse}",
        "routes[0].partition.otherwise: found \"refuse\", wanted the name of an upstream",
    ),
    (
        "match: {path: /r, claims: {plan: gold}}, access: public, upstream: blue",
        "routes[0].match.claims: found claims on a public route, wanted access by token",
    ),
    ("match: {path: /r, claims: {}}, access: {issuers: [dev]}, upstream: blue", "leave `claims` out for all"),
    (
        "match: {path: /r, claims: {plan: []}}, access: {issuers: [dev]}, upstream: blue",
        "routes[0].match.claims.plan: found a list, wanted at least one text",
    ),
    (
        "match: {path: /r, claims: {admin: true}}, access: {issuers: [dev]}, upstream: blue",
        "routes[0].match.claims.admin: found true",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, mirror: {upstream: gren, share: 1%}",
        "routes[0].mirror.upstream: found \"gren\", wanted the name of an upstream",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, mirror: {upstream: blue, share: 1%}",
        "routes[0].mirror.upstream: found \"blue\", where the requests themselves go, wanted another upstream",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, mirror: {upstream: green, share: 101%}",
        "routes[0].mirror.share: found \"101%\", wanted a share such as 10%",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, mirror: {upstream: green}",
        "routes[0].mirror.share: found nothing",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, mirror: {upstream: green, share: 1%, body_bytes_max: 2MiB}",
        "routes[0].mirror.body_bytes_max: found \"2MiB\", wanted a size from 0B to 1MiB",
    ),
    (
        "match: {path: /r}, access: public, respond: {status: 200}, mirror: {upstream: green, share: 1%}",
        "routes[0].mirror: found `mirror` beside `respond`",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, lifecycle: {deprecated: 2026-01-01}",
        "routes[0].lifecycle.version: found nothing",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, lifecycle: {version: v1, deprecated: 01.01.2026}",
        "routes[0].lifecycle.deprecated: found \"01.01.2026\", wanted a date such as 2026-12-31",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, lifecycle: {version: v1, deprecated: 2026-02-01, sunset: 2026-01-31}",
        "routes[0].lifecycle.sunset: found \"2026-01-31\", wanted an instant that is not before `deprecated`",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, lifecycle: {version: v1, info: \"https://a\"}",
        "routes[0].lifecycle.info: found information about the end of what has none",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, lifecycle: {version: v1, successor: \"https://a>; b\"}",
        "routes[0].lifecycle.successor: found \"https://a>; b\", wanted an address",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, flags: [dark]",
        "routes[0].flags[0]: found \"dark\", wanted the name of a flag",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, flags: [Dark]",
        "routes[0].flags[0]: found \"Dark\", wanted 1 to 64 of a-z",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, headers: {request: {set: {Host: a}}}",
        "wanted the name of a header in lower case",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, headers: {response: {remove: [transfer-encoding]}}",
        "routes[0].headers.response.remove[0]: found \"transfer-encoding\"",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, headers: {request: {add: {quorumgate-charges: a}}}",
        "routes[0].headers.request.add.quorumgate-charges: found",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, headers: {request: {set: {authorization: a}}}",
        "it may be removed",
    ),
    (
        "match: {path: /r}, access: public, upstream: blue, headers: {request: {set: {a: \"b\\r\\nc\"}}}",
        "without control characters",
    ),
];

#[test]
fn each_mistake_about_what_becomes_of_requests_is_told() {
    for (route, expected) in ACTIONS {
        let mistakes = errors(acting(route));
        assert_eq!(mistakes.len(), 1, "{route}: {mistakes:?}");
        let told = format!("{}\n{}", mistakes[0], mistakes[0].help.as_deref().unwrap_or_default());
        assert!(told.contains(expected), "{expected:?} is not in {told:?}");
        assert!(mistakes[0].line == 4 && mistakes[0].column > 1, "{told}");
    }
}

#[test]
fn each_mistake_about_how_an_upstream_is_spoken_to_is_told() {
    let good =
        "endpoints: \"https://a\", protocol: http2, streams_max: 7, tls: {ca: ca.pem, server_name: b.test}";
    for (upstream, expected) in [
        (
            "endpoints: \"https://a\"",
            "upstreams.u.endpoints: found \"https://a\", wanted `tls: {ca: FILE}` beside",
        ),
        (
            "endpoints: [\"http://a\", \"https://b\"], tls: {ca: c}",
            "wanted endpoints with https beside `tls`",
        ),
        ("endpoints: \"http://a\", tls: {ca: c}", "wanted endpoints with https beside `tls`"),
        ("endpoints: \"https://a\", tls: {}", "upstreams.u.tls"),
        (
            "endpoints: \"https://a\", tls: {ca: c, key: k}",
            "found one of `certificate` and `key`, wanted both, or none",
        ),
        ("endpoints: \"https://a\", tls: {ca: c, server_name: \"b:1\"}", "wanted a name without a port"),
        ("endpoints: \"http://a\", protocol: http3", "wanted one of http1, http2"),
        (
            "endpoints: \"http://a\", streams_max: 7",
            "found `streams_max` of HTTP/1.1, wanted `protocol: http2` beside it",
        ),
        ("endpoints: \"http://a\", protocol: http2, streams_max: 0", "upstreams.u.streams_max: found 0"),
    ] {
        let read = |upstream: &str| {
            let route = "{name: r, match: {path: /}, upstream: u, access: public}";
            gateway::parse(&format!("upstreams:\n  u: {{{upstream}}}\nroutes: [{route}]\n"))
        };
        assert!(read(good).is_ok());
        let mistakes = errors(read(upstream));
        assert_eq!(mistakes.len(), 1, "{upstream}: {mistakes:?}");
        assert!(mistakes[0].to_string().contains(expected), "{expected:?} is not in {}", mistakes[0]);
        assert!(mistakes[0].line == 2 && mistakes[0].column > 1, "{}", mistakes[0]);
    }
}

#[test]
fn a_document_looks_at_so_many_claims_and_no_more() {
    let by = |routes: usize| {
        let route = |n: usize| {
            format!(
                "- {{name: r{n}, match: {{path: /r, claims: {{c{n}: x}}}}, upstream: u, access: {{issuers: [i]}}}}\n"
            )
        };
        let head = "upstreams: {u: {endpoints: \"http://a\"}}\n\
                    issuers: {i: {issuer: i, audiences: [a], keys: [{algorithm: HS256, secret: {file: s}}]}}\nroutes:\n";
        gateway::parse(&(head.to_owned() + &(0..routes).map(route).collect::<String>()))
    };
    assert!(by(32).is_ok());
    let mistakes = errors(by(33));
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].to_string().contains("33 different claims that routes look at, wanted at most 32"));
}

#[test]
fn each_mistake_about_a_flag_is_told_in_its_place() {
    let text = "upstreams: {u: {endpoints: \"http://a\"}}
flags:
  1st: {share: 1%}
  new_checkout: {share: 1%, tenents: [a]}
  dark: {share: 0%, header: X-Beta, tenants: [\"a b\"]}
  other: {}
routes:
  - {name: r, match: {path: /}, upstream: u, access: public, flags: [new-checkout, dark]}
  - {name: s, match: {path: /s}, respond: {status: 200}, access: public, flags: [dark]}
";
    let told: Vec<String> =
        errors(gateway::parse(text)).iter().map(|it| format!("{}:{} {it}", it.line, it.column)).collect();
    let expected = [
        "3:3 error: flags.1st: found \"1st\", wanted 1 to 64 of a-z, 0-9, '-', '_', '.', beginning with a letter",
        "4:29 error: flags.new_checkout.tenents: found the unknown key",
        "5:17 error: flags.dark.share: found \"0%\", wanted a share such as 10%",
        "5:29 error: flags.dark.header: found \"X-Beta\"",
        "5:47 error: flags.dark.tenants[0]: found \"a b\", wanted 1 to 128 bytes of visible ASCII",
        "8:70 error: routes[0].flags[0]: found \"new-checkout\", wanted the name of a flag",
        "9:74 error: routes[1].flags: found `flags` beside `respond`, wanted `upstream`, `split` or `partition` beside it",
    ];
    for line in expected {
        assert!(told.iter().any(|told| told.starts_with(line)), "{line} is missing in {told:#?}");
    }
    assert!(told.iter().filter(|it| it.contains("error")).count() == expected.len(), "{told:#?}");
    // and a flag that no route asks for is mentioned
    let unused = "upstreams: {u: {endpoints: \"http://a\"}}\nflags: {dark: {}}\nroutes: [{name: r, match: {path: /}, upstream: u, access: public}]\n";
    let warnings = gateway::parse(unused).unwrap().warnings;
    assert_eq!(warnings.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["flags.dark"]);
}

#[test]
fn answers_and_edits_are_bounded() {
    let body = |bytes: usize| {
        format!("match: {{path: /r}}, access: public, respond: {{status: 200, body: {}}}", "x".repeat(bytes))
    };
    assert!(acting(&body(64 << 10)).is_ok());
    assert!(errors(acting(&body((64 << 10) + 1)))[0].to_string().contains("64 KiB"));
    let edits = |value: &str, count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!("x-{number}: {value}")).collect();
        format!(
            "match: {{path: /r}}, access: public, upstream: blue, headers: {{response: {{set: {{{}}}}}}}",
            all.join(", ")
        )
    };
    assert!(acting(&edits("y", 32)).is_ok());
    assert!(errors(acting(&edits("y", 33)))[0].to_string().contains("at most 32"));
    assert!(acting(&edits(&"y".repeat(1024), 1)).is_ok());
    assert!(errors(acting(&edits(&"y".repeat(1025), 1)))[0].to_string().contains("at most 1024 bytes"));
}

#[test]
fn a_splits_branches_are_used_upstreams() {
    let split = "split: {by: request, branches: [{upstream: blue, weight: 1}, {upstream: green, weight: 0}]}";
    let warnings = |route: &str| {
        let checked = acting(route).unwrap();
        checked
            .warnings
            .iter()
            .map(|it| it.path.clone())
            .filter(|path| path.starts_with("up"))
            .collect::<Vec<_>>()
    };
    assert!(warnings(&format!("match: {{path: /r}}, access: public, {split}")).is_empty());
    assert_eq!(warnings("match: {path: /r}, access: public, upstream: blue"), ["upstreams.green"]);
    let neither = "match: {path: /r}, access: public, respond: {status: 200}";
    assert_eq!(warnings(neither), ["upstreams.blue", "upstreams.green"]);
}
