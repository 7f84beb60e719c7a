use cluster::state::ids::Revision;
use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::policy::tests::{NOW, claims, issuer, secret, token, verifiers};
use super::*;

fn rule() -> TokenRule {
    TokenRule {
        verifiers: Arc::new(verifiers(issuer())),
        issuers: Box::new([issuer().name]),
        scopes: Arc::from(["read".into()]),
        needs_tenant: true,
        needs_client: false,
    }
}

fn headers(fields: &[&str]) -> HeaderMap {
    let field = |text: &&str| (header::AUTHORIZATION, HeaderValue::from_str(text).expect("visible ASCII"));
    // `extend` keeps repeated fields.
    let mut headers = HeaderMap::new();
    fields.iter().map(field).for_each(|(name, value)| {
        headers.append(name, value);
    });
    headers
}

fn ask(
    tokens: &Tokens,
    rule: TokenRule,
    field: &str,
    now: UnixMs,
) -> Result<Option<Arc<Identity>>, AuthRefusal> {
    tokens.authenticate(&AccessRule::Token(rule), &headers(&[field]), None, now)
}

#[test]
fn a_public_route_looks_at_no_token() {
    let tokens = Tokens::new(8);
    assert_eq!(tokens.authenticate(&AccessRule::Public, &headers(&["Bearer x"]), None, NOW), Ok(None));
}

#[test]
fn the_second_request_with_a_token_is_served_from_the_cache() {
    let tokens = Tokens::new(8);
    let field = format!("Bearer {}", token(&claims()));
    let rule = rule();
    let first = ask(&tokens, rule.clone(), &field, NOW).expect("good").expect("known");
    let second = ask(&tokens, rule, &field, NOW).expect("good").expect("known");
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((tokens.stats().hits, tokens.stats().misses), (1, 1));
}

#[test]
fn an_expired_token_is_not_served_from_the_cache() {
    // given a token that is held
    let tokens = Tokens::new(8);
    let field = format!("Bearer {}", token(&claims()));
    assert!(ask(&tokens, rule(), &field, NOW).is_ok());
    // when it has expired, leeway and all
    let later = UnixMs(NOW.0 + 610_000);
    // then it is refused, and a clock set back past its iat does not believe it either
    assert_eq!(ask(&tokens, rule(), &field, later), Err(AuthRefusal::Expired));
    assert!(ask(&tokens, rule(), &field, UnixMs(NOW.0 - 71_000)).is_err());
    assert_eq!(tokens.stats().hits, 2);
}

#[test]
fn a_token_whose_key_a_later_revision_lacks_is_not_served_from_the_cache() {
    // given a token that is held
    let tokens = Tokens::new(8);
    let field = format!("Bearer {}", token(&claims()));
    assert!(ask(&tokens, rule(), &field, NOW).is_ok());
    // when revision 2 renames the key
    let mut changed = issuer();
    changed.keys[0].kid = Some("new".into());
    let second = Verifiers::compile(Revision(2), &[changed], |_| Ok(secret())).expect("complete");
    let rule = TokenRule { verifiers: Arc::new(second), ..rule() };
    // then the token is refused
    assert!(matches!(ask(&tokens, rule, &field, NOW), Err(AuthRefusal::Invalid { .. })));
}

#[test]
fn a_held_token_is_still_held_against_each_routes_wishes() {
    // given a token that is held
    let tokens = Tokens::new(8);
    let field = format!("Bearer {}", token(&claims()));
    assert!(ask(&tokens, rule(), &field, NOW).is_ok());
    // then another route may want other scopes or another issuer
    let admin = TokenRule { scopes: Arc::from(["admin".into()]), ..rule() };
    assert!(matches!(ask(&tokens, admin, &field, NOW), Err(AuthRefusal::InsufficientScope { .. })));
    let foreign = TokenRule { issuers: Box::new([IssuerName::parse("other").expect("a name")]), ..rule() };
    assert!(matches!(ask(&tokens, foreign, &field, NOW), Err(AuthRefusal::Invalid { .. })));
}

#[test]
fn a_token_without_the_claim_that_a_quota_counts_by_is_forbidden() {
    let tokens = Tokens::new(8);
    let mut claims = claims();
    claims["tenant"] = json!("no tenant id");
    let field = format!("Bearer {}", token(&claims));
    let refused = ask(&tokens, rule(), &field, NOW).expect_err("no tenant");
    assert_eq!(refused, AuthRefusal::MissingClaim { claim: "tenant".into() });
    assert!(ask(&tokens, TokenRule { needs_tenant: false, ..rule() }, &field, NOW).is_ok());
}

#[test]
fn only_believed_tokens_are_held() {
    let tokens = Tokens::new(8);
    for number in 0..100 {
        assert!(ask(&tokens, rule(), &format!("Bearer a.b.{number}"), NOW).is_err());
    }
    assert_eq!(tokens.stats().entries, 0);
}

#[test]
fn the_scheme_is_compared_without_case_and_the_field_stands_alone() {
    let good = token(&claims());
    for scheme in ["Bearer", "bearer", "BEARER"] {
        assert_eq!(bearer(&headers(&[&format!("{scheme} {good}")])), Ok(good.as_str()));
    }
    assert_eq!(bearer(&headers(&[])), Err(AuthRefusal::Missing));
    assert_eq!(bearer(&headers(&["Basic Zm9vOmJhcg=="])), Err(AuthRefusal::Missing));
    for fields in [
        &["Bearer a", "Bearer a"][..],
        &["Bearer a", "Basic b"],
        &["Bearer"],
        &["Bearer a b"],
        &["Bearer a, Bearer b"],
    ] {
        assert!(matches!(bearer(&headers(fields)), Err(AuthRefusal::Malformed { .. })), "{fields:?}");
    }
}

#[test]
fn a_minted_token_is_believed() {
    // given the policy that fits the mint's claims
    let bytes = [b's'; 32];
    let grant = mint::Grant {
        kid: "k",
        issuer: "https://id.example",
        audience: "api",
        tenant: "acme",
        client: "developer",
        scopes: &["read", "write"],
        claims: &[("plan".to_owned(), vec!["gold".to_owned()])].into(),
        lifetime: std::time::Duration::from_secs(60),
    };
    let token = mint::mint(&bytes, &grant, NOW).expect("long enough");
    // then its token is good for its lifetime
    let tokens = Tokens::new(8);
    let field = format!("Bearer {token}");
    let keeping = TokenRule { verifiers: Arc::new(verifiers(issuer()).keeping(["plan"])), ..rule() };
    let identity = ask(&tokens, keeping, &field, NOW).expect("good").expect("known");
    assert_eq!((identity.client.as_deref(), identity.only("plan")), (Some("developer"), Some("gold")));
    assert_eq!(ask(&tokens, rule(), &field, UnixMs(NOW.0 + 70_000)), Err(AuthRefusal::Expired));
    assert!(mint::mint(&bytes[1..], &grant, NOW).is_err());
}

proptest! {
    #[test]
    fn no_header_bytes_make_authentication_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let tokens = Tokens::new(8);
        for field in [bytes.clone(), [b"Bearer ".as_slice(), &bytes].concat()] {
            let Ok(value) = HeaderValue::from_bytes(&field) else { continue };
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value);
            prop_assert!(tokens.authenticate(&AccessRule::Token(rule()), &headers, None, NOW).is_err());
        }
    }
}

#[test]
fn a_token_that_the_router_looked_at_is_not_looked_at_again() {
    // given a cache that holds nothing, and a token that the router asked about twice
    let tokens = Tokens::new(0);
    let headers = headers(&[&format!("Bearer {}", token(&claims()))]);
    let rule = rule();
    let now = || NOW;
    let mut bearer = Bearer::new(&tokens, &headers, &now);
    assert!(bearer.look(&rule.verifiers).identity().is_ok());
    assert!(bearer.look(&rule.verifiers).identity().is_ok());
    // when its route authenticates it
    let known = tokens.authenticate(&AccessRule::Token(rule.clone()), &headers, bearer.into_looked(), NOW);
    // then it was verified once
    assert!(known.is_ok_and(|known| known.is_some()));
    assert_eq!(tokens.stats().misses, 1);
    // and what was found out is judged by the route, and is of no use to the keys of another revision
    let mut bearer = Bearer::new(&tokens, &headers, &now);
    bearer.look(&rule.verifiers);
    let other = AccessRule::Token(TokenRule { scopes: Arc::from(["admin".into()]), ..rule.clone() });
    let refused = tokens.authenticate(&other, &headers, bearer.into_looked(), NOW);
    assert!(matches!(refused, Err(AuthRefusal::InsufficientScope { .. })));
    let second = Verifiers::compile(Revision(2), &[], |_| Ok(secret())).expect("complete");
    let mut bearer = Bearer::new(&tokens, &headers, &now);
    bearer.look(&rule.verifiers);
    let other = AccessRule::Token(TokenRule { verifiers: Arc::new(second), ..rule });
    assert!(tokens.authenticate(&other, &headers, bearer.into_looked(), NOW).is_err());
}
