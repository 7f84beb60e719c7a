//! Reading one place of a tree: what is there, is it of the right kind, and if not, say so.
//!
//! Public, so that the documents of other rooms are read and judged as the ones here are: [`crate::tree::read`] the text,
//! take its [`Spot::root`], ask for what should be there, and let [`crate::mistake::conclude`] have the last word.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::ids::BadName;
use crate::mistake::{Mistake, Severity};
use crate::tree::{Node, Place, Value, quote};
use crate::units::{BadUnit, parse_duration, parse_size, show_duration, show_size};

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Notes {
    /// In the order in which they were met.
    pub mistakes: Vec<Mistake>,
}

impl Notes {
    /// Adds an error; the caller may give it help.
    pub fn error(
        &mut self,
        place: Place,
        path: &str,
        found: impl Into<String>,
        wanted: impl Into<String>,
    ) -> &mut Mistake {
        self.mistakes.push(Mistake {
            severity: Severity::Error,
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            found: found.into(),
            wanted: wanted.into(),
            help: None,
        });
        let last = self.mistakes.len() - 1;
        &mut self.mistakes[last]
    }
}

/// What would have been right, for a text that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The rule.
    pub wanted: String,
    /// What to do, when that is not obvious.
    pub help: Option<String>,
}

impl From<BadName> for Wanted {
    fn from(bad: BadName) -> Self {
        bad.wanted.into()
    }
}

impl From<BadUnit> for Wanted {
    fn from(bad: BadUnit) -> Self {
        bad.wanted.into()
    }
}

impl From<&str> for Wanted {
    fn from(wanted: &str) -> Self {
        Self { wanted: wanted.to_owned(), help: None }
    }
}

/// A node and its path from the root. For a map's value also the place of its key.
#[derive(Clone, Debug)]
pub struct Spot<'a> {
    node: &'a Node,
    key: Option<Place>,
    /// Such as `routes[2].upstream`; empty at the root.
    pub path: String,
}

impl<'a> Spot<'a> {
    /// The whole document.
    pub fn root(node: &'a Node) -> Self {
        Self { node, key: None, path: String::new() }
    }

    /// What stands there.
    pub fn value(&self) -> &'a Value {
        &self.node.value
    }

    /// Notes that this value is not what it should be.
    pub fn wrong<'n>(&self, notes: &'n mut Notes, wanted: impl Into<String>) -> &'n mut Mistake {
        notes.error(self.node.place, &self.path, self.node.value.describe(), wanted)
    }

    /// Notes that the key before this value is not what it should be.
    pub fn wrong_key<'n>(
        &self,
        notes: &'n mut Notes,
        found: String,
        wanted: impl Into<String>,
    ) -> &'n mut Mistake {
        notes.error(self.key.unwrap_or(self.node.place), &self.path, found, wanted)
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A map's entries in order, without its repeated keys, which are noted. `None` (noted): no map.
    pub fn entries(&self, notes: &mut Notes) -> Option<Vec<(&'a str, Spot<'a>)>> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong(notes, "a map");
            return None;
        };
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        let mut unique = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let spot = Spot { node, key: Some(key.place), path: self.child(&key.text) };
            if let Some(first) = seen.insert(&key.text, key.place) {
                let wanted = format!("each key once; the first is in line {}", first.line);
                spot.wrong_key(notes, format!("{} again", quote(&key.text)), wanted);
            } else {
                unique.push((key.text.as_str(), spot));
            }
        }
        Some(unique)
    }

    /// A map whose keys are all among `known`; others are noted. `None` (noted): no map.
    pub fn fields(&self, notes: &mut Notes, known: &[&'static str]) -> Option<Fields<'a>> {
        let entries = self.entries(notes)?;
        let mut fields = Fields { spot: self.clone(), entries: BTreeMap::new() };
        for (key, spot) in entries {
            if known.contains(&key) {
                fields.entries.insert(key, spot);
            } else {
                let help = nearest(key, known.iter().copied());
                let wanted = format!("one of {}", known.join(", "));
                spot.wrong_key(notes, format!("the unknown key {}", quote(key)), wanted).help = help;
            }
        }
        Some(fields)
    }

    /// A map from names to things, at most `len_max` of them. Wrong names are noted and left out.
    pub fn named<K: Ord, V, E: Into<Wanted>>(
        &self,
        notes: &mut Notes,
        len_max: usize,
        name: impl Fn(&str) -> Result<K, E>,
        read: impl Fn(&mut Notes, &Spot<'a>, &K) -> V,
    ) -> BTreeMap<K, V> {
        let mut named = BTreeMap::new();
        let entries = self.entries(notes).unwrap_or_default();
        self.at_most(notes, entries.len(), len_max);
        for (key, spot) in entries.into_iter().take(len_max) {
            match name(key) {
                Ok(name) => {
                    let value = read(notes, &spot, &name);
                    named.insert(name, value);
                }
                Err(bad) => {
                    let Wanted { wanted, help } = bad.into();
                    spot.wrong_key(notes, quote(key), wanted).help = help;
                }
            }
        }
        named
    }

    /// A list's items, at most `len_max` of them. Empty (noted): no list.
    pub fn items(&self, notes: &mut Notes, len_max: usize) -> Vec<Spot<'a>> {
        let Value::List(list) = &self.node.value else {
            self.wrong(notes, "a list");
            return Vec::new();
        };
        self.at_most(notes, list.len(), len_max);
        let spot = |(index, node)| Spot { node, key: None, path: format!("{}[{index}]", self.path) };
        list.iter().take(len_max).enumerate().map(spot).collect()
    }

    fn at_most(&self, notes: &mut Notes, len: usize, len_max: usize) {
        if len > len_max {
            notes.error(self.node.place, &self.path, format!("{len} of them"), format!("at most {len_max}"));
        }
    }

    /// A list of texts, each read by `parse` and none twice; a single text is a list of one.
    pub fn texts<T: PartialEq, E: Into<Wanted>>(
        &self,
        notes: &mut Notes,
        len_max: usize,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        if let Value::Text(_) = self.node.value {
            return self.parse(notes, &parse).into_iter().collect();
        }
        let mut texts = Vec::new();
        for spot in self.items(notes, len_max) {
            let Some(text) = spot.parse(notes, &parse) else { continue };
            if texts.contains(&text) {
                notes.error(
                    spot.node.place,
                    &spot.path,
                    format!("{} again", spot.node.value.describe()),
                    "each once",
                );
            } else {
                texts.push(text);
            }
        }
        texts
    }

    /// A text that `parse` accepts. Numbers and the like are no texts; the help says how they become one.
    pub fn parse<T, E: Into<Wanted>>(
        &self,
        notes: &mut Notes,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let parsed = match &self.node.value {
            Value::Text(text) => parse(text),
            other => {
                // What would have been wanted is known by the parser alone.
                let wanted = parse("").err().map_or_else(|| "a text".to_owned(), |error| error.into().wanted);
                let quotable = matches!(other, Value::Bool(_) | Value::Integer(_) | Value::Float(_));
                let help = quotable.then(|| "put it in quotes if it is meant as a text".to_owned());
                self.wrong(notes, wanted).help = help;
                return None;
            }
        };
        parsed
            .map_err(|error| {
                let Wanted { wanted, help } = error.into();
                self.wrong(notes, wanted).help = help;
            })
            .ok()
    }

    /// One of these words.
    pub fn word<T: Copy>(&self, notes: &mut Notes, words: &[(&str, T)]) -> Option<T> {
        self.parse(notes, |text| {
            let chosen = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            chosen.ok_or_else(|| Wanted {
                wanted: format!(
                    "one of {}",
                    words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
                ),
                help: nearest(text, words.iter().map(|(word, _)| *word)),
            })
        })
    }

    /// True or false.
    pub fn boolean(&self, notes: &mut Notes) -> Option<bool> {
        if let Value::Bool(value) = self.node.value {
            return Some(value);
        }
        self.wrong(notes, "true or false");
        None
    }

    /// A whole number of `range`.
    pub fn integer(&self, notes: &mut Notes, range: RangeInclusive<u64>) -> Option<u64> {
        let integer = match self.node.value {
            Value::Integer(integer) => u64::try_from(integer).ok().filter(|integer| range.contains(integer)),
            _ => None,
        };
        if integer.is_none() {
            self.wrong(notes, format!("a whole number from {} to {}", range.start(), range.end()));
        }
        integer
    }

    /// A whole number of `range`, which may be below zero.
    pub fn signed(&self, notes: &mut Notes, range: RangeInclusive<i16>) -> Option<i16> {
        let number = match self.node.value {
            Value::Integer(integer) => i16::try_from(integer).ok().filter(|number| range.contains(number)),
            _ => None,
        };
        if number.is_none() {
            self.wrong(notes, format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A duration of `range`, with its unit.
    pub fn duration(&self, notes: &mut Notes, range: RangeInclusive<Duration>) -> Option<Duration> {
        let help = matches!(self.node.value, Value::Integer(_)).then(|| "add a unit, as in 10s".to_owned());
        let parsed = match &self.node.value {
            Value::Text(text) => parse_duration(text).ok(),
            _ => None,
        };
        let fits = parsed.filter(|duration| range.contains(duration));
        if fits.is_none() {
            let (low, high) = (show_duration(*range.start()), show_duration(*range.end()));
            self.wrong(notes, format!("a duration from {low} to {high}, such as 250ms, 10s, 5m or 1h"))
                .help = help;
        }
        fits
    }

    /// A size of `range` in bytes.
    pub fn size(&self, notes: &mut Notes, range: RangeInclusive<u64>) -> Option<u64> {
        let parsed = match &self.node.value {
            Value::Text(text) => parse_size(text).ok(),
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            _ => None,
        };
        let fits = parsed.filter(|bytes| range.contains(bytes));
        if fits.is_none() {
            let (low, high) = (show_size(*range.start()), show_size(*range.end()));
            self.wrong(
                notes,
                format!("a size from {low} to {high}, such as 16KiB, 1MiB or a number of bytes"),
            );
        }
        fits
    }
}

/// The entries of a map whose keys are known. A value of nothing counts as absent.
#[derive(Debug)]
pub struct Fields<'a> {
    /// The map.
    pub spot: Spot<'a>,
    entries: BTreeMap<&'a str, Spot<'a>>,
}

impl<'a> Fields<'a> {
    /// The value of `key`, if there is one.
    pub fn optional(&mut self, key: &str) -> Option<Spot<'a>> {
        self.entries.remove(key).filter(|spot| !matches!(spot.node.value, Value::Null))
    }

    /// Notes a missing key at the map's own key, where a reader would add it.
    pub fn required(&mut self, notes: &mut Notes, key: &str) -> Option<Spot<'a>> {
        let empty = self.entries.get(key).map(|spot| spot.key.unwrap_or(spot.node.place));
        let found = self.optional(key);
        if found.is_none() {
            let place = empty.or(self.spot.key).unwrap_or(self.spot.node.place);
            notes.error(place, &self.spot.child(key), "nothing", format!("a value for `{key}`"));
        }
        found
    }

    /// The value of `key`, or `default` if it is absent (or wrong, and noted).
    pub fn or<T>(
        &mut self,
        notes: &mut Notes,
        key: &str,
        default: T,
        read: impl FnOnce(&mut Notes, &Spot<'a>) -> Option<T>,
    ) -> T {
        self.optional(key).and_then(|spot| read(notes, &spot)).unwrap_or(default)
    }
}

/// `did you mean …?`, if one of `known` is a slip of the pen away from `text`.
pub fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    // Longer texts are no slips, and the distance takes the product of both lengths.
    if text.len() > 64 {
        return None;
    }
    let slips = (text.chars().count() / 3).clamp(1, 3);
    let close = known.into_iter().filter(|word| word.len() <= 64).map(|word| (distance(text, word), word));
    let (_, word) = close.filter(|(slip, _)| *slip <= slips).min()?;
    Some(format!("did you mean `{word}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one text to the other.
/// Source: "optimal string alignment", the restricted form of Damerau and Levenshtein's distance.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let known = ["upstream", "quotas", "timeout"];
        assert_eq!(nearest("upsteam", known), Some("did you mean `upstream`?".to_owned()));
        assert_eq!(nearest("qoutas", known), Some("did you mean `quotas`?".to_owned()));
        assert_eq!(nearest("timout", known), Some("did you mean `timeout`?".to_owned()));
        assert_eq!(nearest("cost", known), None);
    }
}
