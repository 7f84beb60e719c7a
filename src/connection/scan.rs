//! Reads a connection's bytes along with hyper, and finds what hyper would take although another reader could understand it
//! otherwise (RFC 9112; most of request smuggling lives there). Pure.
//!
//! hyper refuses by itself: bare CR, control characters, folded fields, a space before a colon, versions other than 1.0 and
//! 1.1, heads and trailers that are too large. This looks only for the rest, so that its cost is one search for each line's
//! end and the lengths of bodies.

use crate::journey::received::plain_length;

/// Where the bytes stop being clear, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclear {
    /// So many of the bytes may pass: they complete neither a head nor a chunk's line that is unclear.
    pub(super) clear_bytes: usize,
    /// For the log.
    pub(super) why: &'static str,
}

/// Chunk sizes come with so little else that no honest sender reaches this.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// As many hexadecimal digits as a `u64` has.
const CHUNK_DIGITS_MAX: usize = 16;

/// Trailers that would change what the head said, if somebody merged them into it (RFC 9110 section 6.5.1).
const NEVER_TRAILERS: [&str; 16] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The next request's line, or the one empty line that may stand before it.
    Start { after_empty_line: bool },
    /// A head's fields.
    Fields(Framing),
    /// So many bytes of a body, or of a chunk.
    Data { left: u64, then: After },
    /// A chunk's size.
    ChunkSize,
    /// The end of a chunk's line.
    ChunkEnd,
    /// Fields behind the last chunk.
    Trailers,
    /// Nothing of ours: hyper refuses the head for its size.
    Beyond,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Request,
    ChunkEnd,
}

/// What a head has said so far about its body's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
}

/// Follows one connection from its first byte.
#[derive(Debug)]
pub(super) struct Scan {
    place: Place,
    /// The beginning of a line whose end has not come; never more than `head_bytes_max`.
    line: Vec<u8>,
    /// Of this head, or of these trailers.
    bytes: usize,
    head_bytes_max: usize,
}

impl Scan {
    /// `head_bytes_max`: beyond it hyper refuses a head.
    pub(super) fn new(head_bytes_max: usize) -> Self {
        let place = Place::Start { after_empty_line: false };
        Self { place, line: Vec::new(), bytes: 0, head_bytes_max }
    }

    /// Looks at the bytes that come next.
    ///
    /// # Errors
    /// [`Unclear`]; what comes after it must not be looked at any more.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<(), Unclear> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.place {
                Place::Beyond => return Ok(()),
                Place::Data { left, then } => self.pass(rest.len(), left, then),
                _ => self
                    .look_at_line(rest)
                    .map_err(|Unclear { clear_bytes, why }| Unclear { clear_bytes: at + clear_bytes, why })?,
            };
        }
        Ok(())
    }

    /// Passes over data; how many bytes of it were there.
    fn pass(&mut self, there: usize, left: u64, then: After) -> usize {
        let passed = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        self.place = match (left - passed as u64, then) {
            (0, After::Request) => Place::Start { after_empty_line: false },
            (0, After::ChunkEnd) => Place::ChunkEnd,
            (left, then) => Place::Data { left, then },
        };
        passed
    }

    /// Looks at a line, or keeps its beginning; how many bytes were looked at.
    fn look_at_line(&mut self, rest: &[u8]) -> Result<usize, Unclear> {
        let end = memchr::memchr(b'\n', rest);
        let count = end.map_or(rest.len(), |end| end + 1);
        self.bytes += count;
        if self.bytes > self.bytes_max() {
            return match self.place {
                Place::Start { .. } | Place::Fields(_) => {
                    self.place = Place::Beyond;
                    Ok(count)
                }
                _ => Err(Unclear { clear_bytes: 0, why: "a chunk's line or the trailers are too long" }),
            };
        }
        let Some(end) = end else {
            self.line.extend_from_slice(rest);
            return Ok(count);
        };
        let unclear = |why| Unclear { clear_bytes: end, why };
        if self.line.is_empty() {
            self.place = self.after(&rest[..count]).map_err(unclear)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&rest[..count]);
            self.place = self.after(&line).map_err(unclear)?;
            line.clear();
            self.line = line;
        }
        if !matches!(self.place, Place::Fields(_) | Place::Trailers | Place::Start { after_empty_line: true })
        {
            self.bytes = 0;
        }
        Ok(count)
    }

    fn bytes_max(&self) -> usize {
        match self.place {
            Place::ChunkSize | Place::ChunkEnd => CHUNK_LINE_BYTES_MAX,
            _ => self.head_bytes_max,
        }
    }

    /// Where a whole line leads to.
    fn after(&self, line: &[u8]) -> Result<Place, &'static str> {
        let line = line.strip_suffix(b"\r\n").ok_or("a line does not end in CR LF")?;
        match self.place {
            Place::Start { after_empty_line: true } if line.is_empty() => {
                Err("more than one empty line before a request")
            }
            Place::Start { .. } if line.is_empty() => Ok(Place::Start { after_empty_line: true }),
            Place::Start { .. } => check_target(line).map(|()| Place::Fields(Framing::default())),
            Place::Fields(framing) if line.is_empty() => framing.body(),
            Place::Fields(framing) => framing.with(line).map(Place::Fields),
            Place::ChunkSize => Ok(match chunk_size(line)? {
                0 => Place::Trailers,
                left => Place::Data { left, then: After::ChunkEnd },
            }),
            Place::ChunkEnd if line.is_empty() => Ok(Place::ChunkSize),
            Place::ChunkEnd => Err("a chunk is longer than its size"),
            Place::Trailers if line.is_empty() => Ok(Place::Start { after_empty_line: false }),
            Place::Trailers => check_trailer(line).map(|()| Place::Trailers),
            Place::Data { .. } | Place::Beyond => Ok(self.place),
        }
    }
}

impl Framing {
    /// With what one more field says. A field that is none is hyper's to refuse.
    fn with(mut self, line: &[u8]) -> Result<Self, &'static str> {
        let Some(colon) = memchr::memchr(b':', line) else { return Ok(self) };
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err("more than one Content-Length");
            }
            self.length = Some(plain_length(value).ok_or("the Content-Length is not a plain number")?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked {
                return Err("more than one Transfer-Encoding");
            }
            check_codings(value)?;
            self.is_chunked = true;
        }
        Ok(self)
    }

    /// Where the head's end leads to.
    fn body(self) -> Result<Place, &'static str> {
        match self {
            Self { length: Some(_), is_chunked: true } => {
                Err("Content-Length and Transfer-Encoding exclude each other")
            }
            Self { is_chunked: true, .. } => Ok(Place::ChunkSize),
            Self { length: None | Some(0), .. } => Ok(Place::Start { after_empty_line: false }),
            Self { length: Some(left), .. } => Ok(Place::Data { left, then: After::Request }),
        }
    }
}

/// A target has no fragment and no byte that must be percent-encoded; hyper would drop the one and pass the other.
fn check_target(line: &[u8]) -> Result<(), &'static str> {
    let target = line.split(|b| *b == b' ').nth(1).unwrap_or_default();
    if target.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        Ok(())
    } else {
        Err("the target holds a fragment or a byte that must be percent-encoded")
    }
}

/// `chunked` once, at the end. Whether the others are known is not decided here.
fn check_codings(value: &[u8]) -> Result<(), &'static str> {
    let mut codings = value.split(|b| *b == b',').rev().map(trim);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_some_and(is_chunked) {
        return Err("the last transfer coding is not chunked");
    }
    if codings.any(|coding| coding.is_empty() || is_chunked(coding)) {
        return Err("chunked is not applied exactly once");
    }
    Ok(())
}

/// A chunk's size, and extensions by the grammar of RFC 9112 section 7.1.1, of which nothing is kept.
fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, mut rest) = line.split_at(digits);
    let size = std::str::from_utf8(size).ok().filter(|size| (1..=CHUNK_DIGITS_MAX).contains(&size.len()));
    let size =
        size.and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or("a chunk's size is no number")?;
    while !rest.is_empty() {
        rest = after_extension(rest).ok_or("a chunk's extension is malformed")?;
    }
    Ok(size)
}

/// What stands behind one extension.
fn after_extension(text: &[u8]) -> Option<&[u8]> {
    let rest = after_token(trim_start(trim_start(text).strip_prefix(b";")?))?;
    match trim_start(rest).strip_prefix(b"=").map(trim_start) {
        None => Some(rest),
        Some([b'"', quoted @ ..]) => after_quoted(quoted),
        Some(value) => after_token(value),
    }
}

fn after_token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|b| is_token(**b)).count();
    (length > 0).then(|| &text[length..])
}

fn after_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b, rest @ ..] | [b, rest @ ..] if is_text(*b) => rest,
            _ => return None,
        };
    }
}

fn check_trailer(line: &[u8]) -> Result<(), &'static str> {
    let Some(colon) = memchr::memchr(b':', line) else { return Err("a trailer is no field") };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if after_token(name) != Some(b"") || !value.iter().copied().all(is_text) {
        return Err("a trailer is no field");
    }
    let begins =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix.as_bytes()));
    let is_never = NEVER_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes()));
    if is_never || begins("x-forwarded-") || begins("quorumgate-") {
        return Err("a trailer says what only a head may say");
    }
    Ok(())
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn is_text(b: u8) -> bool {
    matches!(b, b'\t' | b' '..=b'~' | 0x80..)
}

/// Without the whitespace that RFC 9110 allows: spaces and tabs, nothing else.
fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let end = text.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1);
    &text[..end]
}

fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict over `bytes` that come in pieces of `piece`.
    fn verdict(bytes: &[u8], piece: usize) -> Result<(), (usize, &'static str)> {
        let mut scan = Scan::new(200);
        for (number, part) in bytes.chunks(piece).enumerate() {
            scan.look(part).map_err(|unclear| (number * piece + unclear.clear_bytes, unclear.why))?;
        }
        Ok(())
    }

    /// The same however the bytes are cut; what must pass.
    fn clear_bytes(bytes: &[u8]) -> Option<usize> {
        let whole = verdict(bytes, bytes.len()).err();
        for piece in 1..20 {
            assert_eq!(verdict(bytes, piece).err(), whole, "in pieces of {piece}");
        }
        whole.map(|(clear_bytes, _)| clear_bytes)
    }

    #[test]
    fn what_has_one_reading_passes_however_it_is_cut() {
        let clear: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 12\r\n\r\n\n\n\nnot a headGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding:\tChunked \r\n\r\n5;a=b;c=\"d;\\\"e\"\r\n\nello\r\n0\r\nx: y\r\n\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0A\r\n0123456789\r\n000\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1 ; a = b\r\n.\r\n0\r\n\r\n",
        ];
        for bytes in clear {
            assert_eq!(clear_bytes(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_has_two_readings_is_found_before_it_is_complete() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let unclear = [
            "GET / HTTP/1.1\n".to_owned(),
            "GET / HTTP/1.1\r\nhost: a\n".to_owned(),
            "GET / HTTP/1.1\r\nhost: a\r\n\n".to_owned(),
            "\r\n\r\n".to_owned(),
            "\n".to_owned(),
            "GET /#a HTTP/1.1\r\n".to_owned(),
            "GET /?\u{e4} HTTP/1.1\r\n".to_owned(),
            "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n".to_owned(),
            "POST / HTTP/1.1\r\ncontent-length: 05\r\n".to_owned(),
            "POST / HTTP/1.1\r\ncontent-length: 9223372036854775808\r\n".to_owned(),
            "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n".to_owned(),
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n".to_owned(),
            format!("{chunked}5 \r\n"),
            format!("{chunked}5\n"),
            format!("{chunked}5;a=\"b\r\n"),
            format!("{chunked}5;\r\n"),
            format!("{chunked}00000000000000005\r\n"),
            format!("{chunked}1\r\nab\r\n"),
            format!("{chunked}0\r\ncontent-length: 1\r\n"),
            format!("{chunked}0\r\nx: y\n"),
            format!("{chunked}0\r\nx : y\r\n"),
        ];
        for text in unclear {
            // Everything but the last line feed passes, with which the line would have been complete.
            assert_eq!(clear_bytes(text.as_bytes()), Some(text.len() - 1), "{}", text.escape_debug());
        }
    }

    #[test]
    fn what_is_too_long_is_never_kept() {
        // given a head that never ends, which hyper refuses, and a chunk's line and trailers that never end
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let ends = |begin: &[u8], piece: &[u8]| {
            let mut scan = Scan::new(200);
            scan.look(begin).expect("clear so far");
            let end = (0..100).find(|_| scan.look(piece).is_err());
            assert!(scan.line.len() <= CHUNK_LINE_BYTES_MAX, "{}", scan.line.len());
            end.is_some()
        };
        assert!(!ends(b"GET / HTTP/1.1\r\nx: ", &[b'x'; 100]));
        assert!(ends(chunked, &[b'1'; 100]));
        assert!(ends(&[chunked, &b"0\r\n"[..]].concat(), b"x: y\r\n"));
    }
}
