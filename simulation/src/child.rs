//! Runs plans in processes of their own: task ids and actor ids are counted per process, and decide what comes first.
//!
//! Such a process is this same program, whichever links this crate, the command line's or a test's: [`BEFORE_MAIN`] runs
//! before its `main`, and where the environment says so, that is all that runs.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::plan::Plan;
use crate::run::{Broken, Files, Report};
use crate::witness::Counts;

/// Runs a plan in a process of its own.
///
/// # Errors
/// If no process can be started, or it cannot read its plan, or write its files. A process that dies is a report of a
/// broken promise.
pub fn run(plan: &Plan, files: &Files) -> io::Result<Report> {
    run_by(&std::env::current_exe()?, plan, files)
}

/// The same, by another simulator's binary.
///
/// # Errors
/// As [`run`].
pub fn run_by(program: &Path, plan: &Plan, files: &Files) -> io::Result<Report> {
    // Or a linker might leave it out.
    std::hint::black_box(&BEFORE_MAIN);
    let mut child = Command::new(program);
    child.env(IS_CHILD, serde_json::to_string(files).map_err(io::Error::other)?);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn()?;
    let mut stdin = child.stdin.take().expect("it was piped");
    // A process that died without reading its plan says why on its standard error.
    let _ = io::Write::write_all(&mut stdin, plan.text().as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    match serde_json::from_slice::<Result<Report, String>>(&output.stdout) {
        Ok(ran) => ran.map_err(io::Error::other),
        Err(_) => Ok(died(plan, &String::from_utf8_lossy(&output.stderr), &output.status.to_string())),
    }
}

/// Runs plans, several at once; their reports in the same order.
///
/// # Errors
/// As [`run`].
pub fn run_all<'p>(
    plans: impl Iterator<Item = &'p Plan>,
    jobs: usize,
    files: &Files,
) -> io::Result<Vec<Report>> {
    let plans: Vec<&Plan> = plans.collect();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let work = || -> io::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(plan) = plans.get(number) else { return Ok(()) };
                let report = run(plan, files)?;
                reports.lock().expect("no panic happens while reports are locked").insert(number, report);
            }
        };
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let reports = reports.into_inner().expect("no panic happened while reports were locked");
    Ok(reports.into_values().collect())
}

/// Ends the process when simulated time stands still: somewhere a node goes round without waiting for anything.
fn watch() {
    let mut seen = 0;
    loop {
        std::thread::sleep(STANDS_STILL);
        let now = STEPS.load(Ordering::Relaxed);
        if now == seen && now > 0 {
            eprintln!(
                "simulated time stood still at {now} ms for {STANDS_STILL:?}: a loop that waits for nothing"
            );
            std::process::exit(3);
        }
        seen = now;
    }
}

/// Milliseconds that this process has simulated.
pub static STEPS: AtomicU64 = AtomicU64::new(0);
/// A millisecond takes some microseconds.
const STANDS_STILL: Duration = Duration::from_secs(20);

fn died(plan: &Plan, said: &str, status: &str) -> Report {
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].iter().map(|line| (*line).to_owned()).collect();
    Report {
        seed: plan.seed,
        history: String::new(),
        lines: 0,
        simulated_ms: 0,
        counts: Counts::new(),
        expected: Vec::new(),
        missed: Vec::new(),
        broken: Some(Broken {
            promise: "lives".to_owned(),
            how: format!("the process ended: {status}"),
            at_ms: 0,
            last,
        }),
    }
}

/// Tells a process that it is to run one plan, and where it writes, as JSON.
const IS_CHILD: &str = "QUORUMGATE_SIMULATION_RUN";

/// The loader calls what stands in this section before `main`.
#[used]
// SAFETY: the section holds pointers to functions of the C calling convention; this is one.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let Ok(files) = std::env::var(IS_CHILD) else { return };
    let ran = serde_json::from_str(&files).map_err(|error| error.to_string()).and_then(be_one);
    println!("{}", serde_json::to_string(&ran).expect("a report is plain data"));
    std::process::exit(0);
}

/// Does the child's part: reads a plan, and runs it.
///
/// # Errors
/// If the plan cannot be read, or a file not be written.
#[expect(clippy::disallowed_methods, reason = "the simulation is what runs on this thread, not a node")]
fn be_one(files: Files) -> Result<Report, String> {
    let text = io::read_to_string(io::stdin()).map_err(|error| error.to_string())?;
    let plan = Plan::parse(&text)?;
    std::thread::spawn(watch);
    // A fresh thread: hash keys and random generators are cached per thread, and must be made under the shim.
    let ran = std::thread::spawn(move || crate::run::run(&plan, &files)).join();
    // A panic was said on the standard error; then the process ends as one that died.
    ran.unwrap_or_else(|_| std::process::abort())
}
