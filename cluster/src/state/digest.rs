//! A fingerprint of state that is the same on every machine.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Collects numbers and bytes in a fixed order and width.
#[derive(Clone, Debug)]
pub(super) struct Digester(SipHasher24);

impl Digester {
    /// An empty one under a fixed, public key: it finds differences, it does not resist forgery.
    pub fn new() -> Self {
        Self(SipHasher24::new_with_keys(0x7175_6f72_756d, 0x6761_7465))
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.write(&number.to_le_bytes());
        self
    }

    pub fn wide(&mut self, number: u128) -> &mut Self {
        self.0.write(&number.to_le_bytes());
        self
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.write(bytes);
        self
    }

    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}
