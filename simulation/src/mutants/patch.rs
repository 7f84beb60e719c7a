//! A patch: a unified diff, and above it what it plants.
//!
//! ```text
//! # name: as the file's
//! # mistake: what somebody might have thought, in one sentence
//! # rule: what it breaks, and where that is said
//! # noticed by: exact, agreement                           promises; `test` where a test is run
//! # search: random                                         drawn plans, seed by seed
//! # search: weather simulation/mutants/weather/some.yaml   this plan, with one seed after the other
//! # search: test cargo test …                              these tests must fail
//! diff --git …
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where patches are, from the repository's root.
pub const FOLDER: &str = "simulation/mutants";

/// Where a mistake is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// In drawn plans.
    Random,
    /// In one plan, by its path from the repository's root.
    Weather(PathBuf),
    /// By a command that runs tests.
    Test(String),
}

impl Search {
    /// As the table has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Weather(_) => "weather",
            Self::Test(_) => "test",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            None if text == "random" => Ok(Self::Random),
            Some(("weather", file)) => Ok(Self::Weather(file.into())),
            // Options after a bare -- would take in the one that builds without running.
            Some(("test", command)) if command.contains("cargo test ") && !command.contains(" -- ") => {
                Ok(Self::Test(command.to_owned()))
            }
            _ => Err(format!(
                "found search {text:?}, wanted `random`, `weather FILE` or `test COMMAND` with a `cargo test` without a bare --"
            )),
        }
    }
}

/// A mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its file's, without the ending.
    pub name: String,
    /// What was thought.
    pub mistake: String,
    /// Which promises are expected to notice.
    pub noticed_by: Vec<String>,
    /// Where it is looked for.
    pub search: Search,
    /// The whole file; `git apply` passes over what stands above the diff.
    pub text: String,
}

const FIELDS: [&str; 5] = ["name", "mistake", "rule", "noticed by", "search"];

impl Mutant {
    /// Reads the patch in the file `name`.patch.
    ///
    /// # Errors
    /// What its head lacks.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let (head, _) = text
            .split_once("\ndiff --git ")
            .ok_or("found no line that begins with `diff --git`, wanted a diff below the head")?;
        let mut fields = BTreeMap::new();
        for line in head.lines() {
            let field = line.strip_prefix("# ").and_then(|line| line.split_once(": "));
            let (field, value) =
                field.ok_or_else(|| format!("found {line:?} in the head, wanted `# FIELD: VALUE`"))?;
            if !FIELDS.contains(&field) || fields.insert(field, value.trim()).is_some() {
                return Err(format!("found the field {field:?}, wanted each of {} once", FIELDS.join(", ")));
            }
        }
        let field = |field: &str| {
            let value = fields.get(field).copied().filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("found no {field}, wanted each of {} once", FIELDS.join(", ")))
        };
        if field("name")? != name {
            return Err(format!("found the name {:?}, wanted the file's, {name:?}", field("name")?));
        }
        field("rule")?;
        Ok(Self {
            name: name.to_owned(),
            mistake: field("mistake")?.to_owned(),
            noticed_by: field("noticed by")?.split(',').map(|promise| promise.trim().to_owned()).collect(),
            search: Search::parse(field("search")?)?,
            text: text.to_owned(),
        })
    }
}

/// All patches of a folder, by name.
///
/// # Errors
/// The folder's, or which patch has what wrong with its head.
pub fn all(folder: &Path) -> Result<Vec<Mutant>, String> {
    let at = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let mut mutants = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let path = entry.map_err(|error| at(folder, &error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".patch")) else {
            continue;
        };
        let text = fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
        mutants.push(Mutant::parse(name, &text).map_err(|why| at(&path, &why))?);
    }
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::plan::Plan;
    use crate::{promise, weather};

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above")
    }

    fn planted() -> Vec<Mutant> {
        all(&root().join(FOLDER)).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn every_patch_says_what_it_plants_and_where_to_look() {
        let mutants = planted();
        let plan = Plan::draw(0, None, 30_000, &weather::NAMES);
        let mut promises: Vec<&str> = promise::all(&plan).iter().map(|promise| promise.name()).collect();
        promises.extend(["runs", "test"]);
        for mutant in &mutants {
            let Mutant { name, noticed_by, search, .. } = mutant;
            for by in noticed_by {
                assert!(promises.contains(&by.as_str()), "{name}: found {by:?}, wanted one of {promises:?}");
            }
            assert_eq!(matches!(search, Search::Test(_)), noticed_by == &["test"], "{name}");
            if let Search::Weather(file) = search {
                Plan::read(&root().join(file)).unwrap_or_else(|why| panic!("{name}: {why}"));
            }
        }
        let random = mutants.iter().filter(|mutant| mutant.search == Search::Random).count();
        assert!(
            mutants.len() >= 26 && random >= super::super::FOUND_BY_RANDOM_MIN,
            "{random} of {}",
            mutants.len()
        );
    }

    #[test]
    fn every_patch_applies_to_the_sources_as_they_are() {
        let mut rotten = Vec::new();
        for mutant in planted() {
            let file = root().join(FOLDER).join(format!("{}.patch", mutant.name));
            let applied =
                Command::new("git").current_dir(root()).args(["apply", "--check"]).arg(file).output();
            let applied = applied.expect("git is installed");
            if !applied.status.success() {
                rotten.push(format!("{}: {}", mutant.name, String::from_utf8_lossy(&applied.stderr)));
            }
        }
        assert!(rotten.is_empty(), "make these anew from the sources as they are:\n{}", rotten.join("\n"));
    }

    #[test]
    fn a_head_that_lacks_something_is_refused() {
        let good = "# name: a\n# mistake: b\n# rule: c\n# noticed by: exact, calm\n# search: random\ndiff --git a/x b/x\n";
        let mutant = Mutant::parse("a", good).expect("nothing is wrong with it");
        assert_eq!(
            (mutant.noticed_by, mutant.search),
            (vec!["exact".to_owned(), "calm".to_owned()], Search::Random)
        );
        let refused = |from: &str, to: &str| Mutant::parse("a", &good.replace(from, to)).is_err();
        assert!(
            refused("# rule: c\n", "") && refused("# rule: c", "# rule: ") && refused("# rule: c", "rule: c")
        );
        assert!(refused("# rule", "# name") && refused("# rule", "# role") && refused("name: a", "name: b"));
        assert!(refused("random", "luck") && refused("random", "test cargo test -- --nocapture"));
        assert!(refused("diff --git", "index"));
    }
}
