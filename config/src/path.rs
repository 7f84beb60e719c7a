//! The path of a route: a prefix, an exact path, a template or a regular expression.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;
use crate::spot::Wanted;

/// Which paths a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub enum Path {
    /// This path and all below it, by whole segments: begins with `/`, has no trailing one (but the root itself).
    Prefix(String),
    /// This path alone.
    Exact(String),
    /// Whole segments, some of them captures.
    Template(Template),
    /// What the whole path must fit.
    Regex(PathPattern),
}

/// Such as `/users/{user}/orders/{order}`, or `/files/{rest*}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// A pattern of paths. Begins with a literal `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    pattern: Pattern,
    /// The whole segments with which every path that it takes begins: `/a/b`, or nothing.
    literal: String,
}

/// One segment of a path as a route has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Itself, byte by byte.
    Literal(&'a str),
    /// Any one segment, under this name.
    Capture(&'a str),
    /// One or more, to the end of the path, under this name. The last of its template.
    Rest(&'a str),
}

impl Path {
    /// As it is written.
    pub const LEN_BYTES_MAX: usize = 1024;

    /// As it is written, without what kind it is.
    pub fn text(&self) -> &str {
        match self {
            Self::Prefix(text) | Self::Exact(text) => text,
            Self::Template(template) => template.as_str(),
            Self::Regex(regex) => regex.pattern.as_str(),
        }
    }

    /// Its kind, as the document calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Prefix(_) => "prefix",
            Self::Exact(_) => "exact",
            Self::Template(_) => "template",
            Self::Regex(_) => "regex",
        }
    }

    /// Its segments; of a regular expression those with which every path that it takes begins.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let (text, captures) = match self {
            Self::Prefix(text) | Self::Exact(text) => (text.as_str(), false),
            Self::Template(template) => (template.as_str(), true),
            Self::Regex(regex) => (regex.literal.as_str(), false),
        };
        let segments = text.split('/').filter(|segment| !segment.is_empty());
        segments.map(move |segment| if captures { Segment::read(segment) } else { Segment::Literal(segment) })
    }

    /// The path without the names of its captures. Equal: the same paths are taken.
    pub(crate) fn shape(&self) -> (&'static str, String) {
        let text = match self {
            Self::Template(template) => {
                let nameless = |segment| match segment {
                    Segment::Literal(literal) => format!("/{literal}"),
                    Segment::Capture(_) => "/{}".to_owned(),
                    Segment::Rest(_) => "/{*}".to_owned(),
                };
                template.segments().map(nameless).collect()
            }
            other => other.text().to_owned(),
        };
        (self.kind(), text)
    }
}

/// `/orders` for a prefix, `exact /orders` and the like for others.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(text) => f.write_str(text),
            other => write!(f, "{} {}", other.kind(), other.text()),
        }
    }
}

/// As a template has it.
impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Capture(name) => write!(f, "{{{name}}}"),
            Self::Rest(name) => write!(f, "{{{name}*}}"),
        }
    }
}

impl<'a> Segment<'a> {
    /// A segment of a template, whose names are known to be good.
    fn read(text: &'a str) -> Self {
        match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            None => Self::Literal(text),
            Some(name) => name.strip_suffix('*').map_or(Self::Capture(name), Self::Rest),
        }
    }
}

impl Template {
    /// A template of the paths that a route takes.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, Wanted> {
        Self::read(text, "write `exact` for a path without captures")
    }

    /// A template of which a new path is made.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse_new(text: &str) -> Result<Self, Wanted> {
        Self::read(text, "write `path` for a path without captures")
    }

    fn read(text: &str, plain: &str) -> Result<Self, Wanted> {
        let error = |help: &str| {
            let wanted = "a path whose captures are whole segments, such as /users/{user}/orders/{order}";
            Err(Wanted { help: (!help.is_empty()).then(|| help.to_owned()), ..wanted.into() })
        };
        let Some(inner) = text.strip_prefix('/') else { return error("begin it with `/`") };
        if inner.ends_with('/') {
            return error("leave the last `/` out");
        }
        let mut names = BTreeSet::new();
        let mut segments = inner.split('/').peekable();
        while let Some(text) = segments.next() {
            match Segment::read(text) {
                Segment::Literal(literal) if literal.starts_with(':') => {
                    return error("write a capture as {name}");
                }
                Segment::Literal("*" | "**") => return error("write {rest*} for one or more last segments"),
                Segment::Literal(literal) if literal.contains(['{', '}']) => {
                    return error("a capture is a whole segment; `regex` takes parts of one");
                }
                Segment::Literal(_) => {}
                Segment::Rest(_) if segments.peek().is_some() => {
                    return error("only the last segment may take the rest");
                }
                Segment::Capture(name) | Segment::Rest(name) => {
                    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                    let begins = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
                    if !begins || name.len() > 64 || !name.bytes().all(plain) {
                        return error("name a capture with `a-z`, `0-9`, `_`, a letter first");
                    }
                    if !names.insert(name) {
                        return error("give each capture a name of its own");
                    }
                }
            }
        }
        if !is_plain(text) {
            return error("");
        }
        if names.is_empty() {
            return error(plain);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One or more.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.0.split('/').filter(|segment| !segment.is_empty()).map(Segment::read)
    }
}

impl PathPattern {
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, Wanted> {
        let begin = || {
            let help =
                "it takes the whole path, so it needs no `^`; flags and choices come behind the first `/`";
            let wanted = "a regular expression that begins with a literal `/`, such as /v[0-9]+/.*";
            Wanted { wanted: wanted.to_owned(), help: Some(help.to_owned()) }
        };
        if !text.starts_with('/') {
            return Err(begin());
        }
        let pattern = Self::of(Pattern::parse(text)?);
        if pattern.pattern.beginning().0.starts_with('/') { Ok(pattern) } else { Err(begin()) }
    }

    /// One that nobody has judged yet.
    fn of(pattern: Pattern) -> Self {
        let (beginning, whole) = pattern.beginning();
        // What stands behind the last `/` may be the beginning of a longer segment.
        let end = if whole { beginning.len() } else { beginning.rfind('/').unwrap_or(0) };
        let literal = if beginning.starts_with('/') { &beginning[..end] } else { "" };
        Self { literal: literal.to_owned(), pattern }
    }

    /// The expression.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Whether it takes the whole path.
    pub fn fits(&self, path: &str) -> bool {
        self.pattern.fits(path)
    }
}

/// Visible ASCII without what is no part of a path or could be read in two ways.
fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'\\');
    let segments = path.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | ".."));
    segments && path.len() <= Path::LEN_BYTES_MAX && path.bytes().all(plain)
}

/// Reads a prefix.
///
/// # Errors
/// What would be right.
pub(crate) fn parse_prefix(path: &str) -> Result<String, Wanted> {
    let below = "a path takes everything below it by whole segments";
    parse_plain(path, below)
}

/// Reads an exact path.
///
/// # Errors
/// What would be right.
pub(crate) fn parse_exact(path: &str) -> Result<String, Wanted> {
    parse_plain(path, "`prefix` takes everything below a path, `template` and `regex` take many")
}

fn parse_plain(path: &str, why: &str) -> Result<String, Wanted> {
    let wanted = "a path such as /orders: visible ASCII without `?`, `#`, `%`, `\\`, empty or dot segments";
    let error = |help: Option<String>| Wanted { help, ..wanted.into() };
    let Some(rest) = path.strip_prefix('/') else { return Err(error(Some("begin it with `/`".to_owned()))) };
    if rest.is_empty() {
        return Ok(path.to_owned());
    }
    if rest.ends_with('/') {
        return Err(error(Some(format!("leave the last `/` out; {why}"))));
    }
    if rest.contains('*') {
        return Err(error(Some(format!("leave the `*` out; {why}"))));
    }
    if rest.contains(['{', '}']) {
        return Err(error(Some("write `{template: …}` for a path with captures".to_owned())));
    }
    if is_plain(path) { Ok(path.to_owned()) } else { Err(error(None)) }
}

/// How the canonical form writes a path: a prefix as a text, as it was before there were other kinds.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Prefix(String),
    Kind(Kind),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Exact(String),
    Template(String),
    Regex(String),
}

impl TryFrom<Form> for Path {
    type Error = String;
    fn try_from(form: Form) -> Result<Self, String> {
        let path = match form {
            Form::Prefix(text) => Ok(Self::Prefix(text)),
            Form::Kind(Kind::Exact(text)) => parse_exact(&text).map(Self::Exact),
            Form::Kind(Kind::Template(text)) => Template::parse(&text).map(Self::Template),
            Form::Kind(Kind::Regex(text)) => Ok(Self::Regex(PathPattern::of(Pattern::from(text)))),
        };
        path.map_err(|error| format!("found a bad path, wanted {}", error.wanted))
    }
}

impl From<Path> for Form {
    fn from(path: Path) -> Form {
        let text = path.text().to_owned();
        match path {
            Path::Prefix(_) => Form::Prefix(text),
            Path::Exact(_) => Form::Kind(Kind::Exact(text)),
            Path::Template(_) => Form::Kind(Kind::Template(text)),
            Path::Regex(_) => Form::Kind(Kind::Regex(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_whole_segments() {
        let template = Template::parse("/users/{user}/{rest*}").expect("good");
        let segments: Vec<Segment<'_>> = template.segments().collect();
        assert_eq!(segments, [Segment::Literal("users"), Segment::Capture("user"), Segment::Rest("rest")]);
        let bad = [
            ("users/{a}", "begin it"),
            ("/{a}/", "last `/`"),
            ("/:a", "{name}"),
            ("/a/*", "{rest*}"),
            ("/a-{b}", "whole segment"),
            ("/{a*}/b", "only the last"),
            ("/{A}", "name a capture"),
            ("/{}", "name a capture"),
            ("/{a}/{a}", "of its own"),
            ("/a", "`exact`"),
        ];
        for (text, help) in bad {
            let told = Template::parse(text).expect_err(text).help.expect(text);
            assert!(told.contains(help), "{text}: {told}");
        }
        for text in ["/", "//{a}", "/../{a}", "/%20/{a}", "/ä/{a}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_of_paths_knows_its_literal_segments() {
        let literal = |text| PathPattern::parse(text).expect(text).literal;
        assert_eq!(literal("/v[0-9]+/.*"), "");
        assert_eq!(literal("/a/b/.*"), "/a/b");
        assert_eq!(literal("/a/b(/.*)?"), "/a");
        assert_eq!(literal("/a/b"), "/a/b");
        for bad in ["^/a", "a", "/?a", "/*", "/a|b", "(?i)/a"] {
            let help = PathPattern::parse(bad).expect_err(bad).help.expect(bad);
            assert!(help.contains("whole path"), "{bad}: {help}");
        }
    }
}
