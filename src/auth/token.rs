//! A token's text, taken apart before anything in it is believed. Pure.
//!
//! Compact form alone (RFC 7515 section 7.1): three parts in base64url without padding, in which unused bits are zero.
//! The library that checks signatures reads headers too leniently (it takes unknown critical extensions, for one), so the
//! header is read here, and the library only ever sees bytes, a key and the algorithm that the *key* is bound to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::identity::Algorithm;
use serde_json::{Map, Value};

use super::json;

/// The longest token that is looked at, in bytes.
pub const TOKEN_LEN_BYTES_MAX: usize = 8 << 10;

/// Why a token was refused before its signature was checked. For the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why(pub &'static str);

/// A token in compact form. Nothing of it is to be believed yet.
#[derive(Clone, Debug)]
pub struct Unverified<'a> {
    /// Header and payload as they were signed, with the dot between them.
    pub signed: &'a str,
    /// The signature as it was sent.
    pub signature: &'a str,
    /// The protected header.
    pub header: Header,
    /// The payload's bytes; claims, if it is a JWT.
    pub payload: Vec<u8>,
}

/// What a header may say. Any other member is either refused or means nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Compared with the key's, never used to choose how to verify.
    pub algorithm: Algorithm,
    /// Which key.
    pub kid: Option<String>,
    /// What kind of token.
    pub typ: Option<String>,
}

impl<'a> Unverified<'a> {
    /// Takes `token` apart.
    ///
    /// # Errors
    /// [`Why`] it has no reading, or none that this gateway takes.
    pub fn parse(token: &'a str) -> Result<Self, Why> {
        if token.len() > TOKEN_LEN_BYTES_MAX {
            return Err(Why("longer than 8 KiB"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Why("not three parts"));
        };
        if signature.is_empty() {
            return Err(Why("no signature"));
        }
        let signed = &token[..header.len() + 1 + payload.len()];
        let header = Header::parse(&part(header)?)?;
        let payload = part(payload)?;
        part(signature)?;
        Ok(Self { signed, signature, header, payload })
    }

    /// The payload as claims, still unbelieved.
    ///
    /// # Errors
    /// If it is not one JSON object without repeated members.
    pub fn claims(&self) -> Result<Map<String, Value>, Why> {
        json::object(&self.payload).ok_or(Why("the payload is not one JSON object without repeated members"))
    }
}

fn part(text: &str) -> Result<Vec<u8>, Why> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Why("a part is not base64url without padding"))
}

impl Header {
    /// Members that would let a token choose its own key, change what is signed, or demand what we do not do.
    const REFUSED: [&'static str; 8] = ["crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc"];

    fn parse(text: &[u8]) -> Result<Self, Why> {
        let members =
            json::object(text).ok_or(Why("the header is not one JSON object without repeated members"))?;
        if Self::REFUSED.iter().any(|name| members.contains_key(*name)) {
            return Err(Why("the header holds a member that is refused here"));
        }
        let algorithm = match members.get("alg") {
            Some(Value::String(name)) => match name.as_str() {
                "HS256" => Algorithm::HS256,
                "RS256" => Algorithm::RS256,
                "ES256" => Algorithm::ES256,
                "EdDSA" => Algorithm::EdDSA,
                _ => return Err(Why("the algorithm is none of HS256, RS256, ES256, EdDSA")),
            },
            _ => return Err(Why("the header names no algorithm")),
        };
        let text = |name| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Why("kid or typ is not a string")),
        };
        Ok(Self { algorithm, kid: text("kid")?, typ: text("typ")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    fn refused(header: &str) -> &'static str {
        match Unverified::parse(&token(header, "{}")) {
            Ok(token) => panic!("{header} was read as {token:?}"),
            Err(Why(why)) => why,
        }
    }

    #[test]
    fn a_plain_header_is_read() {
        let text = token(r#"{"alg":"ES256","kid":"k","typ":"JWT","x":1}"#, "{}");
        let read = Unverified::parse(&text).expect("a plain token");
        assert_eq!(
            read.header,
            Header { algorithm: Algorithm::ES256, kid: Some("k".into()), typ: Some("JWT".into()) }
        );
        assert_eq!(read.payload, b"{}");
    }

    #[test]
    fn critical_extensions_are_refused() {
        refused(r#"{"alg":"HS256","crit":["b64"],"b64":true}"#);
        refused(r#"{"alg":"HS256","crit":["unknown"],"unknown":1}"#);
        refused(r#"{"alg":"HS256","crit":[]}"#);
    }

    #[test]
    fn an_unencoded_payload_is_refused() {
        refused(r#"{"alg":"HS256","b64":false}"#);
    }

    #[test]
    fn a_token_may_not_bring_or_point_to_its_key() {
        for name in ["jku", "jwk", "x5u", "x5c"] {
            refused(&format!(r#"{{"alg":"ES256","{name}":"https://evil.example/keys"}}"#));
        }
    }

    #[test]
    fn a_token_without_a_known_algorithm_is_refused() {
        for alg in [
            r#""none""#,
            r#""None""#,
            r#""NONE""#,
            r#""hs256""#,
            r#""HS512""#,
            r#""PS256""#,
            "null",
            "256",
            "[]",
        ] {
            refused(&format!(r#"{{"alg":{alg}}}"#));
        }
        refused("{}");
    }

    #[test]
    fn a_repeated_header_member_is_refused() {
        refused(r#"{"alg":"HS256","alg":"HS256"}"#);
        refused(r#"{"alg":"HS256","kid":"a","kid":"b"}"#);
    }

    #[test]
    fn padding_foreign_letters_and_loose_bits_are_refused() {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        for tail in [
            "e30=.c2ln",
            "e30.c2ln=",
            "e30.c2l+",
            "e30.c2 ln",
            "e31.c2ln",
            "e30.c2x",
            "e30.",
            "e30",
            "e30.a.b",
        ] {
            assert!(Unverified::parse(&format!("{head}.{tail}")).is_err(), "{tail}");
        }
    }

    #[test]
    fn a_token_over_8_kib_is_refused_before_it_is_decoded() {
        let long = token(r#"{"alg":"HS256"}"#, &"x".repeat(TOKEN_LEN_BYTES_MAX));
        assert_eq!(Unverified::parse(&long).expect_err("too long"), Why("longer than 8 KiB"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}", header in ".{0,80}", payload in ".{0,80}") {
            let _ = Unverified::parse(&text);
            let made = token(&header, &payload);
            let _ = Unverified::parse(&made).map(|token| token.claims());
        }
    }
}
