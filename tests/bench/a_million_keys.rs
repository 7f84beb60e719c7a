//! What a ledger of a million keys costs: memory, snapshots, the longest apply, a restart.
//!
//! ```sh
//! cargo bench --bench a_million_keys        # KEYS=100000 for another number
//! ```
//!
//! Half of the keys are tenants, a third tenants' clients, the rest addresses; each has spent a part of its burst, and
//! every tenth is held in a lease. Memory is what the kernel says is resident (`VmRSS`, and its peak `VmHWM`), so the
//! allocator's own losses are in it. An apply is timed twice: by the clock, which on a busy machine also counts who else
//! ran meanwhile, and by the thread's own CPU time.
#![allow(clippy::disallowed_methods)] // It stands outside the product: it measures with the kernel's own clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::lease::Ask;
use cluster::peer::codec::{self, Kind};
use cluster::peer::message::log::{CommandV1, EntryV1, LogIdV1, PayloadV1};
use cluster::raft::backend::{Backend, Fact, Redb, Write};
use cluster::raft::offline::{self, STORE};
use cluster::raft::snapshot::{Content, Shelf};
use cluster::raft::types::SnapshotMeta;
use cluster::state::State;
use cluster::state::command::{Batch, Command, DocumentChange, Item, Member, Outcome, Register, Stamped};
use cluster::state::ids::{Key, RaftId, SessionId, Tau};
use cluster::state::key::{KeyValues, key};
use config::gateway::GatewayDocument;
use config::ids::{NodeName, QuotaName, TenantId};
use config::quota::{KeyPart, Limit, OnQuorumLoss, Quota, Tenant};
use rustix::time::{ClockId, clock_gettime};

const SECRET: [u8; 16] = [7; 16];
const SECOND: u64 = 1_000_000_000;
/// Entries that the log keeps between two snapshots, and items of each.
const LOG: (u64, u64) = (25_000, 16);

fn main() {
    let keys: u64 = std::env::var("KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(1_000_000);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{keys} keys, {build} build\n");
    let mut ledger = Ledger::founded(&document(3, 0));
    let all = mint(keys);
    ledger.fill(&all);
    ledger.clones();
    let folder = tempfile::tempdir().expect("a temporary directory");
    ledger.snapshot(&all, folder.path());
    ledger.restart(&all, folder.path());
    documents();
}

/// `n` quotas by tenant, by tenant and client, by address, in turn; `tenants` with an amount of their own in each.
fn document(n: usize, tenants: usize) -> GatewayDocument {
    let quotas: Vec<Quota> = (0..n).map(quota).collect();
    let own = |tenant: usize| {
        let limit = |quota: &Quota| (quota.name.clone(), slow(20 + (tenant % 7) as u64));
        let limits = quotas.iter().map(limit).collect();
        TenantId::parse(&format!("tenant-{tenant:06}"))
            .map(|id| Tenant { id, plan: None, limits })
            .expect("a name")
    };
    GatewayDocument { tenants: (0..tenants).map(own).collect(), quotas, ..GatewayDocument::default() }
}

fn quota(n: usize) -> Quota {
    let keys: [&[KeyPart]; 3] =
        [&[KeyPart::Tenant], &[KeyPart::Tenant, KeyPart::Client], &[KeyPart::Address]];
    Quota {
        name: QuotaName::parse(&format!("quota-{n:02}")).expect("a good name"),
        key: keys[n % 3].to_vec(),
        limit: slow(10),
        wait: None,
        on_quorum_loss: OnQuorumLoss::Deny,
    }
}

/// So slow that no bucket is full again, and forgotten, before the end.
fn slow(burst: u64) -> Limit {
    Limit { tokens: 1, per_ns: 3600 * SECOND, burst }
}

/// Some addresses share a slot, and are one key.
fn mint(keys: u64) -> Vec<Key> {
    let quotas: Vec<Quota> = (0..3).map(quota).collect();
    let mut seen = BTreeSet::new();
    let mut all: Vec<Key> = (0_u64..)
        .map(|n| {
            let (tenant, client) = (format!("tenant-{n}"), format!("client-{n}"));
            let shared = format!("tenant-{}", n % 3000);
            let address = std::net::IpAddr::from(u32::try_from(n).expect("fits").to_be_bytes());
            let by_tenant = KeyValues { tenant: Some(&tenant), ..KeyValues::default() };
            let by_client =
                KeyValues { tenant: Some(&shared), client: Some(&client), ..KeyValues::default() };
            let by_address = KeyValues { address: Some(address), ..KeyValues::default() };
            match n % 6 {
                0..=2 => key(&SECRET, &quotas[0], &by_tenant),
                3..=4 => key(&SECRET, &quotas[1], &by_client),
                _ => key(&SECRET, &quotas[2], &by_address),
            }
        })
        .filter(|key| seen.insert(*key))
        .take(usize::try_from(keys).expect("fits"))
        .collect();
    all.shrink_to_fit();
    all
}

struct Ledger {
    state: State,
    index: u64,
    tau: u64,
    session: SessionId,
    seq: u64,
    chance: u64,
}

impl Ledger {
    fn founded(document: &GatewayDocument) -> Self {
        let mut ledger =
            Self { state: State::default(), index: 0, tau: 0, session: SessionId(0), seq: 0, chance: 1 };
        let name = NodeName::parse("node-1").expect("a good name");
        let founder = Member { name, address: "node-1:1".to_owned() };
        ledger.apply(&Command::Found { cluster_id: 1, secret: SECRET, founder });
        ledger.change(document);
        let registers = vec![Register { node: RaftId(1), nonce: 1 }];
        let Outcome::Stamped(outcome) = ledger.apply(&Command::Stamped(Stamped { registers, ..stamped(0) }))
        else {
            panic!("a stamped entry has a stamped outcome")
        };
        ledger.session = outcome.sessions[0];
        ledger
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, 1, command)
    }

    fn change(&mut self, document: &GatewayDocument) -> Took {
        self.tau += SECOND;
        let json = document.to_canonical_json().into();
        let change = DocumentChange { json, expected: None, request_id: u128::from(self.index) };
        let command = Command::Stamped(Stamped { document: Some(change), ..stamped(self.tau) });
        let (outcome, took) = timed(|| self.apply(&command));
        assert!(matches!(outcome, Outcome::Stamped(outcome) if matches!(outcome.document, Some(Ok(_)))));
        took
    }

    /// An entry in which each key spends a token; every tenth key's lease stays.
    fn entry(&mut self, keys: impl Iterator<Item = Key>) -> Command {
        self.tau += 2_000_000;
        self.seq += 1;
        let items = keys.enumerate().map(|(n, key)| Item {
            key,
            lid: None,
            held: 0,
            spent: 0,
            min: 0,
            max: 1,
            ttl_ns: if n % 10 == 0 { 3600 * SECOND } else { 1 },
        });
        let batch = Batch { session: self.session, seq: self.seq, items: items.collect() };
        Command::Stamped(Stamped { batches: vec![batch], ..stamped(self.tau) })
    }

    fn some(&mut self, keys: &[Key], count: usize) -> Command {
        let mut chance = self.chance;
        let mut next = || {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            keys[usize::try_from(chance % keys.len() as u64).expect("fits")]
        };
        let some: Vec<Key> = (0..count).map(|_| next()).collect();
        self.chance = chance;
        self.entry(some.into_iter())
    }

    fn fill(&mut self, keys: &[Key]) {
        let before = memory().0;
        let (began, mut most) = (Instant::now(), Took::default());
        for some in keys.chunks(Ask::ITEMS_MAX) {
            let command = self.entry(some.iter().copied());
            most = most.max(timed(|| drop(self.apply(&command))).1);
        }
        let found = self.state.ledger().buckets();
        assert_eq!(found, keys.len() as u64, "every key has a bucket");
        // Expired leases are taken out by the sweep.
        for _ in 0..keys.len() / 16 {
            let command = Command::Stamped(stamped(self.tau));
            self.apply(&command);
        }
        let bytes = (memory().0 - before) as f64 / found as f64;
        line("ledger, bytes a key", format!("{bytes:.0}"));
        line(
            "  filled in",
            format!("{:?}, longest apply of {} new keys {most}", began.elapsed(), Ask::ITEMS_MAX),
        );
    }

    fn clones(&self) {
        let (mut clone, mut drops) = (Took::default(), Took::default());
        for _ in 0..20 {
            let (copy, took) = timed(|| self.state.clone());
            clone = clone.max(took);
            drops = drops.max(timed(|| drop(copy)).1);
        }
        line("clone, under the lock", format!("longest {clone}, dropped again {drops}"));
    }

    /// Encodes a snapshot on another thread while entries are applied here.
    fn snapshot(&mut self, keys: &[Key], folder: &Path) {
        let sizes = [1, 64, Ask::ITEMS_MAX]; // The last is as many as an entry may have.
        let mut calm = BTreeMap::new();
        for size in sizes.into_iter().cycle().take(60) {
            let command = self.some(keys, size);
            let took = timed(|| drop(self.apply(&command))).1;
            calm.entry(size).or_insert(Took::default()).keep(took);
        }
        let content = Content { meta: meta(self.index), state: self.state.clone() };
        let folder = folder.to_owned();
        let done = Arc::new(AtomicBool::new(false));
        let is_done = done.clone();
        let before = memory().0;
        reset_peak();
        let encoder = std::thread::spawn(move || {
            let world = quorumgate::world::real();
            let _lock = world.disk.lock(&folder).expect("an empty directory");
            let began = Instant::now();
            run(Shelf::new(world).store(content)).expect("it is written");
            is_done.store(true, Ordering::SeqCst);
            began.elapsed()
        });
        let mut busy = BTreeMap::new();
        for size in sizes.into_iter().cycle() {
            if done.load(Ordering::SeqCst) {
                break;
            }
            let command = self.some(keys, size);
            let took = timed(|| drop(self.apply(&command))).1;
            busy.entry(size).or_insert(Took::default()).keep(took);
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = encoder.join().expect("no panic");
        let peak = memory().1.saturating_sub(before);
        line("snapshot, encoded and durable in", format!("{took:?}, {} more at its peak", mib(peak)));
        for size in sizes {
            let calm = calm.get(&size).map_or("-".to_owned(), Took::to_string);
            let busy = busy.get(&size).map_or("-".to_owned(), Took::to_string);
            line(&format!("longest apply of {size} items"), format!("{calm}, during a snapshot {busy}"));
        }
    }

    /// Reads the snapshot and a log of entries after it, as a node does at its start.
    fn restart(&mut self, keys: &[Key], folder: &Path) {
        let world = quorumgate::world::real();
        let _lock = world.disk.lock(folder).expect("the encoder has ended");
        let at = {
            let content = run(Shelf::new(world.clone()).load()).expect("it is whole").expect("it is there");
            self.state = content.state;
            content.meta.last_log_id.expect("it holds entries").index
        };
        self.index = at;
        let file = std::fs::metadata(folder.join("raft.snapshot")).expect("it was written").len();
        line("  file", format!("{}, {:.0} bytes a key", mib(file), file as f64 / keys.len() as f64));
        let (log, items) = LOG;
        let store = Redb::open(&world, Path::new(STORE)).expect("a new store");
        let mut writes = Vec::new();
        for index in at + 1..=at + log {
            let command = self.some(keys, usize::try_from(items).expect("fits"));
            let id = LogIdV1 { term: 1, index };
            let entry = EntryV1 { id, payload: PayloadV1::Command(CommandV1::from(&command)) };
            writes.push(Write::Put(index, codec::seal(Kind::Entry, &codec::encode(&entry)).expect("short")));
            if writes.len() == 512 || index == at + log {
                store.write(&writes).expect("written");
                writes.clear();
            }
        }
        let purged =
            codec::seal(Kind::LogId, &codec::encode(&LogIdV1 { term: 1, index: at })).expect("short");
        store
            .write(&[Write::Set(Fact::Purged, purged.clone()), Write::Set(Fact::Committed, purged)])
            .expect("written");
        drop(store);
        let before = memory().0;
        reset_peak();
        let (content, decode) = timed(|| run(Shelf::new(world.clone()).load()));
        let peak = memory().1.saturating_sub(before);
        let ((), drops) = timed(|| drop(content));
        let wall = decode.wall;
        line("snapshot, read in", format!("{wall:.2?}, {} at its peak, dropped again {drops}", mib(peak)));
        let (held, took) = timed(|| run(offline::read(&world)).expect("both are whole"));
        assert_eq!(held.last.expect("it holds entries").index, at + log);
        line("restart", format!("{:.2?}: the snapshot and {log} entries of {items} items", took.wall));
        let store = Redb::open(&world, Path::new(STORE)).expect("the same store");
        let began = Instant::now();
        store.write(&[Write::RemoveThrough(at + log - 5000)]).expect("written");
        line("purge, one write", format!("{:?}: {} entries", began.elapsed(), log - 5000));
    }
}

/// Documents with many amounts.
fn documents() {
    for (quotas, tenants) in [(10, 100), (10, 1000), (10, 10_000)] {
        let mut ledger = Ledger::founded(&document(quotas, 0));
        let mut most = Took::default();
        for turn in 0..6 {
            let mut document = document(quotas, tenants);
            document.quotas.iter_mut().for_each(|quota| quota.limit = slow(10 + turn));
            most = most.max(ledger.change(&document));
        }
        line(&format!("document, {quotas} quotas × {tenants} tenants"), format!("longest apply {most}"));
    }
}

fn stamped(tau: u64) -> Stamped {
    Stamped { term: 1, stamp: Tau(tau), document: None, registers: Vec::new(), batches: Vec::new() }
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(LogIdV1 { term: 1, index }.into()), ..SnapshotMeta::default() }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// By the clock, and by the thread's CPU time.
#[derive(Clone, Copy, Default)]
struct Took {
    wall: Duration,
    cpu: Duration,
}

impl Took {
    fn max(self, other: Self) -> Self {
        Self { wall: self.wall.max(other.wall), cpu: self.cpu.max(other.cpu) }
    }

    fn keep(&mut self, other: Self) {
        *self = self.max(other);
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2?} (cpu {:.2?})", self.wall, self.cpu)
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let cpu = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("below a second"))
    };
    let (wall_before, cpu_before) = (Instant::now(), cpu());
    let result = work();
    (result, Took { wall: wall_before.elapsed(), cpu: cpu() - cpu_before })
}

/// Resident bytes: now, and at the peak since the last reset.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says what is resident");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("it is there");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("a process may reset its own peak");
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

fn line(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<36} {figure}");
}
