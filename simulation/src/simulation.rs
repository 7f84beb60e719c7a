//! A run as tests in Rust, and the command line, ask for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::child;
use crate::edition::Edition;
use crate::plan::{Flags, Plan};
use crate::promise::exact;
use crate::run::{Files, Report};
use crate::weather;

/// A run to be: documents, weather, expectations, and a seed for all that none of them says.
///
/// ```no_run
/// use quorumgate_simulation::Simulation;
///
/// let ran = Simulation::default().gateway("gateway.yaml").weather("outage.yaml").expect("expect.yaml").seed(7).run();
/// ran.expect("the files are good").assert_kept();
/// ```
///
/// Each run is a process of its own, this same binary started again, so that its history is the one that the command
/// line gives. Whoever links this crate must be built with `--cfg tokio_unstable`, on Linux and x86-64.
#[derive(Clone, Debug, Default)]
pub struct Simulation {
    pub(crate) gateway: Vec<PathBuf>,
    pub(crate) weather: Option<PathBuf>,
    pub(crate) expect: Option<PathBuf>,
    pub(crate) seed: Option<u64>,
    pub(crate) nodes: Option<u8>,
    pub(crate) for_ms: Option<u64>,
    /// Kinds of trouble; none: all.
    pub(crate) kinds: Option<Vec<&'static str>>,
    pub(crate) report: Option<PathBuf>,
}

impl Simulation {
    /// A gateway document instead of drawn ones; several are the editions that `edition` troubles apply in turn.
    #[must_use]
    pub fn gateway(mut self, file: impl AsRef<Path>) -> Self {
        self.gateway.push(file.as_ref().to_owned());
        self
    }

    /// A plan: weather, traffic, expectations, or all of a run. Without one, they are drawn from the seed.
    #[must_use]
    pub fn weather(self, file: impl AsRef<Path>) -> Self {
        Self { weather: Some(file.as_ref().to_owned()), ..self }
    }

    /// Expectations instead of the plan's.
    #[must_use]
    pub fn expect(self, file: impl AsRef<Path>) -> Self {
        Self { expect: Some(file.as_ref().to_owned()), ..self }
    }

    /// Decides all that no file says.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// How many nodes found the cluster, 1 to 7.
    #[must_use]
    pub fn nodes(self, nodes: u8) -> Self {
        Self { nodes: Some(nodes), ..self }
    }

    /// How long callers call, in simulated time; whole milliseconds.
    #[must_use]
    pub fn lasting(self, time: Duration) -> Self {
        Self { for_ms: Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    /// No trouble at all.
    #[must_use]
    pub fn calm(self) -> Self {
        Self { kinds: Some(Vec::new()), ..self }
    }

    /// Writes a page that shows the run.
    #[must_use]
    pub fn report(self, file: impl AsRef<Path>) -> Self {
        Self { report: Some(file.as_ref().to_owned()), ..self }
    }

    /// Runs it.
    ///
    /// # Errors
    /// All mistakes in the files, each with its place, or that no process could be started. A broken promise is no
    /// error, but a report of one.
    pub fn run(&self) -> Result<Report, String> {
        let plan = self.load()?.plan(self.seed)?;
        for (quota, why) in exact::unjudged(&plan) {
            eprintln!("not judged: quota {quota}, because {why}");
        }
        let files = Files { report: self.report.clone(), ..Files::default() };
        child::run(&plan, &files).map_err(|error| error.to_string())
    }

    /// Reads the files.
    pub(crate) fn load(&self) -> Result<Drawing, String> {
        let read = |file: &PathBuf| {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>((name, text))
        };
        let mut gateway = Vec::new();
        for file in &self.gateway {
            let (name, text) = read(file)?;
            let edition = Edition::parse(&name, &text)?;
            eprint!("{}", edition.warnings(&name));
            gateway.push(edition);
        }
        let kinds = self.kinds.clone().unwrap_or_else(|| weather::NAMES.to_vec());
        let expect = self.expect.as_ref().map(read).transpose()?;
        let flags = Flags { seed: None, nodes: self.nodes, for_ms: self.for_ms, kinds, gateway, expect };
        Ok(Drawing { flags, file: self.weather.clone() })
    }
}

/// All that plans are made of, but a seed.
pub(crate) struct Drawing {
    flags: Flags,
    file: Option<PathBuf>,
}

impl Drawing {
    pub(crate) fn plan(&self, seed: Option<u64>) -> Result<Plan, String> {
        let flags = Flags { seed, ..self.flags.clone() };
        self.file.as_ref().map_or_else(|| Plan::of(&flags), |file| Plan::read_with(file, &flags))
    }
}
