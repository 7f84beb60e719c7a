//! A copy of a body, taken while it goes by. Pure, but for the word at its end.
//!
//! Bytes are copied, not shared: a shared piece would keep the whole buffer that it was read into, and no bound would hold.

use bytes::Bytes;
use tokio::sync::oneshot;

/// What was copied of a body so far.
#[derive(Debug)]
pub struct Copying {
    bytes: Vec<u8>,
    bytes_max: u64,
    /// None: the body is longer than the bound, and that was said.
    done: Option<oneshot::Sender<Copied>>,
}

/// What became of a copy. No word at all: the body did not come to its end, or nobody read it so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Copied {
    /// All of it.
    Whole(Bytes),
    /// The body is longer than the bound.
    TooLarge,
}

impl Copying {
    /// Copies up to `bytes_max`.
    pub fn new(bytes_max: u64) -> (Self, oneshot::Receiver<Copied>) {
        let (done, coming) = oneshot::channel();
        (Self { bytes: Vec::new(), bytes_max, done: Some(done) }, coming)
    }

    /// The next piece; none: it holds no data.
    pub fn see(&mut self, data: Option<&Bytes>) {
        let Some(data) = data.filter(|_| self.done.is_some()) else { return };
        if self.bytes.len() as u64 + data.len() as u64 <= self.bytes_max {
            self.bytes.extend_from_slice(data);
        } else {
            self.bytes = Vec::new();
            self.say(Copied::TooLarge);
        }
    }

    /// That was all of it.
    pub fn end(mut self) {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        self.say(Copied::Whole(bytes));
    }

    fn say(&mut self, what: Copied) {
        if let Some(done) = self.done.take() {
            // The copy's time may be over; then nobody waits for it.
            let _ = done.send(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(bytes_max: u64, pieces: &[&'static [u8]]) -> Option<Copied> {
        let (mut copying, mut coming) = Copying::new(bytes_max);
        for piece in pieces {
            copying.see(Some(&Bytes::from_static(piece)));
            copying.see(None);
        }
        copying.end();
        coming.try_recv().ok()
    }

    #[test]
    fn a_body_is_copied_up_to_the_bound_and_no_byte_further() {
        assert_eq!(copied(4, &[b"ab", b"cd"]), Some(Copied::Whole(Bytes::from_static(b"abcd"))));
        assert_eq!(copied(0, &[]), Some(Copied::Whole(Bytes::new())));
        assert_eq!(copied(3, &[b"ab", b"cd"]), Some(Copied::TooLarge));
        assert_eq!(copied(3, &[b"ab", b"cd", b"e"]), Some(Copied::TooLarge));
        assert_eq!(copied(0, &[b"a"]), Some(Copied::TooLarge));
    }

    #[test]
    fn a_body_that_breaks_off_leaves_no_copy() {
        let (mut copying, mut coming) = Copying::new(10);
        copying.see(Some(&Bytes::from_static(b"ab")));
        drop(copying);
        assert_eq!(coming.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
