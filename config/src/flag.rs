//! Feature flags: for whom something is on that an upstream has two ways to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{BadName, NAME_LEN_BYTES_MAX, TenantId};
use crate::units::Part;

/// A flag: 1 to 64 bytes of `a-z`, `0-9`, `-`, `_`, `.`; the first a letter, so that it is a token of a structured field
/// (RFC 9651 section 3.3.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlagName(Arc<str>);

impl FlagName {
    /// # Errors
    /// [`BadName`] if `text` breaks the rule above.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        if begins && text.len() <= NAME_LEN_BYTES_MAX && text.bytes().all(plain) {
            return Ok(Self(text.into()));
        }
        let wanted = "1 to 64 of a-z, 0-9, '-', '_', '.', beginning with a letter";
        Err(BadName { found: text.to_owned(), wanted })
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FlagName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<FlagName> for String {
    fn from(name: FlagName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl std::fmt::Display for FlagName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// For whom a flag is on: one of these is enough. None of them: for nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// As upstreams are told.
    pub name: FlagName,
    /// For these tenants; at most [`Flag::TENANTS_MAX`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tenants: BTreeSet<TenantId>,
    /// For this share of tenants, and of addresses where there is no tenant. When it grows, it stays on for all it was on for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Part>,
    /// For whoever sends its name in the header field of this name, in lower case. For testers, no authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

impl Flag {
    /// Tenants of one flag.
    pub const TENANTS_MAX: usize = 10_000;
}
