//! Operators' orders, and what the leader knows of its members. Asked of any node, answered by the leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::ids::NodeName;

use super::plan::VOTERS_MAX;
use super::{parting, propose};
use crate::peer::message::kind;
use crate::peer::message::members::{EndedV1, MembersAnswerV1, MembersV1, ProgressV1, RefusalV1, ReportV1};
use crate::peer::{CallError, Lane, codec};
use crate::replica::core::{Core, Seat};
use crate::state::command::{Command, Outcome};
use crate::state::ids::RaftId;
use crate::state::members::{Begun, MemberChange};

/// A report is asked for with each status: it must not keep an operator waiting when there is no leader.
const REPORT_WITHIN: Duration = Duration::from_millis(700);
const ORDER_WITHIN: Duration = Duration::from_secs(6);
/// A voter that was heard of within this runs.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// Why an order was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No leader is known, or this node belongs to no cluster.
    #[error("no leader is known: nothing was begun; does a majority of the nodes run?")]
    NoLeader,
    /// No answer came: it may have been begun.
    #[error("the leader did not answer in time: look at `quorumgate cluster status` whether it was begun")]
    Unanswered,
    /// Another operation is under way.
    #[error("{0}")]
    Busy(String),
    /// No member has this name.
    #[error("{0}")]
    Unknown(String),
    /// It would leave the cluster worse off than the operator may think.
    #[error("{0}")]
    Unsafe(String),
}

/// What the leader knows of the members; none: it was not reached.
pub(crate) async fn report(core: &Core) -> Option<ReportV1> {
    match ask(core, &MembersV1::Report, REPORT_WITHIN).await {
        Ok(MembersAnswerV1::Report(report)) => Some(*report),
        _ => None,
    }
}

/// Begins an operation, and says where it stands.
pub(crate) async fn order(core: &Core, question: MembersV1) -> Result<ReportV1, OrderError> {
    match ask(core, &question, ORDER_WITHIN).await? {
        MembersAnswerV1::Report(report) => Ok(*report),
        MembersAnswerV1::Refused(RefusalV1::Busy, why) => Err(OrderError::Busy(why)),
        MembersAnswerV1::Refused(RefusalV1::Unknown, why) => Err(OrderError::Unknown(why)),
        MembersAnswerV1::Refused(RefusalV1::Unsafe, why) => Err(OrderError::Unsafe(why)),
        MembersAnswerV1::NotLeader => Err(OrderError::NoLeader),
        MembersAnswerV1::Draining | MembersAnswerV1::Ready => Err(OrderError::Unanswered),
    }
}

async fn ask(core: &Core, question: &MembersV1, within: Duration) -> Result<MembersAnswerV1, OrderError> {
    let seat = core.seat().ok_or(OrderError::NoLeader)?;
    if seat.leads() {
        return here(&seat, question).await.map_err(|_| OrderError::Unanswered);
    }
    let leader = seat.leader().ok_or(OrderError::NoLeader)?;
    let payload = Bytes::from(codec::encode(question));
    let answer = core.peers.call(&leader, Lane::Control, kind::MEMBERS, payload, within).await;
    let answer = answer.map_err(|error| match error {
        CallError::Refused(_) | CallError::Overloaded => OrderError::NoLeader,
        CallError::Unreachable(_) | CallError::Timeout => OrderError::Unanswered,
    })?;
    codec::decode(&answer).map_err(|_| OrderError::Unanswered)
}

/// Answers a question that is the leader's to answer. An error: it was not committed in time.
pub(super) async fn here(seat: &Seat, question: &MembersV1) -> Result<MembersAnswerV1, String> {
    if !seat.leads() {
        return Ok(MembersAnswerV1::NotLeader);
    }
    let wish = match question {
        MembersV1::Report => return Ok(MembersAnswerV1::Report(Box::new(known(seat)))),
        MembersV1::Leave(node) => leave(seat, node),
        MembersV1::Replace { old, new } => replace(seat, old, new),
        MembersV1::HandBack(_) | MembersV1::Removed(_) => {
            return Err("that is said to the node that leaves, and not to the leader".to_owned());
        }
    };
    let change = match wish {
        Ok(change) => change,
        Err((refusal, why)) => return Ok(MembersAnswerV1::Refused(refusal, why)),
    };
    match propose(seat, Command::Begin(change)).await? {
        Outcome::Begun(Begun::Yes(id)) => {
            let report = ReportV1 { begun: Some(id), ..known(seat) };
            Ok(MembersAnswerV1::Report(Box::new(report)))
        }
        Outcome::Begun(Begun::Busy) => Ok(busy(seat)),
        other => Err(format!("the order was answered with {other:?}")),
    }
}

type Refused = (RefusalV1, String);

fn busy(seat: &Seat) -> MembersAnswerV1 {
    let running = known(seat).operation.map_or("another operation is under way".to_owned(), |it| {
        let by = it.by.map(|by| format!(" by {by}")).unwrap_or_default();
        format!("a {} of {}{by} is under way ({})", it.kind, it.node, it.step)
    });
    let why = format!("{running}: wait for its end, `quorumgate cluster status` shows it");
    MembersAnswerV1::Refused(RefusalV1::Busy, why)
}

fn leave(seat: &Seat, node: &str) -> Result<MemberChange, Refused> {
    free(seat)?;
    let id = member(seat, node)?;
    let mut after = voters(seat);
    after.remove(&id);
    if after.is_empty() {
        let why = format!("{node} is the only voter: to end the cluster, stop its process");
        return Err((RefusalV1::Unsafe, why));
    }
    enough(seat, node, &after)?;
    Ok(MemberChange::Leave { id: RaftId(id) })
}

fn replace(seat: &Seat, old: &str, new: &str) -> Result<MemberChange, Refused> {
    free(seat)?;
    if old == new {
        let why = format!(
            "{old} can not be replaced by itself: a node that lost its disk is started with an empty directory, and takes \
             its old place by itself"
        );
        return Err((RefusalV1::Unsafe, why));
    }
    let (old_id, new_id) = (member(seat, old)?, member(seat, new)?);
    let mut after = voters(seat);
    after.remove(&old_id);
    after.insert(new_id);
    if after.len() > VOTERS_MAX {
        let why = format!(
            "{old} does not vote, and {VOTERS_MAX} others do: name a voter to be replaced, or use `cluster leave {old}`"
        );
        return Err((RefusalV1::Unsafe, why));
    }
    enough(seat, old, &after)?;
    Ok(MemberChange::Replace { old: RaftId(old_id), new: RaftId(new_id) })
}

fn free(seat: &Seat) -> Result<(), Refused> {
    let running = seat.shared.replicated.lock().state.members().operation().is_some();
    match busy(seat) {
        MembersAnswerV1::Refused(refusal, why) if running => Err((refusal, why)),
        _ => Ok(()),
    }
}

fn member(seat: &Seat, node: &str) -> Result<u64, Refused> {
    let members = seat.members();
    let found = members.iter().find(|(_, name)| name == node).map(|(id, _)| *id);
    found.ok_or_else(|| {
        let mut names: Vec<&str> = members.iter().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        let why = format!(
            "there is no member {node}, members are {}: start a new node with peers in its file first, and it joins",
            names.join(", ")
        );
        (RefusalV1::Unknown, why)
    })
}

fn voters(seat: &Seat) -> BTreeSet<u64> {
    seat.role.borrow().membership.membership().voter_ids().collect()
}

/// A cluster whose voters are `after` must have a majority of them running.
fn enough(seat: &Seat, gone: &str, after: &BTreeSet<u64>) -> Result<(), Refused> {
    let mut running = seat.heard(HEARD_WITHIN);
    running.insert(seat.raft_id.0);
    let (run, need) = (after.intersection(&running).count(), after.len() / 2 + 1);
    if run >= need {
        return Ok(());
    }
    let why = format!(
        "without {gone}, {run} of {} voters would be running, and {need} are needed: start the others first, or remove one \
         that does not run",
        after.len()
    );
    Err((RefusalV1::Unsafe, why))
}

/// What this node knows. Only the leader knows the step and how far everybody is.
fn known(seat: &Seat) -> ReportV1 {
    let (operation, ended) = {
        let replicated = seat.shared.replicated.lock();
        let members = replicated.state.members();
        (members.operation().cloned(), members.ended().clone())
    };
    let progress = seat.progress.lock().clone();
    let name = |name: &NodeName| name.as_str().to_owned();
    let operation = operation.map(|it| {
        let progress = progress.filter(|progress| progress.id == it.id);
        ProgressV1 {
            id: it.id,
            kind: it.change.kind().to_owned(),
            node: name(&it.node),
            by: it.by.as_ref().map(name),
            step: progress.as_ref().map_or("beginning", |progress| progress.step).to_owned(),
            since_ms: progress.as_ref().map_or(0, |progress| progress.since.elapsed().as_millis() as u64),
            entries: progress.and_then(|progress| progress.entries),
        }
    });
    let ended = ended.iter().map(|it| EndedV1 {
        id: it.operation.id,
        kind: it.operation.change.kind().to_owned(),
        node: name(&it.operation.node),
        by: it.operation.by.as_ref().map(name),
        failed: it.failed.clone(),
    });
    let (last_index, matched) = seat.matched();
    let (ended, matched) = (ended.collect(), matched.into_iter().collect());
    ReportV1 { operation, ended, begun: None, last_index, matched }
}

/// Answers a question about members, from another member.
pub(crate) async fn asked(
    core: &Arc<Core>,
    from: RaftId,
    question: MembersV1,
) -> Result<MembersAnswerV1, String> {
    let seat = core.seat().ok_or("this node belongs to no cluster yet")?;
    match question {
        MembersV1::HandBack(id) => parting::hand_back(core, &seat, from, id),
        MembersV1::Removed(id) => parting::told(core, &seat, from, id).await,
        question => here(&seat, &question).await,
    }
}
