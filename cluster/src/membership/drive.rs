//! Carries the operation that the log holds to its end, as long as this node leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::pace::{Pace, STALLED_MAX};
use super::plan::{self, Now, Step};
use super::{LOOK_AGAIN, propose};
use crate::peer::message::kind;
use crate::peer::message::members::{MembersAnswerV1, MembersV1};
use crate::peer::{Lane, Target, codec};
use crate::raft::network::target;
use crate::raft::types::{ChangeMembers, PeerNode, ReadPolicy};
use crate::replica::VIEWS_END_AFTER;
use crate::replica::core::{Core, Seat};
use crate::state::command::Command;
use crate::state::members::{MemberChange, Operation};
use crate::world::BootNs;

const CHANGE_WITHIN: Duration = Duration::from_secs(5);
const READ_WITHIN: Duration = Duration::from_secs(1);
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// A member that leaves and does not answer for this long is removed all the same: its leases end by themselves.
const UNREACHED_MAX: Duration = Duration::from_secs(5);
/// And so is one that has not finished after this long.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(120);
const FAREWELLS: usize = 5;

/// How far the operation is, for whoever asks.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The operation's number.
    pub id: u64,
    /// What is being done.
    pub step: &'static str,
    /// Since when this leader knows of it.
    pub since: Instant,
    /// The entry that a node which catches up has, and the one it needs.
    pub entries: Option<(u64, u64)>,
}

/// What the leader knows of an operation beside the log.
struct Memo {
    id: u64,
    step: &'static str,
    /// When the present step began.
    step_since: Instant,
    /// When the views of those who were removed end.
    views_end: Option<BootNs>,
    caught_up: bool,
    handed_back: bool,
    outlasted: bool,
    failed: Option<String>,
    /// Of the node that catches up.
    pace: Pace,
    /// Who goes answered last.
    reached: Instant,
    /// Why a step was last tried again.
    said: String,
}

impl Memo {
    fn new(id: u64) -> Self {
        let now = Instant::now();
        Self {
            id,
            step: "",
            step_since: now,
            views_end: None,
            caught_up: false,
            handed_back: false,
            outlasted: false,
            failed: None,
            pace: Pace::new(now),
            reached: now,
            said: String::new(),
        }
    }
}

/// Runs as long as the seat's consensus core.
pub(crate) async fn run(core: Arc<Core>, seat: Arc<Seat>) {
    let mut role = seat.role.clone();
    let mut applied = seat.shared.applied.clone();
    loop {
        let leading = role.borrow_and_update().leading;
        if let Some(term) = leading {
            lead(&core, &seat, term).await;
        }
        *seat.progress.lock() = None;
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            // The role is a copy: its sender may outlive the machine.
            changed = applied.changed(), if leading.is_some() => if changed.is_err() { return },
        }
    }
}

async fn lead(core: &Arc<Core>, seat: &Arc<Seat>, term: u64) {
    let leads = || seat.role.borrow().leading == Some(term);
    // What an earlier leader ended is not begun again: all of its entries are applied first.
    while leads() && !caught_up_with_the_log(seat).await {
        sleep(LOOK_AGAIN).await;
    }
    let mut memo = Memo::new(0);
    let mut role = seat.role.clone();
    let mut applied = seat.shared.applied.clone();
    while leads() {
        role.borrow_and_update();
        applied.borrow_and_update();
        let (operation, nobody_goes) = {
            let replicated = seat.shared.replicated.lock();
            let members = replicated.state.members();
            (members.operation().cloned(), members.going().next().is_none())
        };
        let id = operation.as_ref().map_or(0, |operation| operation.id);
        if memo.id != id {
            memo = Memo::new(id);
        }
        let step = {
            let role = seat.role.borrow();
            let now = Now {
                caught_up: memo.caught_up,
                handed_back: memo.handed_back,
                outlasted: memo.outlasted || nobody_goes,
                failed: memo.failed.as_deref(),
                ..Now::of(role.membership.membership(), seat.raft_id.0)
            };
            plan::next(operation.as_ref(), &now)
        };
        let Some(step) = step else {
            *seat.progress.lock() = None;
            tokio::select! {
                biased;
                changed = role.changed() => if changed.is_err() { return },
                changed = applied.changed() => if changed.is_err() { return },
            }
            continue;
        };
        show(seat, operation.as_ref(), &step, &mut memo);
        if let Err(reason) = carry_out(core, seat, operation.as_ref(), step, &mut memo).await {
            if reason != memo.said {
                tracing::warn!(step = memo.step, %reason, "a step of the membership operation is tried again");
                memo.said = reason;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

async fn caught_up_with_the_log(seat: &Seat) -> bool {
    let read = timeout(READ_WITHIN, seat.raft.get_read_log_id(ReadPolicy::ReadIndex)).await;
    let Ok(Ok((read, _))) = read else { return false };
    let index = read.index();
    let mut applied = seat.shared.applied.clone();
    matches!(timeout(READ_WITHIN, applied.wait_for(|applied| *applied >= index)).await, Ok(Ok(_)))
}

fn name_of(step: &Step) -> &'static str {
    match step {
        Step::Settle(_) => "finishing the change of voters",
        Step::Listen(..) => "adding a learner",
        Step::Move(..) => "changing the address",
        Step::CatchUp(_) => "catching up",
        Step::HandOver => "handing over the leadership",
        Step::HandBack(_) => "handing back leases",
        Step::Vote(_) => "changing the voters",
        Step::Drop(_) => "removing a learner",
        Step::Outlast => "outlasting the view of who is gone",
        Step::End => "ending",
        Step::Fail(_) => "failing",
    }
}

fn show(seat: &Seat, operation: Option<&Operation>, step: &Step, memo: &mut Memo) {
    let name = name_of(step);
    if memo.step != name {
        (memo.step, memo.step_since, memo.reached) = (name, Instant::now(), Instant::now());
        memo.pace = Pace::new(Instant::now());
        if let Some(Operation { node, by, change, .. }) = operation {
            tracing::info!(kind = change.kind(), %node, by = ?by.as_ref().map(|by| by.as_str()), step = name, "membership");
        }
    }
    let mut progress = seat.progress.lock();
    let since =
        progress.as_ref().filter(|held| held.id == memo.id).map_or_else(Instant::now, |held| held.since);
    *progress = Some(Progress { id: memo.id, step: name, since, entries: None });
}

async fn carry_out(
    core: &Arc<Core>,
    seat: &Arc<Seat>,
    operation: Option<&Operation>,
    step: Step,
    memo: &mut Memo,
) -> Result<(), String> {
    match step {
        Step::Settle(voters) | Step::Vote(voters) => {
            change(seat, ChangeMembers::ReplaceAllVoters(voters), false).await
        }
        Step::Listen(id, node) => {
            change(seat, ChangeMembers::AddNodes(BTreeMap::from([(id, node)])), true).await
        }
        Step::Move(id, node) => {
            change(seat, ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true).await
        }
        Step::Drop(ids) => change(seat, ChangeMembers::RemoveNodes(ids), false).await,
        Step::CatchUp(id) => {
            catch_up(seat, id, memo);
            sleep(LOOK_AGAIN).await;
            Ok(())
        }
        Step::HandOver => {
            if memo.step_since.elapsed() > HAND_OVER_WITHIN {
                memo.failed = Some("no other voter took the leadership over".to_owned());
                return Ok(());
            }
            if seat.hand_over(HAND_OVER_WITHIN).await {
                Ok(())
            } else {
                Err("no other voter took the leadership over yet".to_owned())
            }
        }
        Step::HandBack(id) => {
            hand_back(core, seat, id, memo).await;
            Ok(())
        }
        Step::Outlast => {
            let now = core.world.clock.boot();
            memo.outlasted = now >= *memo.views_end.get_or_insert(now.plus(VIEWS_END_AFTER));
            sleep(LOOK_AGAIN).await;
            Ok(())
        }
        Step::Fail(why) => {
            memo.failed = Some(why.to_owned());
            Ok(())
        }
        Step::End => {
            let operation = operation.ok_or("an end without an operation")?;
            end(core, seat, operation, memo.failed.clone()).await
        }
    }
}

async fn change(seat: &Seat, members: ChangeMembers<u64, PeerNode>, retain: bool) -> Result<(), String> {
    match timeout(CHANGE_WITHIN, seat.raft.change_membership(members, retain)).await {
        Ok(Ok(_)) => Ok(()),
        // An earlier change may still be on its way.
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not committed within {CHANGE_WITHIN:?}: does a majority of the voters run?")),
    }
}

fn catch_up(seat: &Seat, id: u64, memo: &mut Memo) {
    let (last, all) = seat.matched();
    let matched = all.get(&id).copied().flatten();
    let now = Instant::now();
    memo.pace.saw(matched, last, seat.transfers.bytes(id), now);
    if let Some(progress) = seat.progress.lock().as_mut() {
        progress.entries = Some((matched.unwrap_or(0), last));
    }
    if memo.pace.is_caught_up() {
        memo.caught_up = true;
    } else if memo.pace.is_stalled(now) {
        let has = matched.map_or("no entry".to_owned(), |index| format!("entry {index}"));
        memo.failed =
            Some(format!("it has {has} of {last} and took no more for {} s", STALLED_MAX.as_secs()));
    }
}

/// Asks the member that goes whether it has finished; being asked is what makes it begin.
async fn hand_back(core: &Core, seat: &Seat, id: u64, memo: &mut Memo) {
    let Some(target) = seat.member(id) else { return memo.handed_back = true };
    match ask(core, &target, &MembersV1::HandBack(id)).await {
        Ok(MembersAnswerV1::Ready) => (memo.handed_back, memo.outlasted) = (true, true),
        Ok(_) => memo.reached = Instant::now(),
        Err(reason) if memo.reached.elapsed() > UNREACHED_MAX => {
            tracing::warn!(node = %target.name, %reason, "does not answer: removed without its leases, which count as spent");
            memo.handed_back = true;
        }
        Err(_) => {}
    }
    if memo.step_since.elapsed() > HAND_BACK_WITHIN {
        tracing::warn!(node = %target.name, within = ?HAND_BACK_WITHIN, "has not finished: removed all the same");
        memo.handed_back = true;
    }
    sleep(LOOK_AGAIN).await;
}

async fn ask(core: &Core, target: &Target, question: &MembersV1) -> Result<MembersAnswerV1, String> {
    let payload = Bytes::from(codec::encode(question));
    let answer = core.peers.call(target, Lane::Control, kind::MEMBERS, payload, ASK_WITHIN).await;
    codec::decode(&answer.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

async fn end(
    core: &Arc<Core>,
    seat: &Seat,
    operation: &Operation,
    failed: Option<String>,
) -> Result<(), String> {
    let gone = match &operation.change {
        _ if failed.is_some() => None,
        MemberChange::Join { .. } => None,
        MemberChange::Leave { id } | MemberChange::Replace { old: id, .. } => {
            let held = seat.shared.replicated.lock().state.members().get(*id).cloned();
            held.and_then(|member| {
                let name = member.name.as_str().to_owned();
                target(id.0, &PeerNode { name, address: member.address })
            })
        }
    };
    propose(seat, Command::End { operation: operation.id, failed: failed.clone() }).await?;
    let (kind, node) = (operation.change.kind(), &operation.node);
    match failed {
        None => tracing::info!(kind, %node, "membership operation done"),
        Some(why) => tracing::warn!(kind, %node, %why, "membership operation failed"),
    }
    if let Some(gone) = gone {
        let core = core.clone();
        // Replication to it has ended, so it may not hear of its removal otherwise, until it asks.
        tokio::spawn(async move {
            for _ in 0..FAREWELLS {
                let id = gone.raft_id.map_or(0, |id| id.0);
                if ask(&core, &gone, &MembersV1::Removed(id)).await.is_ok() {
                    return;
                }
                sleep(ASK_WITHIN).await;
            }
        });
    }
    Ok(())
}
