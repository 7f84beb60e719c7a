//! The places of TLS handshakes that are under way. Pure but for a lock and a bell.
//!
//! A place is for a client whose whole hello has come; whoever says nothing takes none. Clients that say nothing more after
//! their hello could still fill all places, so one that was held for [`HELD_MIN`] goes to whoever finds none free, the
//! longest held first: by then a client that means it has answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

/// For so long nobody loses a place: several round trips around the world, and the time that this machine needs for many
/// others' signatures.
pub(super) const HELD_MIN: Duration = Duration::from_secs(1);

/// All places of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    held: Mutex<Held>,
    given_back: Notify,
}

#[derive(Debug, Default)]
struct Held {
    /// By age; a place is lost when its sender goes.
    by_age: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
    next: u64,
}

impl Held {
    /// Of at most `max`. The error says when the longest held may be taken.
    fn take(&mut self, max: usize, now: Instant) -> Result<(u64, oneshot::Receiver<()>), Instant> {
        let longest = self.by_age.first_key_value().map(|(_, (since, _))| *since);
        if let Some(since) = longest.filter(|_| self.by_age.len() >= max) {
            let due = since + HELD_MIN;
            if now < due {
                return Err(due);
            }
            self.by_age.pop_first();
        }
        let (keep, lost) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.by_age.insert(number, (now, keep));
        Ok((number, lost))
    }
}

/// A handshake's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Places {
    /// `max`, 1 or more.
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max, held: Mutex::default(), given_back: Notify::new() }))
    }

    /// A place: a free one, or one that was held for long. Else it waits for either; the caller has a deadline.
    pub(super) async fn take(&self) -> Place {
        loop {
            let mut given_back = std::pin::pin!(self.0.given_back.notified());
            given_back.as_mut().enable();
            let taken = self.0.held.lock().take(self.0.max, Instant::now());
            match taken {
                Ok((number, lost)) => return Place { places: self.clone(), number, lost },
                Err(due) => tokio::select! {
                    biased;
                    () = given_back => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }
}

impl Place {
    /// Yields when another has taken the place.
    pub(super) async fn lost(&mut self) {
        // Nothing is ever sent: the sender's end is the message.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.places.0.held.lock().by_age.remove(&self.number).is_some() {
            self.places.0.given_back.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_place_waits_for_one_that_is_given_back_or_was_held_for_long() {
        // given two places, taken one after the other
        let places = Places::new(2);
        let mut first = places.take().await;
        sleep(Duration::from_millis(100)).await;
        let mut second = places.take().await;
        let lost = |place: &mut Place| place.lost().now_or_never().is_some();
        // when a third client comes, then it waits until the first one has held its place for long
        let begin = Instant::now();
        let third = places.take().await;
        assert_eq!(begin.elapsed(), HELD_MIN - Duration::from_millis(100));
        assert!(lost(&mut first) && !lost(&mut second));
        // and what was lost is not given back once more
        drop(first);
        assert!(places.take().now_or_never().is_none());
        // when one is given back, then it is taken at once
        let begin = Instant::now();
        let give_back = async {
            sleep(Duration::from_millis(10)).await;
            drop(third);
        };
        let (fourth, ()) = tokio::join!(places.take(), give_back);
        assert!(begin.elapsed() < Duration::from_millis(20) && !lost(&mut second));
        drop((second, fourth));
        assert!(places.0.held.lock().by_age.is_empty());
    }
}
