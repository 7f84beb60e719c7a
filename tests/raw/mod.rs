//! Raw requests against a real gateway, and what its upstream saw of them.
//!
//! After each case a victim comes: another client's request on a connection of its own, and one on the case's connection if
//! that stays. Both must get their own answers, and the upstream must have seen what the case names, the victims, and nothing
//! else.

pub mod case;
pub mod client;
pub mod frames;
pub mod message;
pub mod mutation;
pub mod recorder;
pub mod sequence;
pub mod sequences;
pub mod talk;

use std::net::SocketAddr;

use case::{Case, Expected};
use client::Client;
use message::Message;
use recorder::{Event, Recorder};

use crate::support::Cluster;

/// One gateway, one worker, one route for everything, and the recorder behind it.
pub struct Bench {
    cluster: Cluster,
    recorder: Recorder,
    upstream: SocketAddr,
    victims: usize,
    /// Of which no more than a beginning may be seen: by when, nobody can say.
    cuts: Vec<Message>,
}

/// What the gateway says to its upstream of every request, unless a case says otherwise.
const ALWAYS: [&str; 4] = [
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-host: api.example",
    "x-forwarded-proto: http",
    "via: 1.1 quorumgate",
];
const REQUEST_ID: &[u8] = b"x-request-id: ";

impl Bench {
    pub fn start() -> Self {
        Self::with_timeouts("head_timeout: 3s, body_idle_timeout: 3s")
    }

    /// Waits for nobody.
    pub fn impatient() -> Self {
        Self::with_timeouts("head_timeout: 1s, body_idle_timeout: 1s, idle_timeout: 1s")
    }

    fn with_timeouts(timeouts: &str) -> Self {
        let (recorder, upstream) = Recorder::start();
        let gateway = format!(
            "upstreams:\n  recorder: {{endpoints: [\"http://{upstream}\"]}}\n\
             routes:\n  - {{name: raw, match: {{path: /}}, upstream: recorder, access: public}}\n"
        );
        let settings = format!(
            "limits: {{head_bytes_max: 8KiB, headers_max: 50, body_bytes_max: 64KiB, {timeouts}}}
"
        );
        let cluster = Cluster::start_with(1, &gateway, &settings);
        Self { cluster, recorder, upstream, victims: 0, cuts: Vec::new() }
    }

    pub fn gateway(&self) -> SocketAddr {
        self.cluster.nodes[0].http
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// What is wrong with a case's outcome; empty: nothing. `piece`: so many bytes are sent at a time.
    pub fn run(&mut self, case: &Case, piece: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut seen = Vec::new();
        let mut client = Client::connect(self.gateway());
        client.send_in_pieces(&case.sent, piece);
        if case.half_close {
            client.half_close();
        }
        for (number, expected) in case.expected.iter().enumerate() {
            let answer = expected.status.and_then(|_| client.answer(expected.without_body));
            let status = answer.as_ref().map(|answer| answer.status);
            if status != expected.status && !(expected.may_lack && status.is_none()) {
                wrong.push(format!("answer {number} is {status:?}, not {:?}: {answer:?}", expected.status));
            }
            if let Some(message) = &expected.message {
                if expected.is_cut { &mut self.cuts } else { &mut seen }.push(message.clone());
                if let Some(answer) = answer.filter(|answer| answer.status == 200 && !expected.without_body) {
                    wrong.extend(foreign(&answer.body, &message.line));
                }
            }
        }
        let closes = case.expected.last().is_some_and(|last| last.closes);
        let mut victims = Vec::new();
        if closes {
            match client.rest() {
                Some(rest) if rest.is_empty() => {}
                Some(rest) => wrong.push(format!("more came: {}", rest.escape_ascii())),
                None => wrong.push("the connection stays open".to_owned()),
            }
        } else {
            victims.push(self.victim(&mut client, &mut wrong));
        }
        victims.push(self.victim(&mut Client::connect(self.gateway()), &mut wrong));
        seen.extend(victims);
        wrong.extend(self.compare(&seen));
        wrong
    }

    /// A good request of somebody; what the upstream must see of it.
    fn victim(&mut self, client: &mut Client, wrong: &mut Vec<String>) -> Message {
        self.victims += 1;
        let line = format!("GET /victim/{} HTTP/1.1", self.victims).into_bytes();
        client.send(&[line.as_slice(), b"\r\nhost: api.example\r\n\r\n"].concat());
        match client.answer(false) {
            Some(answer) if answer.status == 200 => wrong.extend(foreign(&answer.body, &line)),
            answer => wrong.push(format!("a victim got {answer:?}")),
        }
        Message { line, fields: Vec::new(), body: Vec::new() }
    }

    /// What the upstream saw against what it should have seen.
    fn compare(&self, wanted: &[Message]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut whole = wanted.iter();
        for event in self.recorder.take() {
            match event {
                Event::Whole(found) | Event::Cut(Some(found)) if is_of_a_flood(&found) => {}
                Event::Whole(found) => match whole.next() {
                    Some(wanted) => wrong.extend(self.differ(&found, wanted, false)),
                    None => wrong.push(format!("the upstream saw {}", show(&found))),
                },
                Event::Cut(Some(found)) => {
                    // Cases share their request lines: one that was cut before may be seen only now.
                    let is_of = |cut: &Message| self.differ(&found, cut, true).is_empty();
                    if !self.cuts.iter().any(is_of) {
                        wrong.push(format!("the upstream saw the beginning of {}", show(&found)));
                    }
                }
                Event::Cut(None) => wrong.push("the upstream saw a part of a head".to_owned()),
                Event::Odd { why, bytes } => {
                    wrong.push(format!(
                        "the upstream saw what is no message, {why}: {}",
                        bytes.escape_ascii()
                    ));
                }
            }
        }
        wrong.extend(whole.map(|wanted| format!("the upstream did not see {}", show(wanted))));
        wrong
    }

    /// How a message differs from what it should be. The order of fields with different names means nothing.
    fn differ(&self, found: &Message, wanted: &Message, is_cut: bool) -> Vec<String> {
        let mut wanted = wanted.clone();
        let port = self.cluster.nodes[0].http.port();
        let here = [format!("host: {}", self.upstream), format!("x-forwarded-port: {port}")];
        for field in ALWAYS.iter().map(|field| (*field).to_owned()).chain(here) {
            let name = &field[..=field.find(':').expect("a field")];
            if !wanted.fields.iter().any(|said| said.starts_with(name.as_bytes())) {
                wanted.fields.push(field.into_bytes());
            }
        }
        let mut found = found.clone();
        let fields = found.fields.len();
        found.fields.retain(|field| {
            let id = field.strip_prefix(REQUEST_ID).unwrap_or_default();
            id.len() != 32 || !id.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if fields != found.fields.len() + 1 {
            return vec![format!("not one request id in {}", show(&found))];
        }
        // Stable: those of one name keep their order.
        for message in [&mut wanted, &mut found] {
            message.fields.sort_by(|a, b| name(a).cmp(name(b)));
        }
        if is_cut && wanted.body.starts_with(&found.body) {
            found.body.clone_from(&wanted.body);
        }
        if found == wanted {
            return Vec::new();
        }
        vec![format!("the upstream saw\n      {}\n    and not\n      {}", show(&found), show(&wanted))]
    }
}

/// What may come or not, as often as it likes.
fn is_of_a_flood(message: &Message) -> bool {
    message.line.windows(7).any(|window| window == b" /flood")
}

fn name(field: &[u8]) -> &[u8] {
    field.split(|b| *b == b':').next().unwrap_or_default()
}

/// An answer that was another's.
fn foreign(body: &[u8], line: &[u8]) -> Option<String> {
    let own = [b"seen ", line].concat();
    (body != own).then(|| format!("{} was answered with {}", line.escape_ascii(), body.escape_ascii()))
}

fn show(message: &Message) -> String {
    let Message { line, fields, body } = message;
    let fields: Vec<String> = fields.iter().map(|field| field.escape_ascii().to_string()).collect();
    format!("{} | {} | {}", line.escape_ascii(), fields.join(" | "), body.escape_ascii())
}

/// All topics.
pub fn corpus() -> Vec<Case> {
    let topics = [
        ("codings", include_str!("codings.txt")),
        ("lengths", include_str!("lengths.txt")),
        ("chunks", include_str!("chunks.txt")),
        ("lines", include_str!("lines.txt")),
        ("hosts", include_str!("hosts.txt")),
        ("targets", include_str!("targets.txt")),
        ("methods", include_str!("methods.txt")),
        ("pipelines", include_str!("pipelines.txt")),
        ("fields", include_str!("fields.txt")),
    ];
    topics.into_iter().flat_map(|(topic, text)| case::read(topic, text)).collect()
}

/// Refusals that this harness has to make: wrong expectations of a plain request, each with what must be found wrong.
pub fn wrong_expectations() -> [(Vec<Expected>, &'static str); 6] {
    let message = |line: &str, body: &str| {
        let fields = if body.is_empty() { Vec::new() } else { vec![b"content-length: 5".to_vec()] };
        Some(Message { line: line.into(), fields, body: body.into() })
    };
    let answer = |status: u16, closes: bool, message: Option<Message>| {
        vec![Expected {
            status: Some(status),
            closes,
            without_body: false,
            is_cut: false,
            may_lack: false,
            message,
        }]
    };
    let right = "POST /a HTTP/1.1";
    [
        (answer(400, false, message(right, "hello")), "answer 0 is Some(200), not Some(400)"),
        (answer(200, true, message(right, "hello")), "stays open"),
        (answer(200, false, None), "the upstream saw"),
        (answer(200, false, message(right, "hellO")), "and not"),
        (answer(200, false, message("POST /b HTTP/1.1", "hello")), "was answered with"),
        (answer(200, false, message(right, "")), "and not"),
    ]
}
