//! What came of planted mistakes: a line of JSON each in a file, written as soon as it is known.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::patch::Mutant;
use crate::run::Broken;

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// In which it was planted.
    pub sources: String,
    /// The mistake's name.
    pub name: String,
    /// The patch as it was.
    pub patch: String,
    /// What was to be searched.
    pub seeds: Range<u64>,
    /// The seed and the promise that was broken; none: nothing noticed the mistake.
    pub found: Option<(u64, Broken)>,
    /// Runs until then.
    pub runs: u64,
    /// Building included.
    pub seconds: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, runs, seconds, .. } = self;
        match found {
            Some((_, broken)) if broken.promise == "test" => write!(f, "{}, {seconds} s", broken.how),
            Some((seed, broken)) => write!(f, "{}, seed {seed}, {runs} runs, {seconds} s", broken.promise),
            None => write!(f, "not found, {runs} runs, {seconds} s"),
        }
    }
}

/// All that is known.
pub struct Findings {
    file: PathBuf,
    sources: String,
    all: Vec<Finding>,
}

impl Findings {
    /// What `file` holds; it need not be there.
    ///
    /// # Errors
    /// The disk's, or a line that is no finding: but for the last one, which may have been cut off.
    pub fn open(file: &Path, sources: &str) -> Result<Self, String> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            fs::write(file, &text[..whole]).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let read = text[..whole].lines().enumerate().map(|(number, line)| {
            let wrong = |error| format!("{}:{}: {error}; remove the line", file.display(), number + 1);
            serde_json::from_str(line).map_err(wrong)
        });
        Ok(Self { file: file.to_owned(), sources: sources.to_owned(), all: read.collect::<Result<_, _>>()? })
    }

    /// What came of this patch in these sources; one that was not found counts for the same seeds alone.
    pub fn of(&self, mutant: &Mutant, seeds: &Range<u64>) -> Option<&Finding> {
        let same = |finding: &&Finding| {
            finding.sources == self.sources
                && finding.name == mutant.name
                && finding.patch == mutant.text
                && (finding.found.is_some() || finding.seeds == *seeds)
        };
        self.all.iter().rev().find(same)
    }

    /// Writes one more.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&mut self, finding: Finding) -> Result<(), String> {
        let line = serde_json::to_string(&finding).expect("a finding is plain data");
        let opened = OpenOptions::new().create(true).append(true).open(&self.file);
        let written = opened.and_then(|mut file| writeln!(file, "{line}"));
        written.map_err(|error| format!("{}: {error}", self.file.display()))?;
        self.all.push(finding);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::patch::Search;
    use super::*;

    #[test]
    fn a_search_that_was_cut_off_goes_on_and_other_sources_another_patch_or_range_is_searched_anew() {
        // given a file with one mistake that was found, one that was not, and the beginning of a third line
        let file = std::env::temp_dir().join(format!("quorumgate-findings-{}", std::process::id()));
        let mutant = |name: &str, text: &str| Mutant {
            name: name.to_owned(),
            mistake: String::new(),
            noticed_by: Vec::new(),
            search: Search::Random,
            text: text.to_owned(),
        };
        let finding = |name: &str, found: bool| Finding {
            sources: "c".to_owned(),
            name: name.to_owned(),
            patch: "p".to_owned(),
            seeds: 0..9,
            found: found.then(|| {
                (3, Broken { promise: "exact".to_owned(), how: String::new(), at_ms: 0, last: Vec::new() })
            }),
            runs: 4,
            seconds: 5,
        };
        let mut findings = Findings::open(&file, "c").expect("there is no file yet");
        findings.keep(finding("a", true)).expect("the disk has room");
        findings.keep(finding("b", false)).expect("the disk has room");
        let mut text = fs::read_to_string(&file).expect("it was written");
        text.push_str("{\"sources\":\"c\",");
        fs::write(&file, text).expect("the disk has room");
        // when it is opened again, and something kept
        let mut again = Findings::open(&file, "c").expect("the last line may be cut off");
        again.keep(finding("d", true)).expect("the disk has room");
        let again = Findings::open(&file, "c").expect("all lines are whole");
        // then each counts for what was searched
        assert_eq!(again.of(&mutant("a", "p"), &(0..20)), Some(&finding("a", true)));
        assert_eq!(again.of(&mutant("b", "p"), &(0..9)), Some(&finding("b", false)));
        assert!(
            again.of(&mutant("b", "p"), &(0..20)).is_none() && again.of(&mutant("a", "q"), &(0..9)).is_none()
        );
        assert!(again.of(&mutant("d", "p"), &(0..9)).is_some());
        assert!(
            Findings::open(&file, "other").expect("it is whole").of(&mutant("a", "p"), &(0..9)).is_none()
        );
        fs::remove_file(&file).expect("it is ours");
    }
}
