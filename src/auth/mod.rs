//! Screened in, authenticated out: who sends this request, and may they use this route?
//!
//! ```text
//! token     (pure)  a token's text taken apart, its header read strictly
//! key       (pure)  one verification key, bound to one algorithm
//! policy    (pure)  an issuer's rules: token and time in, identity or refusal out
//! cache             tokens verified lately, read without a lock
//! secrets           where a document's references become bytes of this node
//! mint              development tokens
//! ```
//!
//! A miss is verified where it arises, on the worker, and not by an actor. Verification is pure computing of 3 to 60 µs that
//! waits for nothing: a mailbox would add a hop, put all misses of a node on one thread, and let one client's flood of bad
//! tokens queue before everybody's good ones. Here a flood costs the core that accepted it, and `screen` has limited it
//! before. Nobody owns state but the cache, whose only writer is its own lock.

pub mod cache;
pub mod json;
pub mod key;
pub mod mint;
pub mod policy;
pub mod refusal;
pub mod rsa;
pub mod secrets;
pub mod token;

use std::sync::Arc;

use cluster::state::ids::Revision;
use cluster::world::UnixMs;
use config::ids::IssuerName;
use http::{HeaderMap, header};

pub use cache::{Cache, CacheStats};
pub use policy::{Identity, Verified, Verifiers};
pub use refusal::AuthRefusal;

/// Who may use a route, compiled. Holds the keys of the route's own revision, so that no request mixes two revisions.
#[derive(Clone, Debug)]
pub enum AccessRule {
    /// Anyone; a token is not looked at.
    Public,
    /// The bearer of a token.
    Token(TokenRule),
}

/// Which tokens a route takes.
#[derive(Clone, Debug)]
pub struct TokenRule {
    /// All issuers of the revision.
    pub verifiers: Arc<Verifiers>,
    /// The route's, at least one.
    pub issuers: Box<[IssuerName]>,
    /// All are needed; sorted.
    pub scopes: Arc<[Box<str>]>,
    /// A quota of the route counts by tenant.
    pub needs_tenant: bool,
    /// A quota of the route counts by client.
    pub needs_client: bool,
}

/// The door to authentication. Cheap to clone; shared by all data-plane threads.
#[derive(Clone, Debug)]
pub struct Tokens {
    cache: Arc<Cache>,
}

impl Tokens {
    /// Remembers up to `tokens_cached_max` verified tokens.
    pub fn new(tokens_cached_max: u32) -> Self {
        Self { cache: Arc::new(Cache::new(tokens_cached_max)) }
    }

    /// Who sends this request. None: the route is public. Costs no allocation when the token was seen before.
    ///
    /// - `looked`: what the router found out about the request's token, if it looked.
    ///
    /// # Errors
    /// [`AuthRefusal`].
    pub fn authenticate(
        &self,
        access: &AccessRule,
        headers: &HeaderMap,
        looked: Option<Looked>,
        now: UnixMs,
    ) -> Result<Option<Arc<Identity>>, AuthRefusal> {
        let AccessRule::Token(rule) = access else { return Ok(None) };
        let looked = looked.filter(|looked| looked.since == rule.verifiers.since());
        let verified = looked.unwrap_or_else(|| self.look(&rule.verifiers, headers, now)).verified?;
        verified.times.check(now)?;
        rule.allows(&verified.identity)?;
        Ok(Some(verified.identity))
    }

    /// Looks at a request's token, whatever route it is for.
    fn look(&self, verifiers: &Verifiers, headers: &HeaderMap, now: UnixMs) -> Looked {
        let since = verifiers.since();
        let verified = bearer(headers).and_then(|token| {
            let verified = match self.cache.get(token, since) {
                Some(verified) => verified,
                None => {
                    let verified = verifiers.verify(token, now)?;
                    self.cache.insert(token, since, verified.clone());
                    verified
                }
            };
            verified.times.check(now).map(|()| verified)
        });
        Looked { since, verified }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

/// What was found out about a request's token before its route was known. It opens no route by itself.
#[derive(Debug)]
pub struct Looked {
    /// Of the verifiers that looked.
    since: Revision,
    verified: Result<Verified, AuthRefusal>,
}

impl Looked {
    /// Who sends the request.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn identity(&self) -> Result<&Identity, &AuthRefusal> {
        self.verified.as_ref().map(|verified| &*verified.identity)
    }
}

/// A request's token, for the router: looked at when first asked for, and once at most.
pub struct Bearer<'a> {
    tokens: &'a Tokens,
    headers: &'a HeaderMap,
    now: &'a dyn Fn() -> UnixMs,
    looked: Option<Looked>,
}

impl<'a> Bearer<'a> {
    /// Not looked at yet.
    pub fn new(tokens: &'a Tokens, headers: &'a HeaderMap, now: &'a dyn Fn() -> UnixMs) -> Self {
        Self { tokens, headers, now, looked: None }
    }

    /// What it says; `verifiers` are the same each time.
    pub fn look(&mut self, verifiers: &Verifiers) -> &Looked {
        self.looked.get_or_insert_with(|| self.tokens.look(verifiers, self.headers, (self.now)()))
    }

    /// What was found out, if somebody asked.
    pub fn into_looked(self) -> Option<Looked> {
        self.looked
    }
}

impl TokenRule {
    /// Whether the route takes tokens of this one's issuer.
    pub fn knows(&self, identity: &Identity) -> bool {
        self.issuers.contains(&identity.issuer)
    }

    /// Whether the route takes this identity.
    fn allows(&self, identity: &Identity) -> Result<(), AuthRefusal> {
        if !self.knows(identity) {
            return Err(AuthRefusal::Invalid { reason: "the route takes no tokens of this issuer" });
        }
        if !self.scopes.iter().all(|scope| identity.scopes.binary_search(scope).is_ok()) {
            return Err(AuthRefusal::InsufficientScope { needed: Arc::clone(&self.scopes) });
        }
        let without_tenant = self.needs_tenant && identity.tenant.is_none();
        if without_tenant || (self.needs_client && identity.client.is_none()) {
            let claims = self.verifiers.claims_of(&identity.issuer);
            let (tenant, client) = claims.expect("an identity's issuer is one of the verifiers that made it");
            let claim = Arc::clone(if without_tenant { tenant } else { client });
            return Err(AuthRefusal::MissingClaim { claim });
        }
        Ok(())
    }
}

/// The one token of a request (RFC 6750 section 2.1). Tokens in bodies and queries are not looked for.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthRefusal> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = match (fields.next(), fields.next()) {
        (None, _) => return Err(AuthRefusal::Missing),
        (Some(field), None) => field,
        (Some(_), Some(_)) => {
            return Err(AuthRefusal::Malformed { reason: "more than one Authorization field" });
        }
    };
    let text = field.to_str().map_err(|_| AuthRefusal::Malformed { reason: "not visible ASCII" })?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthRefusal::Missing);
    }
    let token = rest.trim_matches(' ');
    // Bytes, not characters: it is ASCII, and this is read for each request.
    if token.is_empty() || token.bytes().any(|b| matches!(b, b' ' | b'\t' | b',')) {
        return Err(AuthRefusal::Malformed { reason: "not one token after Bearer" });
    }
    if token.len() > token::TOKEN_LEN_BYTES_MAX {
        return Err(AuthRefusal::Malformed { reason: "longer than 8 KiB" });
    }
    Ok(token)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof_tests;
