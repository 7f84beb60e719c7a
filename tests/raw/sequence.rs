//! Sequences of HTTP/2 frames as text. What a line means, its first character says:
//!
//! ```text
//! == name                     a case begins
//! # RFC, attack               why it is what it is
//! ^ HEADERS 1 end_stream …    a frame, its stream, its flags by name or number; its payload stands on the lines below:
//! % GET /path                 the four pseudo-header fields of a plain request
//! : name value                a field that nobody remembers; `+`: one that both sides remember
//! @ 62 1000                   what was remembered under an index, so often; without a count once
//! . \x00\{300*ab}             bytes
//! ^ raw \x00                  bytes in a frame's place
//! * 1000 2 new                the last two frames so often in all; on a stream of its own each time, or on the `same`
//! ~ 1                         goes on once stream 1 is answered
//! ! bare                      without the preface and SETTINGS that else come first; `eof`: then the client closes its
//!                             side; `full`: no more streams fit on the connection
//! < 200 1                     what the client must hear, here of stream 1, or one of several things with `/` between:
//!                             `reset 1 CODE|CODE`, `goaway CODE|CODE`, `plain 400` (HTTP/1.1's), `close`, `alive`;
//!                             `cut` last: no more than a beginning of the message reaches the upstream
//! | GET / HTTP/1.1            what the upstream sees for it, as in requests of HTTP/1.1
//! ```
//! A path that begins with `/flood` may reach the upstream or not, as often as it likes.

use super::case::unescaped;
use super::frames::{self, Frame, Kind};
use super::message::Message;
use super::mutation::{Chance, mutated};

#[derive(Clone, Debug, Default)]
pub struct Sequence {
    pub name: String,
    pub bare: bool,
    pub half_close: bool,
    /// No stream of a victim fits.
    pub full: bool,
    pub items: Vec<Item>,
    pub expected: Vec<Expected>,
}

#[derive(Clone, Debug)]
pub enum Item {
    Frame(Frame),
    Raw(Vec<u8>),
    /// The last `of` frames once more and once more, until they were there `count` times.
    Repeat {
        count: u32,
        of: usize,
        new: bool,
    },
    WaitFor(u32),
}

/// What to do, one after the other.
#[derive(Debug)]
pub enum Step {
    Send(Vec<u8>),
    WaitFor(u32),
}

#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// One of these.
    pub words: Vec<Word>,
    pub is_cut: bool,
    pub message: Option<Message>,
}

/// What a client can hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Status { status: u16, stream: u32 },
    Reset { stream: u32, codes: Vec<u32> },
    GoAway { codes: Vec<u32> },
    Plain { status: u16 },
    Close,
    Alive,
}

/// By number (RFC 9113 section 7).
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

const FLAGS: [(&str, u8); 5] = [
    ("end_stream", frames::END_STREAM),
    ("ack", frames::ACK),
    ("end_headers", frames::END_HEADERS),
    ("padded", 0x8),
    ("priority", 0x20),
];

/// Fields that decide something, and others.
const NAMES: [&str; 8] = [
    "x-a",
    "content-length",
    "host",
    "expect",
    "cookie",
    "x-forwarded-for",
    "quorumgate-x",
    "content_length",
];

const KINDS: [(&str, Kind); 10] = [
    ("DATA", Kind::Data),
    ("HEADERS", Kind::Headers),
    ("PRIORITY", Kind::Priority),
    ("RST_STREAM", Kind::ResetStream),
    ("SETTINGS", Kind::Settings),
    ("PUSH_PROMISE", Kind::PushPromise),
    ("PING", Kind::Ping),
    ("GOAWAY", Kind::GoAway),
    ("WINDOW_UPDATE", Kind::WindowUpdate),
    ("CONTINUATION", Kind::Continuation),
];

impl Sequence {
    /// All that is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let sent = self.steps().into_iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes),
            Step::WaitFor(_) => None,
        });
        sent.flatten().collect()
    }

    /// With damages within frames, whose lengths are right all the same, and with more fields.
    pub fn damaged(&self, other: &Self, chance: &mut Chance) -> Self {
        let mut damaged = self.clone();
        for item in &mut damaged.items {
            let Item::Frame(frame) = item else { continue };
            match (frame.kind, chance.pick(&[0, 1, 2, 3])) {
                (Kind::Headers | Kind::Continuation, 0 | 1) => {
                    let value = mutated(chance.pick(&["5", "a", "/b"]).as_bytes(), b"", chance);
                    frame.payload.extend(frames::literal(chance.pick(&NAMES).as_bytes(), &value));
                }
                (_, 0 | 2) => frame.payload = mutated(&frame.payload, &other.bytes(), chance),
                _ => {}
            }
        }
        damaged
    }

    pub fn is_flood(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Repeat { .. }))
    }

    /// The stream of whoever comes next.
    pub fn next_stream(&self) -> u32 {
        let sent = self.sent();
        let streams = sent.iter().filter_map(|item| match item {
            Item::Frame(frame) if frame.stream < 1 << 30 => Some(frame.stream),
            _ => None,
        });
        (streams.max().unwrap_or(0) + 1) | 1
    }

    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for item in self.sent() {
            let bytes = match item {
                Item::Frame(frame) => frame.bytes(),
                Item::Raw(bytes) => bytes,
                Item::WaitFor(stream) => {
                    steps.push(Step::WaitFor(stream));
                    continue;
                }
                Item::Repeat { .. } => unreachable!("it was written out"),
            };
            match steps.last_mut() {
                Some(Step::Send(before)) => before.extend(bytes),
                _ => steps.push(Step::Send(bytes)),
            }
        }
        steps
    }

    /// With every repetition written out.
    fn sent(&self) -> Vec<Item> {
        let mut sent = Vec::new();
        for item in &self.items {
            let Item::Repeat { count, of, new } = item else {
                sent.push(item.clone());
                continue;
            };
            let last = sent[sent.len() - of..].to_vec();
            for number in 1..*count {
                sent.extend(last.iter().cloned().map(|item| match item {
                    Item::Frame(mut frame) if *new => {
                        frame.stream += 2 * number;
                        Item::Frame(frame)
                    }
                    same => same,
                }));
            }
        }
        sent
    }

    fn payload(&mut self, place: &str) -> &mut Vec<u8> {
        match self.items.last_mut() {
            Some(Item::Frame(frame)) => &mut frame.payload,
            _ => panic!("{place}: no frame before it"),
        }
    }
}

/// The sequences of a topic.
pub fn read(topic: &str, text: &str) -> Vec<Sequence> {
    let mut all: Vec<Sequence> = Vec::new();
    let (mut has_why, mut in_body) = (false, false);
    for (number, line) in text.lines().enumerate() {
        let place = format!("{topic}:{}", number + 1);
        let (sign, rest) = line.split_at(line.len().min(1));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if sign == "=" {
            let name = format!("{topic}: {}", rest.trim_start_matches("= "));
            assert!(all.iter().all(|it| it.name != name), "{place}: twice");
            all.push(Sequence { name, ..Sequence::default() });
            has_why = false;
            continue;
        }
        let Some(it) = all.last_mut() else {
            assert!(sign.is_empty() || sign == "#", "{place}: before the first case");
            continue;
        };
        match sign {
            "" => {}
            "#" => has_why = true,
            "^" => it.items.push(frame(rest, &place)),
            "%" => {
                let (method, path) = rest.split_once(' ').expect("a method and a path");
                it.payload(&place).extend(plain(method, &unescaped(path, &place)));
            }
            ":" | "+" => {
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                let fields = (unescaped(name, &place), unescaped(value, &place));
                let write = if sign == "+" { frames::remembered } else { frames::literal };
                it.payload(&place).extend(write(&fields.0, &fields.1));
            }
            "@" => {
                let (index, count) = rest.split_once(' ').unwrap_or((rest, "1"));
                let index = frames::indexed(index.parse().expect("an index"));
                it.payload(&place).extend(index.repeat(count.parse().expect("a count")));
            }
            "." => it.payload(&place).extend(unescaped(rest, &place)),
            "*" => it.items.push(repeat(rest, &place)),
            "~" => it.items.push(Item::WaitFor(rest.parse().expect("a stream"))),
            "!" => match rest {
                "bare" => it.bare = true,
                "eof" => it.half_close = true,
                "full" => it.full = true,
                _ => panic!("{place}: {rest}"),
            },
            "<" => {
                assert!(has_why, "{place}: a case says why");
                it.expected.push(expected(rest, &place));
                in_body = false;
            }
            "|" => {
                let expected = it.expected.last_mut().unwrap_or_else(|| panic!("{place}: too early"));
                in_body = Message::read_line(&mut expected.message, unescaped(rest, &place), in_body);
            }
            _ => panic!("{place}: {line}"),
        }
    }
    for it in &all {
        assert!(!it.items.is_empty() && !it.expected.is_empty(), "{}: incomplete", it.name);
    }
    all
}

/// A plain request's pseudo-header fields.
pub fn plain(method: &str, path: &[u8]) -> Vec<u8> {
    frames::block(&[
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"api.example"),
        (":path", path),
    ])
}

fn frame(text: &str, place: &str) -> Item {
    if let Some(raw) = text.strip_prefix("raw ") {
        return Item::Raw(unescaped(raw, place));
    }
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let kind = match KINDS.iter().find(|(name, _)| *name == kind) {
        Some((_, kind)) => *kind,
        None => Kind::Other(kind.parse().unwrap_or_else(|_| panic!("{place}: what is {kind}"))),
    };
    let stream = words.next().and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{place}: no stream"));
    let flags = words.map(|word| match FLAGS.iter().find(|(name, _)| *name == word) {
        Some((_, flag)) => *flag,
        None => word.parse().unwrap_or_else(|_| panic!("{place}: no flag: {word}")),
    });
    Item::Frame(Frame::new(kind, flags.fold(0, |all, flag| all | flag), stream, Vec::new()))
}

fn repeat(text: &str, place: &str) -> Item {
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        [count, of, which @ ("new" | "same")] => Item::Repeat {
            count: count.parse().expect("a count"),
            of: of.parse().expect("a count"),
            new: which == "new",
        },
        _ => panic!("{place}: {text}"),
    }
}

fn expected(text: &str, place: &str) -> Expected {
    let (text, is_cut) = text.strip_suffix(" cut").map_or((text, false), |text| (text, true));
    Expected { words: text.split(" / ").map(|word| read_word(word, place)).collect(), is_cut, message: None }
}

fn read_word(text: &str, place: &str) -> Word {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{place}: no number: {text}"));
    let codes = |names: &str| -> Vec<u32> {
        let code = |name: &str| CODES.iter().position(|code| *code == name);
        let found = names.split('|').map(|name| code(name).unwrap_or_else(|| panic!("{place}: {name}")));
        found.map(|code| code as u32).collect()
    };
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["close"] => Word::Close,
        ["alive"] => Word::Alive,
        ["goaway", names] => Word::GoAway { codes: codes(names) },
        ["reset", stream, names] => Word::Reset { stream: number(stream), codes: codes(names) },
        ["plain", status] => Word::Plain { status: status.parse().expect("a status") },
        [status, stream] => {
            Word::Status { status: status.parse().expect("a status"), stream: number(stream) }
        }
        _ => panic!("{place}: {text}"),
    }
}
