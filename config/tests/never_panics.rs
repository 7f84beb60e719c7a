//! Whatever the text, reading it ends in a value or in mistakes that have a place in it.

use std::path::Path;

use proptest::prelude::*;
use quorumgate_config::gateway::GatewayDocument;
use quorumgate_config::mistake::{Mistake, render};
use quorumgate_config::{gateway, node};

const EXAMPLES: [&str; 5] = [
    include_str!("../examples/three/gateway.yaml"),
    include_str!("../examples/three/node-1.yaml"),
    include_str!("../examples/single.yaml"),
    // Every key of a match.
    r#"upstreams: {u: {endpoints: "http://a"}}
routes:
- {name: a, upstream: u, access: public, priority: -3, match: {path: {template: "/{a}/b/{c*}"}, hosts: ["*.h"], methods: [GET]}}
- {name: b, upstream: u, access: public, match: {path: {regex: "/v[0-9]+(/.*)?"}, headers: {x-a: "1", b: {regex: "a|b"}}}}
- {name: c, upstream: u, access: public, match: {path: {exact: /c}, query: {a: {present: true}}, sources: [10.0.0.0/8, "::/0"]}}
- {name: d, upstream: u, access: public, strip_prefix: true, match: {path: {prefix: /c}, cookies: {s: {present: false}}}}
"#,
    // Everything that may become of a request.
    r#"upstreams: {u: {endpoints: "http://a"}, v: {endpoints: "http://b"}}
routes:
- {name: a, access: public, match: {path: /a}, redirect: {status: 308, scheme: https, host: b.c, port: 8443, prefix: /b}}
- {name: b, access: public, match: {path: {template: "/b/{x}/{y*}"}}, redirect: {status: 301, template: "/{y*}/{x}"}}
- {name: c, access: public, match: {path: /c}, respond: {status: 200, body: "a b", content_type: text/html}, headers: {response: {add: {a: b}}}}
- {name: d, access: public, match: {path: /d}, split: {by: address, branches: [{upstream: u, weight: 1}, {upstream: v, weight: 0}], override: {cookie: c}}}
- {name: e, access: public, match: {path: /e}, upstream: u, rewrite: {path: /f, host: "g.h:1"}, headers: {request: {set: {a: b}, remove: [c]}}}
"#,
];

/// What tends to break parsers of YAML.
const SPICES: [&str; 20] = [
    "", " ", "\n", "\t", ":", "- ", "{", "}", "[", "]", "\"", "'", "&a ", "*a", "!!int ", "|\n", "# ",
    "<<: ", "\u{feff}", "0",
];

fn read_both(text: &str) {
    let in_place = |mistakes: &[Mistake]| {
        assert!(!mistakes.is_empty(), "a refusal has a reason");
        assert!(mistakes.iter().all(|mistake| mistake.line >= 1 && mistake.column >= 1), "{mistakes:?}");
        render("f", text, mistakes)
    };
    match gateway::parse(text) {
        Ok(checked) => {
            let json = checked.value.to_canonical_json();
            assert_eq!(GatewayDocument::from_canonical_json(&json).as_ref(), Ok(&checked.value));
        }
        Err(mistakes) => drop(in_place(&mistakes)),
    }
    if let Err(mistakes) = node::parse(text, Path::new("/etc")) {
        in_place(&mistakes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn arbitrary_text_is_read_or_refused(text in "(?s).{0,200}") {
        read_both(&text);
    }

    #[test]
    fn seasoned_text_is_read_or_refused(parts in proptest::collection::vec(0..SPICES.len(), 0..40)) {
        let text: String = parts.into_iter().map(|part| SPICES[part]).collect();
        read_both(&text);
    }

    #[test]
    fn mutated_examples_are_read_or_refused(
        which in 0..EXAMPLES.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..12_usize, 0..SPICES.len()), 1..4),
    ) {
        let mut chars: Vec<char> = EXAMPLES[which].chars().collect();
        for (at, removed, spice) in edits {
            let at = at.index(chars.len());
            let end = (at + removed).min(chars.len() - 1).max(at);
            chars.splice(at..end, SPICES[spice].chars());
        }
        read_both(&chars.into_iter().collect::<String>());
    }
}
