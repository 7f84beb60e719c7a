//! Issuers and their keys.

use std::time::Duration;

use crate::identity::{Algorithm, Issuer, Key, KeyMaterial, SecretSource};
use crate::ids::IssuerName;
use crate::spot::{Notes, Spot, Wanted};

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// Reads an issuer; what may be absent has the default of [`Issuer::of`].
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>, name: &IssuerName) -> Option<Issuer> {
    let known = [
        "issuer",
        "audiences",
        "types",
        "keys",
        "leeway",
        "lifetime_max",
        "tenant_claim",
        "client_claim",
        "scope_claim",
    ];
    let mut fields = spot.fields(notes, &known)?;
    let issuer = fields.required(notes, "issuer").and_then(|spot| spot.parse(notes, text));
    let audiences = fields.required(notes, "audiences").map(|spot| nonempty(notes, &spot, "audience"));
    let types = fields.optional("types").map(|spot| spot.texts(notes, 16, text)).unwrap_or_default();
    let keys = fields.required(notes, "keys").map(|spot| read_keys(notes, &spot));
    let default = Issuer::of(name.clone(), String::new());
    let leeway = fields.or(notes, "leeway", default.leeway, |notes, spot| {
        spot.duration(notes, Duration::ZERO..=Issuer::LEEWAY_MAX)
    });
    let day = Duration::from_secs(86_400);
    let lifetime_max = fields
        .optional("lifetime_max")
        .and_then(|spot| spot.duration(notes, Duration::from_secs(1)..=day * 366));
    let mut claim = |notes: &mut Notes, key, default| {
        fields.or(notes, key, default, |notes, spot| spot.parse(notes, text))
    };
    let tenant_claim = claim(notes, "tenant_claim", default.tenant_claim);
    let client_claim = claim(notes, "client_claim", default.client_claim);
    let scope_claim = claim(notes, "scope_claim", default.scope_claim);
    Some(Issuer {
        name: name.clone(),
        issuer: issuer?,
        audiences: audiences?,
        types,
        keys: keys?,
        leeway,
        lifetime_max,
        tenant_claim,
        client_claim,
        scope_claim,
    })
}

/// 1 to 1024 bytes without control characters.
pub(super) fn text(text: &str) -> Result<String, Wanted> {
    let fits = (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a text of 1 to 1024 bytes without control characters".into())
    }
}

fn nonempty(notes: &mut Notes, spot: &Spot<'_>, what: &str) -> Vec<String> {
    let before = notes.mistakes.len();
    let texts = spot.texts(notes, 64, text);
    if texts.is_empty() && notes.mistakes.len() == before {
        spot.wrong(notes, format!("at least one {what}"));
    }
    texts
}

fn read_keys(notes: &mut Notes, spot: &Spot<'_>) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let items = spot.items(notes, Issuer::KEYS_MAX);
    if items.is_empty() && matches!(spot.value(), crate::tree::Value::List(_)) {
        spot.wrong(notes, "at least one key");
    }
    for spot in items {
        let Some(key) = read_key(notes, &spot) else { continue };
        if keys.iter().any(|other| other.kid == key.kid) {
            let found = key
                .kid
                .as_ref()
                .map_or("a second key without `kid`".into(), |kid| format!("kid {kid:?} again"));
            spot.wrong_key(notes, found, "keys that a token's header can tell apart");
        }
        if let Some(first) = keys.first()
            && first.algorithm.is_symmetric() != key.algorithm.is_symmetric()
        {
            let found = format!("{:?} beside {:?}", key.algorithm, first.algorithm);
            spot.wrong_key(notes, found, "keys that all share a secret, or all are public").help =
                Some("make two issuers of it; else a public key might be taken for a secret".into());
            continue;
        }
        keys.push(key);
    }
    keys
}

fn read_key(notes: &mut Notes, spot: &Spot<'_>) -> Option<Key> {
    let mut fields = spot.fields(notes, &["kid", "algorithm", "secret", "public_key"])?;
    let kid = fields.optional("kid").map(|spot| spot.parse(notes, text));
    let algorithm = fields.required(notes, "algorithm").and_then(|spot| spot.word(notes, &ALGORITHMS));
    let (secret, public) = (fields.optional("secret"), fields.optional("public_key"));
    let material = match (&secret, &public) {
        (Some(secret), None) => read_secret(notes, secret),
        (None, Some(public)) => read_public(notes, public),
        (both, _) => {
            let found = if both.is_some() { "both `secret` and `public_key`" } else { "no key" };
            spot.wrong_key(notes, found.into(), "`secret` for HS256, else `public_key`");
            None
        }
    };
    match (algorithm, secret, public) {
        (Some(Algorithm::HS256), None, Some(public)) => {
            public.wrong_key(
                notes,
                "a public key for HS256".into(),
                "`secret: {file: …}` or `secret: {env: …}`",
            );
            return None;
        }
        (Some(algorithm), Some(secret), None) if !algorithm.is_symmetric() => {
            let wanted = "`public_key: {file: …}` or `{pem: …}`";
            secret.wrong_key(notes, format!("a secret for {algorithm:?}"), wanted);
            return None;
        }
        _ => {}
    }
    let kid = match kid {
        None => None,
        Some(read) => Some(read?),
    };
    Some(Key { kid, algorithm: algorithm?, material: material? })
}

/// `{file: …}` or `{env: …}`.
fn read_secret(notes: &mut Notes, spot: &Spot<'_>) -> Option<KeyMaterial> {
    if let crate::tree::Value::Text(_) = spot.value() {
        // Not `wrong`, which would show what may well be the secret.
        spot.wrong_key(notes, "a text".into(), "`{file: …}` or `{env: …}`").help =
            Some("a document names the place of a secret and never holds it".into());
        return None;
    }
    let mut fields = spot.fields(notes, &["file", "env"])?;
    let source = match (fields.optional("file"), fields.optional("env")) {
        (Some(file), None) => SecretSource::File(file.parse(notes, text)?),
        (None, Some(env)) => SecretSource::Env(env.parse(notes, text)?),
        _ => {
            spot.wrong(notes, "either `file` or `env`");
            return None;
        }
    };
    Some(KeyMaterial::Secret { source, fingerprint: None })
}

/// `{file: …}` or `{pem: …}`.
fn read_public(notes: &mut Notes, spot: &Spot<'_>) -> Option<KeyMaterial> {
    let mut fields = spot.fields(notes, &["file", "pem"])?;
    match (fields.optional("file"), fields.optional("pem")) {
        (Some(file), None) => file.parse(notes, text).map(KeyMaterial::PublicFile),
        (None, Some(pem)) => {
            let crate::tree::Value::Text(found) = pem.value() else {
                pem.wrong(notes, "a public key as PEM text");
                return None;
            };
            if KeyMaterial::is_public_pem(found) {
                return Some(KeyMaterial::PublicPem(found.clone()));
            }
            // Not `wrong`: a private key must not be shown.
            let found = if found.contains("PRIVATE KEY") { "a private key" } else { "another text" };
            pem.wrong_key(notes, found.into(), "a public key as PEM text");
            None
        }
        _ => {
            spot.wrong(notes, "either `file` or `pem`");
            None
        }
    }
}
