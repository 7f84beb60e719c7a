//! An upstream that writes down every byte, and answers each message with its request line.
#![allow(clippy::disallowed_methods)] // It stands outside the product: an upstream of a test's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::message::{self, Message, Reading};

/// Longer than a node keeps a message that does not go on, on a machine that stands still now and then.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, complete.
    Whole(Message),
    /// A connection ended within a message.
    Cut(Option<Message>),
    /// Bytes that are no message.
    Odd { why: &'static str, bytes: Vec<u8> },
}

#[derive(Default)]
struct Book {
    events: Vec<Event>,
    /// Connections within a message.
    unfinished: usize,
}

#[derive(Clone, Default)]
pub struct Recorder(Arc<(Mutex<Book>, Condvar)>);

impl Recorder {
    /// Listens; for the process's lifetime.
    pub fn start() -> (Self, SocketAddr) {
        let recorder = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let book = recorder.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let book = book.clone();
                std::thread::spawn(move || book.serve(stream));
            }
        });
        (recorder, address)
    }

    /// What happened since the last call, once no connection is within a message any more.
    pub fn take(&self) -> Vec<Event> {
        let (book, changed) = &*self.0;
        let until = Instant::now() + PATIENCE;
        let mut book = book.lock().expect("no panic");
        while book.unfinished > 0 && Instant::now() < until {
            book = changed.wait_timeout(book, Duration::from_millis(100)).expect("no panic").0;
        }
        assert_eq!(book.unfinished, 0, "a message at the upstream never ends");
        std::mem::take(&mut book.events)
    }

    fn write(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.0.0.lock().expect("no panic"));
        self.0.1.notify_all();
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            let read = stream.read(&mut piece).unwrap_or(0);
            if read == 0 {
                break;
            }
            let began = bytes.is_empty();
            bytes.extend_from_slice(&piece[..read]);
            if began {
                self.write(|book| book.unfinished += 1);
            }
            while !bytes.is_empty() {
                match message::read(&bytes) {
                    Reading::Part(_) => break,
                    Reading::Whole(message, used) => {
                        bytes.drain(..used);
                        let answer = answer(&message);
                        let rest = bytes.is_empty();
                        self.write(|book| {
                            book.events.push(Event::Whole(message));
                            book.unfinished -= usize::from(rest);
                        });
                        if stream.write_all(&answer).is_err() {
                            break;
                        }
                    }
                    Reading::Odd(why) => {
                        return self.write(|book| {
                            book.events.push(Event::Odd { why, bytes });
                            book.unfinished -= 1;
                        });
                    }
                }
            }
        }
        if !bytes.is_empty() {
            let Reading::Part(part) = message::read(&bytes) else { unreachable!("else it was taken") };
            self.write(|book| {
                book.events.push(Event::Cut(part));
                book.unfinished -= 1;
            });
        }
    }
}

/// Tells which message it answers.
fn answer(message: &Message) -> Vec<u8> {
    let seen = [b"seen ", message.line.as_slice()].concat();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", seen.len());
    let body = if message.line.starts_with(b"HEAD ") { &[][..] } else { &seen };
    [head.as_bytes(), body].concat()
}
