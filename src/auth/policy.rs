//! Which tokens are believed: one strict policy an issuer. Pure; the time is an argument.
//!
//! The signature library's own claim checks stay off: measured, they take tokens without `iss` or `aud`, with `nbf` ahead,
//! with any `typ`, and with 60 s of grace. Everything is checked here instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::state::ids::Revision;
use cluster::world::UnixMs;
use config::identity::{Issuer, Key, KeyMaterial};
use config::ids::{IssuerName, TenantId};
use serde_json::{Map, Value};

use super::key::VerifyKey;
use super::refusal::AuthRefusal;
use super::secrets::Secret;
use super::token::{Unverified, Why};

/// Who sent a request, as a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose token it was.
    pub issuer: IssuerName,
    /// From the issuer's tenant claim; none: the token has none that names a tenant.
    pub tenant: Option<TenantId>,
    /// From the issuer's client claim; none: the token has none that is text.
    pub client: Option<Arc<str>>,
    /// Sorted, without repetition.
    pub scopes: Box<[Box<str>]>,
    /// Claim that routes look at → its text, or the texts of its list. No other claims.
    pub claims: BTreeMap<Box<str>, Box<[Box<str>]>>,
}

impl Identity {
    /// Whether one of a claim's texts is this one.
    pub fn has(&self, claim: &str, text: &str) -> bool {
        self.claims.get(claim).is_some_and(|texts| texts.iter().any(|it| **it == *text))
    }

    /// A claim's only text.
    pub fn only(&self, claim: &str) -> Option<&str> {
        match self.claims.get(claim).map(|texts| &**texts) {
            Some([text]) => Some(text),
            _ => None,
        }
    }
}

/// A believed token: what it says, and when it may be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it says.
    pub identity: Arc<Identity>,
    /// When.
    pub times: Times,
}

/// A token's times in Unix ms, with the issuer's leeway already granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// First instant of belief: the later of `nbf` and `iat`, less leeway.
    from: UnixMs,
    /// First instant of disbelief: `exp`, plus leeway.
    until: UnixMs,
}

impl Times {
    /// Whether the token is believed at `now`; asked on every request, cached or not.
    ///
    /// # Errors
    /// [`AuthRefusal::Expired`], or that it is not valid yet.
    pub fn check(self, now: UnixMs) -> Result<(), AuthRefusal> {
        if now >= self.until {
            Err(AuthRefusal::Expired)
        } else if now < self.from {
            Err(AuthRefusal::Invalid { reason: "nbf or iat lies in the future" })
        } else {
            Ok(())
        }
    }
}

/// All issuers of one revision, their keys loaded. Secrets are inside; Debug shows none.
#[derive(Debug)]
pub struct Verifiers {
    /// The first revision with exactly these issuers and keys: what a cached verification is good for.
    since: Revision,
    /// By `iss`, which is unique in a document.
    by_iss: BTreeMap<Box<str>, Policy>,
    /// Claims whose texts an identity keeps.
    kept: Box<[Box<str>]>,
}

/// One issuer.
#[derive(Debug)]
struct Policy {
    issuer: Issuer,
    leeway_ms: u64,
    /// None: the key for tokens without `kid`.
    keys: BTreeMap<Option<Box<str>>, VerifyKey>,
    tenant_claim: Arc<str>,
    client_claim: Arc<str>,
}

/// The most leeway, in ms.
const LEEWAY_MS_MAX: u128 = 30_000;

impl Verifiers {
    /// Loads and checks all keys. `secret` gives an HS256 key's secret.
    ///
    /// # Errors
    /// All keys that cannot be used here, a line each, with what to do.
    pub fn compile(
        since: Revision,
        issuers: &[Issuer],
        mut secret: impl FnMut(&config::identity::SecretSource) -> Result<Secret, String>,
    ) -> Result<Self, String> {
        let mut by_iss = BTreeMap::new();
        let mut mistakes = Vec::new();
        for issuer in issuers {
            let mut keys = BTreeMap::new();
            for key in &issuer.keys {
                let kid = key.kid.as_deref();
                let place = || format!("issuer {}, key {}", issuer.name, kid.unwrap_or("without kid"));
                match load(key, &mut secret) {
                    Ok(loaded) => {
                        if keys.insert(kid.map(Box::from), loaded).is_some() {
                            mistakes.push(format!("{}: found twice, wanted one key a kid", place()));
                        }
                    }
                    Err(why) => mistakes.push(format!("{}: {why}", place())),
                }
            }
            if issuer.leeway.as_millis() > LEEWAY_MS_MAX {
                mistakes.push(format!(
                    "issuer {}: found a leeway of {:?}, wanted 30 s or less",
                    issuer.name, issuer.leeway
                ));
            }
            let policy = Policy {
                leeway_ms: issuer.leeway.as_millis().min(LEEWAY_MS_MAX) as u64,
                keys,
                tenant_claim: issuer.tenant_claim.as_str().into(),
                client_claim: issuer.client_claim.as_str().into(),
                issuer: issuer.clone(),
            };
            if by_iss.insert(Box::from(issuer.issuer.as_str()), policy).is_some() {
                mistakes.push(format!(
                    "issuer {}: another issuer has the same iss {:?}",
                    issuer.name, issuer.issuer
                ));
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        Ok(Self { since, by_iss, kept: Box::new([]) })
    }

    /// These, and identities keep the texts of these claims.
    pub fn keeping<'a>(self, claims: impl IntoIterator<Item = &'a str>) -> Self {
        Self { kept: claims.into_iter().map(Box::from).collect(), ..self }
    }

    /// What a cached verification is good for: equal for verifiers with equal keys, and for no others.
    pub fn since(&self) -> Revision {
        self.since
    }

    /// The claims by which an issuer names tenant and client.
    pub(super) fn claims_of(&self, name: &IssuerName) -> Option<(&Arc<str>, &Arc<str>)> {
        let policy = self.by_iss.values().find(|policy| policy.issuer.name == *name)?;
        Some((&policy.tenant_claim, &policy.client_claim))
    }

    /// Checks a token for everything but the route's wishes.
    ///
    /// # Errors
    /// [`AuthRefusal::Malformed`], [`AuthRefusal::Invalid`] or [`AuthRefusal::Expired`].
    pub fn verify(&self, token: &str, now: UnixMs) -> Result<Verified, AuthRefusal> {
        let malformed = |Why(reason)| AuthRefusal::Malformed { reason };
        let token = Unverified::parse(token).map_err(malformed)?;
        let claims = token.claims().map_err(malformed)?;
        // The unbelieved `iss` only picks whose rules are applied; what it picks must then sign for it.
        let policy = match claims.get("iss") {
            Some(Value::String(iss)) => self.by_iss.get(iss.as_str()),
            _ => return Err(invalid("iss is missing or not a string")),
        };
        policy
            .ok_or(invalid("no issuer of this gateway has this iss"))?
            .verify(&token, &claims, &self.kept, now)
    }
}

fn load(
    key: &Key,
    secret: &mut impl FnMut(&config::identity::SecretSource) -> Result<Secret, String>,
) -> Result<VerifyKey, String> {
    let symmetric = key.algorithm == config::identity::Algorithm::HS256;
    match &key.material {
        KeyMaterial::Secret { source, fingerprint } if symmetric => {
            let secret = secret(source)?;
            let wanted = fingerprint
                .as_deref()
                .ok_or("the document lacks the secret's fingerprint; apply it again")?;
            let found = secret.fingerprint();
            if found != wanted {
                return Err(format!(
                    "this node's secret from {source:?} has fingerprint {found}, the document wants {wanted}; give every node the same secret, or apply the document again"
                ));
            }
            Ok(VerifyKey::secret(&secret))
        }
        KeyMaterial::PublicPem(pem) if !symmetric => VerifyKey::public(key.algorithm, pem),
        KeyMaterial::PublicFile(file) if !symmetric => {
            Err(format!("found a reference to the file {file}, wanted its text; apply the document again"))
        }
        KeyMaterial::Secret { .. } | KeyMaterial::PublicPem(_) | KeyMaterial::PublicFile(_) => Err(format!(
            "found {:?} with the wrong kind of key, wanted a secret for HS256 and a public key for the others",
            key.algorithm
        )),
    }
}

fn invalid(reason: &'static str) -> AuthRefusal {
    AuthRefusal::Invalid { reason }
}

impl Policy {
    fn verify(
        &self,
        token: &Unverified<'_>,
        claims: &Map<String, Value>,
        kept: &[Box<str>],
        now: UnixMs,
    ) -> Result<Verified, AuthRefusal> {
        let kid = token.header.kid.as_deref().map(Box::from);
        let key = self.keys.get(&kid).ok_or(invalid("the issuer has no key with this kid"))?;
        if token.header.algorithm != key.algorithm() {
            return Err(invalid("the header names another algorithm than the key's"));
        }
        if !self.takes_type(token.header.typ.as_deref()) {
            return Err(invalid("the issuer's tokens have another typ"));
        }
        if !key.verifies(token) {
            return Err(invalid("the signature does not match"));
        }
        self.check_audience(claims.get("aud"))?;
        match claims.get("sub") {
            Some(Value::String(sub)) if !sub.is_empty() => {}
            _ => return Err(invalid("sub is missing or not a string")),
        }
        let times = self.times(claims)?;
        times.check(now)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let identity = Identity {
            issuer: self.issuer.name.clone(),
            tenant: text(&self.tenant_claim).and_then(|tenant| TenantId::parse(tenant).ok()),
            client: text(&self.client_claim).filter(|client| !client.is_empty()).map(Arc::from),
            scopes: self.scopes(claims)?,
            claims: kept
                .iter()
                .filter_map(|name| Some((name.clone(), texts(claims.get(&**name)?))))
                .collect(),
        };
        Ok(Verified { identity: Arc::new(identity), times })
    }

    /// RFC 8725 section 3.11: one kind of token must not pass for another.
    fn takes_type(&self, typ: Option<&str>) -> bool {
        let Some(typ) = typ else { return self.issuer.types.is_empty() };
        let bare = bare_type(typ);
        if self.issuer.types.is_empty() {
            bare.eq_ignore_ascii_case("JWT")
        } else {
            self.issuer.types.iter().any(|wanted| bare_type(wanted).eq_ignore_ascii_case(bare))
        }
    }

    fn check_audience(&self, aud: Option<&Value>) -> Result<(), AuthRefusal> {
        let ours = |aud: &str| self.issuer.audiences.iter().any(|wanted| wanted == aud);
        let held = match aud {
            Some(Value::String(aud)) => ours(aud),
            Some(Value::Array(list)) => {
                let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                texts.ok_or(invalid("aud holds something else than strings"))?.into_iter().any(ours)
            }
            _ => return Err(invalid("aud is missing or neither a string nor a list")),
        };
        if held { Ok(()) } else { Err(invalid("the token is for another audience")) }
    }

    fn times(&self, claims: &Map<String, Value>) -> Result<Times, AuthRefusal> {
        let exp = date(claims, "exp", f64::floor)?.ok_or(invalid("exp is missing"))?;
        let nbf = date(claims, "nbf", f64::ceil)?;
        let iat = date(claims, "iat", f64::ceil)?;
        if iat.is_some_and(|iat| exp <= iat) {
            return Err(invalid("exp does not lie after iat"));
        }
        if let Some(longest) = self.issuer.lifetime_max {
            let iat =
                iat.ok_or(invalid("iat is missing, and the issuer's tokens have a longest lifetime"))?;
            if u128::from(exp - iat) > longest.as_millis() {
                return Err(invalid("the lifetime is longer than the issuer's longest"));
            }
        }
        let from = nbf.unwrap_or(0).max(iat.unwrap_or(0)).saturating_sub(self.leeway_ms);
        Ok(Times { from: UnixMs(from), until: UnixMs(exp.saturating_add(self.leeway_ms)) })
    }

    fn scopes(&self, claims: &Map<String, Value>) -> Result<Box<[Box<str>]>, AuthRefusal> {
        let mut scopes: Vec<Box<str>> = match claims.get(&self.issuer.scope_claim) {
            None => Vec::new(),
            Some(Value::String(text)) => {
                text.split(' ').filter(|scope| !scope.is_empty()).map(Box::from).collect()
            }
            Some(Value::Array(list)) => {
                let texts: Option<Vec<Box<str>>> =
                    list.iter().map(|scope| scope.as_str().map(Box::from)).collect();
                texts.ok_or(invalid("the scope claim holds something else than strings"))?
            }
            Some(_) => return Err(invalid("the scope claim is neither a string nor a list")),
        };
        scopes.sort_unstable();
        scopes.dedup();
        Ok(scopes.into())
    }
}

/// A claim's text, or those of its list. Anything else is no text.
fn texts(claim: &Value) -> Box<[Box<str>]> {
    match claim {
        Value::String(text) => Box::new([text.as_str().into()]),
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(Box::from).collect(),
        _ => Box::new([]),
    }
}

fn bare_type(typ: &str) -> &str {
    let prefix = "application/";
    match typ.get(..prefix.len()) {
        Some(head) if head.eq_ignore_ascii_case(prefix) => &typ[prefix.len()..],
        _ => typ,
    }
}

/// A NumericDate (RFC 7519 section 2) in Unix ms. Numbers alone, from 0 to 2^53 s; `round` settles parts of a ms.
fn date(
    claims: &Map<String, Value>,
    name: &str,
    round: impl Fn(f64) -> f64,
) -> Result<Option<u64>, AuthRefusal> {
    const SECONDS_MAX: u64 = 1 << 53;
    let wrong = invalid("exp, nbf or iat is not a number of seconds from 0 to 2^53");
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            if let Some(seconds) = number.as_u64() {
                return if seconds <= SECONDS_MAX { Ok(Some(seconds * 1000)) } else { Err(wrong) };
            }
            match number.as_f64() {
                Some(seconds) if (0.0..=SECONDS_MAX as f64).contains(&seconds) => {
                    Ok(Some(round(seconds * 1000.0) as u64))
                }
                _ => Err(wrong),
            }
        }
        Some(_) => Err(wrong),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
pub(super) mod tests;
