//! Mistakes in a document: all of them at once, each with its place, what was found and what was wanted.

use std::fmt;

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document works, and not as one may expect.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Error or warning.
    pub severity: Severity,
    /// Line, from 1; 0 when the document was not text (see [`crate::gateway::GatewayDocument::check`]).
    pub line: u64,
    /// Column in characters, from 1; 0 as above.
    pub column: u64,
    /// Where in the document, for instance `routes[2].upstream`. Empty: the document as a whole.
    pub path: String,
    /// What was written.
    pub found: String,
    /// What would have been right.
    pub wanted: String,
    /// What to do, when that is not obvious.
    pub help: Option<String>,
}

/// A value that may be used, and what should still be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<T> {
    /// The complete value.
    pub value: T,
    /// Warnings only, in the document's order.
    pub warnings: Vec<Mistake>,
}

/// What reading a document yields: the value, or every error in the document's order.
///
/// Next to errors no warnings are given: what is missing would make them untrue.
pub type Parsed<T> = Result<Checked<T>, Vec<Mistake>>;

/// Errors alone, or the value with its warnings.
///
/// - `value`: none if something was left out of it, which then is among the `mistakes`.
///
/// # Errors
/// The errors among `mistakes`, in the document's order.
pub fn conclude<T>(mut mistakes: Vec<Mistake>, value: Option<T>) -> Parsed<T> {
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    let (errors, warnings): (Vec<_>, Vec<_>) =
        mistakes.into_iter().partition(|mistake| mistake.severity == Severity::Error);
    match value {
        Some(value) if errors.is_empty() => Ok(Checked { value, warnings }),
        _ => {
            debug_assert!(!errors.is_empty(), "whatever is left out of a draft was noted");
            Err(errors)
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// `error: routes[2].upstream: found "ordrs", wanted the name of an upstream`, on one line, without place or help.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "found {}, wanted {}", self.found, self.wanted)
    }
}

/// Longest part of a source line that is shown, in characters.
const EXCERPT_CHARS_MAX: usize = 100;

/// Prints mistakes as compilers do: `file:line:column:`, the mistake, the source line with a caret, the help.
///
/// - `text`: the document in which the mistakes were found.
pub fn render(file_name: &str, text: &str, mistakes: &[Mistake]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for mistake in mistakes {
        if mistake.line == 0 {
            out.push_str(&format!("{file_name}: {mistake}\n"));
        } else {
            out.push_str(&format!("{file_name}:{}:{}: {mistake}\n", mistake.line, mistake.column));
            let source = usize::try_from(mistake.line - 1).ok().and_then(|index| lines.get(index));
            if let Some(source) = source {
                out.push_str(&excerpt(mistake.line, mistake.column, source));
            }
        }
        if let Some(help) = &mistake.help {
            out.push_str(&format!("  help: {help}\n"));
        }
    }
    out
}

/// The source line and a caret under `column`. A long line is cut so that the caret stays in view.
fn excerpt(line: u64, column: u64, source: &str) -> String {
    let before = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let skipped = if before < EXCERPT_CHARS_MAX { 0 } else { before - EXCERPT_CHARS_MAX / 2 };
    // A tab or a control character would move the caret, or the reader's cursor.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shown: String = source.chars().skip(skipped).take(EXCERPT_CHARS_MAX).map(plain).collect();
    let caret = " ".repeat((before - skipped).min(EXCERPT_CHARS_MAX));
    format!("{line:>5} | {}\n      | {caret}^\n", shown.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_with_its_line_a_caret_and_help() {
        // given a document and a mistake in its second line
        let text = "routes:\n  - upstream: ordrs\n";
        let mistake = Mistake {
            severity: Severity::Error,
            line: 2,
            column: 15,
            path: "routes[0].upstream".into(),
            found: "\"ordrs\"".into(),
            wanted: "the name of an upstream".into(),
            help: Some("did you mean `orders`?".into()),
        };
        // when it is rendered
        let shown = render("gateway.yaml", text, &[mistake]);
        // then place, source, caret and help are there
        let expected = r#"gateway.yaml:2:15: error: routes[0].upstream: found "ordrs", wanted the name of an upstream
    2 |   - upstream: ordrs
      |               ^
  help: did you mean `orders`?
"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_place_outside_the_text_is_no_reason_to_fail() {
        let mistake = |line, column| Mistake {
            severity: Severity::Warning,
            line,
            column,
            path: String::new(),
            found: "x".into(),
            wanted: "y".into(),
            help: None,
        };
        for (line, column) in [(0, 0), (1, 0), (1, u64::MAX), (u64::MAX, 1)] {
            let shown = render("f", "a", &[mistake(line, column)]);
            assert!(shown.contains("warning: found x, wanted y"), "{shown}");
        }
    }
}
