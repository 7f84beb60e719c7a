//! Every example is read without a word of warning, and means what its comments say.

use std::fs;
use std::path::{Path, PathBuf};

use quorumgate_config::gateway::GatewayDocument;
use quorumgate_config::mistake::{Parsed, render};
use quorumgate_config::{gateway, node};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn read(name: &str) -> String {
    fs::read_to_string(examples().join(name)).unwrap()
}

/// The value, or all mistakes and warnings as an operator would see them.
fn clean<T>(name: &str, text: &str, parsed: Parsed<T>) -> T {
    match parsed {
        Ok(checked) if checked.warnings.is_empty() => checked.value,
        Ok(checked) => panic!("{}", render(name, text, &checked.warnings)),
        Err(mistakes) => panic!("{}", render(name, text, &mistakes)),
    }
}

#[test]
fn node_files_are_complete() {
    let dir = Path::new("/etc/quorumgate");
    let of = |folder: &'static str, count: usize| {
        (1..=count).map(move |number| (format!("{folder}/node-{number}.yaml"), count - 1))
    };
    for (name, peers) in of("three", 3).chain(of("five", 5)).chain([("single.yaml".to_owned(), 0)]) {
        let name = name.as_str();
        let text = read(name);
        let file = clean(name, &text, node::parse(&text, dir));
        assert!(file.data.starts_with("/etc/quorumgate/data"), "{:?}", file.data);
        assert!(file.admin.ip().is_loopback());
        assert_eq!(file.cluster.tls.is_none(), name == "single.yaml");
        assert_eq!(file.cluster.peers.len(), peers);
    }
}

#[test]
fn a_gateway_document_survives_its_canonical_json() {
    // given the example
    let text = read("three/gateway.yaml");
    let document = clean("gateway.yaml", &text, gateway::parse(&text));
    assert_eq!(document.routes.len(), 4);
    // when it is written and read again
    let json = document.to_canonical_json();
    let again = GatewayDocument::from_canonical_json(&json).unwrap();
    // then nothing changed, and equal documents give equal bytes
    assert_eq!(again, document);
    assert_eq!(again.to_canonical_json(), json);
}

#[test]
fn the_example_of_routing_survives_its_canonical_json() {
    let text = read("routing.yaml");
    let document = clean("routing.yaml", &text, gateway::parse(&text));
    let json = document.to_canonical_json();
    assert_eq!(GatewayDocument::from_canonical_json(&json).as_ref(), Ok(&document));
    for part in [
        r#""claims":{"plan":["gold","platinum"]}}"#,
        r#""partition":{"by":{"claim":"region"},"upstreams":{"eu":"eu","uk":"eu","us":"us"}},"access""#,
        r#""mirror":{"upstream":"shadow","share":1000000,"body_bytes_max":1024,"timeout":{"secs":2,"nanos":0}}}"#,
        r#""lifecycle":{"version":"v1","deprecated":1767225600,"sunset":4102401600,"info":"https://docs.example/orders","#,
        r#""flags":[{"name":"dark-mode","share":1000000},{"name":"new-checkout","tenants":["acme"],"share":200000,"header":"x-beta"},"#,
        r#""flags":["new-checkout","dark-mode","old-search"]}"#,
        r#""partition":{"by":{"header":"x-region"},"upstreams":{"eu":"eu"},"otherwise":"us"},"access""#,
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
}

#[test]
fn what_the_readme_shows_of_node_files_is_complete() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```yaml\n# of a node file\n")
        .skip(1)
        .map(|block| block.split_once("```").expect("the block ends").0)
        .collect();
    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        let rest = "name: node-1\ndata: data\ncluster: {listen: \"127.0.0.1:7101\", plaintext: true}\n";
        let text = format!("{rest}{block}");
        clean("node.yaml", &text, node::parse(&text, Path::new("/etc/quorumgate")));
        let schema = jsonschema::validator_for(&quorumgate_config::schema::node()).unwrap();
        let value = serde_saphyr::from_str(&text).unwrap();
        let errors: Vec<String> =
            schema.iter_errors(&value).map(|it| format!("{}: {it}", it.instance_path)).collect();
        assert!(errors.is_empty(), "{errors:?} in {text}");
    }
}

#[test]
fn the_readmes_routes_are_complete() {
    // given the document of the README, which uses every key of a match
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, block) = readme.split_once("```yaml\n# routes.yaml\n").expect("the README has the block");
    let (text, _) = block.split_once("```").expect("the block ends");
    // when it is read, then nothing is wrong with it, it fits its schema, and it survives its canonical JSON
    let document = clean("routes.yaml", text, gateway::parse(text));
    assert_eq!(document.routes.len(), 5);
    let schema = jsonschema::validator_for(&quorumgate_config::schema::gateway()).unwrap();
    assert!(schema.is_valid(&serde_saphyr::from_str(text).unwrap()));
    let json = document.to_canonical_json();
    assert_eq!(GatewayDocument::from_canonical_json(&json).as_ref(), Ok(&document));
    let matches: Vec<&str> = json.split(r#""matches":"#).skip(1).collect();
    for (route, begins) in [
        (0, r#"{"path":"/","methods":[],"hosts":["shop.example","*.shop.example"]},"upstream":"#),
        (1, r#"{"path":{"template":"/users/{user}/orders/{order}"},"methods":["GET"],"hosts":[]},"#),
        (
            2,
            r#"{"path":"/","methods":[],"hosts":[],"headers":{"x-stage":"beta"},"query":{"debug":{"present":false}}},"priority":10,"#,
        ),
        (
            3,
            r#"{"path":{"regex":"/v[0-9]+/.*"},"methods":[],"hosts":[],"cookies":{"stage":{"regex":"beta|next"}}},"#,
        ),
        (4, r#"{"path":{"exact":"/health"},"methods":[],"hosts":[],"sources":["10.0.0.0/8"]},"#),
    ] {
        assert!(matches[route].starts_with(begins), "{}", matches[route]);
    }
}

#[test]
fn the_readmes_actions_are_complete() {
    // given the document of the README with everything that may become of a request
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, block) = readme.split_once("```yaml\n# actions.yaml\n").expect("the README has the block");
    let (text, _) = block.split_once("```").expect("the block ends");
    // when it is read, then nothing is wrong with it, it fits its schema, and it survives its canonical JSON
    let document = clean("actions.yaml", text, gateway::parse(text));
    let schema = jsonschema::validator_for(&quorumgate_config::schema::gateway()).unwrap();
    assert!(schema.is_valid(&serde_saphyr::from_str(text).unwrap()));
    let json = document.to_canonical_json();
    assert_eq!(GatewayDocument::from_canonical_json(&json).as_ref(), Ok(&document));
    for part in [
        r#""split":{"by":"tenant","branches":[{"upstream":"blue","weight":95},{"upstream":"green","weight":5}],"override":{"header":"x-branch"}},"access":"#,
        r#""rewrite":{"path":{"prefix":"/v2/shop"},"host":"shop.internal"},"headers":{"request":{"remove":["authorization"],"set":{"x-edge":"eu-1"}},"response":{"remove":["server"],"add":{"vary":"x-branch"}}}}"#,
        r#""redirect":{"status":308,"scheme":"https","host":"www.shop.example","path":{"prefix":"/shop"}},"access":"#,
        r#""respond":{"status":200,"body":"User-agent: *","content_type":"text/plain"},"access":"#,
        r#""rewrite":{"path":{"template":"/people/{user}"}}}"#,
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
    // and a node that is sent a path which is none, or two actions' worth of nothing, believes neither
    for (good, forged) in [
        (r#"{"prefix":"/shop"}"#, r#"{"prefix":"//evil"}"#),
        (r#"{"template":"/people/{user}"}"#, r#"{"template":"/people/{other}"}"#),
        (r#""by":"tenant""#, r#""by":"nobody""#),
        (r#""upstream":"green","weight":5"#, r#""upstream":"gone","weight":5"#),
        (r#""respond":{"#, r#""reply":{"#),
    ] {
        let forged = json.replacen(good, forged, 1);
        assert_ne!(forged, json);
        assert!(GatewayDocument::from_canonical_json(&forged).is_err(), "{forged}");
    }
}

#[test]
fn a_document_has_so_many_regular_expressions_and_no_more() {
    let route = |number: usize| {
        format!(
            "  - {{name: r{number}, match: {{path: {{regex: \"/r{number}/.*\"}}}}, upstream: u, access: public}}\n"
        )
    };
    let document = |count: usize| {
        let routes: String = (0..count).map(route).collect();
        format!("upstreams: {{u: {{endpoints: [\"http://10.0.0.1:80\"]}}}}\nroutes:\n{routes}")
    };
    assert!(gateway::parse(&document(1_000)).is_ok());
    let mistakes = gateway::parse(&document(1_001)).expect_err("one too many");
    assert!(mistakes.iter().any(|it| it.found == "1001 regular expressions"), "{mistakes:?}");
}

#[test]
fn a_document_of_before_is_written_as_before() {
    // given the example, and a prefix in the long form
    let text = read("three/gateway.yaml");
    let json = clean("gateway.yaml", &text, gateway::parse(&text)).to_canonical_json();
    // when, then its routes have no key that they did not have, and both forms are one
    let begins = r#""routes":[{"name":"orders","matches":{"path":"/orders","methods":[],"hosts":[]},"upstream":"echo","access":"#;
    assert!(json.contains(begins), "{json}");
    for key in [
        "rewrite",
        "headers",
        "redirect",
        "respond",
        "split",
        "upgrades",
        "tunnel_idle_timeout",
        "protocol",
        "streams_max",
        "tls",
    ] {
        assert!(!json.contains(&format!("\"{key}\":")), "{json}");
    }
    let long = text.replace("{path: /orders}", "{path: {prefix: /orders}}");
    assert_ne!(long, text);
    assert_eq!(clean("gateway.yaml", &long, gateway::parse(&long)).to_canonical_json(), json);
}

#[test]
fn a_replicated_documents_patterns_are_read_again() {
    // given canonical JSON
    let text = read("three/gateway.yaml");
    let json = clean("gateway.yaml", &text, gateway::parse(&text)).to_canonical_json();
    let orders = r#""path":"/orders","methods":[],"hosts":[]"#;
    // when a path or a condition in it is none, then it is refused
    for forged in [
        r#""path":{"template":"/{a}/{a}"},"methods":[],"hosts":[]"#,
        r#""path":{"exact":"/a/"},"methods":[],"hosts":[]"#,
        r#""path":"/orders","methods":[],"hosts":[],"sources":["10.0.0.0/33"]"#,
    ] {
        let forged = json.replacen(orders, forged, 1);
        assert_ne!(forged, json);
        assert!(GatewayDocument::from_canonical_json(&forged).is_err(), "{forged}");
    }
    // and a regular expression is read as a text, the same by every version, and judged where it is used
    for forged in [
        r#""path":{"regex":"/("},"methods":[],"hosts":[]"#,
        r#""path":"/orders","methods":[],"hosts":[],"headers":{"x":{"regex":"("}}"#,
    ] {
        let forged = json.replacen(orders, forged, 1);
        let read = GatewayDocument::from_canonical_json(&forged).expect("it is read");
        assert_eq!(read.to_canonical_json(), forged);
        let bad = read.judge_patterns().expect_err("it is no regular expression");
        assert!(bad.contains("route orders: found"), "{bad}");
    }
}

#[test]
fn what_is_yaml_may_as_well_be_json() {
    // given the example as JSON, in one line and in many
    let text = read("three/gateway.yaml");
    let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let expected = clean("gateway.yaml", &text, gateway::parse(&text));
    for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
        // when, then it reads the same
        assert_eq!(clean("gateway.json", &json, gateway::parse(&json)), expected);
    }
}

#[test]
fn a_replicated_document_is_checked_again() {
    // given canonical JSON in which a route's upstream was renamed
    let text = read("three/gateway.yaml");
    let json = clean("gateway.yaml", &text, gateway::parse(&text)).to_canonical_json();
    let forged = json.replace(r#""upstream":"echo""#, r#""upstream":"exho""#);
    // when it is read
    let mistakes = GatewayDocument::from_canonical_json(&forged).unwrap_err();
    // then every dangling reference is found
    assert_eq!(mistakes.len(), 4);
    assert_eq!(mistakes[0].path, "routes[0].upstream");
    assert_eq!(mistakes[0].help.as_deref(), Some("did you mean `echo`?"));
    assert!(GatewayDocument::from_canonical_json("{}").is_err());
}

#[test]
fn the_largest_document_is_read() {
    // given as many routes and tenants as a document may have
    let mut text =
        "upstreams: {echo: {endpoints: \"http://127.0.0.1:9000\"}}\nplans: {gold: {}}\n".to_owned();
    text.push_str("routes:\n");
    for n in 0..GatewayDocument::ROUTES_MAX {
        text.push_str(&format!("- {{name: r{n}, match: {{path: /r{n}}}, upstream: echo, access: public}}\n"));
    }
    text.push_str("tenants:\n");
    for n in 0..GatewayDocument::TENANTS_MAX {
        text.push_str(&format!("  t{n}: {{plan: gold}}\n"));
    }
    // when it is read, then all are there; and one more is too many
    let document = clean("large.yaml", &text, gateway::parse(&text));
    assert_eq!((document.routes.len(), document.tenants.len()), (10_000, 100_000));
    let mistakes = gateway::parse(&(text + "  one-more: {plan: gold}\n")).unwrap_err();
    assert_eq!(mistakes[0].to_string(), "error: tenants: found 100001 of them, wanted at most 100000");
}
