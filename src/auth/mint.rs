//! Makes development tokens: for `quorumgate token`, the demo and tests. HS256 alone.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster::world::UnixMs;
use jsonwebtoken::EncodingKey;

use super::secrets::Secret;

/// What a minted token says.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// `kid` header.
    pub kid: &'a str,
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// `tenant`.
    pub tenant: &'a str,
    /// `sub`.
    pub client: &'a str,
    /// `scope`, joined with spaces.
    pub scopes: &'a [&'a str],
    /// Other claims → their texts; one stands alone, several in a list.
    pub claims: &'a BTreeMap<String, Vec<String>>,
    /// `exp − iat`; whole seconds.
    pub lifetime: Duration,
}

/// Mints a token that is good from `now` on.
///
/// # Errors
/// If the secret is too short.
pub fn mint(secret: &[u8], grant: &Grant<'_>, now: UnixMs) -> Result<String, String> {
    let secret = Secret::from_bytes(secret.to_vec())?;
    let header = serde_json::json!({ "alg": "HS256", "typ": "JWT", "kid": grant.kid });
    let iat = now.0 / 1000;
    let mut claims = serde_json::json!({
        "iss": grant.issuer,
        "aud": grant.audience,
        "sub": grant.client,
        "tenant": grant.tenant,
        "scope": grant.scopes.join(" "),
        "iat": iat,
        "exp": iat.saturating_add(grant.lifetime.as_secs()),
    });
    for (name, texts) in grant.claims {
        claims[name] = match texts.as_slice() {
            [text] => text.as_str().into(),
            several => several.into(),
        };
    }
    sign(&secret, &header.to_string(), &claims.to_string())
}

/// Signs any header and payload.
pub(super) fn sign(secret: &Secret, header: &str, payload: &str) -> Result<String, String> {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(secret.expose());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
        .map_err(|error| format!("signing: {error}"))?;
    Ok(format!("{signed}.{signature}"))
}
