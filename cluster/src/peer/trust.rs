//! How long one connection's far end is believed. No sockets; time comes as an argument.
//!
//! Whoever was let in is judged again every [`JUDGE_EVERY`] by the files and the hour of then, so that an expired
//! certificate, or one of a CA that was replaced, does not live as long as a connection happens to. After a change of this
//! node's files it is judged [`JUDGE_EVERY`] later, when the peer has had the time to load its own new files and to make
//! its connections anew.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::tls::{Certified, Tls, TlsError};

/// Between two judgements, and from a change of the files to the next one.
pub const JUDGE_EVERY: Duration = Duration::from_secs(30);

/// The far end of one connection.
pub(super) struct Trust {
    files: watch::Receiver<Tls>,
    certified: Certified,
    judge_at: Instant,
    /// When it was seen that other files are in force than those the connection was made with.
    changed_at: Option<Instant>,
}

impl Trust {
    /// Of a connection that was secured just now; `files` has seen those that it was secured with.
    pub(super) fn new(files: watch::Receiver<Tls>, certified: Certified, now: Instant) -> Self {
        Self { files, certified, judge_at: now + JUDGE_EVERY, changed_at: None }
    }

    /// To be asked now and then.
    ///
    /// # Errors
    /// Why the far end is not believed any more.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), TlsError> {
        // An error means that nothing changes the files any more.
        if self.files.has_changed().unwrap_or(false) {
            self.files.mark_unchanged();
            self.changed_at.get_or_insert(now);
            self.judge_at = now + JUDGE_EVERY;
        }
        if now < self.judge_at {
            return Ok(());
        }
        self.judge_at = now + JUDGE_EVERY;
        self.files.borrow().judge(&self.certified)
    }

    /// When other files came into force than those this connection was made with; none: they are the same.
    pub(super) fn changed_at(&self) -> Option<Instant> {
        self.changed_at
    }
}
