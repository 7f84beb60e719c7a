//! Identity: whose tokens are believed, and what they say.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::IssuerName;

/// A signature algorithm of RFC 7518 section 3 or RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// Whether the key that verifies can also sign. Keys of both families never meet in one issuer.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256)
    }
}

/// Where a node finds a secret. The secret itself is never part of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretSource {
    /// A file on each node; its bytes without one trailing newline.
    File(String),
    /// An environment variable of each node's process.
    Env(String),
}

/// What verifies a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyMaterial {
    /// A shared secret (HS256).
    Secret {
        /// Where each node finds it.
        source: SecretSource,
        /// First 16 bytes of SHA-256 in lower-case hexadecimal, filled in by the node that takes the document;
        /// a node whose secret differs refuses the revision.
        fingerprint: Option<String>,
    },
    /// A public key as PEM text (RS256, ES256, EdDSA).
    PublicPem(String),
    /// A public key in a file that `apply` reads and replaces by its text; never replicated as such.
    PublicFile(String),
}

impl KeyMaterial {
    /// Whether `text` looks like one public key as PEM, and like nothing private.
    pub fn is_public_pem(text: &str) -> bool {
        let text = text.trim();
        let begins = text.starts_with("-----BEGIN PUBLIC KEY-----")
            || text.starts_with("-----BEGIN RSA PUBLIC KEY-----");
        begins
            && text.ends_with("PUBLIC KEY-----")
            && text.matches("-----BEGIN ").count() == 1
            && text.len() <= 16_384
    }
}

/// One verification key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// As the token's header names it. None: for tokens without a `kid`; at most one such key an issuer.
    pub kid: Option<String>,
    /// The only algorithm this key is used with.
    pub algorithm: Algorithm,
    /// What verifies.
    pub material: KeyMaterial,
}

/// An issuer and how its tokens are read. Everything not asked for here is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// As this document calls it.
    pub name: IssuerName,
    /// The `iss` claim, compared byte by byte.
    pub issuer: String,
    /// At least one; the token's `aud` must hold one of them.
    pub audiences: Vec<String>,
    /// Accepted `typ` header values, compared without case and without `application/`; empty: absent or `JWT`.
    pub types: Vec<String>,
    /// At least one.
    pub keys: Vec<Key>,
    /// Allowance for clocks, at most 30 s.
    pub leeway: Duration,
    /// Longest accepted `exp − iat`; none: no bound.
    pub lifetime_max: Option<Duration>,
    /// Claim that names the tenant.
    pub tenant_claim: String,
    /// Claim that names the client.
    pub client_claim: String,
    /// Claim with the scopes: a string split at spaces, or a list of strings.
    pub scope_claim: String,
}

impl Issuer {
    /// Clocks that differ by more should be mended.
    pub const LEEWAY_MAX: Duration = Duration::from_secs(30);
    /// Keys of one issuer.
    pub const KEYS_MAX: usize = 64;

    /// An issuer with the defaults of a document: leeway 10 s, no bound on lifetimes, any `typ` that means JWT,
    /// claims `tenant`, `sub` and `scope`. Its audiences and keys are still missing.
    pub fn of(name: IssuerName, issuer: String) -> Self {
        Self {
            name,
            issuer,
            audiences: Vec::new(),
            types: Vec::new(),
            keys: Vec::new(),
            leeway: Duration::from_secs(10),
            lifetime_max: None,
            tenant_claim: "tenant".to_owned(),
            client_claim: "sub".to_owned(),
            scope_claim: "scope".to_owned(),
        }
    }
}
