//! `quorumgate check`: every mistake of every file, at once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::mistake::{Mistake, render};

/// `quorumgate check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Node files and gateway documents, in any mixture.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Check {
    /// Checks all files. Exit code 1 if any has an error.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn run(self) -> Result<ExitCode, String> {
        let mut refused = false;
        for path in &self.files {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("reading {}: {error}", path.display()))?;
            let name = path.display().to_string();
            match mistakes(path, &text) {
                Ok(warnings) => println!("{}{name}: good", render(&name, &text, &warnings)),
                Err(mistakes) => {
                    refused = true;
                    print!("{}", render(&name, &text, &mistakes));
                }
            }
        }
        Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Warnings of a good file, mistakes of a bad one.
fn mistakes(path: &Path, text: &str) -> Result<Vec<Mistake>, Vec<Mistake>> {
    if looks_like_a_node_file(text) {
        config::node::parse(text, path.parent().unwrap_or(Path::new(""))).map(|checked| checked.warnings)
    } else {
        config::gateway::parse(text).map(|checked| checked.warnings)
    }
}

/// A node file has a section `cluster` or `data`; a gateway document has neither.
fn looks_like_a_node_file(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("cluster:") || line.starts_with("data:"))
}
