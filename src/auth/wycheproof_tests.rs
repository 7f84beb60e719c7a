//! Project Wycheproof's vectors for JSON Web Signatures and Keys, as far as they name algorithms of ours.
//!
//! A key goes the way of a configured one: a JWK is rewritten as a secret or as PEM, and loaded by the same code. What a
//! JWK says of its use (`use`, `key_ops`, a foreign `alg`) has no place in PEM; such keys are not loaded, as nobody could
//! configure them.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use config::identity::Algorithm;
use serde_json::Value;

use super::key::VerifyKey;
use super::secrets::Secret;
use super::token::Unverified;

const SIGNATURES: &str = include_str!("../../tests/data/wycheproof/wycheproof_json_web_signature.json");
const KEYS: &str = include_str!("../../tests/data/wycheproof/wycheproof_json_web_key.json");

/// Marked valid, with a letter outside of base64url in header or payload: readers may skip it. Ours never does.
const STRICTER_THAN: [u64; 2] = [372, 373];

/// Marked invalid for bad padding, but the padding is missing in the file: the text is that of vector 357, which is valid.
const MISPRINTED: [u64; 2] = [367, 370];

/// What our code says to a vector.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// The key belongs to an algorithm that we have not.
    NotOurs,
    Accepted,
    Refused,
}

fn bytes(jwk: &Value, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok()
}

/// One element, its length written as short as it goes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).expect("a key is shorter than 64 KiB").to_be_bytes();
    let head = match (high, low) {
        (0, ..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn rsa_pem(jwk: &Value) -> Option<String> {
    let integer = |name| {
        let number = bytes(jwk, name)?;
        let sign: &[u8] = if number.first().is_some_and(|top| top & 0x80 != 0) { &[0] } else { &[] };
        Some(der(2, &[sign, &number].concat()))
    };
    Some(pem("RSA PUBLIC KEY", &der(0x30, &[integer("n")?, integer("e")?].concat())))
}

/// Loads a JWK as an operator would configure it. `Err(NotOurs)`: there is no way to.
fn load(jwk: &Value) -> Result<VerifyKey, Said> {
    let signs = jwk.get("use").is_none_or(|found| found == "sig");
    let verifies = jwk["key_ops"].as_array().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !signs || !verifies {
        return Err(Said::Refused);
    }
    match (jwk["kty"].as_str(), jwk["alg"].as_str(), jwk["crv"].as_str()) {
        (Some("oct"), Some("HS256"), _) => {
            let secret = Secret::from_bytes(bytes(jwk, "k").ok_or(Said::Refused)?);
            secret.map(|secret| VerifyKey::secret(&secret)).map_err(|_| Said::Refused)
        }
        (Some("RSA"), Some("RS256"), _) => {
            let pem = rsa_pem(jwk).ok_or(Said::Refused)?;
            VerifyKey::public(Algorithm::RS256, &pem).map_err(|_| Said::Refused)
        }
        (Some("EC"), Some("ES256"), Some("P-256")) => {
            let (x, y) = (bytes(jwk, "x").ok_or(Said::Refused)?, bytes(jwk, "y").ok_or(Said::Refused)?);
            // id-ecPublicKey and secp256r1 (RFC 5480), then the point, uncompressed.
            let algorithm = [
                0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
                0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
            ];
            let point = der(3, &[&[0, 4][..], &x, &y].concat());
            let pem = pem("PUBLIC KEY", &der(0x30, &[&algorithm[..], &point].concat()));
            VerifyKey::public(Algorithm::ES256, &pem).map_err(|_| Said::Refused)
        }
        _ => Err(Said::NotOurs),
    }
}

fn say(key: &Result<VerifyKey, Said>, token: &str) -> Said {
    match key {
        Err(Said::NotOurs) => Said::NotOurs,
        Err(_) => Said::Refused,
        Ok(key) => match Unverified::parse(token) {
            Ok(token) if key.verifies(&token) => Said::Accepted,
            _ => Said::Refused,
        },
    }
}

/// Every vector of `file` whose key `pick` gives: all invalid ones are refused and all valid ones accepted. Returns how
/// many were accepted and refused.
fn run(file: &str, pick: impl Fn(&Value) -> Option<&Value>) -> (usize, usize) {
    let file: Value = serde_json::from_str(file).expect("the vectors are JSON");
    let (mut accepted, mut refused, mut stricter) = (0, 0, BTreeSet::new());
    for group in file["testGroups"].as_array().expect("a list of groups") {
        let Some(jwk) = pick(group) else { continue };
        let key = load(jwk);
        for test in group["tests"].as_array().expect("a list of tests") {
            let id = test["tcId"].as_u64().expect("a number");
            if MISPRINTED.contains(&id) {
                continue;
            }
            let valid = test["result"] == "valid";
            match say(&key, test["jws"].as_str().unwrap_or_default()) {
                Said::NotOurs => {}
                Said::Accepted => {
                    assert!(valid, "vector {id} was accepted: {test}");
                    accepted += 1;
                }
                Said::Refused => {
                    refused += 1;
                    if valid {
                        stricter.insert(id);
                    }
                }
            }
        }
    }
    assert!(stricter.iter().all(|id| STRICTER_THAN.contains(id)), "refused though valid: {stricter:?}");
    (accepted, refused)
}

#[test]
fn every_forged_signature_of_wycheproof_is_refused_and_every_good_one_accepted() {
    let (accepted, refused) = run(SIGNATURES, |group| group.get("public").or_else(|| group.get("private")));
    assert!(accepted >= 12 && refused >= 250, "accepted {accepted}, refused {refused}");
}

#[test]
fn every_bad_key_of_wycheproof_is_refused() {
    // given the sets of one key; this gateway has no sets
    let single = |group: &Value| {
        group["public"]["keys"].as_array().or_else(|| group["private"]["keys"].as_array()).map(Vec::len)
    };
    let file: Value = serde_json::from_str(KEYS).expect("the vectors are JSON");
    let groups = file["testGroups"].as_array().expect("a list of groups");
    assert!(groups.iter().filter(|group| single(group) == Some(1)).count() >= 15);
    // then the short, the weak and the broken are refused, and the good ones accepted
    let (accepted, refused) = run(KEYS, |group| {
        let keys = group["public"]["keys"].as_array().or_else(|| group["private"]["keys"].as_array())?;
        if keys.len() == 1 { keys.first() } else { None }
    });
    assert!(accepted >= 2 && refused >= 5, "accepted {accepted}, refused {refused}");
}

#[test]
fn weak_rsa_keys_are_refused_for_their_weakness() {
    let file: Value = serde_json::from_str(KEYS).expect("the vectors are JSON");
    let groups = file["testGroups"].as_array().expect("a list of groups");
    for (comment, words) in [
        ("jws_rsa_roca_key", "flawed generator"),
        ("keysize_too_small", "1024 bits"),
        ("exponentOne", "exponent"),
    ] {
        let group = groups.iter().find(|group| group["comment"] == comment).expect("a group");
        let pem = rsa_pem(&group["public"]["keys"][0]).expect("an RSA key");
        let why = VerifyKey::public(Algorithm::RS256, &pem).expect_err(comment);
        assert!(why.contains(words), "{comment}: {why}");
    }
}
