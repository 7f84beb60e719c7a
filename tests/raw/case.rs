//! Cases as text. What a line means, its first character says:
//!
//! ```text
//! == name            a case begins
//! # RFC, attack      why it is what it is
//! > POST / …\r\n     bytes of the client; lines are joined, and only what is written is sent
//! ! eof              then the client closes its side
//! < 200 open         an answer, and whether the connection stays; `close`; `none`: no answer; `head`: it has no body;
//!                    `perhaps`: or there is none; `cut`: no more than a beginning of the message reaches the upstream
//! | GET / HTTP/1.1   what the upstream sees for it: request line, fields, an empty line, the body
//! ```
//! In bytes `\r`, `\n`, `\t`, `\0`, `\\`, `\xFF` are one byte each, and `\{300*ab}` is `ab` 300 times.

use super::message::Message;

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub sent: Vec<u8>,
    pub half_close: bool,
    pub expected: Vec<Expected>,
}

impl Case {
    /// Whether it goes on behind a refusal that was said before all of its body was there: then the connection stays only if
    /// the rest comes at once.
    pub fn hangs_on_haste(&self) -> bool {
        let head = self.sent.windows(4).position(|window| window == b"\r\n\r\n");
        let has_more = head.is_some_and(|at| at + 4 < self.sent.len());
        has_more && self.expected.iter().any(|it| !it.closes && it.status.is_some_and(|status| status >= 400))
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Expected {
    /// None: there is no answer.
    pub status: Option<u16>,
    pub closes: bool,
    pub without_body: bool,
    pub is_cut: bool,
    /// Perhaps there is none: it depends on how the bytes come.
    pub may_lack: bool,
    pub message: Option<Message>,
}

/// The cases of a topic.
pub fn read(topic: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let (mut has_why, mut in_body) = (false, false);
    for (number, line) in text.lines().enumerate() {
        let place = format!("{topic}:{}", number + 1);
        let (sign, rest) = line.split_at(line.len().min(1));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if sign == "=" {
            let name = format!("{topic}: {}", rest.trim_start_matches("= "));
            assert!(cases.iter().all(|case| case.name != name), "{place}: twice");
            cases.push(Case { name, sent: Vec::new(), half_close: false, expected: Vec::new() });
            has_why = false;
            continue;
        }
        let Some(case) = cases.last_mut() else {
            assert!(sign.is_empty() || sign == "#", "{place}: before the first case");
            continue;
        };
        match sign {
            "" => {}
            "#" => has_why = true,
            ">" => case.sent.extend(unescaped(rest, &place)),
            "!" => case.half_close = rest == "eof" || panic!("{place}: ! eof"),
            "<" => {
                assert!(has_why, "{place}: a case says why");
                case.expected.push(answer(rest, &place));
                in_body = false;
            }
            "|" => {
                let expected =
                    case.expected.last_mut().unwrap_or_else(|| panic!("{place}: no answer before it"));
                in_body = Message::read_line(&mut expected.message, unescaped(rest, &place), in_body);
            }
            _ => panic!("{place}: {line}"),
        }
    }
    for case in &cases {
        assert!(!case.sent.is_empty() && !case.expected.is_empty(), "{}: incomplete", case.name);
    }
    cases
}

fn answer(text: &str, place: &str) -> Expected {
    let mut words = text.split(' ');
    let status = match words.next() {
        Some("none") => None,
        status => Some(status.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{place}: no status"))),
    };
    let mut expected = Expected {
        status,
        closes: status.is_none(),
        without_body: false,
        is_cut: false,
        may_lack: false,
        message: None,
    };
    for word in words {
        match word {
            "open" => expected.closes = false,
            "close" => expected.closes = true,
            "head" => expected.without_body = true,
            "cut" => expected.is_cut = true,
            "perhaps" => expected.may_lack = true,
            _ => panic!("{place}: {word}"),
        }
    }
    expected
}

/// The bytes that a text stands for.
pub fn unescaped(text: &str, place: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (known, taken) = match escape.as_bytes().first() {
            Some(b'r') => (vec![b'\r'], 1),
            Some(b'n') => (vec![b'\n'], 1),
            Some(b't') => (vec![b'\t'], 1),
            Some(b'0') => (vec![0], 1),
            Some(b'\\') => (vec![b'\\'], 1),
            Some(b'x') => (vec![u8::from_str_radix(&escape[1..3], 16).expect("hexadecimal")], 3),
            Some(b'{') => {
                let (count, repeated) = escape[1..].split_once('*').expect("a count");
                let end = repeated.find('}').expect("an end");
                let again = unescaped(&repeated[..end], place).repeat(count.parse().expect("a count"));
                (again, 1 + count.len() + 1 + end + 1)
            }
            _ => panic!("{place}: what is \\{escape}"),
        };
        bytes.extend(known);
        rest = &escape[taken..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
