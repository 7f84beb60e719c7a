//! The JSON Schemas of plan files and of files with expectations, for editors. It knows shapes and units; what one part may say about another, only
//! [`super::read()`] knows.
//!
//! `WRITE_SCHEMAS=1 cargo test -p quorumgate-simulation --lib schema` writes the files anew.

use std::path::Path;

use config::schema::{document, integer, object, rate, text};
use serde_json::{Value, json};

use super::Plan;
use crate::event::Token;
use crate::expectation::{EXPECTATIONS_MAX, Measure};
use crate::scene::{NODES_MAX, Protocol};
use crate::weather::NAMES;

fn schema() -> Value {
    let time = || json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|min|h|d)|[0-9]+\\.[0-9]{1,3}s)$"});
    let range = || json!({"type": "string", "pattern": "^[0-9.]+[a-z]+( to [0-9.]+[a-z]+)?$"});
    let tokens: Vec<&str> = Token::WORDS.iter().map(|(word, _)| *word).collect();
    let protocols: Vec<&str> = Protocol::WORDS.iter().map(|(word, _)| *word).collect();
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
        ("protocol", json!({"enum": protocols}), "What it speaks; without it, HTTP/1.1."),
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
        ("expect", expectations(), "Figures that the run must come to, besides the promises."),
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

fn expectations() -> Value {
    let bound = |unit: &str| {
        let text =
            json!({"type": "string", "pattern": format!("^(at least |at most )?{unit}$|^{unit} to {unit}$")});
        // `refused: 0` is a number in YAML.
        if unit.contains("[0-9]+|") {
            json!({"anyOf": [{"type": "integer", "minimum": 0}, text]})
        } else {
            text
        }
    };
    let (count, percent, time) = ("[0-9]+", "[0-9]+(\\.[0-9]{1,3})?%", "[0-9.]+(ms|s|m|min|h|d)");
    let of = |unit: &str, fields: &[&'static str], measure: &'static str| {
        let described = |field: &'static str| match field {
            "percentile" => (integer(1, 100), "Of so many requests in a hundred; without it, 99."),
            "after" => {
                (json!({"type": "string"}), "Of requests sent from then on; the first caller calls at 0s.")
            }
            "before" => (json!({"type": "string"}), "Of requests sent until then."),
            "tenant" => (text(), "Of this tenant alone."),
            "client" => (text(), "Of this client alone."),
            "route" => (text(), "Of this route alone."),
            _ => (text(), "The quota."),
        };
        let mut properties = serde_json::Map::from_iter([(measure.to_owned(), bound(unit))]);
        for field in fields {
            let (mut schema, about) = described(field);
            schema["description"] = about.into();
            properties.insert((*field).to_owned(), schema);
        }
        let quota: &[&str] = if fields.contains(&"quota") { &["quota"] } else { &[] };
        let required = [&[measure], quota].concat();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    };
    let all = Measure::ALL.map(|(name, measure)| match measure {
        Measure::Admitted | Measure::Answers(_) => {
            of(&format!("({count}|{percent})"), &["tenant", "client", "route", "after", "before"], name)
        }
        Measure::Utilisation => of(percent, &["quota", "tenant", "after", "before"], name),
        Measure::Latency => of(time, &["percentile", "tenant", "client", "route", "after", "before"], name),
        Measure::Recovery => of(time, &[], name),
    });
    json!({"type": "array", "items": {"anyOf": all}, "maxItems": EXPECTATIONS_MAX})
}

/// Of a file with nothing else.
fn expect() -> Value {
    let about = "Figures that a run must come to, besides the promises.";
    document(
        "quorumgate: expectations of a simulation",
        object(&["expect"], [("expect", expectations(), about)]),
    )
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_schemas_are_what_the_code_says() {
    for (file, schema) in [("plan", schema()), ("expect", expect())] {
        let path = root().join(format!("schema/{file}.schema.json"));
        let expected = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        if std::env::var_os("WRITE_SCHEMAS").is_some() {
            std::fs::write(&path, &expected).expect("the folder is there");
        }
        let found = std::fs::read_to_string(&path).expect("the file is there");
        assert!(found == expected, "{} is out of date; see the top of this file", path.display());
    }
}

#[test]
fn plans_fit_their_schema_and_slips_do_not() {
    let validator = jsonschema::validator_for(&schema()).expect("it is a schema");
    let value = |text: &str| -> Value { serde_saphyr::from_str(text).expect("it is YAML") };
    let mut texts: Vec<String> = (0..30).map(|seed| Plan::draw(seed, None, 30_000, &NAMES).text()).collect();
    for folder in ["seeds", "scenarios", "examples"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
            if is_yaml && path.file_name().is_some_and(|name| name != "gateway.yaml") {
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
    let validator = jsonschema::validator_for(&expect()).expect("it is a schema");
    let good = "{expect: [{admitted: at least 95.5%}, {refused: 0, tenant: a}, {latency: 1ms to 2s, percentile: 50}]}";
    assert!(validator.is_valid(&value(good)));
    for slip in [
        "{}",
        "{admitted: 5s}",
        "{admited: 5}",
        "{admitted: 5, refused: 1}",
        "{utilisation: 5%}",
        "{latency: 5}",
        "{recovery: 5s, tenant: a}",
    ] {
        assert!(!validator.is_valid(&value(&format!("{{expect: [{slip}]}}"))), "{slip}");
    }
}
