//! A client that sends what it is told, and reads answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than a loaded machine needs for anything here.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Client {
    stream: TcpStream,
    got: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Client {
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the node listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
        stream.set_nodelay(true).expect("it can be set");
        Self { stream, got: Vec::new() }
    }

    /// A node that has refused already may not take all of it.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Each piece is a segment of its own.
    pub fn send_in_pieces(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.send(piece);
        }
    }

    pub fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next answer; none: the connection ended before one.
    pub fn answer(&mut self, without_body: bool) -> Option<Answer> {
        let end = loop {
            match self.got.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.read() => {}
                None => return None,
            }
        };
        let head = String::from_utf8(self.got.drain(..end).collect()).expect("heads of ours are ASCII");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length =
            if without_body || status < 200 { 0 } else { length.map_or(0, |it| it.parse().expect("digits")) };
        while self.got.len() < length && self.read() {}
        let body = self.got.drain(..length.min(self.got.len())).collect();
        Some(Answer { status, body })
    }

    /// What came behind the last answer, until the node closed; none: it did not.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Some(std::mem::take(&mut self.got)),
                Ok(read) => self.got.extend_from_slice(&piece[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return None;
                }
                Err(_) => return Some(std::mem::take(&mut self.got)),
            }
        }
    }

    /// Whether more came.
    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        let read = self.stream.read(&mut piece).unwrap_or(0);
        self.got.extend_from_slice(&piece[..read]);
        read > 0
    }
}
