//! One library, one room: reads the sources and says where a library is named outside the place that owns it.

use std::fs;
use std::path::{Path, PathBuf};

/// A library and the places (path prefixes) that may name it.
const ROOMS: &[(&str, &[&str])] = &[
    ("openraft", &["cluster/src/raft"]),
    ("bincode", &["cluster/src/peer/codec"]),
    ("jsonwebtoken", &["src/auth"]),
    ("axum", &["src/admin"]),
    ("hdrhistogram", &["src/telemetry"]),
    ("rcgen", &["src/command/pki.rs", "src/tls", "cluster/src/tls", "cluster/src/peer"]),
    ("rustls", &["cluster/src/tls", "src/tls"]),
    ("tokio_rustls", &["src/tls", "cluster/src/tls"]),
    ("x509_parser", &["cluster/src/tls", "src/tls"]),
    ("regex_syntax", &["config/src/pattern.rs"]),
    ("serde_saphyr", &["config/src", "simulation/src/plan/schema.rs"]),
];

#[test]
fn every_library_is_named_in_its_own_room_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "config/src", "cluster/src", "simulation/src"] {
        for file in sources(&root.join(folder)) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            let path = file.strip_prefix(root).expect("it is below the root").to_string_lossy().into_owned();
            for (library, rooms) in ROOMS {
                let named = text.lines().enumerate().filter(|(_, line)| names(line, library));
                if !rooms.iter().any(|room| path.starts_with(room)) {
                    found.extend(
                        named.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())),
                    );
                }
            }
        }
    }
    assert!(found.is_empty(), "named outside its room:\n{}", found.join("\n"));
}

#[test]
fn arrows_between_rooms_never_turn_round() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let forbidden: [(&str, &[&str]); 2] = [
        ("config/src", &["cluster", "quorumgate", "tokio"]),
        ("cluster/src/state", &["tokio", "ractor", "SystemTime", "HashMap", "f64", "f32"]),
    ];
    let mut found = Vec::new();
    for (folder, words) in forbidden {
        for file in sources(&root.join(folder)) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            for (number, line) in text.lines().enumerate() {
                if words.iter().any(|word| names(line, &format!("{word}::"))) {
                    found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "these rooms may not touch that:\n{}", found.join("\n"));
}

/// Whether a line of code, not of comment, names `word` as a whole.
fn names(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.match_indices(word).any(|(start, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        !before.is_some_and(part) && (word.ends_with(':') || !after.is_some_and(part))
    })
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a source folder is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
