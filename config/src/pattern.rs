//! Regular expressions of conditions. Each takes a whole value or not at all, and is bounded in length and in size.
//!
//! A replicated document holds them as texts, and reading it judges none: what all nodes must agree on may not depend on a
//! version of a library. They are judged where a document is written, where it comes in, and where a node is about to use it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};
use serde::{Deserialize, Serialize};

use crate::spot::Wanted;

/// A regular expression that takes whole values. Two are equal if they are written alike.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Pattern {
    text: Arc<str>,
    /// None: it is not a good one.
    regex: Arc<OnceLock<Option<Regex>>>,
}

impl Pattern {
    /// As it is written.
    pub const LEN_BYTES_MAX: usize = 512;
    /// Compiled; and as much again for what a thread remembers of its searches.
    const SIZE_BYTES_MAX: usize = 256 << 10;
    /// Of one document: all of them are compiled at once.
    pub const ALL_MAX: usize = 1_000;

    /// # Errors
    /// What would be right, if it is too long, no regular expression, or a very large one.
    pub fn parse(text: &str) -> Result<Self, Wanted> {
        let regex = Self::compiled(text)?;
        Ok(Self { text: text.into(), regex: Arc::new(OnceLock::from(Some(regex))) })
    }

    /// That it is a good one, and compiled.
    ///
    /// # Errors
    /// As [`Pattern::parse`].
    pub fn judge(&self) -> Result<(), Wanted> {
        if self.regex.get().is_some_and(Option::is_some) {
            return Ok(());
        }
        let regex = Self::compiled(&self.text)?;
        self.regex.get_or_init(|| Some(regex));
        Ok(())
    }

    fn compiled(text: &str) -> Result<Regex, Wanted> {
        let wanted = format!("a regular expression of 1 to {} bytes", Self::LEN_BYTES_MAX);
        if !(1..=Self::LEN_BYTES_MAX).contains(&text.len()) {
            return Err(Wanted { wanted, help: None });
        }
        let refused = |error: regex::Error| match error {
            regex::Error::CompiledTooBig(_) => Wanted {
                wanted: format!("one that takes at most {} KiB when compiled", Self::SIZE_BYTES_MAX >> 10),
                help: Some("count less, or write `[0-9]` for `\\d` and `[0-9A-Za-z_]` for `\\w`".to_owned()),
            },
            // The last line says what is wrong; those before it draw where.
            other => {
                let help = other.to_string().lines().last().map(|line| line.trim().to_owned());
                Wanted { wanted: wanted.clone(), help }
            }
        };
        // By itself first, so that no bracket of its own can close the anchored group.
        compile(text).map_err(refused)?;
        compile(&format!(r"\A(?:{text})\z")).map_err(refused)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it takes the value, from its first byte to its last.
    pub fn fits(&self, value: &str) -> bool {
        let regex = self.regex.get_or_init(|| Self::compiled(&self.text).ok());
        regex.as_ref().is_some_and(|regex| regex.is_match(value))
    }

    /// What every value that it takes begins with, and whether that is the whole value.
    pub(crate) fn beginning(&self) -> (String, bool) {
        let mut text = String::new();
        let whole = regex_syntax::parse(&self.text).is_ok_and(|hir| literal(&hir, &mut text));
        (text, whole)
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    let size = Pattern::SIZE_BYTES_MAX;
    RegexBuilder::new(text).size_limit(size).dfa_size_limit(size).build()
}

/// Adds the text with which `hir` begins. Whether that was all of it.
fn literal(hir: &Hir, text: &mut String) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(bytes) => std::str::from_utf8(&bytes.0).is_ok_and(|part| {
            text.push_str(part);
            true
        }),
        HirKind::Capture(capture) => literal(&capture.sub, text),
        HirKind::Concat(parts) => parts.iter().all(|part| literal(part, text)),
        HirKind::Alternation(choices) => {
            let begin = |choice: &Hir| {
                let mut text = String::new();
                literal(choice, &mut text);
                text
            };
            let shared = choices.iter().map(begin).reduce(|one, other| {
                let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b);
                same.map(|(same, _)| same).collect()
            });
            text.push_str(&shared.unwrap_or_default());
            false
        }
        HirKind::Class(_) | HirKind::Repetition(_) => false,
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self { text: text.into(), regex: Arc::default() }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.text.as_ref().to_owned()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_a_whole_value() {
        let pattern = Pattern::parse("a|b+").expect("good");
        for (value, fits) in [("a", true), ("bbb", true), ("ab", false), ("xa", false), ("a\n", false)] {
            assert_eq!(pattern.fits(value), fits, "{value:?}");
        }
    }

    #[test]
    fn a_pattern_cannot_leave_its_anchors_and_is_bounded() {
        for bad in ["", "a)|(?:b", "(", "(?x)a # b", r"\w{500}", "[a-z]{1000}{1000}", &"a".repeat(513)] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        let help = Pattern::parse("a(").expect_err("unclosed").help.expect("the reason");
        assert!(help.contains("unclosed group"), "{help}");
    }

    #[test]
    fn a_pattern_knows_what_it_begins_with() {
        let beginning = |text| Pattern::parse(text).expect("good").beginning();
        assert_eq!(beginning("/v[0-9]+/.*"), ("/v".to_owned(), false));
        assert_eq!(beginning("/a/b"), ("/a/b".to_owned(), true));
        assert_eq!(beginning("/(a)/(b|c)"), ("/a/".to_owned(), false));
        assert_eq!(beginning("/a|/b"), ("/".to_owned(), false));
        assert_eq!(beginning("/a/b|/a/c.*|/a/"), ("/a/".to_owned(), false));
        assert_eq!(beginning("/a|b").0, "");
        assert_eq!(beginning("/?a").0, "");
        assert_eq!(beginning("/(?i)a/b"), ("/".to_owned(), false));
    }
}
