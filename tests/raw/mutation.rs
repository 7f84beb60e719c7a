//! Small damage to requests, the same for the same seed.

/// A multiplicative generator: all that is asked of it is to be the same everywhere.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.0 >> 33).expect("31 bits") % end.max(1)
    }
}

/// Pieces that mean something to a reader of HTTP.
const PIECES: [&[u8]; 24] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b":",
    b";",
    b",",
    b"\"",
    b"#",
    b"?",
    b"%",
    b"0",
    b"1",
    b"_",
    b"0\r\n\r\n",
    b"\xff",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"HTTP/1.1",
    b"GET /x HTTP/1.1\r\n",
];

/// A request with a few places damaged; `other`: where pieces may come from.
pub fn mutated(sent: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = sent.to_vec();
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len() + 1);
        let end = (at + 1 + chance.below(12)).min(bytes.len()).max(at);
        let piece = match chance.below(3) {
            0 => PIECES[chance.below(PIECES.len())].to_vec(),
            1 => Vec::new(),
            _ => {
                let from = chance.below(other.len());
                other[from..(from + chance.below(40)).min(other.len())].to_vec()
            }
        };
        let replaced = if chance.below(2) == 0 { at..at } else { at..end };
        bytes.splice(replaced, piece);
    }
    bytes
}
