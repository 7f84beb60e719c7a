//! Sequences of frames against the same gateway.
//!
//! The victims are another client's request on a connection of its own, and one more stream of the case's connection if that
//! stays. Those of a flood are served while it goes on.

use super::message::Message;
use super::sequence::{self, Sequence, Step, Word};
use super::talk::Talk;
use super::{Bench, Client, foreign};

/// Longer than the node's patience in this bench.
const TIMEOUTS: &str = "head_timeout: 2s, body_idle_timeout: 2s, idle_timeout: 4s";

/// What a node holds of its machine.
#[derive(Debug)]
pub struct Held {
    pub descriptors: usize,
    pub resident_kib: usize,
}

impl Bench {
    pub fn held(&self) -> Held {
        let process = format!("/proc/{}", self.cluster.pid(0));
        let status = std::fs::read_to_string(format!("{process}/status")).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
        Held {
            descriptors: std::fs::read_dir(format!("{process}/fd")).expect("it runs").count(),
            resident_kib: resident.and_then(|kib| kib.trim().parse().ok()).expect("a number"),
        }
    }

    pub fn for_frames() -> Self {
        Self::with_timeouts(TIMEOUTS)
    }

    /// What is wrong with a sequence's outcome; empty: nothing. `piece`: so many bytes are sent at a time.
    pub fn run_sequence(&mut self, case: &Sequence, piece: usize) -> Vec<String> {
        let (mut wrong, mut victims) = (Vec::new(), Vec::new());
        let to = self.gateway();
        let mut talk = std::thread::scope(|scope| {
            let talk = scope.spawn(|| carry_out(case, to, piece));
            while case.is_flood() && (victims.is_empty() || !talk.is_finished()) {
                victims.push(self.victim(&mut Client::connect(to), &mut wrong));
            }
            talk.join().expect("no panic")
        });
        let mut seen = Vec::new();
        for expected in &case.expected {
            let word = talk.heard.find(expected);
            if word.is_none() {
                wrong.push(format!("none of {:?} in {:?}", expected.words, talk.heard));
            }
            let Some(message) = &expected.message else { continue };
            if expected.is_cut { &mut self.cuts } else { &mut seen }.push(by_http2(message));
            if let Some(Word::Status { status: 200, stream }) = word {
                wrong.extend(foreign(&talk.heard.answers[stream].body, &message.line));
            }
        }
        let is_over = case.half_close || case.ends(&talk);
        if is_over {
            talk.listen(|_| false);
            if !talk.heard.closed {
                wrong.push("the connection stays open".to_owned());
            }
        } else if !case.full {
            victims.push(self.next_stream(&mut talk, case.next_stream(), &mut wrong));
        }
        if !case.is_flood() {
            wrong.extend(talk.heard.unexpected(&case.expected, case.next_stream()));
        }
        victims.push(self.victim(&mut Client::connect(to), &mut wrong));
        seen.extend(victims);
        wrong.extend(self.compare(&seen));
        wrong
    }

    /// A good request on a connection that has seen worse; what the upstream must see of it.
    fn next_stream(&mut self, talk: &mut Talk, stream: u32, wrong: &mut Vec<String>) -> Message {
        self.victims += 1;
        let path = format!("/victim/{}", self.victims);
        let line = format!("GET {path} HTTP/1.1").into_bytes();
        match talk.ask(stream, &path) {
            Some(answer) if answer.status == 200 => wrong.extend(foreign(&answer.body, &line)),
            answer => {
                let answer = format!("{answer:?}");
                wrong.push(format!("a victim on stream {stream} got {answer}: {:?}", talk.heard));
            }
        }
        by_http2(&Message { line, fields: Vec::new(), body: Vec::new() })
    }
}

/// What the upstream is told of how the message came in.
fn by_http2(message: &Message) -> Message {
    let mut message = message.clone();
    message.fields.push(b"via: 2 quorumgate".to_vec());
    message
}

fn carry_out(case: &Sequence, to: std::net::SocketAddr, piece: usize) -> Talk {
    let mut talk = if case.bare { Talk::bare(to, piece) } else { Talk::begun(to, piece) };
    for step in case.steps() {
        match step {
            Step::Send(bytes) => talk.send(&bytes),
            Step::WaitFor(stream) => {
                talk.listen(|heard| heard.answers.get(&stream).is_some_and(|it| it.ended));
            }
        }
    }
    if case.half_close {
        talk.half_close();
    }
    talk.listen(|heard| case.expected.iter().all(|expected| heard.find(expected).is_some()));
    talk
}

impl Sequence {
    /// Whether what was heard was the connection's end.
    fn ends(&self, talk: &Talk) -> bool {
        let mut heard = self.expected.iter().filter_map(|expected| talk.heard.find(expected));
        heard.any(|word| matches!(word, Word::GoAway { .. } | Word::Plain { .. } | Word::Close))
    }
}

/// All topics.
pub fn corpus() -> Vec<Sequence> {
    let topics = [
        ("http2", include_str!("http2.txt")),
        ("http2-fields", include_str!("http2_fields.txt")),
        ("http2-floods", include_str!("http2_floods.txt")),
    ];
    topics.into_iter().flat_map(|(topic, text)| sequence::read(topic, text)).collect()
}

/// Wrong expectations of a plain request and a reset one, each with what must be found wrong.
pub const WRONG: [(&str, &str); 6] = [
    ("< 200 1\n| GET /a HTTP/1.1\n", "a reset of stream 3"),
    ("< 404 1\n< reset 3 PROTOCOL_ERROR\n", "none of"),
    ("< 200 1\n< reset 3 CANCEL\n", "none of"),
    ("< 200 1\n< reset 3 PROTOCOL_ERROR\n", "the upstream saw GET /victim"),
    ("< 200 1\n| GET /b HTTP/1.1\n< reset 3 PROTOCOL_ERROR\n", "was answered with"),
    ("< 200 1\n| GET /a HTTP/1.1\n| x: y\n< reset 3 PROTOCOL_ERROR\n", "and not"),
];

/// What [`WRONG`] is expected of: a request, and one that lacks its method.
pub const OF_WRONG: &str = "== wrong\n# a test of the tests\n\
    ^ HEADERS 1 end_stream end_headers\n% GET /a\n~ 1\n\
    ^ HEADERS 3 end_stream end_headers\n: :scheme http\n: :path /a\n";
