use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use cluster::state::ids::LimitId;
use cluster::world::Clock;
use config::quota::{Limit, OnQuorumLoss};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;
use crate::quota::lessee::fake::Leader;
use crate::world::small::Small;

/// A ledger two milliseconds away that can fall silent.
struct Far {
    clock: Arc<Small>,
    leader: parking_lot::Mutex<Leader>,
    silent: AtomicBool,
    asked: AtomicUsize,
}

struct Street(Arc<Far>);

impl Ledger for Street {
    fn register(&self, _: u128) -> BoxFuture<'static, Result<SessionId, AskError>> {
        Box::pin(async { Ok(SessionId(1)) })
    }
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<AskReply, AskError>> {
        let far = Arc::clone(&self.0);
        Box::pin(async move {
            far.asked.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            if far.silent.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            let now = far.clock.boot();
            far.leader.lock().apply(&ask, now).ok_or(AskError::Unreachable)
        })
    }
}

/// Outlives its child.
struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();
    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: ractor::SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

struct Town {
    keeper: Keeper,
    far: Arc<Far>,
    parent: ActorRef<()>,
    actor: ActorCell,
    _views: watch::Sender<Arc<View>>,
    _pushes: mpsc::Sender<Push>,
}

async fn town(limit: Limit) -> Town {
    let small = Small::new();
    let world = small.world();
    let leader = parking_lot::Mutex::new(Leader::new(limit));
    let (silent, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let far = Arc::new(Far { clock: small, leader, silent, asked });
    let quota = serde_json::json!({
        "name": "q", "key": [], "limit": limit, "wait": null, "on_quorum_loss": "deny",
    });
    let quotas = vec![serde_json::from_value(quota).expect("it is a quota")];
    let document = config::gateway::GatewayDocument { quotas, ..Default::default() };
    let (views, seen) =
        watch::channel(Arc::new(View { document: Some(Arc::new(document)), ..View::default() }));
    let (pushes, pushed) = mpsc::channel(4);
    let bounds = Bounds { waiters_max: 64, keys_max: 64 };
    let keeper = Keeper::bounded(world, Arc::new(Street(Arc::clone(&far))), seen, pushed, bounds);
    let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("the parent starts");
    let actor = keeper.start(parent.get_cell()).await.expect("the keeper starts");
    Town { keeper, far, parent, actor, _views: views, _pushes: pushes }
}

const SMALL: Limit = Limit { tokens: 1, per_ns: 1_000_000_000, burst: 3 };

fn charge() -> Charge {
    let name = QuotaName::parse("q").expect("a good name");
    let on_quorum_loss = OnQuorumLoss::Deny;
    let rule = QuotaRule { name, limit_id: LimitId(1), wait: None, on_quorum_loss, limit: SMALL };
    Charge { quota: Arc::new(rule), key: Key { limit: LimitId(1), tenant: 0, value: 1 }, cost: 1 }
}

#[tokio::test(start_paused = true)]
async fn the_burst_is_admitted_and_not_one_more() {
    // given three tokens and one a second
    let town = town(SMALL).await;
    let charges = [charge()];
    // when ten requests come at once
    let answers = futures_util::future::join_all((0..10).map(|_| town.keeper.admit(&charges))).await;
    // then three are admitted, and the leader refused the others
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 3);
    let refused = answers.iter().filter(|a| matches!(a, Err(Refused::Over { .. }))).count();
    assert_eq!(refused, 7, "{answers:?}");
    // and another one hears so at once, without a question
    let asked = town.far.asked.load(SeqCst);
    let again = town.keeper.admit(&charges).await;
    assert!(matches!(again, Err(Refused::Over { retry_after, .. }) if retry_after <= Duration::from_secs(1)));
    assert_eq!(town.far.asked.load(SeqCst), asked);
    // and figures tell the story
    let figures = town.keeper.stats().quotas[&charges[0].quota.name];
    assert_eq!((figures.admitted, figures.refused, figures.undecided), (3, 8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_silent_ledger_leaves_requests_undecided() {
    // given a ledger that does not answer
    let town = town(SMALL).await;
    town.far.silent.store(true, SeqCst);
    // when a request comes
    let answer = town.keeper.admit(&[charge()]).await;
    // then nobody decided it
    assert!(matches!(answer, Err(Refused::Undecided { quotas, .. }) if quotas.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn tokens_come_back_with_time() {
    // given a bucket that was spent
    let town = town(SMALL).await;
    let charges = [charge()];
    while town.keeper.admit(&charges).await.is_ok() {}
    // when three seconds pass, at one a second
    tokio::time::sleep(Duration::from_secs(3)).await;
    // then at least two and at most three more are admitted
    let mut more = 0;
    while town.keeper.admit(&charges).await.is_ok() {
        more += 1;
    }
    assert!((2..=3).contains(&more), "{more}");
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_is_started_again_spends_nothing_of_its_old_leases() {
    // given a lease
    let town = town(SMALL).await;
    let charges = [charge()];
    town.keeper.admit(&charges).await.expect("three tokens are there");
    let old = town.keeper.shared.entries.pin().get(&charges[0].key).cloned().expect("it is published");
    // when the actor dies and another one takes its place
    town.actor.kill();
    tokio::time::sleep(Duration::from_millis(1)).await;
    town.keeper.start(town.parent.get_cell()).await.expect("the keeper starts again");
    // then the old cell is empty for ever
    assert_eq!(old.cell.held().total(), 0);
    assert!(town.keeper.shared.entries.pin().get(&charges[0].key).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drained_keeper_has_given_its_leases_back() {
    // given a lease
    let town = town(SMALL).await;
    let charges = [charge()];
    town.keeper.admit(&charges).await.expect("three tokens are there");
    // when it drains
    let begun = Instant::now();
    town.keeper.drain().await;
    // then nothing is held, and it took a batch, not the longest wait
    assert_eq!(town.keeper.stats().tokens_held, 0);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn requests_that_went_away_hold_their_places_until_the_keeper_has_seen_them() {
    // given a keeper with 64 places that does not come to read its mailbox
    let town = town(SMALL).await;
    let charges = [charge()];
    // when 64 requests come and go away
    for _ in 0..64 {
        assert!(town.keeper.admit(&charges).now_or_never().is_none(), "it waits");
    }
    // then the mailbox takes no more
    let refused = town.keeper.admit(&charges).now_or_never();
    assert!(matches!(refused, Some(Err(Refused::Overloaded))), "{refused:?}");
    // and once the keeper has seen them, their tokens are free again
    tokio::time::sleep(Duration::from_secs(2)).await;
    town.keeper.admit(&charges).await.expect("nobody spent the three tokens");
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_when_the_keeper_dies_are_undecided_at_once() {
    // given a request that waits for a ledger that does not answer
    let town = town(SMALL).await;
    town.far.silent.store(true, SeqCst);
    let keeper = town.keeper.clone();
    let waiting = tokio::spawn(async move { keeper.admit(&[charge()]).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    // when the keeper dies, and another begins
    town.actor.kill();
    tokio::time::sleep(Duration::from_millis(1)).await;
    town.keeper.start(town.parent.get_cell()).await.expect("the keeper starts again");
    // then the request hears that nobody decided, and does not wait for what will never come
    let answer = waiting.await.expect("no panic");
    assert!(matches!(answer, Err(Refused::Undecided { .. })), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
}
