//! Frames: bytes in arbitrary pieces to whole messages, and back. No sockets, no clock.
//!
//! ```text
//! 0      1        2     3         4          8           12
//! magic  version  kind  reserved  len (u32)  crc (u32)   body (len bytes)
//! ```
//!
//! Numbers are little-endian. The checksum is CRC-32 over bytes 0..8 and the body. Nothing is allocated on the word of
//! a length: the buffer grows as bytes arrive.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// First byte of every frame.
pub const MAGIC: u8 = 0xB7;
/// The frame layout's version.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const HEAD_BYTES: usize = 12;
/// The longest body.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// The longest body before both sides know each other.
pub const GREETING_BYTES_MAX: usize = 1 << 10;

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who I am: the first frame in each direction. See [`super::handshake`].
    Hello(Bytes),
    /// In place of a hello: why we do not belong together.
    Reject(String),
    /// Caller to server.
    Request {
        /// Pairs request and answer; unique on its connection.
        id: u64,
        /// The caller's message kind.
        kind: u16,
        /// The message.
        payload: Bytes,
    },
    /// Server to caller: the answer.
    Answer {
        /// Of the request.
        id: u64,
        /// The answer.
        payload: Bytes,
    },
    /// Server to caller: it will not, and why.
    Refusal {
        /// Of the request.
        id: u64,
        /// Why.
        reason: String,
    },
    /// Server to caller: too many requests; this one was not served.
    Overload {
        /// Of the request.
        id: u64,
    },
    /// Caller to server: are you there?
    Ping,
    /// Server to caller: I am.
    Pong,
}

/// Why bytes are not a frame. The connection cannot go on after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not our protocol, or we are out of step.
    #[error("found first byte {found:#04x}, wanted {MAGIC:#04x}: the peer does not speak this protocol")]
    Magic {
        /// The byte.
        found: u8,
    },
    /// A layout that this build does not know.
    #[error("found frame version {found}, wanted {VERSION}")]
    Version {
        /// The version.
        found: u8,
    },
    /// A kind that this build does not know.
    #[error("found frame kind {found}, wanted 1 to 8")]
    Kind {
        /// The kind.
        found: u8,
    },
    /// Longer than allowed.
    #[error("found a frame of {found} bytes, wanted at most {max}")]
    Oversize {
        /// The announced length.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Damaged on the way.
    #[error("frame checksum is {found:#010x}, wanted {wanted:#010x}")]
    Checksum {
        /// As sent.
        found: u32,
        /// As computed.
        wanted: u32,
    },
    /// The body does not fit its kind.
    #[error("frame of kind {kind} has a malformed body")]
    Body {
        /// The kind.
        kind: u8,
    },
    /// The stream ended inside a frame.
    #[error("stream ended {missing} bytes short of a whole frame")]
    Truncated {
        /// Bytes that are missing, as far as known.
        missing: usize,
    },
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Reject(_) => 2,
            Self::Request { .. } => 3,
            Self::Answer { .. } => 4,
            Self::Refusal { .. } => 5,
            Self::Overload { .. } => 6,
            Self::Ping => 7,
            Self::Pong => 8,
        }
    }

    /// Appends the frame's bytes to `out`. Texts are cut to [`GREETING_BYTES_MAX`] bytes less a number.
    ///
    /// # Errors
    /// [`FrameError::Oversize`] if the body is longer than [`BODY_BYTES_MAX`]; `out` is as before then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let start = out.len();
        out.put_slice(&[MAGIC, VERSION, self.kind(), 0]);
        out.put_u64_le(0); // Length and checksum, written below.
        match self {
            Self::Hello(body) => out.put_slice(body),
            Self::Reject(reason) => out.put_slice(cut(reason).as_bytes()),
            Self::Request { id, kind, payload } => {
                out.put_u64_le(*id);
                out.put_u16_le(*kind);
                out.put_slice(payload);
            }
            Self::Answer { id, payload } => {
                out.put_u64_le(*id);
                out.put_slice(payload);
            }
            Self::Refusal { id, reason } => {
                out.put_u64_le(*id);
                out.put_slice(cut(reason).as_bytes());
            }
            Self::Overload { id } => out.put_u64_le(*id),
            Self::Ping | Self::Pong => {}
        }
        let found = out.len() - start - HEAD_BYTES;
        if found > BODY_BYTES_MAX {
            out.truncate(start);
            return Err(FrameError::Oversize { found, max: BODY_BYTES_MAX });
        }
        let frame = &mut out[start..];
        let len = u32::try_from(found).expect("at most BODY_BYTES_MAX");
        frame[4..8].copy_from_slice(&len.to_le_bytes());
        let crc = checksum(&frame[..8], &frame[HEAD_BYTES..]);
        frame[8..12].copy_from_slice(&crc.to_le_bytes());
        Ok(())
    }

    fn decode(kind: u8, mut body: Bytes) -> Result<Self, FrameError> {
        let malformed = FrameError::Body { kind };
        let text = |b: Bytes| String::from_utf8(b.into()).map(|text| one_line(&text)).map_err(|_| malformed);
        let id = |b: &mut Bytes| b.try_get_u64_le().map_err(|_| malformed);
        Ok(match kind {
            1 => Self::Hello(body),
            2 => Self::Reject(text(body)?),
            3 => Self::Request {
                id: id(&mut body)?,
                kind: body.try_get_u16_le().map_err(|_| malformed)?,
                payload: body,
            },
            4 => Self::Answer { id: id(&mut body)?, payload: body },
            5 => Self::Refusal { id: id(&mut body)?, reason: text(body)? },
            6 if body.len() == 8 => Self::Overload { id: id(&mut body)? },
            7 if body.is_empty() => Self::Ping,
            8 if body.is_empty() => Self::Pong,
            6..=8 => return Err(malformed),
            found => return Err(FrameError::Kind { found }),
        })
    }
}

/// A peer's words, which end in our log, cannot begin a line of their own there, or speak to a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// At most as many bytes of `text` as a reason may have, cut between characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(GREETING_BYTES_MAX - 8);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize()
}

/// Puts frames together from pieces.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    body_bytes_max: usize,
}

impl Decoder {
    /// A decoder that accepts bodies of at most `body_bytes_max` bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), body_bytes_max }
    }

    /// Changes the limit; bytes that already came are kept.
    pub fn allow(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max;
    }

    /// Where the next bytes are to be appended.
    pub fn room(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole frame; none until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]: stop reading, the stream cannot be trusted any more. Bad heads are told before their body came.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let head = &self.buffer[..];
        if let Some(&found) = head.first()
            && found != MAGIC
        {
            return Err(FrameError::Magic { found });
        }
        if let Some(&found) = head.get(1)
            && found != VERSION
        {
            return Err(FrameError::Version { found });
        }
        if head.len() < HEAD_BYTES {
            return Ok(None);
        }
        let kind = head[2];
        if !(1..=8).contains(&kind) {
            return Err(FrameError::Kind { found: kind });
        }
        let len = word(head, 4) as usize;
        if len > self.body_bytes_max {
            return Err(FrameError::Oversize { found: len, max: self.body_bytes_max });
        }
        if head.len() < HEAD_BYTES + len {
            return Ok(None);
        }
        let found = word(head, 8);
        let wanted = checksum(&head[..8], &head[HEAD_BYTES..HEAD_BYTES + len]);
        if found != wanted {
            return Err(FrameError::Checksum { found, wanted });
        }
        let mut frame = self.buffer.split_to(HEAD_BYTES + len).freeze();
        frame.advance(HEAD_BYTES);
        Frame::decode(kind, frame).map(Some)
    }

    /// To be asked when the stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        let have = self.buffer.len();
        let whole = if have < HEAD_BYTES { HEAD_BYTES } else { HEAD_BYTES + word(&self.buffer, 4) as usize };
        if have == 0 { Ok(()) } else { Err(FrameError::Truncated { missing: whole.saturating_sub(have) }) }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(frame: &Frame) -> BytesMut {
        let mut out = BytesMut::new();
        frame.encode(&mut out).expect("small");
        out
    }

    fn decode_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::new(BODY_BYTES_MAX);
        let mut frames = Vec::new();
        let mut rest = bytes;
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            decoder.room().extend_from_slice(piece);
            rest = later;
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        decoder.finish()?;
        Ok(frames)
    }

    #[test]
    fn the_layout_never_changes() {
        let request = Frame::Request { id: 0x0102, kind: 0x0304, payload: Bytes::from_static(b"hi") };
        assert_eq!(
            bytes_of(&request)[..],
            [0xB7, 1, 3, 0, 12, 0, 0, 0, 0xec, 0x58, 0xc7, 0xdc, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, b'h', b'i']
        );
        assert_eq!(bytes_of(&Frame::Ping)[..], [0xB7, 1, 7, 0, 0, 0, 0, 0, 0xdb, 0x3b, 0x63, 0x02]);
    }

    #[test]
    fn what_is_not_a_frame_is_told_with_its_reason() {
        // given a good frame
        let good = bytes_of(&Frame::Answer { id: 1, payload: Bytes::from_static(b"yes") });
        let spoil = |at: usize, byte: u8| {
            let mut bad = good.to_vec();
            bad[at] = byte;
            decode_in_pieces(&bad, &[]).expect_err("spoilt")
        };
        // when each part is spoilt, then the error names it
        assert_eq!(spoil(0, b'G'), FrameError::Magic { found: b'G' });
        assert_eq!(spoil(1, 9), FrameError::Version { found: 9 });
        assert_eq!(spoil(2, 77), FrameError::Kind { found: 77 });
        assert_eq!(spoil(7, 0xff), FrameError::Oversize { found: 0xff00_000b, max: BODY_BYTES_MAX });
        assert!(matches!(spoil(20, 0), FrameError::Checksum { .. }));
        assert_eq!(decode_in_pieces(&good[..15], &[]), Err(FrameError::Truncated { missing: 8 }));
        assert_eq!(decode_in_pieces(&good[..3], &[]), Err(FrameError::Truncated { missing: 9 }));
    }

    #[test]
    fn a_body_that_is_too_long_is_not_encoded() {
        let payload = Bytes::from(vec![0; BODY_BYTES_MAX]);
        let mut out = BytesMut::new();
        let error = Frame::Answer { id: 1, payload }.encode(&mut out).expect_err("too long");
        assert_eq!(error, FrameError::Oversize { found: BODY_BYTES_MAX + 8, max: BODY_BYTES_MAX });
        assert!(out.is_empty());
    }

    #[test]
    fn a_peers_words_stay_on_one_line() {
        let reason = "no\n2026-11-26T00:00:00Z ERROR forged \u{1b}[2J".to_owned();
        let bytes = bytes_of(&Frame::Refusal { id: 1, reason });
        let told = Frame::Refusal { id: 1, reason: "no 2026-11-26T00:00:00Z ERROR forged  [2J".to_owned() };
        assert_eq!(decode_in_pieces(&bytes, &[]), Ok(vec![told]));
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let payload = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let text = || "[a-zé]{0,20}";
        let one = prop_oneof![
            payload().prop_map(Frame::Hello),
            text().prop_map(Frame::Reject),
            (any::<u64>(), any::<u16>(), payload()).prop_map(|(id, kind, payload)| Frame::Request {
                id,
                kind,
                payload
            }),
            (any::<u64>(), payload()).prop_map(|(id, payload)| Frame::Answer { id, payload }),
            (any::<u64>(), text()).prop_map(|(id, reason)| Frame::Refusal { id, reason }),
            any::<u64>().prop_map(|id| Frame::Overload { id }),
            Just(Frame::Ping),
            Just(Frame::Pong),
        ];
        prop::collection::vec(one, 0..6)
    }

    proptest! {
        #[test]
        fn any_split_decodes_the_same(frames in frames(), cuts in prop::collection::vec(0usize..30, 0..20)) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                frame.encode(&mut bytes).expect("small");
            }
            prop_assert_eq!(decode_in_pieces(&bytes, &cuts), Ok(frames));
        }

        #[test]
        fn one_wrong_byte_anywhere_is_an_error_and_makes_no_other_frame(
            frames in frames().prop_filter("some bytes", |frames| !frames.is_empty()),
            at: prop::sample::Index,
            flip in 1u8..,
            cuts in prop::collection::vec(0usize..30, 0..20),
        ) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                frame.encode(&mut bytes).expect("small");
            }
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut decoder = Decoder::new(BODY_BYTES_MAX);
            let (mut rest, mut seen, mut failed) = (&bytes[..], Vec::new(), false);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                decoder.room().extend_from_slice(piece);
                rest = later;
                while !failed {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => seen.push(frame),
                        Ok(None) => break,
                        Err(_) => failed = true,
                    }
                }
            }
            prop_assert!(failed || decoder.finish().is_err(), "byte {at} is wrong and nobody minds");
            prop_assert!(frames.starts_with(&seen), "found {seen:?}, wanted the first of {frames:?}");
        }

        #[test]
        fn the_buffer_grows_with_what_came_and_never_beyond_the_limit(
            announced: u32,
            limit in 0usize..4096,
            pieces in prop::collection::vec(1usize..600, 0..40),
        ) {
            // given a head that announces any length, and bytes that come in pieces
            let mut decoder = Decoder::new(limit);
            let mut head = vec![MAGIC, VERSION, 3, 0];
            head.extend(announced.to_le_bytes());
            head.extend([0; 4]);
            decoder.room().extend_from_slice(&head);
            let mut came = head.len();
            for piece in pieces {
                // when the decoder wants more
                if !matches!(decoder.next_frame(), Ok(None)) {
                    break;
                }
                decoder.room().extend_from_slice(&vec![0; piece]);
                came += piece;
                // then it holds what came, and at most a frame and one piece, in a buffer at most twice that
                let most = came.min(HEAD_BYTES + limit + piece);
                let found = decoder.room().capacity();
                prop_assert!(found <= 2 * most + 64, "found {found} bytes for {most}");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..80),
            begins_well: bool,
            cuts in prop::collection::vec(0usize..30, 0..20),
        ) {
            if begins_well && bytes.len() > 8 {
                bytes[..2].copy_from_slice(&[MAGIC, VERSION]);
                bytes[2] %= 10;
                bytes[5..8].fill(0);
            }
            let _ = decode_in_pieces(&bytes, &cuts);
        }
    }
}
