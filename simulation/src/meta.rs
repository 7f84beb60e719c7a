//! Proves that seeds decide: each plan runs twice, in two processes, once with a log and once without, and the two
//! histories must be the same, line by line.

use std::fs;
use std::path::Path;

use crate::child;
use crate::plan::Plan;
use crate::run::Files;

/// Runs a plan twice. None: the histories are the same; else the first line that differs, as each run has it.
///
/// # Errors
/// If no process can be started, or no file be read.
pub fn differs(plan: &Plan, folder: &Path) -> std::io::Result<Option<String>> {
    let file = |name: &str| Some(folder.join(format!("{}-{name}", plan.seed)));
    let logged = Files { trace: file("logged.history"), log: file("log"), report: None };
    let silent = Files { trace: file("silent.history"), log: None, report: None };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| child::run(plan, &logged));
        let other = child::run(plan, &silent);
        (one.join().expect("a run that fails is an error, and no panic"), other)
    });
    let (one, other) = (one?, other?);
    let same = one == other;
    let difference = if same { None } else { Some(first_difference(&logged, &silent)?) };
    for path in [logged.trace, logged.log, silent.trace].into_iter().flatten().filter(|_| same) {
        fs::remove_file(path)?;
    }
    Ok(difference)
}

fn first_difference(one: &Files, other: &Files) -> std::io::Result<String> {
    let read = |files: &Files| fs::read_to_string(files.trace.as_ref().expect("a history was asked for"));
    let (one, other) = (read(one)?, read(other)?);
    let mut lines = one.lines().zip(other.lines()).enumerate();
    Ok(match lines.find(|(_, (a, b))| a != b) {
        Some((number, (a, b))) => format!("line {}:\n  {a}\n  {b}", number + 1),
        None => format!("{} lines against {}", one.lines().count(), other.lines().count()),
    })
}
