//! Planted bugs: is what is promised really watched? `simulation/mutants/*.patch` each plant one plausible mistake in the
//! product; the mistake is planted in a copy of the commit at hand, the simulator built from it, and searched until a
//! promise is broken. A mistake that nothing notices says what the promises or the weather lack.
//!
//! ```text
//! patch     a mistake: what it is, which rule it breaks, who should notice, where to look     scratch   the copy
//! finding   what came of one, kept as soon as it is known: a run that was cut off goes on
//! ```
//!
//! What is found counts only if the simulator as it is, this process, keeps its promises under the same plan.

mod finding;
mod patch;
mod scratch;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use self::finding::{Finding, Findings};
use self::patch::{Mutant, Search};
use self::scratch::{Scratch, last};
use crate::child;
use crate::plan::Plan;
use crate::run::{Broken, Files, Report};
use crate::sweep::Sweep;
use crate::weather;

/// Of all mistakes, so many must be found by drawn plans alone.
const FOUND_BY_RANDOM_MIN: usize = 18;
/// How long callers call in a drawn plan.
const FOR_MS: u64 = 30_000;

/// What is planted, and how long is searched.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Only the mistake of this name; all, if none is named.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// `0..300`: drawn plans, or seeds of the weather that a mistake names, until one breaks a promise.
    #[arg(long, default_value = "0..300", value_parser = crate::command::seeds)]
    seeds: Range<u64>,
    /// Processes at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where the copy is built; what lies there from another time is used again.
    #[arg(long, value_name = "DIR", default_value = "target/of-mutants")]
    scratch: PathBuf,
    /// What was found, a line each; mistakes that have one for the same sources are not searched again. Else beside the copy.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// Plants one mistake after the other, and prints what noticed them. A success: all were found, enough of them by drawn
/// plans.
///
/// # Errors
/// What went wrong before the first was planted.
pub fn run(options: &Options) -> Result<ExitCode, String> {
    let root = scratch::root()?;
    let mutants = chosen(patch::all(&root.join(patch::FOLDER))?, &options.only)?;
    let scratch = Scratch::of(&root, &options.scratch)?;
    let file = options.results.clone().unwrap_or_else(|| options.scratch.join("results.jsonl"));
    let mut findings = Findings::open(&file, scratch.sources())?;
    let mut failures = Vec::new();
    for (number, mutant) in mutants.iter().enumerate() {
        eprintln!("{} of {}: {}", number + 1, mutants.len(), mutant.name);
        if let Some(finding) = findings.of(mutant, &options.seeds) {
            eprintln!("  known: {finding}");
            continue;
        }
        match plant(mutant, &scratch, options) {
            Ok(finding) => {
                eprintln!("  {finding}");
                findings.keep(finding)?;
            }
            Err(why) => {
                eprintln!("  failed: {why}");
                failures.push(format!("{}: {why}", mutant.name));
            }
        }
    }
    let all: Vec<(&Mutant, Option<&Finding>)> =
        mutants.iter().map(|mutant| (mutant, findings.of(mutant, &options.seeds))).collect();
    print!("{}", table(&all));
    failures.iter().for_each(|failure| println!("failed: {failure}"));
    let found = |random: bool| {
        let good = |(mutant, finding): &&(&Mutant, Option<&Finding>)| {
            finding.is_some_and(|finding| finding.found.is_some())
                && (!random || mutant.search == Search::Random)
        };
        all.iter().filter(good).count()
    };
    println!("{} of {} found, {} by drawn plans", found(false), all.len(), found(true));
    let enough = !options.only.is_empty() || found(true) >= FOUND_BY_RANDOM_MIN;
    if !enough {
        println!("found {} by drawn plans, wanted {FOUND_BY_RANDOM_MIN}", found(true));
    }
    Ok(if found(false) == all.len() && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(all: Vec<Mutant>, only: &[String]) -> Result<Vec<Mutant>, String> {
    if let Some(unknown) = only.iter().find(|only| !all.iter().any(|mutant| mutant.name == **only)) {
        let names: Vec<&str> = all.iter().map(|mutant| mutant.name.as_str()).collect();
        return Err(format!("found --only {unknown}, wanted one of {}", names.join(", ")));
    }
    Ok(all.into_iter().filter(|mutant| only.is_empty() || only.contains(&mutant.name)).collect())
}

/// What one search came to.
struct Searched {
    found: Option<Report>,
    runs: u64,
}

/// Plants one mistake, and looks for it.
fn plant(mutant: &Mutant, scratch: &Scratch, options: &Options) -> Result<Finding, String> {
    let begun = Instant::now();
    scratch.apply(mutant)?;
    let searched = match &mutant.search {
        Search::Test(command) => test(command, scratch)?,
        Search::Random => {
            let plan = |seed| Plan::draw(seed, None, FOR_MS, &weather::NAMES);
            sweep(scratch.build()?, plan, options)?
        }
        Search::Weather(file) => {
            let plan = Plan::read(&scratch.tree().join(file))?;
            replay(scratch.build()?, &plan, options)?
        }
    };
    Ok(Finding {
        sources: scratch.sources().to_owned(),
        name: mutant.name.clone(),
        patch: mutant.text.clone(),
        seeds: options.seeds.clone(),
        found: searched.found.and_then(|report| Some((report.seed, report.broken?))),
        runs: searched.runs,
        seconds: begun.elapsed().as_secs(),
    })
}

/// Drawn plans, seed by seed. What breaks without the mistake too is no finding.
fn sweep(
    program: PathBuf,
    plan: impl Fn(u64) -> Plan + Sync + Clone + 'static,
    options: &Options,
) -> Result<Searched, String> {
    let (seeds, jobs) = (options.seeds.clone(), options.jobs);
    let drawn = plan.clone();
    let swept = Sweep { seeds, jobs, program, plan: Box::new(move |seed| Ok(drawn(seed))) };
    let swept = swept.run().map_err(|error| error.to_string())?;
    let found = swept.broken.into_iter().next();
    if let Some(report) = &found {
        holds_without(&plan(report.seed))?;
    }
    Ok(Searched { found, runs: swept.ran.len() as u64 })
}

/// A plan as it stands, and then with other seeds.
fn replay(program: PathBuf, plan: &Plan, options: &Options) -> Result<Searched, String> {
    let first = child::run_by(&program, plan, &Files::default()).map_err(|error| error.to_string())?;
    if first.broken.is_some() {
        holds_without(plan)?;
        return Ok(Searched { found: Some(first), runs: 1 });
    }
    let plan = plan.clone();
    let swept = sweep(program, move |seed| Plan { seed, ..plan.clone() }, options)?;
    Ok(Searched { runs: swept.runs + 1, ..swept })
}

fn holds_without(plan: &Plan) -> Result<(), String> {
    let report = child::run(plan, &Files::default()).map_err(|error| error.to_string())?;
    match report.broken {
        None => Ok(()),
        Some(broken) => Err(format!(
            "seed {} breaks {} without the mistake too, wanted a simulator that keeps its promises: {}",
            plan.seed, broken.promise, broken.how
        )),
    }
}

/// A test that must fail now.
fn test(command: &str, scratch: &Scratch) -> Result<Searched, String> {
    let built = scratch.shell(&format!("{command} --no-run"))?;
    built.map_err(|said| format!("its test does not compile, mend the patch:\n{}", last(&said)))?;
    let Err(said) = scratch.shell(command)? else { return Ok(Searched { found: None, runs: 1 }) };
    let failed = said.lines().find(|line| line.starts_with("test ") && line.ends_with("FAILED"));
    let how = failed.ok_or_else(|| format!("found no test that failed, wanted one:\n{}", last(&said)))?;
    let broken = Broken { promise: "test".to_owned(), how: how.to_owned(), at_ms: 0, last: Vec::new() };
    Ok(Searched { found: Some(Report { broken: Some(broken), ..Report::default() }), runs: 1 })
}

fn table(all: &[(&Mutant, Option<&Finding>)]) -> String {
    let row = |cells: [&str; 6]| {
        let [name, by, promise, seed, runs, seconds] = cells;
        format!("{name:<32} {by:<10} {promise:<14} {seed:>6} {runs:>6} {seconds:>8}\n")
    };
    let mut text = row(["name", "found by", "promise", "seed", "runs", "seconds"]);
    let mut others = String::new();
    for (mutant, finding) in all {
        let Some(finding) = finding else {
            text += &row([&mutant.name, "failed", "", "", "", ""]);
            continue;
        };
        let (runs, seconds) = (finding.runs.to_string(), finding.seconds.to_string());
        let Some((seed, broken)) = &finding.found else {
            text += &row([&mutant.name, "nothing", "", "", &runs, &seconds]);
            others += &format!("nothing noticed {}: {}\n", mutant.name, mutant.mistake);
            continue;
        };
        let seed = if broken.promise == "test" { String::new() } else { seed.to_string() };
        text += &row([&mutant.name, mutant.search.name(), &broken.promise, &seed, &runs, &seconds]);
        if !mutant.noticed_by.contains(&broken.promise) {
            let wanted = mutant.noticed_by.join(", ");
            others += &format!("{} was noticed by {}, wanted {wanted}\n", mutant.name, broken.promise);
        }
    }
    text + &others
}
