//! A cluster and its surroundings, a millisecond after the other, under the weather of a plan.

mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::fatal::Fatal;
use config::node::NodeFile;
use config::quota::KeyPart;
use config::route::Route;
use tokio::sync::{mpsc, oneshot};

use crate::chance::Chance;
use crate::clock::{MS_NS, TrueNs};
use crate::disk::SimDisk;
use crate::edition::{self, upstream_host};
use crate::event::{Event, Token};
use crate::host::{Host, HostNumber};
use crate::network::Network;
use crate::people::Standing;
use crate::people::caller::{self, Manner, Newcomer, PATIENCE, Party, Pattern};
use crate::people::operator::{self, Operator};
use crate::people::upstream::{self, Upstream};
use crate::people::{ADMIN_PORT, CLUSTER_PORT, HTTP_PORT, SECRET, SECRET_FILE};
use crate::plan::Plan;
use crate::scene::{self, CROWD, Caller, FIRST_CALLER, NODES_MAX, OPERATOR, Protocol, Spread};
use crate::weather::Mood;
use crate::witness::{self, Witness};
use crate::world::world;

use troubles::Troubles;

/// A cluster of simulated nodes forms within this time, or something is wrong with it.
const FORM_MS_MAX: u64 = 30_000;
/// After the weather, the cluster has to be well within this time.
pub const CONVERGE_MS_MAX: u64 = 20_000;
/// Callers that may come within a millisecond.
const CROWD_MAX: usize = 64;
/// A process that ended by itself is started again after this, as a supervisor does.
const START_AGAIN_MS: u64 = 500;

/// The hosts, and what happens to them.
pub struct Town {
    now: TrueNs,
    plan: Plan,
    network: Network,
    witness: Witness,
    order: Chance,
    hosts: BTreeMap<HostNumber, Host>,
    disks: BTreeMap<HostNumber, SimDisk>,
    /// Tells a node to stop in order.
    stops: BTreeMap<HostNumber, oneshot::Sender<()>>,
    /// When a node's process is started again; the clock of troubles may forbid it until then.
    start_at: BTreeMap<HostNumber, TrueNs>,
    /// Whom each node's file names.
    named: BTreeMap<HostNumber, Vec<HostNumber>>,
    troubles: Troubles,
    /// Of each upstream, in the order of their hosts.
    moods: Vec<(String, Arc<Mutex<Vec<Mood>>>)>,
    party: Party,
    operator: Operator,
    next_caller: HostNumber,
    /// To the crowd; none: nobody comes any more.
    newcomers: Option<mpsc::Sender<Newcomer>>,
}

/// Why a run ended before its plan did.
pub type Broken = String;

impl Town {
    /// The town of a plan, before its first millisecond.
    pub fn new(plan: &Plan, witness: Witness) -> Self {
        let seed = plan.seed;
        let scene = &plan.scene;
        let network = Network::new(Chance::new(seed, "network"), scene.delay_ms);
        let founders: Vec<HostNumber> = (1..=scene.nodes).collect();
        let nodes = Standing::default();
        founders.iter().for_each(|founder| nodes.add(*founder));
        let places: Vec<HostNumber> = (1..=NODES_MAX).collect();
        let upstreams = scene.upstreams();
        let others = (0..upstreams.len()).map(upstream_host).chain([OPERATOR, CROWD]);
        let hosts = places.iter().copied().chain(others).map(|number| (number, Host::new(number, seed)));
        let disk = |number: &HostNumber| {
            let disk = SimDisk::new(Chance::new(seed, &format!("disk {number}")), scene.sync_ms);
            disk.put(&Path::new("/etc").join(SECRET_FILE), SECRET);
            (*number, disk)
        };
        let closed = Arc::new(AtomicBool::new(false));
        let party = Party {
            network: network.clone(),
            witness: witness.clone(),
            numbers: Arc::new(AtomicU64::new(0)),
            nodes: nodes.clone(),
            closed,
        };
        let operator = Operator {
            network: network.clone(),
            witness: witness.clone(),
            scene: scene.clone(),
            founders,
            nodes: nodes.clone(),
            orders: Arc::default(),
            formed: Arc::default(),
            calm: Arc::default(),
            converged: Arc::default(),
        };
        Self {
            now: 0,
            plan: plan.clone(),
            network,
            witness,
            order: Chance::new(seed, "order"),
            hosts: hosts.collect(),
            disks: places.iter().map(disk).collect(),
            stops: BTreeMap::new(),
            start_at: BTreeMap::new(),
            named: BTreeMap::new(),
            troubles: Troubles::default(),
            moods: upstreams.into_iter().map(|name| (name, Arc::default())).collect(),
            party,
            operator,
            next_caller: FIRST_CALLER,
            newcomers: None,
        }
    }

    /// True time since the start.
    pub fn now(&self) -> TrueNs {
        self.now
    }

    /// Forms the cluster, lets callers call under the weather, waits until all is well, and until the last caller has
    /// given up. `each` hears of every millisecond.
    ///
    /// # Errors
    /// What broke: a panic, a cluster that does not form, or what `each` found.
    pub fn run(
        &mut self,
        mut each: impl FnMut(&Witness, TrueNs) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        for number in self.operator.founders.clone() {
            self.start_node(number);
        }
        self.start_upstreams();
        let operator = self.operator.clone();
        self.hosts.get_mut(&OPERATOR).expect("the operator's host").start(0, operator::operate(operator));
        let formed = self.operator.formed.clone();
        while !formed.load(Ordering::Relaxed) {
            if self.now > FORM_MS_MAX * MS_NS {
                return Err(format!("no cluster within {FORM_MS_MAX} ms"));
            }
            self.step(&mut each)?;
        }
        let begun = self.now;
        self.start_callers();
        let stormy_until = begun + (self.plan.for_ms - self.plan.calm_ms) * MS_NS;
        let ends = begun + self.plan.for_ms * MS_NS;
        let mut weather = std::mem::take(&mut self.plan.weather).into_iter().peekable();
        while self.now < stormy_until {
            while let Some(trouble) = weather.next_if(|next| begun + next.at_ms * MS_NS <= self.now) {
                self.begin(&trouble);
            }
            self.step(&mut each)?;
        }
        self.clear_all();
        self.witness.tell(Event::Calm);
        self.operator.calm.store(true, Ordering::Relaxed);
        let converged = self.operator.converged.clone();
        let calm_since = self.now;
        while self.now < ends || !converged.load(Ordering::Relaxed) {
            if !converged.load(Ordering::Relaxed) && self.now > calm_since + CONVERGE_MS_MAX * MS_NS {
                return Err(format!("converges: not well {CONVERGE_MS_MAX} ms after the last trouble"));
            }
            self.step(&mut each)?;
        }
        self.party.closed.store(true, Ordering::Relaxed);
        drop(self.newcomers.take());
        let patience = u64::try_from(PATIENCE.as_millis()).expect("a few seconds");
        let last = self.now + (patience + 1_000) * MS_NS;
        while self.now < last && self.hosts[&CROWD].is_up() {
            self.step(&mut each)?;
        }
        Ok(())
    }

    /// One millisecond.
    fn step(&mut self, each: &mut impl FnMut(&Witness, TrueNs) -> Result<(), Broken>) -> Result<(), Broken> {
        self.now += MS_NS;
        crate::child::STEPS.store(self.now / MS_NS, Ordering::Relaxed);
        witness::now_runs(0, self.now);
        self.network.run_until(self.now);
        self.clear_due();
        self.cut_again();
        self.start_due();
        let mut numbers: Vec<HostNumber> = self.hosts.keys().copied().collect();
        self.order.shuffle(&mut numbers);
        for number in numbers {
            witness::now_runs(number, self.now);
            let host = self.hosts.get_mut(&number).expect("a host that was listed");
            let ended = host.run_until(self.now)?;
            if self.disks.get(&number).is_some_and(SimDisk::is_cut) {
                // Whatever the process made of it, it did so after its end.
                self.power_was_cut(number);
            } else if let Some(ended) = ended {
                self.ended(number, ended);
            }
        }
        witness::now_runs(0, self.now);
        each(&self.witness, self.now)
    }

    fn ended(&mut self, number: HostNumber, ended: Result<(), Fatal>) {
        let Some(disk) = self.disks.get(&number) else { return };
        disk.let_go();
        // A setting that is wrong is no better the next time: the disk of a member that left, for instance.
        let hopeless = matches!(ended, Err(Fatal::Setup(_)));
        let (why, fault) = match ended {
            Ok(()) => ("told to stop".to_owned(), false),
            Err(why) => (why.to_string(), matches!(why, Fatal::Internal(_))),
        };
        self.witness.tell(Event::Ended { host: number, why, fault });
        if hopeless {
            self.operator.nodes.remove(number);
            self.witness.count("members that left", 1);
            self.rename_peers();
        } else {
            self.start_again_after(number, START_AGAIN_MS);
        }
    }

    /// Who has nothing of the cluster's yet, and whose file names nobody any more who has, would ask in vain for ever: starts
    /// such nodes again, with a file that names whoever stands.
    fn rename_peers(&mut self) {
        let standing = self.operator.nodes.all();
        let knows = |node: &HostNumber| {
            let named = self.named.get(node).into_iter().flatten();
            named.into_iter().any(|peer| peer != node && standing.contains(peer))
        };
        let alone = |node: &HostNumber| !self.witness.has_state(*node) && !knows(node);
        let lonely: Vec<HostNumber> = standing.iter().copied().filter(alone).collect();
        if standing.len() > 1 {
            lonely.into_iter().for_each(|node| self.tell_to_stop(node));
        }
    }

    fn start_again_after(&mut self, number: HostNumber, ms: u64) {
        let at = self.start_at.entry(number).or_insert(0);
        *at = (*at).max(self.now + ms * MS_NS);
    }

    fn start_due(&mut self) {
        let due: Vec<HostNumber> =
            self.start_at.iter().filter(|(_, at)| **at <= self.now).map(|(number, _)| *number).collect();
        for number in due {
            if self.troubles.is_held_down(number) {
                continue;
            }
            self.start_at.remove(&number);
            self.start_node(number);
        }
    }

    fn start_node(&mut self, number: HostNumber) {
        let others = self.operator.nodes.all();
        let host = self.hosts.get_mut(&number).expect("a node's host");
        if host.is_up() {
            return;
        }
        self.network.power_on(number);
        let chance = Chance::new(self.plan.seed, &format!("node {number} life {}", host.lives()));
        let world =
            world(number, self.network.clone(), host.clock().clone(), self.disks[&number].attach(), chance);
        let (stop, stopped) = oneshot::channel::<()>();
        self.stops.insert(number, stop);
        self.named.insert(number, others.clone());
        let file = node_file(number, &others, self.plan.scene.snapshot_after);
        witness::now_runs(number, self.now);
        host.start(self.now, async move {
            let stopped = async {
                // A harness that lets go of its end does not mean stop.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            quorumgate::node::run(world, file, stopped).await
        });
        self.witness.tell(Event::Began { host: number, life: host.lives() });
        self.started(number);
    }

    fn start_upstreams(&mut self) {
        let clocks: BTreeMap<_, _> =
            self.disks.keys().map(|number| (*number, self.hosts[number].clock().clone())).collect();
        let editions = &self.plan.scene.gateway;
        let quotas = editions.iter().flat_map(|edition| &edition.document.quotas);
        let screens = quotas.filter(|quota| quota.is_screen()).map(|quota| quota.name.to_string());
        let screens: Arc<BTreeSet<String>> = Arc::new(screens.collect());
        for (index, (name, moods)) in self.moods.iter().enumerate() {
            let all = editions.iter().flat_map(|edition| &edition.document.upstreams);
            let counts = all.filter(|it| it.name.as_str() == name).map(|it| it.endpoints.len());
            let upstream = Upstream {
                host: upstream_host(index),
                name: name.as_str().into(),
                endpoints: u16::try_from(counts.max().unwrap_or(0)).expect("a document has few endpoints"),
                screens: screens.clone(),
                network: self.network.clone(),
                witness: self.witness.clone(),
                moods: moods.clone(),
                clocks: clocks.clone(),
            };
            let host = self.hosts.get_mut(&upstream_host(index)).expect("an upstream's host");
            host.start(self.now, upstream::serve(upstream));
        }
    }

    fn start_callers(&mut self) {
        let (newcomers, arrive) = mpsc::channel(CROWD_MAX);
        self.newcomers = Some(newcomers);
        self.hosts.get_mut(&CROWD).expect("the crowd's host").start(self.now, caller::crowd(arrive));
        for caller in self.plan.scene.callers.clone() {
            let pattern = self.pattern(&caller);
            self.start_caller(pattern, self.party.clone());
        }
    }

    /// What a caller does. The first edition that has its route says what it asks for, and with what token.
    fn pattern(&self, caller: &Caller) -> Pattern {
        let found = edition::first_with(&self.plan.scene.gateway, &caller.route);
        let (edition, route) = found.expect("a plan's callers ask for routes of its documents");
        let target = edition.target(&caller.route, Some(&caller.method)).and_then(Result::ok);
        Pattern {
            tenant: caller.tenant.clone(),
            client: caller.client().to_owned(),
            token: caller.token,
            pass: edition.pass(route),
            target: Arc::new(target.expect("a plan's callers ask for what their routes take")),
            every: Duration::from_nanos((caller.rate.per_ns / caller.rate.tokens).max(1)),
            at_once: caller.at_once,
            spread: caller.spread,
            protocol: caller.protocol,
            manner: Manner::Plain,
        }
    }

    /// One more caller, with an address of its own.
    fn start_caller(&mut self, pattern: Pattern, party: Party) {
        let host = self.next_caller;
        self.next_caller += 1;
        let newcomer = Newcomer { party, host, pattern };
        let newcomers = self.newcomers.as_ref().expect("callers come before the last trouble ends");
        assert!(newcomers.try_send(newcomer).is_ok(), "a crowd takes in who comes within a millisecond");
    }

    /// A caller that calls until it is told not to, for the last route that counts by tenant. None: there is no such route.
    fn start_stranger(&mut self, tenant: String, every_ms: u64, manner: Manner) -> Option<Arc<AtomicBool>> {
        let edition = self.plan.scene.gateway.first()?;
        let by_tenant = |route: &&Route| {
            let mut quotas = route.charges.iter().filter_map(|charge| edition.quota(charge.quota.as_str()));
            quotas.any(|quota| quota.key.contains(&KeyPart::Tenant))
        };
        let route = edition.document.routes.iter().rev().find(by_tenant)?.name.to_string();
        let posts = (manner == Manner::HangsUp).then_some("POST");
        let method = edition.target(&route, posts)?.ok()?.method;
        let rate = scene::every(every_ms.max(1));
        let (token, spread, protocol) = (Token::Good, Spread::Turns, Protocol::Http1);
        let stranger =
            Caller { route, tenant, client: None, rate, at_once: 1, spread, method, token, protocol };
        let closed = Arc::new(AtomicBool::new(false));
        let pattern = Pattern { manner, ..self.pattern(&stranger) };
        self.start_caller(pattern, Party { closed: closed.clone(), ..self.party.clone() });
        Some(closed)
    }

    /// What the network and the disks saw, for the coverage.
    pub fn count_what_was_seen(&self) {
        let seen = self.network.seen();
        self.witness.count("connections made", seen.connections);
        self.witness.count("connections refused", seen.refused);
        self.witness.count("connections reset", seen.resets);
        self.witness.count("segments held", seen.held);
        self.witness.count("segments lost", seen.lost);
        for disk in self.disks.values() {
            let seen = disk.seen();
            self.witness.count("power cuts with unsynced bytes", seen.cuts_unsynced);
            self.witness.count("writes lost", seen.lost_writes);
            self.witness.count("writes torn", seen.torn_writes);
            self.witness.count("writes without room", seen.full);
            self.witness.count("disk errors", seen.errors);
        }
    }
}

/// How patient nodes are with a caller's head.
pub const HEAD_TIMEOUT_S: u64 = 3;

/// The node file of node `number`, as an operator would write it on a laptop; `others`: the members of that day.
fn node_file(number: HostNumber, others: &[HostNumber], snapshot_after: u64) -> NodeFile {
    let peers: String = others
        .iter()
        .filter(|peer| **peer != number)
        .map(|peer| format!("    node-{peer}: 127.0.0.{peer}:{CLUSTER_PORT}\n"))
        .collect();
    let peers = if peers.is_empty() { String::new() } else { format!("  peers:\n{peers}") };
    let text = format!(
        "name: node-{number}\ndata: /data\ncluster:\n  listen: 127.0.0.{number}:{CLUSTER_PORT}\n  plaintext: true\n{peers}\
         limits: {{head_timeout: {HEAD_TIMEOUT_S}s}}\n\
         http: {{listen: \"127.0.0.{number}:{HTTP_PORT}\", workers: 1}}\nadmin: {{listen: \"127.0.0.{number}:{ADMIN_PORT}\"}}\n\
         debug: {{stamp_admissions: true, snapshot_after_entries: {snapshot_after}}}\n"
    );
    match config::node::parse(&text, Path::new("/etc")) {
        Ok(checked) => checked.value,
        Err(mistakes) => panic!("{}", config::mistake::render("node file", &text, &mistakes)),
    }
}
