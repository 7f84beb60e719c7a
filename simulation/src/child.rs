//! Runs plans in processes of their own: task ids and actor ids are counted per process, and decide what comes first.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::plan::Plan;
use crate::run::{Broken, Files, Report};
use crate::witness::Counts;

/// Runs a plan in a process of its own.
///
/// # Errors
/// If no process can be started. A process that dies is a report of a broken promise.
pub fn run(plan: &Plan, files: &Files) -> io::Result<Report> {
    run_by(&std::env::current_exe()?, plan, files)
}

/// The same, by another simulator's binary.
///
/// # Errors
/// As [`run`].
pub fn run_by(program: &Path, plan: &Plan, files: &Files) -> io::Result<Report> {
    let mut child = Command::new(program);
    child.arg("child").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (flag, file) in [("--trace", &files.trace), ("--log", &files.log), ("--report", &files.report)] {
        if let Some(file) = file {
            child.arg(flag).arg(file);
        }
    }
    let mut child = child.spawn()?;
    let mut stdin = child.stdin.take().expect("it was piped");
    // A process that died without reading its plan says why on its standard error.
    let _ = io::Write::write_all(&mut stdin, plan.text().as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    match serde_json::from_slice(&output.stdout) {
        Ok(report) => Ok(report),
        Err(_) => Ok(died(plan, &String::from_utf8_lossy(&output.stderr), &output.status.to_string())),
    }
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
        broken: Some(Broken {
            promise: "runs".to_owned(),
            how: format!("the process ended: {status}"),
            at_ms: 0,
            last,
        }),
    }
}

/// Does the child's part: reads a plan, runs it, writes the report.
///
/// # Errors
/// If the plan cannot be read or the report not be written.
#[expect(clippy::disallowed_methods, reason = "the simulation is what runs on this thread, not a node")]
pub fn be_one(files: Files) -> Result<(), String> {
    let text = io::read_to_string(io::stdin()).map_err(|error| error.to_string())?;
    let plan = Plan::parse(&text)?;
    std::thread::spawn(watch);
    // A fresh thread: hash keys and random generators are cached per thread, and must be made under the shim.
    let ran = std::thread::spawn(move || crate::run::run(&plan, &files)).join();
    let report = ran.map_err(|_| "the run panicked".to_owned())?.map_err(|error| error.to_string())?;
    println!("{}", serde_json::to_string(&report).map_err(|error| error.to_string())?);
    Ok(())
}
