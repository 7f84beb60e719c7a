//! Mistakes in a document: all of them at once, each with its place, what was found and what was wanted.

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
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Where in the document, for instance `routes[2].upstream`.
    pub path: String,
    /// What was written.
    pub found: String,
    /// What would have been right.
    pub wanted: String,
    /// What to do, when that is not obvious.
    pub help: Option<String>,
}
