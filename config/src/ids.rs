//! Names as operators write them.

use serde::{Deserialize, Serialize};

/// A name that breaks the rule of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, wanted {wanted}")]
pub struct BadName {
    /// The text as it was written.
    pub found: String,
    /// The rule.
    pub wanted: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        ///
        /// 1 to 64 bytes of `a-z`, `0-9`, `-`, `_`, `.`; the first a letter or a digit.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// # Errors
            /// [`BadName`] if `text` breaks the rule above.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
                let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
                if begins && text.len() <= NAME_LEN_BYTES_MAX && text.bytes().all(plain) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName { found: text.to_owned(), wanted: NAME_RULE })
                }
            }

            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

/// The longest name, in bytes.
pub const NAME_LEN_BYTES_MAX: usize = 64;
const NAME_RULE: &str = "1 to 64 of a-z, 0-9, '-', '_', '.', beginning with a letter or a digit";

names! {
    /// A node's name: the operator's, stable over the node's life, and the name in its certificate.
    NodeName,
    /// A route.
    RouteName,
    /// A set of endpoints that serve the same thing.
    UpstreamName,
    /// A quota.
    QuotaName,
    /// A plan: amounts that tenants subscribe to.
    PlanName,
    /// A version of an API, as metrics and operators call it.
    VersionName,
    /// A token issuer, as this document calls it (not its `iss`).
    IssuerName,
}

/// A tenant, as its tokens name it: 1 to 128 bytes of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(std::sync::Arc<str>);

impl TenantId {
    /// The longest tenant id, in bytes.
    pub const LEN_BYTES_MAX: usize = 128;

    /// # Errors
    /// [`BadName`] if `text` is empty, too long or not visible ASCII.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let fits = (1..=Self::LEN_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(BadName { found: text.to_owned(), wanted: "1 to 128 bytes of visible ASCII" })
        }
    }

    /// The tenant as its tokens name it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TenantId {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> String {
        tenant.0.as_ref().to_owned()
    }
}

impl std::fmt::Display for TenantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
