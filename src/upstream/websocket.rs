//! What of WebSocket's opening handshake no client over HTTP/2 does (RFC 8441 section 5.1), and an upstream over HTTP/1.1
//! wants to see: a key, and the proof that it was read (RFC 6455 section 4). Pure.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};

/// Of a key, before it is written in base64.
pub const NONCE_BYTES: usize = 16;
/// RFC 6455 section 1.3.
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key, and what an upstream makes of it that has read it as WebSocket's.
#[derive(Clone, Debug)]
pub struct Handshake {
    key: HeaderValue,
    accept: HeaderValue,
}

impl Handshake {
    /// `nonce`: random, so that no cache can know the answer.
    pub fn new(nonce: [u8; NONCE_BYTES]) -> Self {
        let key = STANDARD.encode(nonce);
        // Its only purpose is to tell whether somebody knows the protocol; nothing rests on its strength.
        let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), SUFFIX].concat());
        let value = |text| HeaderValue::try_from(text).expect("base64 is a field value");
        Self { accept: value(STANDARD.encode(proof)), key: value(key) }
    }

    /// Puts the key in place of whatever the client said.
    pub fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
    }

    /// Whether an upstream has read the key.
    pub fn is_proven(&self, headers: &HeaderMap) -> bool {
        headers.get_all(SEC_WEBSOCKET_ACCEPT).iter().eq([&self.accept])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_as_the_standard_has_it() {
        // given the nonce of RFC 6455 section 1.3
        let handshake = Handshake::new(*b"the sample nonce");
        let mut asked = HeaderMap::new();
        handshake.ask(&mut asked);
        assert_eq!(asked[SEC_WEBSOCKET_KEY], "dGhlIHNhbXBsZSBub25jZQ==");
        // then its proof is the one there, and no other, nor two
        let said = |proofs: &[&'static str]| {
            let fields = proofs.iter().map(|proof| (SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(proof)));
            let mut headers = HeaderMap::new();
            fields.for_each(|(name, value)| {
                headers.append(name, value);
            });
            handshake.is_proven(&headers)
        };
        let right = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(said(&[right]));
        assert!(!said(&[]) && !said(&["s3pPLMBiTxaQ9kYGzzhZRbK+xOp="]) && !said(&[right, right]));
    }
}
