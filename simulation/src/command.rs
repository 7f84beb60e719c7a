//! The command line.

use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::plan::Plan;
use crate::promise::exact;
use crate::promise::expected::Outcome;
use crate::run::{Files, Report};
use crate::simulation::Simulation;
use crate::sweep::{COVERAGE, Sweep};
use crate::{child, junit, meta, moment, mutants, shrink, weather};

/// Prints a line; a reader who has gone is no reason to fail.
macro_rules! say {
    ($($word:tt)*) => {
        let _ = writeln!(std::io::stdout(), $($word)*);
    };
}

/// Whole clusters under one seed.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit code: 0 every promise was kept and every expectation met; 1 a promise was broken, or, of a sweep, something that
should have happened never did; 2 the command or a file is wrong; 3 every promise was kept, and an expectation not met";
const BROKEN: u8 = 1;
const WRONG: u8 = 2;
const UNEXPECTED: u8 = 3;

/// Does what the command line says.
pub fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quorumgate-simulation: {error}");
            ExitCode::from(WRONG)
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed, or a gateway document and weather of your own; or show the plan. `--help` has the words of weather.
    #[command(after_long_help = weather::manual())]
    Run {
        /// Decides all that no file says; without it the file's, else 0.
        #[arg(long)]
        seed: Option<u64>,
        #[command(flatten)]
        draw: Draw,
        #[command(flatten)]
        out: Out,
        /// Write the verdicts as JUnit's XML.
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// Print the plan instead of running it.
        #[arg(long)]
        plan: bool,
    },
    /// Run many seeds, until one breaks a promise.
    Sweep {
        /// `0..1000`: from the first to before the last.
        #[arg(long, value_parser = seeds)]
        seeds: Range<u64>,
        /// Processes at once.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        #[command(flatten)]
        draw: Draw,
        /// Do not fail when a kind of event never happened: for few seeds. With files, or kinds, of your own it is so anyway.
        #[arg(long)]
        any_coverage: bool,
        /// Where the plan that fails is written, made smaller; with it a page that shows it.
        #[arg(long, default_value = "shrunk.yaml", value_name = "FILE")]
        shrink_to: PathBuf,
        /// Write the verdicts as JUnit's XML.
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
    },
    /// Run plans again: as `run --weather`.
    Replay {
        /// As `run --plan` printed it, a shrunk one, or one of your own.
        #[arg(required = true)]
        plans: Vec<PathBuf>,
        /// Processes at once.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        #[command(flatten)]
        out: Out,
        /// Write the verdicts as JUnit's XML.
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
    },
    /// Make a failing plan smaller.
    Shrink {
        /// The plan.
        plan: PathBuf,
        /// Where the smaller one is written.
        #[arg(long, default_value = "shrunk.yaml")]
        to: PathBuf,
        /// Runs at most.
        #[arg(long, default_value_t = SHRINK_RUNS)]
        runs: u32,
    },
    /// Run seeds twice each, in two processes, and compare their histories.
    Meta {
        /// How many, from 0 on.
        #[arg(long)]
        seeds: u64,
        #[command(flatten)]
        draw: Draw,
    },
    /// Plant known mistakes in the product, one after the other, and see which promise notices. Needs git and cargo.
    Mutants(mutants::Options),
}

/// What a plan is made of, besides a seed.
#[derive(Clone, Debug, Args)]
struct Draw {
    /// A gateway document instead of drawn ones; several are the editions that `edition` troubles apply in turn.
    #[arg(long, value_name = "FILE")]
    gateway: Vec<PathBuf>,
    /// A plan: weather, traffic, or all of a run. What it leaves out is drawn from the seed.
    #[arg(long, value_name = "FILE")]
    weather: Option<PathBuf>,
    /// Expectations instead of the plan's: figures that the run must come to.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// How many nodes; else the file or the seed decides.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: Option<u8>,
    /// How long callers call, in simulated time: `30s`, unless the file says otherwise.
    #[arg(long = "for", value_name = "TIME", value_parser = moment::parse)]
    for_ms: Option<u64>,
    /// Kinds of trouble that may happen; all, if none is named. `--only kill --only pause`
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(weather::NAMES))]
    only: Vec<String>,
    /// Kinds that may not.
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(weather::NAMES))]
    without: Vec<String>,
    /// No trouble at all.
    #[arg(long)]
    calm: bool,
}

#[derive(Clone, Debug, Args)]
struct Out {
    /// Write the history.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write what the nodes log.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write a page that shows the run.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl From<Out> for Files {
    fn from(it: Out) -> Self {
        Self { trace: it.trace, log: it.log, report: it.report }
    }
}

impl Draw {
    fn simulation(&self) -> Simulation {
        let allowed = |name: &&str| {
            !self.calm
                && (self.only.is_empty() || self.only.iter().any(|only| only == name))
                && !self.without.iter().any(|without| without == name)
        };
        Simulation {
            gateway: self.gateway.clone(),
            weather: self.weather.clone(),
            expect: self.expect.clone(),
            seed: None,
            nodes: self.nodes,
            for_ms: self.for_ms,
            kinds: Some(weather::NAMES.into_iter().filter(allowed).collect()),
            report: None,
        }
    }

    /// The flags that give the same plan again.
    fn flags(&self) -> String {
        let files = |flag: &'static str, files: &[PathBuf]| -> String {
            files.iter().map(|file| format!(" {flag} {}", file.display())).collect()
        };
        let one = |flag, file: &Option<PathBuf>| files(flag, file.as_slice());
        let nodes = self.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let time = self.for_ms.map(|ms| format!(" --for {}", moment::show(ms))).unwrap_or_default();
        let only: String = self.only.iter().map(|kind| format!(" --only {kind}")).collect();
        let without: String = self.without.iter().map(|kind| format!(" --without {kind}")).collect();
        let calm = if self.calm { " --calm" } else { "" };
        let files = files("--gateway", &self.gateway)
            + &one("--weather", &self.weather)
            + &one("--expect", &self.expect);
        format!("{files}{nodes}{time}{only}{without}{calm}")
    }
}

/// Runs plans, each with its name, having said what their runs will say nothing of.
fn run(plans: &[(String, Plan)], jobs: usize, out: Out, junit: Option<&Path>) -> Result<ExitCode, String> {
    for (name, plan) in plans {
        for (quota, why) in exact::unjudged(plan) {
            say!("{name}: not judged: quota {quota}, because {why}");
        }
    }
    let files = Files::from(out);
    if plans.len() > 1 && files != Files::default() {
        return Err(format!("found {} plans, wanted one for --trace, --log and --report", plans.len()));
    }
    let reports = child::run_all(plans.iter().map(|(_, plan)| plan), jobs, &files);
    let reports = reports.map_err(|error| error.to_string())?;
    for ((name, _), report) in plans.iter().zip(&reports) {
        if plans.len() > 1 {
            say!("\n{name}");
        }
        tell(report);
    }
    if let Some(file) = junit {
        let named = plans.iter().zip(&reports);
        junit::write(file, named.map(|((name, _), report)| junit::of_plan(name, report)).collect())?;
    }
    if plans.len() > 1 {
        let kept = reports.iter().filter(|report| report.broken.is_none()).count();
        say!("\n{kept} of {} plans kept every promise and went as expected", plans.len());
    }
    Ok(verdict(&reports))
}

/// The exit code of runs: of the worst.
fn verdict(reports: &[Report]) -> ExitCode {
    let broken = || reports.iter().filter(|report| report.broken.is_some());
    match broken().next() {
        None => ExitCode::SUCCESS,
        Some(_) if broken().all(Report::is_unexpected) => ExitCode::from(UNEXPECTED),
        Some(_) => ExitCode::from(BROKEN),
    }
}

/// Reads a range of seeds.
///
/// # Errors
/// If it is none.
pub fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wanted = || format!("found {text:?}, wanted two numbers, for instance 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(wanted)?;
    let range = from.parse().map_err(|_| wanted())?..to.parse().map_err(|_| wanted())?;
    if range.is_empty() { Err(wanted()) } else { Ok(range) }
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, apart from broken promises, which are the exit code.
    fn run(self) -> Result<ExitCode, String> {
        let io = |error: std::io::Error| error.to_string();
        match self.command {
            Command::Run { seed, draw, out, junit, plan: show } => {
                let plan = draw.simulation().load()?.plan(seed)?;
                if show {
                    say!("{}", plan.text().trim_end());
                    return Ok(ExitCode::SUCCESS);
                }
                run(&[(format!("seed {}", plan.seed), plan)], 1, out, junit.as_deref())
            }
            Command::Replay { plans, jobs, out, junit } => {
                let read = plans.iter().map(|file| Ok((file.display().to_string(), Plan::read(file)?)));
                run(&all_mistakes(read)?, jobs, out, junit.as_deref())
            }
            Command::Sweep { seeds, jobs, draw, any_coverage, shrink_to, junit } => {
                let drawing = Arc::new(draw.simulation().load()?);
                // Most of what is wrong with a file is wrong with it for every seed.
                let first = drawing.plan(Some(seeds.start))?;
                for (quota, why) in exact::unjudged(&first) {
                    say!("not judged: quota {quota}, because {why}");
                }
                let itself = std::env::current_exe().map_err(io)?;
                let drawn = drawing.clone();
                let plan = Box::new(move |seed| drawn.plan(Some(seed)));
                let sweep = Sweep { seeds, jobs, program: itself, plan };
                let swept = sweep.run().map_err(io)?;
                say!("{}{}", swept.table(), swept.speed());
                for report in &swept.broken {
                    tell(report);
                    say!("run it again: {} run --seed {}{}", program(), report.seed, draw.flags());
                }
                if let Some(file) = junit {
                    let suite = junit::of_sweep(swept.ran.iter().copied(), &swept.broken);
                    junit::write(&file, vec![suite])?;
                }
                if let Some(report) = swept.broken.first() {
                    smaller(&drawing.plan(Some(report.seed))?, &shrink_to, SHRINK_RUNS)?;
                    return Ok(verdict(&swept.broken));
                }
                if let Some((seed, mistake)) = swept.mistake {
                    return Err(format!(
                        "seed {seed} gives no plan, say in the file what it would draw:\n{mistake}"
                    ));
                }
                // Only whoever lets everything be drawn is owed everything.
                let owed = !any_coverage && draw.flags().is_empty();
                let missing = if owed { swept.missing(COVERAGE) } else { Vec::new() };
                if missing.is_empty() {
                    return Ok(ExitCode::SUCCESS);
                }
                say!("never happened, though it should have: {}", missing.join(", "));
                Ok(ExitCode::from(BROKEN))
            }
            Command::Shrink { plan, to, runs } => smaller(&Plan::read(&plan)?, &to, runs),
            Command::Meta { seeds, draw } => twice(seeds, &draw),
            Command::Mutants(options) => mutants::run(&options),
        }
    }
}

/// Runs that make a plan smaller, at most.
const SHRINK_RUNS: u32 = 200;

/// What the sources at hand are, for a report that is read later.
fn sources() -> String {
    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = git.ok().filter(|it| it.status.success());
    let commit = commit.map(|it| format!(", commit {}", String::from_utf8_lossy(&it.stdout).trim()));
    format!("version {}{}", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default())
}

/// How a user starts this.
fn program() -> &'static str {
    "cargo run --release -p quorumgate-simulation --"
}

fn tell(report: &Report) {
    let Report { seed, history, lines, simulated_ms, counts, expected, missed, broken } = report;
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    say!(
        "seed {seed}: {simulated_ms} simulated ms, {} requests, {} admissions, {} entries, history {history} of {lines} lines",
        count("requests sent"),
        count("admissions judged"),
        count("entries applied"),
    );
    for Outcome { expected, found, met } in expected {
        say!("{}: {expected}: found {found}", if *met { "as expected" } else { "NOT AS EXPECTED" });
    }
    // Who expects something has been told of it as of what he expects.
    for what in missed.iter().filter(|_| expected.is_empty()) {
        say!("did not happen, for it found nobody: {what}");
    }
    let Some(broken) = broken.as_ref().filter(|_| !report.is_unexpected()) else { return };
    say!("BROKEN at {} ms: {}: {}", broken.at_ms, broken.promise, broken.how);
    say!("{}; what happened before:", sources());
    for line in &broken.last {
        say!("  {line}");
    }
}

/// All that was read, or every mistake in all of it.
fn all_mistakes<T>(read: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, String> {
    let (good, bad): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
    let mistakes: Vec<String> = bad.into_iter().filter_map(Result::err).collect();
    if mistakes.is_empty() { Ok(good.into_iter().flatten().collect()) } else { Err(mistakes.join("\n")) }
}

fn smaller(plan: &Plan, to: &Path, runs: u32) -> Result<ExitCode, String> {
    let Some(shrunk) = shrink::shrink(plan, runs).map_err(|error| error.to_string())? else {
        say!("the plan breaks no promise: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    };
    let wrong = |error: std::io::Error| format!("{}: {error}", to.display());
    std::fs::write(to, shrunk.plan.text()).map_err(wrong)?;
    let page = to.with_extension("html");
    child::run(&shrunk.plan, &Files { report: Some(page.clone()), ..Files::default() }).map_err(wrong)?;
    say!(
        "from {} troubles to {} in {} runs: {}; as a picture: {}",
        plan.weather.len(),
        shrunk.plan.weather.len(),
        shrunk.runs,
        to.display(),
        page.display()
    );
    tell(&shrunk.report);
    say!("run it again: {} replay {}", program(), to.display());
    Ok(verdict(&[shrunk.report]))
}

fn twice(seeds: u64, draw: &Draw) -> Result<ExitCode, String> {
    let folder = std::env::temp_dir().join(format!("quorumgate-meta-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let drawing = draw.simulation().load()?;
    let mut different = 0;
    for seed in 0..seeds {
        let plan = drawing.plan(Some(seed))?;
        if let Some(difference) = meta::differs(&plan, &folder).map_err(|error| error.to_string())? {
            different += 1;
            say!("seed {seed} differs, {difference}");
        }
    }
    say!("{} of {seeds} seeds identical in two processes, with a log and without", seeds - different);
    if different == 0 {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("histories and logs: {}", folder.display());
    Ok(ExitCode::from(BROKEN))
}
