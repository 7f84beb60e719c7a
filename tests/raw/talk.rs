//! A client of HTTP/2 that sends what it is told, and writes down what it hears.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::frames::{self, Frame, Kind, PREFACE};
use super::sequence::{Expected, Word, plain};

/// Longer than a loaded machine needs for anything here.
const PATIENCE: Duration = Duration::from_secs(20);
/// A node that is slow to take what comes is not a node that hangs.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at what came.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;

/// What was heard so far.
#[derive(Debug, Default)]
pub struct Heard {
    pub answers: BTreeMap<u32, Answer>,
    pub resets: Vec<(u32, u32)>,
    pub goaways: Vec<u32>,
    /// A status of HTTP/1.1.
    pub plain: Option<u16>,
    pub closed: bool,
    has_settings: bool,
}

#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub ended: bool,
}

impl Heard {
    /// The one of the words that was heard.
    pub fn find<'a>(&self, expected: &'a Expected) -> Option<&'a Word> {
        expected.words.iter().find(|word| match word {
            Word::Status { status, stream } => {
                self.answers.get(stream).is_some_and(|it| it.ended && it.status == *status)
            }
            Word::Reset { stream, codes } => {
                self.resets.iter().any(|(of, code)| of == stream && codes.contains(code))
            }
            Word::GoAway { codes } => self.goaways.iter().any(|code| codes.contains(code)),
            Word::Plain { status } => self.plain == Some(*status),
            Word::Close => self.closed,
            Word::Alive => !self.closed,
        })
    }

    /// What was heard of streams below `next`, or of the connection, and stands nowhere.
    pub fn unexpected(&self, expected: &[Expected], next: u32) -> Vec<String> {
        let words: Vec<&Word> = expected.iter().flat_map(|it| &it.words).collect();
        let mut found = Vec::new();
        for (stream, answer) in self.answers.range(..next) {
            let is_of_a_flood =
                answer.status == 200 && answer.body.windows(7).any(|window| window == b" /flood");
            let known = |word: &&Word| matches!(word, Word::Status { status, stream: of } if (*status, of) == (answer.status, stream));
            if !is_of_a_flood && !words.iter().any(known) {
                found.push(format!("{} on stream {stream}: {}", answer.status, answer.body.escape_ascii()));
            }
        }
        for (stream, code) in &self.resets {
            // Whoever has answered need not hear the rest.
            let is_over = *code == 0 && self.answers.get(stream).is_some_and(|answer| answer.ended);
            let known = |word: &&Word| matches!(word, Word::Reset { stream: of, codes } if of == stream && codes.contains(code));
            if !is_over && !words.iter().any(known) {
                found.push(format!("a reset of stream {stream} with code {code}"));
            }
        }
        for code in &self.goaways {
            let known = |word: &&Word| matches!(word, Word::GoAway { codes } if codes.contains(code));
            if !words.iter().any(known) {
                found.push(format!("GOAWAY with code {code}"));
            }
        }
        found
    }
}

pub struct Talk {
    stream: TcpStream,
    /// So many bytes are sent at a time, a segment each.
    piece: usize,
    got: Vec<u8>,
    /// Acknowledgements, for which there is no room within a frame.
    owed: Vec<u8>,
    pub heard: Heard,
}

impl Talk {
    /// Says nothing.
    pub fn bare(to: SocketAddr, piece: usize) -> Self {
        let stream = TcpStream::connect(to).expect("the node listens");
        stream.set_read_timeout(Some(LOOK_EVERY)).expect("it can be set");
        stream.set_write_timeout(Some(WRITE_PATIENCE)).expect("it can be set");
        stream.set_nodelay(true).expect("it can be set");
        Self { stream, piece, got: Vec::new(), owed: Vec::new(), heard: Heard::default() }
    }

    /// Says the preface and SETTINGS, which forbid tables, so that a status needs no memory to be read.
    pub fn begun(to: SocketAddr, piece: usize) -> Self {
        let mut talk = Self::bare(to, piece);
        let settings = Frame::settings(&[(SETTINGS_HEADER_TABLE_SIZE, 0)]).bytes();
        talk.send(&[PREFACE.as_slice(), &settings].concat());
        talk.listen(|heard| heard.has_settings);
        talk
    }

    /// Hears meanwhile, for a node that cannot speak does not listen. One that has closed may not take all of it.
    pub fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
            if bytes.len() > piece.len() {
                self.stream.set_nonblocking(true).expect("it can be set");
                while self.read() {}
                self.stream.set_nonblocking(false).expect("it can be set");
                self.write_down();
            }
        }
    }

    pub fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Until enough was heard, the connection ended, or patience has run out.
    pub fn listen(&mut self, enough: impl Fn(&Heard) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.write_down();
            // A node that has closed does not take them.
            let _ = self.stream.write_all(&std::mem::take(&mut self.owed));
            if enough(&self.heard) || self.heard.closed || Instant::now() >= until {
                return;
            }
            self.read();
        }
    }

    /// Asks for a path on a stream of its own, and waits for the answer.
    pub fn ask(&mut self, stream: u32, path: &str) -> Option<&Answer> {
        let flags = frames::END_STREAM | frames::END_HEADERS;
        self.send(&Frame::new(Kind::Headers, flags, stream, plain("GET", path.as_bytes())).bytes());
        let is_over =
            |heard: &Heard, stream| heard.answers.get(&stream).is_some_and(|answer: &Answer| answer.ended);
        self.listen(|heard| is_over(heard, stream) || heard.resets.iter().any(|(of, _)| *of == stream));
        self.heard.answers.get(&stream)
    }

    /// Whether something came.
    fn read(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => self.heard.closed = true,
            Ok(read) => {
                self.got.extend_from_slice(&piece[..read]);
                return true;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.heard.closed = true,
        }
        false
    }

    fn write_down(&mut self) {
        if let Some(answer) = self.got.strip_prefix(b"HTTP/1.1 ") {
            let digits = answer.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
            self.heard.plain = digits.and_then(|digits| digits.parse().ok());
            return;
        }
        let mut used = 0;
        while let Some((frame, length)) = Frame::read(&self.got[used..]) {
            used += length;
            let word = |at: usize| frame.payload.get(at..at + 4).and_then(|it| it.try_into().ok());
            let word = |at| word(at).map_or(u32::MAX, u32::from_be_bytes);
            let ends = frame.flags & frames::END_STREAM != 0;
            match frame.kind {
                Kind::Headers => {
                    let answer = self.heard.answers.entry(frame.stream).or_default();
                    answer.status = frames::status(&frame.payload).unwrap_or_default();
                    answer.ended = ends;
                }
                Kind::Data => {
                    let answer = self.heard.answers.entry(frame.stream).or_default();
                    answer.body.extend_from_slice(&frame.payload);
                    answer.ended = ends;
                }
                Kind::ResetStream => self.heard.resets.push((frame.stream, word(0))),
                Kind::GoAway => self.heard.goaways.push(word(4)),
                Kind::Settings | Kind::Ping if frame.flags & frames::ACK == 0 => {
                    self.heard.has_settings |= frame.kind == Kind::Settings;
                    let payload = if frame.kind == Kind::Ping { frame.payload } else { Vec::new() };
                    self.owed.extend(Frame::new(frame.kind, frames::ACK, 0, payload).bytes());
                }
                _ => {}
            }
        }
        self.got.drain(..used);
    }
}
