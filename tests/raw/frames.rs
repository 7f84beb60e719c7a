//! HTTP/2 by hand (RFC 9113, RFC 7541), so that what no library would write can be sent, too.

pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a frame is. Numbers without a name are sent as [`Kind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Other(u8),
}

const KINDS: [Kind; 10] = [
    Kind::Data,
    Kind::Headers,
    Kind::Priority,
    Kind::ResetStream,
    Kind::Settings,
    Kind::PushPromise,
    Kind::Ping,
    Kind::GoAway,
    Kind::WindowUpdate,
    Kind::Continuation,
];

pub const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// A frame; its length is that of its payload, and everything else as one pleases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: Kind, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A whole request's fields in one frame.
    pub fn request(stream: u32, flags: u8, fields: &[(&str, &[u8])]) -> Self {
        Self::new(Kind::Headers, flags | END_HEADERS, stream, block(fields))
    }

    pub fn settings(values: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> = values
            .iter()
            .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()))
            .collect();
        Self::new(Kind::Settings, 0, 0, payload)
    }

    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(Kind::ResetStream, 0, stream, code.to_be_bytes())
    }

    pub fn window(stream: u32, more: u32) -> Self {
        Self::new(Kind::WindowUpdate, 0, stream, more.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Other(number) => number,
            named => KINDS.iter().position(|kind| *kind == named).map_or(0, |at| at as u8),
        };
        let length = u32::try_from(self.payload.len()).expect("a frame of a test is small").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The first frame of `bytes`, and how many bytes it was; none: more must come.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let [a, b, c, kind, flags, s, t, u, v] = *bytes.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = bytes.get(9..9 + length)?.to_vec();
        let kind = KINDS.get(usize::from(kind)).copied().unwrap_or(Kind::Other(kind));
        Some((Self { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload }, 9 + length))
    }
}

/// Fields as literals that nobody remembers, without Huffman: names and values may hold any byte.
pub fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value)).collect()
}

/// One such literal.
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        integer(&mut block, 0, 7, text.len());
        block.extend_from_slice(text);
    }
    block
}

/// A literal that both sides remember.
pub fn remembered(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = literal(name, value);
    block[0] = 0x40;
    block
}

/// What was remembered before, or stands in the static table.
pub fn indexed(index: usize) -> Vec<u8> {
    let mut block = Vec::new();
    integer(&mut block, 0x80, 7, index);
    block
}

/// RFC 7541 section 5.1.
fn integer(block: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let most = (1 << prefix_bits) - 1;
    if value < most {
        return block.push(pattern | value as u8);
    }
    block.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// The status of an answer's fields, of which it is the first one, if the node's table holds nothing of ours.
pub fn status(block: &[u8]) -> Option<u16> {
    /// Those of the static table, from [`FIRST`].
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    const FIRST: u8 = 8;
    // What the table's size is may be said before.
    let sized = block.iter().position(|b| b & 0xe0 != 0x20)?;
    match block[sized..] {
        [indexed, ..] if indexed & 0x80 != 0 => {
            STATIC.get(usize::from((indexed & 0x7f).checked_sub(FIRST)?)).copied()
        }
        [_, length, ref rest @ ..] => {
            let text = rest.get(..usize::from(length & 0x7f))?;
            let digits = if length & 0x80 == 0 { text.to_vec() } else { digits(text) };
            std::str::from_utf8(&digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Three digits of Huffman's code (RFC 7541 appendix B): `0` to `2` are five bits, the others six.
fn digits(text: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = text.iter().flat_map(|b| (0..8).rev().map(move |bit| b >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |all, bit| all << 1 | bit);
    let (mut at, mut found) = (0, Vec::new());
    while found.len() < 3 && at + 6 <= bits.len() {
        let five = number(&bits[at..at + 5]);
        let (digit, length) =
            if five < 3 { (five, 5) } else { (number(&bits[at..at + 6]).wrapping_sub(22), 6) };
        found.push(b'0'.wrapping_add(digit));
        at += length;
    }
    if found.len() < 3 && at + 5 <= bits.len() {
        found.push(b'0' + number(&bits[at..at + 5]));
    }
    found
}

#[test]
fn frames_are_written_and_read_as_the_rfcs_print_them() {
    let settings = Frame::settings(&[(3, 100)]);
    assert_eq!(settings.bytes(), [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]);
    let rest = [settings.bytes(), Frame::reset(1, 8).bytes()].concat();
    assert_eq!(Frame::read(&rest), Some((settings, 15)));
    assert_eq!(Frame::read(&rest[15..]), Some((Frame::reset(1, 8), 13)));
    assert_eq!(Frame::read(&rest[..14]), None);
    let unknown = Frame::new(Kind::Other(0xee), ACK, 7, *b"x");
    assert_eq!(Frame::read(&unknown.bytes()), Some((unknown, 10)));
    // RFC 7541 C.1.2, C.2.1, C.2.4
    let mut number = Vec::new();
    integer(&mut number, 0, 5, 1337);
    assert_eq!(number, [31, 154, 10]);
    assert_eq!(remembered(b"custom-key", b"custom-header"), b"\x40\x0acustom-key\x0dcustom-header");
    assert_eq!(indexed(2), [0x82]);
    // RFC 7541 C.6.1, C.6.2
    assert_eq!(status(b"\x48\x82\x64\x02"), Some(302));
    assert_eq!(status(b"\x20\x48\x83\x64\x0e\xff"), Some(307));
    assert_eq!((status(&[0x88]), status(&[0x8d]), status(b"\x08\x03408")), (Some(200), Some(404), Some(408)));
    let request = Frame::request(1, END_STREAM, &[(":method", b"GET"), ("x\r\ny", b"a\r\nb: c")]);
    assert_eq!(request.flags, END_STREAM | END_HEADERS);
    assert_eq!(request.payload, b"\0\x07:method\x03GET\0\x04x\r\ny\x07a\r\nb: c");
    assert_eq!((PREFACE.len(), Frame::window(0, 1).bytes().len()), (24, 13));
}
