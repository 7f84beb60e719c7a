//! The command line.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::edition::Edition;
use crate::plan::{Flags, Plan};
use crate::promise::exact;
use crate::run::{Files, Report};
use crate::sweep::{EXPECTED, Sweep};
use crate::{child, meta, moment, mutants, shrink, weather};

/// Whole clusters under one seed.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
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
        /// Do not fail when a kind of event never happened: for a few seeds, or a few kinds.
        #[arg(long)]
        any_coverage: bool,
        /// Where the plan that fails is written, made smaller; with it a page that shows it.
        #[arg(long, default_value = "shrunk.yaml", value_name = "FILE")]
        shrink_to: PathBuf,
    },
    /// Run a plan again: as `run --weather`.
    Replay {
        /// As `run --plan` printed it, a shrunk one, or one of your own.
        plan: PathBuf,
        #[command(flatten)]
        out: Out,
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
    /// The part of a run in a process of its own.
    #[command(hide = true)]
    Child {
        #[command(flatten)]
        out: Out,
    },
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
    /// Reads the files.
    fn load(&self) -> Result<Drawing, String> {
        let mut gateway = Vec::new();
        for file in &self.gateway {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
            let edition = Edition::parse(&name, &text)?;
            eprint!("{}", edition.warnings(&name));
            gateway.push(edition);
        }
        let allowed = |name: &&str| {
            !self.calm
                && (self.only.is_empty() || self.only.iter().any(|only| only == name))
                && !self.without.iter().any(|without| without == name)
        };
        let kinds = weather::NAMES.into_iter().filter(allowed).collect();
        let flags = Flags { seed: None, nodes: self.nodes, for_ms: self.for_ms, kinds, gateway };
        Ok(Drawing { flags, file: self.weather.clone() })
    }

    /// The flags that give the same plan again.
    fn flags(&self) -> String {
        let files = |flag: &'static str, files: &[PathBuf]| -> String {
            files.iter().map(|file| format!(" {flag} {}", file.display())).collect()
        };
        let weather: Vec<PathBuf> = self.weather.iter().cloned().collect();
        let nodes = self.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let time = self.for_ms.map(|ms| format!(" --for {}", moment::show(ms))).unwrap_or_default();
        let only: String = self.only.iter().map(|kind| format!(" --only {kind}")).collect();
        let without: String = self.without.iter().map(|kind| format!(" --without {kind}")).collect();
        let calm = if self.calm { " --calm" } else { "" };
        let files = files("--gateway", &self.gateway) + &files("--weather", &weather);
        format!("{files}{nodes}{time}{only}{without}{calm}")
    }
}

/// All that plans are made of, but a seed.
struct Drawing {
    flags: Flags,
    file: Option<PathBuf>,
}

impl Drawing {
    fn plan(&self, seed: Option<u64>) -> Result<Plan, String> {
        let flags = Flags { seed, ..self.flags.clone() };
        self.file.as_ref().map_or_else(|| Plan::of(&flags), |file| Plan::read_with(file, &flags))
    }
}

/// Runs a plan, having said what the run will say nothing of.
fn run(plan: &Plan, out: Out) -> Result<ExitCode, String> {
    for (quota, why) in exact::unjudged(plan) {
        println!("not judged: quota {quota}, because {why}");
    }
    Ok(tell(&child::run(plan, &out.into()).map_err(|error| error.to_string())?))
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
    pub fn run(self) -> Result<ExitCode, String> {
        let io = |error: std::io::Error| error.to_string();
        match self.command {
            Command::Child { out } => child::be_one(out.into()).map(|()| ExitCode::SUCCESS),
            Command::Run { seed, draw, out, plan: show } => {
                let plan = draw.load()?.plan(seed)?;
                if show {
                    print!("{}", plan.text());
                    return Ok(ExitCode::SUCCESS);
                }
                run(&plan, out)
            }
            Command::Replay { plan, out } => run(&Plan::read(&plan)?, out),
            Command::Sweep { seeds, jobs, draw, any_coverage, shrink_to } => {
                let drawing = Arc::new(draw.load()?);
                // Whatever is wrong with a file is wrong with it for every seed.
                let first = drawing.plan(Some(seeds.start))?;
                for (quota, why) in exact::unjudged(&first) {
                    println!("not judged: quota {quota}, because {why}");
                }
                let itself = std::env::current_exe().map_err(io)?;
                let drawn = drawing.clone();
                let plan = Box::new(move |seed| drawn.plan(Some(seed)));
                let sweep = Sweep { seeds, jobs, program: itself, plan };
                let swept = sweep.run().map_err(io)?;
                println!("{}{}", swept.table(), swept.speed());
                if let Some(report) = &swept.broken {
                    tell(report);
                    println!("run it again: {} run --seed {}{}", program(), report.seed, draw.flags());
                    return smaller(&drawing.plan(Some(report.seed))?, &shrink_to, SHRINK_RUNS);
                }
                let missing = if any_coverage { Vec::new() } else { swept.missing(EXPECTED) };
                if missing.is_empty() {
                    return Ok(ExitCode::SUCCESS);
                }
                println!("never happened, though it should have: {}", missing.join(", "));
                Ok(ExitCode::FAILURE)
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

fn tell(report: &Report) -> ExitCode {
    let Report { seed, history, lines, simulated_ms, counts, broken } = report;
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    println!(
        "seed {seed}: {simulated_ms} simulated ms, {} requests, {} admissions, {} entries, history {history} of {lines} lines",
        count("requests sent"),
        count("admissions judged"),
        count("entries applied"),
    );
    let Some(broken) = broken else { return ExitCode::SUCCESS };
    println!("BROKEN at {} ms: {}: {}", broken.at_ms, broken.promise, broken.how);
    println!("{}; what happened before:", sources());
    for line in &broken.last {
        println!("  {line}");
    }
    ExitCode::FAILURE
}

fn smaller(plan: &Plan, to: &Path, runs: u32) -> Result<ExitCode, String> {
    let Some(shrunk) = shrink::shrink(plan, runs).map_err(|error| error.to_string())? else {
        println!("the plan breaks no promise: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    };
    let wrong = |error: std::io::Error| format!("{}: {error}", to.display());
    std::fs::write(to, shrunk.plan.text()).map_err(wrong)?;
    let page = to.with_extension("html");
    child::run(&shrunk.plan, &Files { report: Some(page.clone()), ..Files::default() }).map_err(wrong)?;
    println!(
        "from {} troubles to {} in {} runs: {}; as a picture: {}",
        plan.weather.len(),
        shrunk.plan.weather.len(),
        shrunk.runs,
        to.display(),
        page.display()
    );
    tell(&shrunk.report);
    println!("run it again: {} replay {}", program(), to.display());
    Ok(ExitCode::FAILURE)
}

fn twice(seeds: u64, draw: &Draw) -> Result<ExitCode, String> {
    let folder = std::env::temp_dir().join(format!("quorumgate-meta-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let drawing = draw.load()?;
    let mut different = 0;
    for seed in 0..seeds {
        let plan = drawing.plan(Some(seed))?;
        if let Some(difference) = meta::differs(&plan, &folder).map_err(|error| error.to_string())? {
            different += 1;
            println!("seed {seed} differs, {difference}");
        }
    }
    println!("{} of {seeds} seeds identical in two processes, with a log and without", seeds - different);
    if different == 0 {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("histories and logs: {}", folder.display());
    Ok(ExitCode::FAILURE)
}
