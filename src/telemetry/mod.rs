//! Answered in, figures out: one recorder a data-plane thread, merged when somebody reads.
//!
//! A recorder's lock is taken by its own thread for each answer and by a reader now and then, so it is practically never
//! contended.

pub mod callers;
mod recorder;
mod render;

use std::collections::BTreeMap;
use std::sync::Arc;

use config::ids::{RouteName, VersionName};
use parking_lot::Mutex;

use callers::Callers;
use recorder::Tally;
pub use recorder::{Answer, Recorder};

/// All recorders of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    recorders: Arc<Mutex<Vec<Arc<Recorder>>>>,
}

/// What `/v1/status` and `demo` show of this node's traffic, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Requests whose head was complete.
    pub received: u64,
    /// Answers with a status of 200 to 299.
    pub answered_2xx: u64,
    /// 300 to 399.
    pub answered_3xx: u64,
    /// 400 to 499.
    pub answered_4xx: u64,
    /// 500 to 599.
    pub answered_5xx: u64,
    /// Requests that were debited, and sent on (or tried to be) or answered by their route.
    pub admitted: u64,
    /// Answers 429.
    pub refused_over_quota: u64,
    /// Answers 503, because no leader could decide.
    pub undecided: u64,
    /// Answers 502 and 504 of ours.
    pub upstream_failed: u64,
    /// Open client connections.
    pub connections: u64,
}

impl Telemetry {
    /// No recorder yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a recorder, for one data-plane thread; it keeps it over restarts of its actors.
    pub fn recorder(&self) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder::new());
        self.recorders.lock().push(recorder.clone());
        recorder
    }

    /// The sum over all recorders.
    pub fn summary(&self) -> Summary {
        self.tally().summary()
    }

    /// All figures in Prometheus' text format, version 0.0.4.
    pub fn render_prometheus(&self) -> String {
        render::prometheus(&self.tally())
    }

    /// Who calls which version of which route.
    pub fn callers(&self) -> BTreeMap<(RouteName, VersionName), Callers> {
        self.tally().callers
    }

    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for recorder in self.recorders.lock().iter() {
            recorder.add_to(&mut sum);
        }
        sum
    }
}
