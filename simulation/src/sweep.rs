//! Many seeds, several at a time, until one breaks a promise; then the table of what they covered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::child;
use crate::plan::Plan;
use crate::run::{Files, Report};
use crate::witness::Counts;

/// What a sweep runs.
pub struct Sweep {
    /// Its seeds.
    pub seeds: Range<u64>,
    /// At once.
    pub jobs: usize,
    /// The simulator that runs them.
    pub program: PathBuf,
    /// From a seed to its plan, or to what is wrong with it.
    pub plan: Box<dyn Fn(u64) -> Result<Plan, String> + Sync>,
}

/// What it came to.
pub struct Swept {
    /// The seeds that ran to their end.
    pub ran: BTreeSet<u64>,
    /// Sums.
    pub counts: Counts,
    /// In how many seeds each was counted at all.
    pub seeds: BTreeMap<String, u64>,
    /// Those that broke a promise, the worst first: what is merely unexpected comes last, else the smallest seed first.
    /// More than one if several ran at the same time.
    pub broken: Vec<Report>,
    /// The seed for which there is no plan, and why.
    pub mistake: Option<(u64, String)>,
    /// Simulated milliseconds in all.
    pub simulated_ms: u64,
    /// Real seconds.
    pub took_s: f64,
}

impl Sweep {
    /// Runs all seeds, or until one breaks a promise.
    ///
    /// # Errors
    /// If no process can be started.
    pub fn run(&self) -> std::io::Result<Swept> {
        let (next, stop) = (AtomicU64::new(self.seeds.start), AtomicBool::new(false));
        let begun = Instant::now();
        let swept = Mutex::new(Swept {
            ran: BTreeSet::new(),
            counts: Counts::new(),
            seeds: BTreeMap::new(),
            broken: Vec::new(),
            mistake: None,
            simulated_ms: 0,
            took_s: 0.0,
        });
        std::thread::scope(|scope| {
            let work = || -> std::io::Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !self.seeds.contains(&seed) {
                        return Ok(());
                    }
                    let plan = match (self.plan)(seed) {
                        Ok(plan) => plan,
                        Err(mistake) => {
                            stop.store(true, Ordering::Relaxed);
                            swept.lock().expect("no panic happens while sums are locked").mistake =
                                Some((seed, mistake));
                            return Ok(());
                        }
                    };
                    let report = child::run_by(&self.program, &plan, &Files::default())?;
                    let mut swept = swept.lock().expect("no panic happens while sums are locked");
                    if report.broken.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    swept.add(report);
                    self.show(swept.ran.len() as u64, begun);
                }
                Ok(())
            };
            let workers: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })?;
        let mut swept = swept.into_inner().expect("no panic happened while sums were locked");
        swept.took_s = begun.elapsed().as_secs_f64();
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        Ok(swept)
    }

    /// One line, again and again, for who looks; every hundredth seed for a log.
    fn show(&self, ran: u64, begun: Instant) {
        let all = self.seeds.end - self.seeds.start;
        let a_minute = ran as f64 * 60.0 / begun.elapsed().as_secs_f64().max(0.001);
        if std::io::stderr().is_terminal() {
            let full = usize::try_from(ran * 30 / all.max(1)).unwrap_or(30);
            eprint!("\r[{:<30}] {ran} of {all}, {a_minute:.0} seeds a minute", "#".repeat(full));
            // A bar that is not shown is no reason to stop.
            let _ = std::io::stderr().flush();
        } else if ran.is_multiple_of(100) {
            eprintln!("{ran} of {all}, {a_minute:.0} seeds a minute");
        }
    }
}

impl Swept {
    fn add(&mut self, report: Report) {
        self.ran.insert(report.seed);
        self.simulated_ms += report.simulated_ms;
        for (what, count) in &report.counts {
            *self.counts.entry(what.clone()).or_default() += count;
            *self.seeds.entry(what.clone()).or_default() += 1;
        }
        if report.broken.is_some() {
            self.broken.push(report);
            self.broken.sort_by_key(|report| (report.is_unexpected(), report.seed));
        }
    }

    /// What was expected to happen and never did.
    pub fn missing<'a>(&self, expected: &[&'a str]) -> Vec<&'a str> {
        expected
            .iter()
            .copied()
            .filter(|what| self.counts.get(*what).is_none_or(|count| *count == 0))
            .collect()
    }

    /// The table of what was covered.
    pub fn table(&self) -> String {
        let mut text = format!("{:<44} {:>12} {:>8}\n", "what happened", "times", "seeds");
        for (what, count) in &self.counts {
            text += &format!("{what:<44} {count:>12} {:>8}\n", self.seeds[what]);
        }
        text
    }

    /// How fast it went.
    pub fn speed(&self) -> String {
        format!(
            "{} seeds in {:.1} s: {:.0} a minute, {:.0} simulated seconds a second",
            self.ran.len(),
            self.took_s,
            self.ran.len() as f64 * 60.0 / self.took_s.max(0.001),
            self.simulated_ms as f64 / 1e3 / self.took_s.max(0.001)
        )
    }
}

/// What a sweep of all kinds of weather must have met, or it searched less than it says.
pub const COVERAGE: &[&str] = &[
    "trouble: kill",
    "trouble: power-cut",
    "trouble: cut-commit",
    "trouble: all-power",
    "trouble: stop",
    "trouble: pause",
    "trouble: isolate",
    "trouble: deaf",
    "trouble: mute",
    "trouble: part",
    "trouble: black-hole",
    "trouble: slow",
    "trouble: narrow",
    "trouble: reset",
    "trouble: callers-cut-off",
    "trouble: disk-full",
    "trouble: disk-error",
    "trouble: slow-disk",
    "trouble: clock-rate",
    "trouble: wall-jump",
    "trouble: rolling-restart",
    "trouble: upstream",
    "trouble: edition",
    "trouble: join",
    "trouble: leave",
    "trouble: replace",
    "trouble: wipe",
    "members that left",
    "trouble: hot-key",
    "trouble: key-flood",
    "trouble: clock-runaway",
    "trouble: crash-loop",
    "power cuts soon after a start",
    "power cuts in the middle of a start",
    "admissions judged under clocks beyond their bound",
    "power cuts in the middle of a commit",
    "power cuts with unsynced bytes",
    "writes lost",
    "writes torn",
    "writes without room",
    "disk errors",
    "elections won",
    "snapshots installed",
    "entries compared",
    "nodes started again",
    "processes ended by themselves",
    "documents in force",
    "segments held",
    "segments lost",
    "connections reset",
    "connections refused",
    "requests broken",
    "requests sent to an upstream again",
    "requests without a good token",
    "answers 200",
    "answers 401",
    "answers 429",
    "answers 502",
    "answers 503",
    "answers 504",
    "admissions judged",
    "tokens spent",
    "looks at nodes long after all troubles",
    "sessions registered",
    "leases recalled",
    "changed limits announced",
    "batches timed out",
    "batches refused",
    "answers to void batches",
    "tokens booked as spent with their lease",
    "tokens that died at their deadline",
    "requests undecided",
    "pre-votes refused",
    "votes refused",
    "entries cut off",
    "logs purged",
    "snapshots sent",
];
