//! What ends a node. The first reason stands; whoever runs the node is told, and ends the process with it.
//!
//! After a failed write nobody knows what a disk holds, so nothing here is tried again: the process ends, its supervisor
//! starts it afresh, and what the disk really holds is read.

use std::any::Any;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use futures_util::FutureExt;
use tokio::sync::watch;

/// Why a node can not start, or can not go on: a text for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// Something that the operator gave: a setting, a file, an address. Starting it again as it is does not help.
    #[error("{0}")]
    Setup(String),
    /// The disk failed, is full, or holds something damaged.
    #[error("{0}")]
    Storage(String),
    /// A fault of the program.
    #[error("{0}")]
    Internal(String),
}

/// Rung when the node can not go on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bell {
    why: watch::Sender<Option<Fatal>>,
    data: PathBuf,
}

impl Bell {
    /// A bell for the node whose data directory is `data`, and where it is heard.
    pub fn new(data: PathBuf) -> (Self, watch::Receiver<Option<Fatal>>) {
        let (why, heard) = watch::channel(None);
        (Self { why, data }, heard)
    }

    /// Ends the node. Only the first reason counts: others follow from it.
    pub fn ring(&self, fatal: Fatal) {
        self.why.send_if_modified(|why| {
            let first = why.is_none();
            if first {
                tracing::error!(why = %fatal, "this node can not go on");
                *why = Some(fatal);
            }
            first
        });
    }

    /// What to say of a disk that failed while it was used for `what`.
    pub fn storage(&self, what: &str, error: &io::Error) -> Fatal {
        let (data, advice) = (self.data.display(), advice(error.kind()));
        Fatal::Storage(format!("data directory {data}: {what}: {error}; {advice}"))
    }

    /// A task that the node cannot do without: its panic ends the node, which else would look alive and be half dead.
    pub fn guard<F: Future<Output = ()> + Send>(
        &self,
        what: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let bell = self.clone();
        async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                bell.ring(Fatal::Internal(format!("{what} panicked: {}", panic_text(&*panic))));
            }
        }
    }
}

impl Bell {
    /// Work whose caller would not notice a panic, and wait for ever: it becomes an error, and ends the node.
    pub async fn caught<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = io::Result<T>> + Send,
    ) -> io::Result<T> {
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
            let text = format!("{what} panicked: {}", panic_text(&*panic));
            self.ring(Fatal::Internal(text.clone()));
            Err(io::Error::other(text))
        })
    }
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room for it, then start this node again: it goes on where it was"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let this process write there, then start this node again: it goes on where it was"
        }
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            "what lies there is damaged: move the directory aside and start this node with an empty one; it joins anew \
             as long as a majority of the others runs"
        }
        _ => {
            "look at the kernel's log; if the disk is good, start this node again: it goes on where it was; if it is not, \
             start this node with an empty directory on another disk: it joins anew as long as a majority of the others \
             runs"
        }
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands_and_says_where_what_and_what_to_do() {
        // given a node on a full disk
        let (bell, heard) = Bell::new("/var/lib/gate".into());
        // when its log cannot be written, and the consensus core ends because of that
        bell.ring(bell.storage("writing the log", &ErrorKind::StorageFull.into()));
        bell.ring(Fatal::Internal("the consensus core has ended".to_owned()));
        // then the disk is what the operator hears of
        let why = heard.borrow().clone().expect("it rang");
        assert!(matches!(why, Fatal::Storage(_)), "{why:?}");
        for part in ["/var/lib/gate", "writing the log", "no storage space", "make room"] {
            assert!(why.to_string().contains(part), "{part} in {why}");
        }
    }

    #[tokio::test]
    async fn a_guarded_task_that_panics_rings() {
        // given a task that nobody waits for
        let (bell, mut heard) = Bell::new("/data".into());
        // when it panics
        tokio::spawn(bell.guard("the slot", async { panic!("at the disco") }));
        // then the node is told
        let why = heard.wait_for(Option::is_some).await.expect("the bell is kept").clone();
        assert_eq!(why, Some(Fatal::Internal("the slot panicked: at the disco".to_owned())));
    }
}
