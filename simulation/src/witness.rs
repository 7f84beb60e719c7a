//! Hears everything: what hosts tell, and what nodes log. Keeps the history's fingerprint, and counts.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use cluster::HISTORY;
use tracing::field::{Field, Visit};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::clock::{MS_NS, TrueNs};
use crate::event::{Event, Fate};
use crate::host::HostNumber;

thread_local! {
    static HOST: Cell<HostNumber> = const { Cell::new(0) };
    static NOW: Cell<TrueNs> = const { Cell::new(0) };
}

/// From now on, what is logged on this thread is host `host`'s, at true time `now`.
pub fn now_runs(host: HostNumber, now: TrueNs) {
    HOST.set(host);
    NOW.set(now);
}

/// Counts by what was counted.
pub type Counts = BTreeMap<String, u64>;

/// The witness. Clones share it.
#[derive(Clone, Default)]
pub struct Witness {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    fresh: Vec<(TrueNs, Event)>,
    /// FNV-1a over all lines.
    fingerprint: u64,
    lines: u64,
    file: Option<BufWriter<File>>,
    counts: Counts,
    missed: Vec<String>,
    /// Nodes that have applied an entry, or installed a snapshot, in this life.
    with_state: BTreeSet<HostNumber>,
    leader: Option<HostNumber>,
    holder: Option<HostNumber>,
}

impl Witness {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic happens while the witness is locked")
    }

    /// Writes the history to `file` too.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn write_to(&self, file: &Path) -> std::io::Result<()> {
        self.inner().file = Some(BufWriter::new(File::create(file)?));
        Ok(())
    }

    /// Hears an event.
    pub fn tell(&self, event: Event) {
        let now = NOW.get();
        let line = format!("{:>9} {event:?}\n", now / 1_000);
        let mut inner = self.inner();
        inner.remember(&line);
        if let Some(what) = counted(&event) {
            *inner.counts.entry(what).or_default() += 1;
        }
        match &event {
            Event::Leads { host, .. } => inner.leader = Some(*host),
            Event::Reached { node, .. } => inner.holder = Some(*node),
            Event::Applied { host, .. } | Event::Installed { host, .. } => {
                inner.with_state.insert(*host);
            }
            Event::Began { host, .. } => {
                inner.with_state.remove(host);
            }
            _ => {}
        }
        inner.fresh.push((now, event));
    }

    /// Who led last; the first node, before anybody did.
    pub fn leader(&self) -> HostNumber {
        self.inner().leader.unwrap_or(1)
    }

    /// Who admitted last; the first node, before anybody did.
    pub fn holder(&self) -> HostNumber {
        self.inner().holder.unwrap_or(1)
    }

    /// Whether a node has something of the cluster's state.
    pub fn has_state(&self, host: HostNumber) -> bool {
        self.inner().with_state.contains(&host)
    }

    /// Adds to a count.
    pub fn count(&self, what: &str, by: u64) {
        if by > 0 {
            *self.inner().counts.entry(what.to_owned()).or_default() += by;
        }
    }

    /// Something that the plan has happen did not.
    pub fn miss(&self, what: String) {
        self.count("troubles that befell nobody", 1);
        self.inner().missed.push(what);
    }

    /// What did not happen.
    pub fn missed(&self) -> Vec<String> {
        self.inner().missed.clone()
    }

    /// What happened since the last call.
    pub fn take(&self) -> Vec<(TrueNs, Event)> {
        std::mem::take(&mut self.inner().fresh)
    }

    /// All counts.
    pub fn counts(&self) -> Counts {
        self.inner().counts.clone()
    }

    /// The history's fingerprint and its length in lines.
    pub fn fingerprint(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.fingerprint, inner.lines)
    }

    /// Hears what is logged on this thread until the guard is dropped; `log`: writes it to a file as well.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn listen(&self, log: Option<&Path>) -> std::io::Result<tracing::subscriber::DefaultGuard> {
        let registry = tracing_subscriber::registry();
        let ear = Ear { witness: self.clone() };
        let history = Targets::new().with_target(HISTORY, tracing::Level::DEBUG);
        let Some(log) = log else {
            // Nothing else is made at all: spans cost time even where nobody reads them.
            return Ok(tracing::subscriber::set_default(registry.with(history).with(ear)));
        };
        let file = Arc::new(Mutex::new(BufWriter::new(File::create(log)?)));
        let log = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_timer(HostTime)
            .with_writer(move || Out(file.clone()));
        // One filter for both. With one each, an event that only the log wants may leave a mark on the thread that takes
        // the next one from the ear: a run with a log would hear less than one without.
        Ok(tracing::subscriber::set_default(registry.with(LevelFilter::DEBUG).with(ear).with(log)))
    }
}

impl Inner {
    fn remember(&mut self, line: &str) {
        self.lines += 1;
        for byte in line.bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(file) = &mut self.file {
            // A full disk must not change what a run says of its seed.
            let _ = file.write_all(line.as_bytes());
        }
    }
}

fn counted(event: &Event) -> Option<String> {
    Some(match event {
        Event::Began { host, life } if *life > 1 && *host < 20 => "nodes started again".to_owned(),
        Event::Ended { .. } => "processes ended by themselves".to_owned(),
        Event::Applied { .. } => "entries applied".to_owned(),
        Event::Leads { .. } => "elections won".to_owned(),
        Event::Installed { .. } => "snapshots installed".to_owned(),
        Event::Sent(_) => "requests sent".to_owned(),
        Event::HeldBack { .. } => "requests held back".to_owned(),
        Event::Reached { .. } => "requests that reached an upstream".to_owned(),
        Event::Done { fate: Fate::Answered { status, .. }, .. } => format!("answers {status}"),
        Event::Done { fate: Fate::Broken { .. }, .. } => "requests broken".to_owned(),
        Event::Done { fate: Fate::Silent, .. } => "requests silent".to_owned(),
        Event::InForce { .. } => "documents in force".to_owned(),
        Event::TurnedAway { .. } => "dawdlers turned away".to_owned(),
        _ => return None,
    })
}

/// Turns the history that nodes log into events.
struct Ear {
    witness: Witness,
}

impl<S: tracing::Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != HISTORY {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let host = HOST.get();
        let number = |name| said.numbers.get(name).copied().unwrap_or(0);
        match said.message.as_str() {
            "applied" => self.witness.tell(Event::Applied {
                host,
                index: number("index"),
                term: number("term"),
                digest: number("digest"),
                given: number("given"),
            }),
            "leads" => self.witness.tell(Event::Leads { host, term: number("term") }),
            "installed" => self.witness.tell(Event::Installed { host, index: number("index") }),
            // Whatever else nodes tell of themselves is worth counting.
            other => self.witness.count(other, said.numbers.get("count").copied().unwrap_or(1)),
        }
    }
}

#[derive(Default)]
struct Said {
    message: String,
    numbers: BTreeMap<&'static str, u64>,
}

impl Visit for Said {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.insert(field.name(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        // Nothing that nodes count falls below zero.
        self.numbers.insert(field.name(), u64::try_from(value).unwrap_or(0));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

struct HostTime;

impl FormatTime for HostTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{:>9.3} host {}", NOW.get() as f64 / (1_000 * MS_NS) as f64, HOST.get())
    }
}

#[derive(Clone)]
struct Out(Arc<Mutex<BufWriter<File>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic happens while the log is locked").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().expect("no panic happens while the log is locked").flush()
    }
}
