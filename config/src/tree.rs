//! YAML text → a tree of nodes, each with the line and column at which it was written.
//!
//! Serde's derived structs stop at the first mistake and forget places, so the parser is asked for a tree
//! alone; [`crate::spot`] and those who use it give it meaning. JSON is YAML and goes the same way.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

use crate::mistake::{Mistake, Severity};

/// The longest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// Lists and maps inside each other.
pub const DEPTH_MAX: usize = 32;
/// Values in a document, those that aliases repeat among them.
pub const NODES_MAX: usize = 2_000_000;
/// Uses of `*alias`, and anchors they may refer to.
pub const ALIASES_MAX: usize = 10_000;

/// Line and column in characters, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
}

impl Place {
    /// Where a document begins.
    pub const START: Self = Self { line: 1, column: 1 };

    fn of(location: serde_saphyr::Location) -> Self {
        Self { line: location.line().max(1), column: location.column().max(1) }
    }
}

/// A value and where it begins. What an alias stands for has the place of the alias.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it says.
    pub value: Value,
}

/// A map's key; numbers and the like are kept as they were written.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where it begins.
    pub place: Place,
    /// As it was written.
    pub text: String,
}

/// What YAML can say. A map keeps its order and its repeated keys.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Everything else that is one word or line, and what stands in quotes.
    Text(String),
    /// In its order.
    List(Vec<Node>),
    /// In its order.
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// The value as a mistake shows it; long texts are cut.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(text) => quote(text),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// `text` in quotes, its odd characters escaped, cut after 60.
pub fn quote(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{dots}")
}

/// Reads a document.
///
/// # Errors
/// The one mistake that stopped the parser: broken syntax, or more than this module's limits allow.
pub fn read(text: &str) -> Result<Node, Mistake> {
    if text.len() > DOCUMENT_BYTES_MAX {
        let found = format!("a document of {} bytes", text.len());
        return Err(stop(Place::START, found, format!("at most {DOCUMENT_BYTES_MAX} bytes")));
    }
    // The parser reads carriage returns as line ends, but a text of nothing has no node to place.
    if text.trim().is_empty() {
        return Err(stop(Place::START, "an empty document".into(), "a map".into()));
    }
    match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options()) {
        Ok(spanned) => Ok(node(spanned)),
        Err(error) => {
            let place = error.location().map_or(Place::START, Place::of);
            Err(stop(place, explain(&error), "a YAML document within its limits".into()))
        }
    }
}

fn stop(place: Place, found: String, wanted: String) -> Mistake {
    let Place { line, column } = place;
    Mistake { severity: Severity::Error, line, column, path: String::new(), found, wanted, help: None }
}

/// The parser's message on one line, without the place, which the mistake has already.
fn explain(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let first = message.lines().next().unwrap_or_default().trim();
    let cut = first.rfind(" at line ").map_or(first, |at| &first[..at]);
    format!("broken YAML ({cut})")
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: 1,
            max_nodes: NODES_MAX,
            max_events: 3 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            // An anchor used often is no attack by itself; what it repeats is counted below.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX / 4,
            max_replay_stack_depth: DEPTH_MAX,
        },
        // Repeated keys are reported by `spot`, together with everything else.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        null_as_string: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node { place: Place::of(spanned.referenced), value: spanned.value }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(i128::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(node(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value = entries.next_value::<Spanned<Value>>()?;
            map.push((Key { place: Place::of(key.referenced), text: key.value }, node(value)));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_knows_its_line_and_column() {
        // given a document with a block map, a flow list and a wide character
        let text = "größe: 1\nlist:\n  - [a, {b: true}]\n";
        // when it is read
        let Value::Map(entries) = read(text).unwrap().value else { panic!("a map") };
        // then places count characters from 1
        let at = |line, column| Place { line, column };
        assert_eq!((entries[0].0.place, entries[0].1.place), (at(1, 1), at(1, 8)));
        assert_eq!(entries[1].0.place, at(2, 1));
        let Value::List(list) = &entries[1].1.value else { panic!("a list") };
        let Value::List(inner) = &list[0].value else { panic!("a list") };
        assert_eq!((list[0].place, inner[0].place, inner[1].place), (at(3, 5), at(3, 6), at(3, 9)));
        let Value::Map(flow) = &inner[1].value else { panic!("a map") };
        assert_eq!((flow[0].0.place, flow[0].1.place), (at(3, 10), at(3, 13)));
    }

    #[test]
    fn broken_syntax_is_a_mistake_with_a_place() {
        let mistake = read("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(mistake.line >= 2, "{mistake:?}");
        assert!(mistake.found.starts_with("broken YAML ("), "{mistake:?}");
    }

    #[test]
    fn depth_size_and_aliases_are_bounded() {
        // given a nest, a long text and an alias bomb
        let deep = format!("a: {}1{}", "[".repeat(100), "]".repeat(100));
        let long = format!("a: {}", "x".repeat(DOCUMENT_BYTES_MAX));
        let mut bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let uses = vec![format!("*l{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("l{level}: &l{level} [{uses}]\n"));
        }
        // when, then none is read
        for text in [deep, long, bomb, "a: 1\n---\nb: 2\n".to_owned(), " \n".to_owned()] {
            let mistake = read(&text).unwrap_err();
            assert!(mistake.line > 0 && mistake.column > 0, "{mistake:?}");
        }
    }
}
