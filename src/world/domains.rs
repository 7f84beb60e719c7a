//! Threads of the kernel, each with a runtime of its own.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use cluster::fatal::panic_text;
use cluster::world::{BoxFuture, Domains};
use tokio::sync::oneshot;

/// How long blocking work may go on after its domain has ended.
const BLOCKING_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Threads for blocking work of one domain.
const BLOCKING_MAX: usize = 16;

pub(super) struct Threads;

impl Domains for Threads {
    fn spawn(&self, name: &str, main: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> {
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let ended = std::panic::catch_unwind(AssertUnwindSafe(|| live(main)));
            // Nobody may be waiting for the end.
            let _ = tell.send(ended.unwrap_or_else(|panic| Err(panic_text(&*panic))));
        });
        let name = name.to_owned();
        Box::pin(async move {
            match thread {
                Ok(_) => told.await.unwrap_or_else(|_| Err(format!("thread {name} ended without a word"))),
                Err(error) => Err(format!("starting thread {name}: {error}")),
            }
        })
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        #[expect(clippy::disallowed_methods, reason = "this is what World.domains.blocking is")]
        let task = tokio::task::spawn_blocking(work);
        Box::pin(async move {
            if let Err(error) = task.await
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        })
    }

    fn parallelism(&self) -> u16 {
        std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX))
    }
}

fn live(main: BoxFuture<'static, ()>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_MAX)
        .build()
        .map_err(|error| format!("starting a runtime: {error}"))?;
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(main)));
    runtime.shutdown_timeout(BLOCKING_ENDS_WITHIN);
    ended.map_err(|panic| panic_text(&*panic))
}
