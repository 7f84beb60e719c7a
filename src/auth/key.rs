//! One verification key, checked when it is loaded and bound to one algorithm for life.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use config::identity::Algorithm;
use jsonwebtoken::DecodingKey;

use super::rsa;
use super::secrets::Secret;
use super::token::Unverified;

/// A key and the only algorithm it is used with.
#[derive(Clone)]
pub struct VerifyKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({:?})", self.algorithm)
    }
}

impl VerifyKey {
    /// An HS256 key.
    pub fn secret(secret: &Secret) -> Self {
        Self { algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret.expose()) }
    }

    /// A public key from PEM text (`PUBLIC KEY` of RFC 7468, for RSA also `RSA PUBLIC KEY`).
    ///
    /// # Errors
    /// What was found, what was wanted.
    pub fn public(algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        assert!(algorithm != Algorithm::HS256, "a public key must never serve as a shared secret");
        let pem = pem.trim();
        let plain = pem.starts_with("-----BEGIN PUBLIC KEY-----");
        let pkcs1 = algorithm == Algorithm::RS256 && pem.starts_with("-----BEGIN RSA PUBLIC KEY-----");
        if !plain && !pkcs1 {
            let found: String = pem.lines().next().unwrap_or("").chars().take(40).collect();
            return Err(format!(
                "found {found:?}, wanted PEM that begins with -----BEGIN PUBLIC KEY----- (`openssl pkey -pubout` makes it)"
            ));
        }
        let other =
            |_| format!("found a key of another kind or damaged PEM, wanted a public key for {algorithm:?}");
        let text = pem.as_bytes();
        let key = match algorithm {
            Algorithm::RS256 => DecodingKey::from_rsa_pem(text),
            Algorithm::ES256 => DecodingKey::from_ec_pem(text),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(text),
            Algorithm::HS256 => unreachable!("asserted above"),
        }
        .map_err(other)?;
        let bytes = key.try_get_as_bytes().map_err(other)?;
        let usable = match algorithm {
            Algorithm::RS256 => {
                rsa::check(bytes)?;
                ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, bytes).is_ok()
            }
            Algorithm::ES256 => {
                bytes.len() == 65
                    && bytes[0] == 4
                    && ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).is_ok()
            }
            Algorithm::EdDSA => bytes.len() == 32 && ParsedPublicKey::new(&ED25519, bytes).is_ok(),
            Algorithm::HS256 => unreachable!("asserted above"),
        };
        if !usable {
            return Err(match algorithm {
                Algorithm::ES256 => {
                    "found a point that is not on P-256, wanted an uncompressed P-256 key".to_owned()
                }
                _ => format!("found a key that no {algorithm:?} signature can be checked with"),
            });
        }
        Ok(Self { algorithm, key })
    }

    /// The only algorithm this key is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature is this key's. False if the header names another algorithm than the key's.
    pub fn verifies(&self, token: &Unverified<'_>) -> bool {
        if token.header.algorithm != self.algorithm {
            return false;
        }
        let algorithm = match self.algorithm {
            Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        };
        jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), &self.key, algorithm)
            .unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";

    #[test]
    #[should_panic(expected = "never serve as a shared secret")]
    fn a_public_key_is_never_a_shared_secret() {
        let _ = VerifyKey::public(Algorithm::HS256, "-----BEGIN PUBLIC KEY-----");
    }

    #[test]
    fn a_private_key_a_certificate_and_garbage_are_refused() {
        for text in [RSA_PRIVATE, "-----BEGIN CERTIFICATE-----", "", "x", "-----BEGIN PUBLIC KEY-----\n!!\n"]
        {
            for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
                assert!(VerifyKey::public(algorithm, text).is_err(), "{algorithm:?} {text}");
            }
        }
    }

    #[test]
    fn the_ed25519_example_of_rfc_8037_is_accepted_and_no_other_signature() {
        // given the key of RFC 8037 appendix A.2 behind the head of an Ed25519 SubjectPublicKeyInfo (RFC 8410)
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----";
        let key = VerifyKey::public(Algorithm::EdDSA, pem).expect("a good key");
        // then the token of appendix A.4 is its own, and the token with another payload is not
        let signature =
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let verifies = |payload: &str| {
            let token = format!("eyJhbGciOiJFZERTQSJ9.{payload}.{signature}");
            key.verifies(&Unverified::parse(&token).expect("compact form"))
        };
        assert!(verifies("RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"));
        assert!(!verifies("RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmg"));
        assert!(VerifyKey::public(Algorithm::ES256, pem).is_err());
        assert!(VerifyKey::public(Algorithm::RS256, pem).is_err());
    }
}
