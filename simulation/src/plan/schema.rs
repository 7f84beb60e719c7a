//! The JSON Schema of plan files, for editors. It knows shapes and units; what one part may say about another, only
//! [`super::read()`] knows.
//!
//! `WRITE_SCHEMAS=1 cargo test -p quorumgate-simulation --bin quorumgate-simulation schema` writes the file anew.

use std::path::Path;

use config::schema::{document, integer, object, rate, text};
use serde_json::{Value, json};

use super::Plan;
use crate::event::Token;
use crate::scene::NODES_MAX;
use crate::weather::NAMES;

fn schema() -> Value {
    let time = || json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|min|h|d)|[0-9]+\\.[0-9]{1,3}s)$"});
    let range = || json!({"type": "string", "pattern": "^[0-9.]+[a-z]+( to [0-9.]+[a-z]+)?$"});
    let tokens: Vec<&str> = Token::WORDS.iter().map(|(word, _)| *word).collect();
    let spread = json!({"type": "string", "pattern": format!("^(in turn|skewed|to node-[1-{NODES_MAX}]|hops every [0-9.]+[a-z]+)$")});
    let caller = [
        ("route", text(), "The name of a route of the gateway document."),
        (
            "tenant",
            text(),
            "As its token names it; without it, `tenant-N` for the caller of number N, from 0.",
        ),
        ("client", text(), "As its token names it; without it, as its tenant."),
        ("rate", rate(), "Of its requests, on average, such as `800/s` or `1/25ms`."),
        ("at_once", integer(1, 1_000), "It sends so many together, and is silent in between; without it, 1."),
        ("spread", spread, "How it goes from node to node; without it, in turn."),
        ("method", text(), "In capitals; without it, the first that the route takes."),
        ("token", json!({"enum": tokens}), "What it shows; without it, a good one."),
    ];
    let traffic = json!({"type": "array", "items": object(&["route", "rate"], caller), "maxItems": 150});
    let file =
        object(&["file"], [("file", text(), "A file with a gateway document, from the plan's folder.")]);
    let gateway =
        json!({"type": "array", "items": {"anyOf": [text(), file]}, "minItems": 1, "maxItems": 100});
    let trouble =
        json!({"type": "string", "pattern": format!("^at [0-9.]+[a-z]+ ({})( .*|,.*)?$", NAMES.join("|"))});
    let weather = json!({"type": "array", "items": trouble, "maxItems": 10_000});
    let sections = [
        (
            "seed",
            json!({"type": "integer", "minimum": 0}),
            "Decides all that the file leaves out, and chance on the way; without it, 0.",
        ),
        (
            "for",
            time(),
            "How long callers call; without it, 30s, or as long as the weather lasts and the calm after it.",
        ),
        ("calm", time(), "The part at the end without trouble; without it, 9s, and a third of a short run."),
        ("nodes", integer(1, u64::from(NODES_MAX)), "How many found the cluster."),
        (
            "network",
            object(
                &[],
                [("delay", range(), "The shortest and longest way between two hosts, such as `1ms to 4ms`.")],
            ),
            "Between all hosts.",
        ),
        (
            "disk",
            object(&[], [("sync", range(), "The shortest and longest sync, such as `1ms to 4ms`.")]),
            "Of every node.",
        ),
        ("snapshot_after_entries", integer(8, 1_000_000), "Log entries after which a node makes a snapshot."),
        (
            "gateway",
            gateway,
            "The gateway document's editions, in the order in which `edition` troubles apply them, as texts or files.",
        ),
        ("traffic", traffic, "Who asks."),
        ("weather", weather, "Troubles, such as `at 10s isolate leader for 5s`."),
    ];
    document("quorumgate: plan of a simulation", object(&[], sections))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_schema_is_what_the_code_says() {
    let path = root().join("schema/plan.schema.json");
    let expected = serde_json::to_string_pretty(&schema()).expect("a schema is JSON") + "\n";
    if std::env::var_os("WRITE_SCHEMAS").is_some() {
        std::fs::write(&path, &expected).expect("the folder is there");
    }
    let found = std::fs::read_to_string(&path).expect("the file is there");
    assert!(found == expected, "{} is out of date; see the top of this file", path.display());
}

#[test]
fn plans_fit_their_schema_and_slips_do_not() {
    let validator = jsonschema::validator_for(&schema()).expect("it is a schema");
    let value = |text: &str| -> Value { serde_saphyr::from_str(text).expect("it is YAML") };
    let mut texts: Vec<String> = (0..30).map(|seed| Plan::draw(seed, None, 30_000, &NAMES).text()).collect();
    for folder in ["seeds", "examples"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.file_name().is_some_and(|name| name != "gateway.yaml") {
                texts.push(std::fs::read_to_string(path).expect("it can be read"));
            }
        }
    }
    for text in texts {
        let errors: Vec<String> =
            validator.iter_errors(&value(&text)).map(|it| format!("{}: {it}", it.instance_path)).collect();
        assert!(errors.is_empty(), "{errors:?}\n{text}");
    }
    for slip in
        ["{sed: 1}", "{for: 30}", "{nodes: 8}", "{weather: [at 1s isolat leader]}", "{traffic: [{route: a}]}"]
    {
        assert!(!validator.is_valid(&value(slip)), "{slip}");
    }
}
