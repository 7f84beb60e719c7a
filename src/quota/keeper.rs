//! The keeper of this node's quotas: owns the lessee, talks to connections (on a miss) and to the replica.
//!
//! A request whose keys have tokens never comes here: the handle reads the published entries itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use cluster::HISTORY;
use cluster::hooks::panic_point;
use cluster::lease::{Ask, AskError, AskReply, Push};
use cluster::replica::Replica;
use cluster::state::ids::{Key, SessionId};
use cluster::view::View;
use cluster::world::{BootNs, BoxFuture, World};
use config::ids::QuotaName;
use config::node::Limits;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use smallvec::SmallVec;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::entry::{Counts, Entry, one_token};
use super::hold::Hold;
use super::lessee::{Bounds, Charges, Lessee, Output, Verdict, WaiterId};
use super::rule::{Admission, Charge, QuotaRule, Refused, Standing, Stats, Violation};

/// Times that a request may find its lease dead between its turn and its commit.
const TRIES: usize = 3;
/// No wait is longer, whatever a quota asks for: an actor that went away must not hold requests for ever.
const WAIT_MAX: Duration = Duration::from_secs(60);
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// When a key that found no room may try again.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// Words of the leader that may lie in the mailbox.
const PUSHES_MAX: usize = 64;

/// Whom the keeper asks: the cluster's ledger, through this node's replica.
pub trait Ledger: Send + Sync + 'static {
    /// Asks for a session; answered after commit.
    fn register(&self, nonce: u128) -> BoxFuture<'static, Result<SessionId, AskError>>;
    /// Sends one batch to the leader. Has no deadline of its own.
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<AskReply, AskError>>;
}

impl Ledger for Replica {
    fn register(&self, nonce: u128) -> BoxFuture<'static, Result<SessionId, AskError>> {
        Box::pin(Self::register(self, nonce))
    }
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<AskReply, AskError>> {
        Box::pin(Self::ask(self, ask))
    }
}

/// The door to the node's quotas. Cheap to clone; stays good when its actor is restarted.
#[derive(Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
}

struct Shared {
    world: World,
    ledger: Arc<dyn Ledger>,
    views: watch::Receiver<Arc<View>>,
    pushes: Mutex<mpsc::Receiver<Push>>,
    bounds: Bounds,
    actor: ArcSwapOption<ActorRef<Msg>>,
    entries: papaya::HashMap<Key, Arc<Entry>>,
    counts: papaya::HashMap<QuotaName, Arc<Counts>>,
    /// Since when the ledger leaves questions without an answer; 0: it does not.
    silent_since_ns: AtomicU64,
    /// Batches sent.
    asked: AtomicU64,
    /// Words of the leader that were heard.
    pushed: AtomicU64,
    /// Bounds what is sent to the mailbox.
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

/// What the handle found without the actor.
enum AtHand {
    Admitted(Admission),
    Refused(Refused),
    Missing,
}

impl Keeper {
    /// A door without an actor behind it: until [`Keeper::start`], every request is undecided.
    pub fn new(
        world: World,
        ledger: Arc<dyn Ledger>,
        views: watch::Receiver<Arc<View>>,
        pushes: mpsc::Receiver<Push>,
        limits: &Limits,
    ) -> Self {
        let (waiters_max, keys_max) = (limits.waiters_max as usize, limits.keys_max as usize);
        Self::bounded(world, ledger, views, pushes, Bounds { waiters_max, keys_max })
    }

    fn bounded(
        world: World,
        ledger: Arc<dyn Ledger>,
        views: watch::Receiver<Arc<View>>,
        pushes: mpsc::Receiver<Push>,
        bounds: Bounds,
    ) -> Self {
        let shared = Shared {
            world,
            ledger,
            views,
            pushes: Mutex::new(pushes),
            bounds,
            actor: ArcSwapOption::empty(),
            entries: papaya::HashMap::new(),
            counts: papaya::HashMap::new(),
            silent_since_ns: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            pushed: AtomicU64::new(0),
            permits: Arc::new(Semaphore::new(bounds.waiters_max.min(Semaphore::MAX_PERMITS))),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the actor under `supervisor`, on the calling runtime (the control domain's), or starts it again after it
    /// failed: all leases are dropped, and a new session begins.
    ///
    /// # Errors
    /// If the actor can not be spawned.
    pub async fn start(&self, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let shared = Arc::clone(&self.shared);
        let (actor, _) = Actor::spawn_linked(None, KeeperActor, shared, supervisor).await?;
        self.shared.actor.store(Some(Arc::new(actor.clone())));
        Ok(actor.get_cell())
    }

    /// Spends the charges of one request, all or none. With tokens at hand it costs a few atomic operations and one clock
    /// read; else the request waits, as long as its quotas allow, for the leader.
    ///
    /// The keys of `charges` are distinct. No charges: admitted.
    ///
    /// # Errors
    /// [`Refused`]; nothing was spent.
    pub async fn admit(&self, charges: &[Charge]) -> Result<Admission, Refused> {
        match self.at_hand(charges) {
            AtHand::Admitted(admission) => Ok(admission),
            AtHand::Refused(refused) => Err(refused),
            // Boxed: it is rare, and every request would carry its size.
            AtHand::Missing => Box::pin(self.wait(charges)).await,
        }
    }

    /// The hot path: no lock, no mailbox, one clock read.
    fn at_hand(&self, charges: &[Charge]) -> AtHand {
        let entries = self.shared.entries.pin();
        let mut found: SmallVec<[&Entry; 4]> = SmallVec::new();
        let mut hold: Hold<&Entry> = Hold::default();
        let mut enough = true;
        for charge in charges {
            let Some(entry) = entries.get(&charge.key) else { return AtHand::Missing };
            found.push(entry);
            enough = enough && !entry.has_waiters() && hold.reserve(entry, charge.cost);
        }
        // The only clock read, after the last reservation: the instant of the admission.
        let at = self.shared.world.clock.boot();
        if !enough {
            drop(hold);
        } else if hold.commit(at, |place| self.wake(charges[place].key)) {
            found.iter().for_each(|entry| entry.counts.admitted());
            let standings = found.iter().zip(charges).map(|(entry, charge)| entry.standing(charge)).collect();
            return AtHand::Admitted(Admission { at, standings });
        }
        let lacks = |entry: &Entry, charge: &Charge| entry.cell.held().tokens < u64::from(charge.cost);
        let violated: Vec<Violation> = found
            .iter()
            .zip(charges)
            .filter(|(entry, charge)| lacks(entry, charge))
            .filter_map(|(entry, charge)| {
                let retry_after = entry.refused_for(at)?;
                entry.missed(charge.cost, at);
                entry.counts.refused();
                Some(Violation { standing: entry.standing(charge), retry_after })
            })
            .collect();
        if violated.is_empty() { AtHand::Missing } else { AtHand::Refused(over(violated)) }
    }

    /// The miss: waits for the actor's verdict. A lease may die between a request's turn and its commit; it queues again.
    async fn wait(&self, charges: &[Charge]) -> Result<Admission, Refused> {
        for _ in 0..TRIES {
            // It goes with the message, and not with the request: one that went away still lies in the mailbox.
            let permit = Arc::clone(&self.shared.permits).try_acquire_owned();
            let Ok(permit) = permit else { return Err(Refused::Overloaded) };
            let Some(actor) = self.shared.actor.load_full() else { break };
            let (reply, verdict) = oneshot::channel();
            if actor.cast(Msg::Admit(charges.iter().cloned().collect(), reply.into(), permit)).is_err() {
                break;
            }
            let Ok(Ok(verdict)) = tokio::time::timeout(WAIT_MAX, verdict).await else { break };
            match verdict {
                Verdict::Ready(hold) => {
                    let at = self.shared.world.clock.boot();
                    if hold.commit(at, |_| {}) {
                        self.count(charges, Counts::admitted);
                        let standings = charges.iter().map(|charge| self.standing(charge)).collect();
                        return Ok(Admission { at, standings });
                    }
                }
                Verdict::Over(short) => {
                    let violated = short.into_iter().map(|(place, retry_after)| {
                        self.count(&charges[place..=place], Counts::refused);
                        Violation { standing: self.standing(&charges[place]), retry_after }
                    });
                    return Err(over(violated.collect()));
                }
                Verdict::Undecided { places, retry_after } if !places.is_empty() => {
                    let undecided = places.into_iter().map(|place| charges[place].clone());
                    return Err(self.undecided(&undecided.collect::<Charges>(), retry_after));
                }
                Verdict::Undecided { .. } => break,
                Verdict::KeysFull(place) => {
                    self.count(&charges[place..=place], Counts::turned_away);
                    let quota = Arc::clone(&charges[place].quota);
                    let retry_after =
                        one_token(self.standing(&charges[place]).limit).clamp(AGAIN_MIN, AGAIN_MAX);
                    return Err(Refused::KeysFull { quota, retry_after });
                }
                Verdict::Overloaded => return Err(Refused::Overloaded),
            }
        }
        Err(self.undecided(charges, None))
    }

    fn undecided(&self, charges: &[Charge], retry_after: Option<Duration>) -> Refused {
        tracing::debug!(target: HISTORY, "requests undecided");
        self.count(charges, Counts::undecided);
        let quotas: Vec<Arc<QuotaRule>> = charges.iter().map(|c| Arc::clone(&c.quota)).collect();
        Refused::Undecided { quotas, retry_after: retry_after.unwrap_or(Refused::ASK_AGAIN) }
    }

    fn count(&self, charges: &[Charge], what: impl Fn(&Counts)) {
        let counts = self.shared.counts.pin();
        for charge in charges {
            what(counts.get_or_insert_with(charge.quota.name.clone(), Arc::default));
        }
    }

    fn wake(&self, key: Key) {
        if let Some(actor) = &*self.shared.actor.load() {
            // The actor is gone: its successor begins without leases.
            let _ = actor.cast(Msg::Low(key));
        }
    }

    /// Where a charge's key stands, without spending.
    pub fn standing(&self, charge: &Charge) -> Standing {
        if let Some(entry) = self.shared.entries.pin().get(&charge.key) {
            return entry.standing(charge);
        }
        let limit = charge.quota.limit;
        let reset_s = if limit.burst > 0 { 0 } else { one_token(limit).as_secs() };
        Standing { quota: Arc::clone(&charge.quota), limit, left: limit.burst, reset_s }
    }

    /// Figures for status and metrics.
    pub fn stats(&self) -> Stats {
        let now = self.shared.world.clock.boot();
        let entries = self.shared.entries.pin();
        let alive = entries.values().filter(|entry| now.0 < entry.cell.deadline_ns());
        let tokens_held = alive.map(|entry| entry.cell.held().total()).sum();
        let counts = self.shared.counts.pin();
        let quotas: BTreeMap<_, _> = counts.iter().map(|(name, c)| (name.clone(), c.read())).collect();
        let waiting = self.shared.bounds.waiters_max.saturating_sub(self.shared.permits.available_permits());
        let silent = self.silent_at(now);
        let (asked, pushed) = (self.shared.asked.load(Relaxed), self.shared.pushed.load(Relaxed));
        Stats {
            cells: entries.len() as u64,
            tokens_held,
            waiting: waiting as u64,
            silent,
            asked,
            pushed,
            quotas,
        }
    }

    /// How long the ledger has left this node's questions without an answer; none: it owes none.
    pub fn silent(&self) -> Option<Duration> {
        self.silent_at(self.shared.world.clock.boot())
    }

    fn silent_at(&self, now: BootNs) -> Option<Duration> {
        let since = self.shared.silent_since_ns.load(Relaxed);
        (since > 0).then(|| Duration::from_nanos(now.since(BootNs(since))))
    }

    /// Gives every lease back in a last batch. Ends when the leader has it, or after three seconds. No request is admitted
    /// from now on that would have to wait.
    pub async fn drain(&self) {
        let Some(actor) = self.shared.actor.load_full() else { return };
        let (reply, done) = oneshot::channel();
        if actor.cast(Msg::Drain(reply.into())).is_ok() {
            // Leases that were not returned run out on their own.
            let _ = tokio::time::timeout(DRAIN_MAX, done).await;
        }
    }
}

fn over(violated: Vec<Violation>) -> Refused {
    let retry_after = violated.iter().map(|v| v.retry_after).max().unwrap_or_default();
    Refused::Over { violated, retry_after }
}

/// What the actor hears.
enum Msg {
    /// From a connection: it found too few tokens.
    Admit(Charges, RpcReplyPort<Verdict>, OwnedSemaphorePermit),
    /// From a connection: it took one of the last tokens.
    Low(Key),
    /// From our own task: the ledger's answer to a registration.
    Registered(u128, Result<SessionId, AskError>),
    /// From our own task: the ledger's answer to a batch.
    Answered(SessionId, u64, Result<AskReply, AskError>),
    /// From our own timer; the instant for which it was set.
    Woke(BootNs),
    /// From the leader, unasked.
    Pushed(Push, OwnedSemaphorePermit),
    /// From the replica: the view changed.
    Viewed(Arc<View>),
    /// From the node: it stops.
    Drain(RpcReplyPort<()>),
}

struct KeeperActor;

struct State {
    shared: Arc<Shared>,
    lessee: Lessee,
    waiting: BTreeMap<WaiterId, (RpcReplyPort<Verdict>, OwnedSemaphorePermit)>,
    draining: Vec<RpcReplyPort<()>>,
    alarm: Option<(BootNs, AbortHandle)>,
    /// Questions on their way, timers and feeds; all end with the actor.
    tasks: JoinSet<()>,
}

impl Actor for KeeperActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(&self, me: ActorRef<Msg>, shared: Arc<Shared>) -> Result<State, ActorProcessingErr> {
        // What an earlier life left: no token of it may be spent, since nobody reports it any more.
        let entries = shared.entries.pin_owned();
        for entry in entries.values() {
            entry.cell.new_lease(0, 0);
        }
        entries.clear();
        drop(entries);
        let mut nonce = [0; 16];
        shared.world.chance.fill(&mut nonce);
        let lessee = Lessee::new(shared.world.clock.boot(), u128::from_le_bytes(nonce), shared.bounds);
        let mut tasks = JoinSet::new();
        tasks.spawn(feed_pushes(me.clone(), Arc::clone(&shared)));
        tasks.spawn(feed_views(me.clone(), shared.views.clone()));
        let (waiting, draining) = (BTreeMap::new(), Vec::new());
        let mut state = State { shared, lessee, waiting, draining, alarm: None, tasks };
        state.carry_out(&me);
        Ok(state)
    }

    async fn handle(&self, me: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        panic_point("quotas");
        let now = state.shared.world.clock.boot();
        match msg {
            Msg::Admit(charges, reply, permit) => {
                for charge in &charges {
                    let counts = state.shared.counts.pin();
                    let counts = counts.get_or_insert_with(charge.quota.name.clone(), Arc::default);
                    state.lessee.count_in(&charge.quota.name, counts);
                }
                let id = state.lessee.admit(now, charges);
                state.waiting.insert(id, (reply, permit));
            }
            Msg::Low(key) => state.lessee.low(now, key),
            Msg::Registered(nonce, answer) => state.lessee.registered(now, nonce, answer),
            Msg::Answered(session, seq, answer) => state.lessee.answered(now, session, seq, answer),
            Msg::Woke(at) if state.alarm.as_ref().is_some_and(|(set, _)| *set == at) => {
                state.alarm = None;
                state.lessee.woke(now);
            }
            Msg::Woke(_) => {}
            Msg::Pushed(push, _permit) => {
                state.shared.pushed.fetch_add(1, Relaxed);
                state.lessee.pushed(now, push);
            }
            Msg::Viewed(view) => {
                let document = view.document.as_ref();
                let quotas: BTreeSet<QuotaName> =
                    document.iter().flat_map(|d| &d.quotas).map(|q| q.name.clone()).collect();
                state.lessee.viewed(now, &quotas, view.members.len());
            }
            Msg::Drain(reply) => {
                state.draining.push(reply);
                state.lessee.drain(now);
            }
        }
        state.carry_out(&me);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.lessee.drop_all();
        Ok(())
    }
}

impl State {
    /// Drains the lessee's wishes into tasks, replies and the published entries.
    fn carry_out(&mut self, me: &ActorRef<Msg>) {
        let silent_since = self.lessee.silent_since().map_or(0, |since| since.0);
        self.shared.silent_since_ns.store(silent_since, Relaxed);
        while let Some(ended) = self.tasks.try_join_next() {
            // Without its feeds a keeper is deaf: it ends, and another one begins.
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        while let Some(output) = self.lessee.poll_output() {
            let (me, clock) = (me.clone(), Arc::clone(&self.shared.world.clock));
            match output {
                Output::Register { nonce, within } => {
                    let answer = self.shared.ledger.register(nonce);
                    self.tasks.spawn(async move {
                        let gone = clock.sleep(within);
                        tokio::select! { biased;
                            answer = answer => drop(me.cast(Msg::Registered(nonce, answer))),
                            () = gone => {}
                        }
                    });
                }
                Output::Send { ask, within } => {
                    let (session, seq) = (ask.session, ask.seq);
                    self.shared.asked.fetch_add(1, Relaxed);
                    let answer = self.shared.ledger.ask(ask);
                    self.tasks.spawn(async move {
                        let gone = clock.sleep(within);
                        tokio::select! { biased;
                            answer = answer => drop(me.cast(Msg::Answered(session, seq, answer))),
                            () = gone => {}
                        }
                    });
                }
                Output::WakeAt(at) => {
                    let alarm = self.tasks.spawn(async move {
                        clock.sleep(Duration::from_nanos(at.since(clock.boot()))).await;
                        drop(me.cast(Msg::Woke(at)));
                    });
                    if let Some((_, old)) = self.alarm.replace((at, alarm)) {
                        old.abort();
                    }
                }
                Output::Resolve(id, verdict) => self.resolve(id, verdict),
                Output::Publish(key, entry) => drop(self.shared.entries.pin().insert(key, entry)),
                Output::Withdraw(key) => drop(self.shared.entries.pin().remove(&key)),
                Output::Drained => self.draining.drain(..).for_each(|reply| drop(reply.send(()))),
            }
        }
    }

    fn resolve(&mut self, id: WaiterId, verdict: Verdict) {
        if let Some((reply, permit)) = self.waiting.remove(&id) {
            drop(permit);
            // A request that went away drops its hold, which gives the tokens back.
            drop(reply.send(verdict));
        }
    }
}

async fn feed_pushes(me: ActorRef<Msg>, shared: Arc<Shared>) {
    let mut pushes = shared.pushes.lock().await;
    let places = Arc::new(Semaphore::new(PUSHES_MAX));
    // Those beyond wait in the channel, which is bounded.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await
        && let Some(push) = pushes.recv().await
    {
        if me.cast(Msg::Pushed(push, place)).is_err() {
            return;
        }
    }
}

/// Views change with every applied entry; the lessee hears of those that change quotas or gateways.
async fn feed_views(me: ActorRef<Msg>, mut views: watch::Receiver<Arc<View>>) {
    let mut told = None;
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let news = Some((view.revision, view.members.len()));
        if told != news {
            told = news;
            if me.cast(Msg::Viewed(view)).is_err() {
                return;
            }
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
