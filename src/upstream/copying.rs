//! A copy of a body, taken while it goes by. Pure, but for the word at its end.
//!
//! Bytes are copied, not shared: a shared piece would keep the whole buffer that it was read into, and no bound would hold.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What was copied of a body so far.
#[derive(Debug)]
pub struct Copying {
    bytes_max: u64,
    /// None: the body is longer than the bound, or nobody waits for its copy any more.
    kept: Option<Kept>,
}

/// Bytes, and what they count against.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    done: oneshot::Sender<Copied>,
    /// Shared with whoever waits, who may give up while the body stands still: its place is free once the bytes are.
    _permit: Arc<OwnedSemaphorePermit>,
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
    /// Copies up to `bytes_max`, as long as somebody waits for it.
    pub fn new(bytes_max: u64, permit: Arc<OwnedSemaphorePermit>) -> (Self, oneshot::Receiver<Copied>) {
        let (done, coming) = oneshot::channel();
        (Self { bytes_max, kept: Some(Kept { bytes: Vec::new(), done, _permit: permit }) }, coming)
    }

    /// The next piece; none: it holds no data.
    pub fn see(&mut self, data: Option<&Bytes>) {
        let Some(mut kept) = self.kept.take().filter(|kept| !kept.done.is_closed()) else { return };
        let data: &[u8] = data.map_or(&[], |data| &data[..]);
        if kept.bytes.len() as u64 + data.len() as u64 <= self.bytes_max {
            kept.bytes.extend_from_slice(data);
            self.kept = Some(kept);
        } else {
            kept.say(|_| Copied::TooLarge);
        }
    }

    /// That was all of it.
    pub fn end(self) {
        if let Some(kept) = self.kept {
            kept.say(|bytes| Copied::Whole(bytes.into()));
        }
    }
}

impl Kept {
    fn say(self, what: impl FnOnce(Vec<u8>) -> Copied) {
        // The copy's time may be over; then nobody waits for it.
        let _ = self.done.send(what(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn permit(free: &Arc<Semaphore>) -> Arc<OwnedSemaphorePermit> {
        Arc::new(Arc::clone(free).try_acquire_owned().expect("one is free"))
    }

    fn copying(bytes_max: u64) -> (Copying, oneshot::Receiver<Copied>) {
        Copying::new(bytes_max, permit(&Arc::new(Semaphore::new(1))))
    }

    fn copied(bytes_max: u64, pieces: &[&'static [u8]]) -> Option<Copied> {
        let (mut copying, mut coming) = copying(bytes_max);
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
        let (mut copying, mut coming) = copying(10);
        copying.see(Some(&Bytes::from_static(b"ab")));
        drop(copying);
        assert_eq!(coming.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn a_copy_that_nobody_waits_for_is_let_go_and_its_place_with_it() {
        // given a copy whose waiter gave up
        let free = Arc::new(Semaphore::new(1));
        let (mut copying, coming) = Copying::new(10, permit(&free));
        copying.see(Some(&Bytes::from_static(b"ab")));
        drop(coming);
        // then its bytes count until the body goes on, and none is kept from then on
        assert_eq!(free.available_permits(), 0);
        copying.see(Some(&Bytes::from_static(b"c")));
        assert_eq!(free.available_permits(), 1);
        assert!(copying.kept.is_none());
    }
}
