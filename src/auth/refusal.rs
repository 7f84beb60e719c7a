//! Why a request was not authenticated. Log text and client text differ: the client never learns which check of an
//! invalid token failed.

use std::borrow::Cow;
use std::sync::Arc;

/// Why a request was not authenticated, or not allowed to use its route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthRefusal {
    /// No `Authorization: Bearer` field: 401.
    #[error("no bearer token")]
    Missing,
    /// The field is not one token in compact form: 401.
    #[error("malformed token: {reason}")]
    Malformed {
        /// For the log.
        reason: &'static str,
    },
    /// The token is not believed: 401.
    #[error("invalid token: {reason}")]
    Invalid {
        /// For the log.
        reason: &'static str,
    },
    /// The token was good once: 401.
    #[error("expired token")]
    Expired,
    /// The token is good and grants too little: 403.
    #[error("the token lacks one of the scopes {needed:?}")]
    InsufficientScope {
        /// All scopes of the route, sorted.
        needed: Arc<[Box<str>]>,
    },
    /// The token is good and lacks a claim by which a quota of the route counts: 403.
    #[error("the token has no usable claim {claim:?}, by which a quota of this route counts")]
    MissingClaim {
        /// The claim's name, as the issuer's configuration has it.
        claim: Arc<str>,
    },
}

impl AuthRefusal {
    /// Whether the sender is known and not allowed (403), else unknown (401).
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::InsufficientScope { .. } | Self::MissingClaim { .. })
    }

    /// The `error` of a `WWW-Authenticate` field (RFC 6750 section 3.1); none where no token was sent.
    pub fn oauth_error(&self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::Malformed { .. } | Self::Invalid { .. } | Self::Expired => Some("invalid_token"),
            Self::InsufficientScope { .. } => Some("insufficient_scope"),
            // The registered words name no such case; the token as it is does not suffice.
            Self::MissingClaim { .. } => Some("invalid_token"),
        }
    }

    /// What the client may know.
    pub fn client_text(&self) -> Cow<'static, str> {
        match self {
            Self::Missing => Cow::Borrowed("this route wants a bearer token"),
            Self::Malformed { .. } => {
                Cow::Borrowed("the Authorization field does not hold one token in compact form")
            }
            Self::Invalid { .. } => Cow::Borrowed("the token is not valid here"),
            Self::Expired => Cow::Borrowed("the token has expired"),
            Self::InsufficientScope { needed } => {
                Cow::Owned(format!("this route wants all of the scopes: {}", needed.join(" ")))
            }
            Self::MissingClaim { claim } => Cow::Owned(format!(
                "this route counts by the claim `{claim}`, which the token lacks or fills unusably"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_does_not_learn_which_check_failed() {
        let refusal = AuthRefusal::Invalid { reason: "the signature does not match" };
        assert!(refusal.to_string().contains("signature"));
        assert!(!refusal.client_text().contains("signature"));
    }

    #[test]
    fn only_known_senders_are_forbidden() {
        let needed: Arc<[Box<str>]> = Arc::from(["a".into()]);
        assert!(AuthRefusal::InsufficientScope { needed }.is_forbidden());
        assert!(AuthRefusal::MissingClaim { claim: "tenant".into() }.is_forbidden());
        assert!(!AuthRefusal::Expired.is_forbidden());
        assert!(!AuthRefusal::Missing.is_forbidden());
    }
}
