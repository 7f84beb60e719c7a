//! One run of a plan, in this process: the history's fingerprint, what was counted, and the first broken promise.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::{MS_NS, TrueNs};
use crate::event::Event;
use crate::plan::Plan;
use crate::promise::expected::{Expected, Outcome};
use crate::promise::{self, Promise};
use crate::report::Chronicle;
use crate::town::Town;
use crate::witness::{Counts, Witness};
use crate::{shim, witness};

/// Lines of the history that a report shows.
const LAST: usize = 30;
/// Promises that look at more than single events are asked this often.
const LOOK_EVERY_MS: u64 = 10;

/// Where a run writes besides its report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The history.
    pub trace: Option<PathBuf>,
    /// What the nodes log.
    pub log: Option<PathBuf>,
    /// The page that shows the run.
    pub report: Option<PathBuf>,
}

/// How a run went. As JSON, one line, between processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its plan's.
    pub seed: u64,
    /// The history's fingerprint, in hexadecimal.
    pub history: String,
    /// Its length.
    pub lines: u64,
    /// From the first process to the last caller's end.
    pub simulated_ms: u64,
    /// What was counted.
    pub counts: Counts,
    /// What came of the plan's expectations, and of what it has happen: whoever expects something wants it to.
    pub expected: Vec<Outcome>,
    /// What the plan has happen, and nobody was there for, or nobody would do.
    pub missed: Vec<String>,
    /// None: every promise was kept, and every expectation met.
    pub broken: Option<Broken>,
}

impl Report {
    /// That every promise was kept and every expectation met.
    ///
    /// # Panics
    /// If not, with what was found and what happened before.
    pub fn assert_kept(&self) {
        if let Some(Broken { promise, how, at_ms, last }) = &self.broken {
            let seed = self.seed;
            assert!(!self.is_unexpected(), "seed {seed} did not go as expected: {how}");
            panic!(
                "seed {seed} breaks {promise} at {at_ms} ms: {how}\nwhat happened before:\n  {}",
                last.join("\n  ")
            );
        }
    }

    /// Whether the one thing that is wrong is an expectation of the plan's author.
    pub fn is_unexpected(&self) -> bool {
        self.broken.as_ref().is_some_and(|broken| broken.promise == UNMET)
    }
}

/// The name under which expectations that were not met are reported.
pub const UNMET: &str = "expected";

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which.
    pub promise: String,
    /// How.
    pub how: String,
    /// When, in true time.
    pub at_ms: u64,
    /// What happened before.
    pub last: Vec<String>,
}

/// Runs a plan. Must be called once in a process, on a thread that has run nothing before.
///
/// # Errors
/// If a file cannot be written, with its name.
pub fn run(plan: &Plan, files: &Files) -> Result<Report, String> {
    let wrong = |file: &Path, error: std::io::Error| format!("{}: {error}", file.display());
    shim::activate(plan.seed);
    witness::now_runs(0, 0);
    let hears = Witness::default();
    if let Some(trace) = &files.trace {
        hears.write_to(trace).map_err(|error| wrong(trace, error))?;
    }
    let log = files.log.as_deref();
    let listening = hears.listen(log).map_err(|error| wrong(log.unwrap_or(Path::new("log")), error))?;
    let chronicle = files.report.as_ref().map(|_| Chronicle::new(plan));
    let mut judge = Judge {
        promises: promise::all(plan),
        expected: Expected::new(plan),
        chronicle,
        heard: Vec::new(),
        verdict: None,
    };
    let mut town = Town::new(plan, hears.clone());
    let ran =
        town.run(
            |hears, now| {
                if (now / MS_NS).is_multiple_of(LOOK_EVERY_MS) { judge.hear(hears, now) } else { Ok(()) }
            },
        );
    let now = town.now();
    let _ = judge.hear(&hears, now);
    if let Err(how) = ran {
        judge.found(now, "runs", how);
    }
    let missed = hears.missed();
    let expected = judge.end(now, &missed);
    town.count_what_was_seen();
    for promise in &judge.promises {
        promise.counts().iter().for_each(|(what, count)| hears.count(what, *count));
    }
    // Nodes log while they are torn down.
    drop(town);
    drop(listening);
    let (fingerprint, lines) = hears.fingerprint();
    let broken = judge.verdict.map(|(at, promise, how)| Broken {
        promise,
        how,
        at_ms: at / MS_NS,
        last: last_lines(&judge.heard, at),
    });
    let report = Report {
        seed: plan.seed,
        history: format!("{fingerprint:016x}"),
        lines,
        simulated_ms: now / MS_NS,
        counts: hears.counts(),
        expected,
        missed,
        broken,
    };
    if let (Some(file), Some(chronicle)) = (&files.report, &judge.chronicle) {
        std::fs::write(file, chronicle.page(&report)).map_err(|error| wrong(file, error))?;
    }
    Ok(report)
}

/// What happened until an instant, as far as a report shows it.
fn last_lines(heard: &[(TrueNs, Event)], until: TrueNs) -> Vec<String> {
    let end = heard.partition_point(|(at, _)| *at <= until);
    let line = |(at, event): &(TrueNs, Event)| format!("{:>9.3} s {event:?}", *at as f64 / 1e9);
    heard[end.saturating_sub(LAST)..end].iter().map(line).collect()
}

struct Judge {
    promises: Vec<Box<dyn Promise>>,
    expected: Expected,
    chronicle: Option<Chronicle>,
    heard: Vec<(TrueNs, Event)>,
    verdict: Option<(TrueNs, String, String)>,
}

impl Judge {
    fn hear(&mut self, hears: &Witness, now: TrueNs) -> Result<(), String> {
        for (at, event) in hears.take() {
            if let Some(chronicle) = &mut self.chronicle {
                chronicle.hear(at, &event);
            }
            self.expected.see(at, &event);
            self.heard.push((at, event));
            let (_, event) = self.heard.last().expect("it was heard just now");
            for promise in &mut self.promises {
                if let Err(how) = promise.see(at, event) {
                    let name = promise.name();
                    self.found(now, name, how.clone());
                    return Err(how);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, now: TrueNs, missed: &[String]) -> Vec<Outcome> {
        for index in 0..self.promises.len() {
            // What a broken run left open is no second fault.
            if self.verdict.is_none()
                && let Err(how) = self.promises[index].end()
            {
                let (name, at) = (self.promises[index].name(), self.promises[index].broken_at());
                self.found(at.unwrap_or(now), name, how);
            }
        }
        let outcomes = self.expected.outcomes(missed, self.verdict.is_some());
        let unmet: Vec<String> = outcomes
            .iter()
            .filter(|outcome| !outcome.met)
            .map(|Outcome { expected, found, .. }| format!("{expected}: found {found}"))
            .collect();
        if !unmet.is_empty() {
            self.found(now, UNMET, unmet.join("; "));
        }
        outcomes
    }

    /// Only the first counts: others follow from it.
    fn found(&mut self, now: TrueNs, promise: &str, how: String) {
        self.verdict.get_or_insert((now, promise.to_owned(), how));
    }
}
