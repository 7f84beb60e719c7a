//! The schemas in `config/schema/` are what the code says, and every example fits them.
//!
//! `WRITE_SCHEMAS=1 cargo test -p quorumgate-config --test schema` writes them anew.

use std::fs;
use std::path::Path;

use quorumgate_config::schema;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_files_are_what_the_code_says() {
    for (name, schema) in [("gateway", schema::gateway()), ("node", schema::node())] {
        let path = root().join(format!("schema/{name}.schema.json"));
        let expected = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("WRITE_SCHEMAS").is_some() {
            fs::write(&path, &expected).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap();
        assert!(found == expected, "{} is out of date; see the top of this file", path.display());
    }
}

#[test]
fn every_example_fits_its_schema() {
    let (gateway, node) = (schema::gateway(), schema::node());
    let examples = [
        ("single.yaml", &node),
        ("three/node-1.yaml", &node),
        ("three/node-2.yaml", &node),
        ("three/node-3.yaml", &node),
        ("three/gateway.yaml", &gateway),
        ("routing.yaml", &gateway),
    ];
    for (name, schema) in examples {
        let text = fs::read_to_string(root().join("examples").join(name)).unwrap();
        let document: Value = serde_saphyr::from_str(&text).unwrap();
        let validator = jsonschema::validator_for(schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

#[test]
fn a_slip_does_not_fit() {
    let validator = jsonschema::validator_for(&schema::gateway()).unwrap();
    let slip = serde_json::json!({"upstreams": {}, "routes": [], "quotes": {}});
    assert!(!validator.is_valid(&slip));
    // and a route has one action, not none and not two
    let route = |action: serde_json::Value| {
        let mut route = serde_json::json!({"name": "r", "match": {"path": "/r"}, "access": "public"});
        let (route_map, action) = (route.as_object_mut().unwrap(), action.as_object().unwrap().clone());
        route_map.extend(action);
        validator.is_valid(&serde_json::json!({"upstreams": {}, "routes": [route]}))
    };
    assert!(route(serde_json::json!({"respond": {"status": 200}})));
    assert!(!route(serde_json::json!({})));
    assert!(!route(serde_json::json!({"respond": {"status": 200}, "upstream": "u"})));
}
