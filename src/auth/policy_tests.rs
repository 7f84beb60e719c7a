//! The strictness table: one test a row of what the signature library would let through.

use std::time::Duration;

use config::identity::{Algorithm, SecretSource};
use proptest::prelude::*;
use serde_json::json;

use super::super::mint::sign;
use super::*;

/// The tests' present: 2026-11-25.
pub(in super::super) const NOW: UnixMs = UnixMs(1_795_564_800_000);
const NOW_S: u64 = NOW.0 / 1000;

pub(in super::super) fn secret() -> Secret {
    Secret::from_bytes(vec![b's'; 32]).expect("long enough")
}

pub(in super::super) fn issuer() -> Issuer {
    let source = SecretSource::Env("TESTS".into());
    let material = KeyMaterial::Secret { source, fingerprint: Some(secret().fingerprint()) };
    Issuer {
        name: IssuerName::parse("ours").expect("a name"),
        issuer: "https://id.example".into(),
        audiences: vec!["api".into()],
        types: vec![],
        keys: vec![Key { kid: Some("k".into()), algorithm: Algorithm::HS256, material }],
        leeway: Duration::from_secs(10),
        lifetime_max: None,
        tenant_claim: "tenant".into(),
        client_claim: "sub".into(),
        scope_claim: "scope".into(),
    }
}

pub(in super::super) fn verifiers(issuer: Issuer) -> Verifiers {
    Verifiers::compile(Revision(1), &[issuer], |_| Ok(secret())).expect("the tests' issuer is complete")
}

pub(in super::super) fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "api", "sub": "client-1", "tenant": "acme", "scope": "read write",
        "iat": NOW_S - 60, "exp": NOW_S + 600,
    })
}

pub(in super::super) fn token(claims: &Value) -> String {
    sign(&secret(), r#"{"alg":"HS256","kid":"k"}"#, &claims.to_string()).expect("signs")
}

/// A token of `tenant` and what our verifiers say of it.
pub(in super::super) fn believed(tenant: &str) -> (String, Verified) {
    let mut claims = claims();
    claims["tenant"] = json!(tenant);
    let token = token(&claims);
    let verified = verifiers(issuer()).verify(&token, NOW).expect("a good token");
    (token, verified)
}

fn verify(token: &str) -> Result<Verified, AuthRefusal> {
    verifiers(issuer()).verify(token, NOW)
}

/// Our good claims with one changed; `null` takes it away.
fn with(name: &str, value: Value) -> Result<Verified, AuthRefusal> {
    let mut changed = claims();
    match value {
        Value::Null => {
            changed.as_object_mut().expect("claims are an object").remove(name);
        }
        value => changed[name] = value,
    }
    verify(&token(&changed))
}

fn with_header(header: &str) -> Result<Verified, AuthRefusal> {
    verify(&sign(&secret(), header, &claims().to_string()).expect("signs"))
}

fn assert_invalid(found: Result<Verified, AuthRefusal>, words: &str) {
    match found {
        Err(AuthRefusal::Invalid { reason } | AuthRefusal::Malformed { reason }) => {
            assert!(reason.contains(words), "{reason:?} does not speak of {words:?}");
        }
        other => panic!("wanted a refusal about {words:?}, found {other:?}"),
    }
}

#[test]
fn a_good_token_tells_who_sends() {
    let identity = verify(&token(&claims())).expect("a good token").identity;
    assert_eq!(identity.issuer.as_str(), "ours");
    assert_eq!(identity.tenant.as_ref().map(TenantId::as_str), Some("acme"));
    assert_eq!(identity.client.as_deref(), Some("client-1"));
    assert_eq!(identity.scopes.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["read", "write"]);
}

#[test]
fn claims_that_routes_look_at_are_kept_as_texts_and_no_others() {
    // given verifiers that keep some claims
    let keeping = verifiers(issuer()).keeping(["plan", "regions", "level", "mixed", "absent"]);
    let mut claims = claims();
    for (name, value) in [
        ("plan", json!("gold")),
        ("regions", json!(["eu", "us"])),
        ("level", json!(3)),
        ("mixed", json!(["a", 1, null])),
        ("other", json!("x")),
    ] {
        claims[name] = value;
    }
    // when a token has them
    let identity = keeping.verify(&token(&claims), NOW).expect("a good token").identity;
    // then texts and lists of texts are there
    assert!(identity.has("plan", "gold") && identity.has("regions", "us") && identity.has("mixed", "a"));
    assert_eq!(
        (identity.only("plan"), identity.only("regions"), identity.only("level")),
        (Some("gold"), None, None)
    );
    assert!(!identity.has("plan", "Gold") && !identity.has("level", "3") && !identity.has("absent", ""));
    assert!(!identity.claims.contains_key("other"));
}

#[test]
fn crit_is_refused_known_or_not() {
    assert_invalid(with_header(r#"{"alg":"HS256","kid":"k","crit":["b64"],"b64":true}"#), "member");
    assert_invalid(with_header(r#"{"alg":"HS256","kid":"k","crit":["x"],"x":1}"#), "member");
}

#[test]
fn another_typ_is_refused() {
    for typ in ["secevent+jwt", "at+jwt", "", "application/secevent+jwt"] {
        assert_invalid(with_header(&json!({"alg": "HS256", "kid": "k", "typ": typ}).to_string()), "typ");
    }
    for typ in ["JWT", "jwt", "application/JWT", "Application/jwt"] {
        assert!(with_header(&json!({"alg": "HS256", "kid": "k", "typ": typ}).to_string()).is_ok(), "{typ}");
    }
}

#[test]
fn a_listed_typ_is_demanded() {
    // given an issuer of access tokens by RFC 9068
    let policy = verifiers(Issuer { types: vec!["application/at+jwt".into()], ..issuer() });
    let verify =
        |header: &str| policy.verify(&sign(&secret(), header, &claims().to_string()).expect("signs"), NOW);
    // then its typ is needed, and neither JWT nor silence will do
    assert!(verify(r#"{"alg":"HS256","kid":"k","typ":"AT+JWT"}"#).is_ok());
    assert_invalid(verify(r#"{"alg":"HS256","kid":"k","typ":"JWT"}"#), "typ");
    assert_invalid(verify(r#"{"alg":"HS256","kid":"k"}"#), "typ");
}

#[test]
fn a_token_without_aud_iss_sub_or_exp_is_refused() {
    for name in ["aud", "iss", "sub", "exp"] {
        assert_invalid(with(name, Value::Null), name);
    }
}

#[test]
fn an_iss_that_is_no_string_or_not_the_very_string_is_refused() {
    for iss in [
        json!(1),
        json!(["https://id.example"]),
        json!({}),
        json!("https://id.example/"),
        json!("HTTPS://id.example"),
    ] {
        assert_invalid(with("iss", iss), "iss");
    }
}

#[test]
fn an_aud_that_is_an_object_or_not_ours_is_refused() {
    for aud in [json!({"api": "api"}), json!(1), json!([]), json!(["other"]), json!("API"), json!(["api", 1])]
    {
        assert_invalid(with("aud", aud), "aud");
    }
    assert!(with("aud", json!(["other", "api"])).is_ok());
}

#[test]
fn an_expired_token_gets_the_issuers_leeway_and_no_more() {
    assert!(with("exp", json!(NOW_S - 9)).is_ok());
    assert_eq!(with("exp", json!(NOW_S - 10)), Err(AuthRefusal::Expired));
    assert_eq!(with("exp", json!(NOW_S - 30)), Err(AuthRefusal::Expired));
}

#[test]
fn nbf_ahead_is_refused() {
    assert_invalid(with("nbf", json!(NOW_S + 3600)), "future");
    assert_invalid(with("nbf", json!(NOW_S + 11)), "future");
    assert!(with("nbf", json!(NOW_S + 10)).is_ok());
}

#[test]
fn iat_ahead_is_refused() {
    assert_invalid(with("iat", json!(NOW_S + 11)), "future");
    assert!(with("iat", json!(NOW_S + 10)).is_ok());
    assert!(with("iat", Value::Null).is_ok());
}

#[test]
fn a_lifetime_beyond_the_issuers_longest_is_refused() {
    let policy = verifiers(Issuer { lifetime_max: Some(Duration::from_secs(660)), ..issuer() });
    let mut claims = claims();
    assert!(policy.verify(&token(&claims), NOW).is_ok());
    claims["exp"] = json!(NOW_S + 601);
    assert_invalid(policy.verify(&token(&claims), NOW), "lifetime");
    claims.as_object_mut().expect("an object").remove("iat");
    assert_invalid(policy.verify(&token(&claims), NOW), "iat");
}

#[test]
fn alg_none_is_refused_signed_or_not() {
    assert_invalid(with_header(r#"{"alg":"none","kid":"k"}"#), "algorithm");
    let token = token(&claims());
    let unsigned = &token[..=token.rfind('.').expect("three parts")];
    assert_invalid(verify(unsigned), "signature");
}

#[test]
fn an_algorithm_other_than_the_keys_is_refused() {
    assert_invalid(with_header(r#"{"alg":"RS256","kid":"k"}"#), "algorithm");
    assert_invalid(with_header(r#"{"alg":"ES256","kid":"k"}"#), "algorithm");
}

#[test]
fn repeated_claims_are_refused() {
    let text = claims().to_string().replace("\"exp\":", "\"exp\":1,\"exp\":");
    assert_invalid(
        verify(&sign(&secret(), r#"{"alg":"HS256","kid":"k"}"#, &text).expect("signs")),
        "repeated",
    );
}

#[test]
fn times_that_are_no_numbers_or_beyond_reason_are_refused() {
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!("1795564800"),
            json!(true),
            json!([1]),
            json!({}),
            json!(1e300),
            json!(-1),
            json!(-0.5),
            json!((1_u64 << 53) + 1),
        ] {
            assert_invalid(with(name, value), "number");
        }
    }
    assert!(with("exp", json!(NOW_S as f64 + 0.5)).is_ok());
}

#[test]
fn a_kid_that_no_key_has_is_refused_and_so_is_silence() {
    assert_invalid(with_header(r#"{"alg":"HS256","kid":"other"}"#), "kid");
    assert_invalid(with_header(r#"{"alg":"HS256"}"#), "kid");
    assert_invalid(with_header(r#"{"alg":"HS256","kid":1}"#), "kid");
}

#[test]
fn a_key_without_kid_serves_only_tokens_without_kid() {
    let mut issuer = issuer();
    issuer.keys[0].kid = None;
    let policy = verifiers(issuer);
    let verify =
        |header: &str| policy.verify(&sign(&secret(), header, &claims().to_string()).expect("signs"), NOW);
    assert!(verify(r#"{"alg":"HS256"}"#).is_ok());
    assert_invalid(verify(r#"{"alg":"HS256","kid":"k"}"#), "kid");
}

#[test]
fn another_secret_does_not_sign_for_us() {
    let foreign = Secret::from_bytes(vec![b'x'; 32]).expect("long enough");
    let token = sign(&foreign, r#"{"alg":"HS256","kid":"k"}"#, &claims().to_string()).expect("signs");
    assert_invalid(verify(&token), "signature");
}

#[test]
fn scopes_are_words_or_a_list_of_strings() {
    let scopes = |value| with("scope", value).expect("good").identity.scopes.join("|");
    assert_eq!(scopes(json!("b  a b")), "a|b");
    assert_eq!(scopes(json!(["b", "a c"])), "a c|b");
    assert_eq!(scopes(Value::Null), "");
    assert_invalid(with("scope", json!(1)), "scope");
    assert_invalid(with("scope", json!(["a", 1])), "scope");
}

#[test]
fn a_tenant_that_is_no_tenant_id_is_none() {
    for tenant in [json!(""), json!("a b"), json!("ä"), json!(7), json!("x".repeat(129)), json!(["acme"])] {
        assert_eq!(with("tenant", tenant).expect("good").identity.tenant, None);
    }
}

#[test]
fn a_secret_that_differs_from_the_documents_is_refused_with_what_to_do() {
    let foreign = Secret::from_bytes(vec![b'x'; 32]).expect("long enough");
    let refused = Verifiers::compile(Revision(1), &[issuer()], |_| Ok(foreign.clone())).expect_err("differs");
    assert!(refused.contains("issuer ours, key k") && refused.contains("same secret"), "{refused}");
    let absent =
        Verifiers::compile(Revision(1), &[issuer()], |_| Err("no such file".into())).expect_err("absent");
    assert!(absent.contains("no such file"), "{absent}");
}

#[test]
fn a_public_key_for_hs256_is_refused() {
    let mut issuer = issuer();
    issuer.keys[0].material = KeyMaterial::PublicPem("-----BEGIN PUBLIC KEY-----".into());
    assert!(Verifiers::compile(Revision(1), &[issuer], |_| Ok(secret())).is_err());
}

#[test]
fn two_issuers_with_one_iss_are_refused() {
    let twin = Issuer { name: IssuerName::parse("twin").expect("a name"), ..issuer() };
    assert!(Verifiers::compile(Revision(1), &[issuer(), twin], |_| Ok(secret())).is_err());
}

proptest! {
    #[test]
    fn no_signed_token_with_a_changed_byte_is_believed(at in 0_usize..400, letter in "[A-Za-z0-9_.-]") {
        let good = token(&claims());
        let at = at % good.len();
        let changed = format!("{}{letter}{}", &good[..at], &good[at + 1..]);
        prop_assume!(changed != good);
        prop_assert!(verify(&changed).is_err());
    }

    #[test]
    fn no_claims_make_the_policy_panic(name in "exp|nbf|iat|aud|iss|sub|scope|tenant", number: f64, text in ".{0,20}") {
        let _ = with(&name, json!(number));
        let _ = with(&name, json!(text));
        let _ = with(&name, json!([text, number]));
    }
}
