//! What other nodes ask of this one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ask;
use super::change::{self, Changed};
use super::core::{Core, Seat, same};
use super::lease::confirm;
use super::slot::Question;
use crate::lease::{Ask, AskError};
use crate::membership;
use crate::peer::codec;
use crate::peer::message::control::{ApplyAnswerV1, ApplyV1, JoinV1, ProbeAnswerV1, ProbeV1};
use crate::peer::message::kind;
use crate::peer::message::quota::{AskAnswerV1, AskV1, PushV1, RegisterAnswerV1, RegisterV1};
use crate::peer::{Caller, Lane, Serve};
use crate::state::command::{DocumentChange, Register};
use crate::state::ids::{RaftId, Revision};
use crate::world::BoxFuture;

/// An ask that nobody can want an answer to any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The far side of the door. Holds the core weakly: the door ends with the domain, not the domain with the door.
pub(crate) struct Desk(pub Weak<Core>);

impl Serve for Desk {
    fn admits(&self, caller: &Caller, lane: Lane) -> Result<(), String> {
        let seat = self.0.upgrade().and_then(|core| core.seat());
        let (Some(id), Some(seat)) = (caller.raft_id, seat) else { return Ok(()) };
        let holder = seat.role.borrow().membership.membership().get_node(&id.0).map(|node| node.name.clone());
        match holder {
            Some(holder) if holder != caller.name.as_str() => {
                Err(format!("node {} gives {} as its raft id, which is node {holder}'s", caller.name, id.0))
            }
            // On this lane a removed node is told what became of it.
            _ if lane == Lane::Control => Ok(()),
            _ => fence(&seat, id),
        }
    }

    fn serve(
        &self,
        from: Caller,
        lane: Lane,
        kind: u16,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let core = self.0.upgrade();
        Box::pin(async move {
            let core = core.ok_or("this node is stopping")?;
            match lane {
                Lane::Raft | Lane::Heartbeat | Lane::Snapshot => {
                    let id = from.raft_id.ok_or("a node that is no member takes no part in consensus")?;
                    let seat = core.seat().ok_or("this node belongs to no cluster yet")?;
                    fence(&seat, id)?;
                    seat.service.serve(kind, &payload).await
                }
                Lane::Quota => quota(&core, from, kind, &payload).await,
                Lane::Control => control(&core, from, kind, &payload).await,
            }
        })
    }
}

async fn quota(core: &Arc<Core>, from: Caller, kind: u16, payload: &[u8]) -> Result<Bytes, String> {
    let member = from.raft_id.ok_or("a node that is no member has no quota")?;
    if let Some(seat) = core.seat() {
        fence(&seat, member)?;
    }
    let answer = match kind {
        kind::ASK => {
            let ask: Ask = read::<AskV1>(payload)?.try_into().map_err(text)?;
            codec::encode(&AskAnswerV1::from(&here(core, |reply| Question::Ask(member, ask, reply)).await))
        }
        kind::REGISTER => {
            let register: RegisterV1 = read(payload)?;
            if RaftId(register.node) != member {
                return Err(format!("node {} registers for node {}", member.0, register.node));
            }
            let register = Register { node: member, nonce: register.nonce };
            let answer = here(core, |reply| Question::Register(register, reply)).await;
            codec::encode(&match answer {
                Ok(session) => RegisterAnswerV1::Session(session.0),
                Err(error) => RegisterAnswerV1::Error((&error).into()),
            })
        }
        kind::PUSH => {
            core.pushes.push(read::<PushV1>(payload)?.into());
            Vec::new()
        }
        _ => return Err(format!("found message kind {kind}, wanted one of the quota's")),
    };
    Ok(answer.into())
}

/// Puts a question to this node's own slot.
async fn here<T>(
    core: &Core,
    question: impl FnOnce(oneshot::Sender<Result<T, AskError>>) -> Question,
) -> Result<T, AskError> {
    let seat = core.seat().ok_or(AskError::NotLeader)?;
    timeout(ANSWER_WITHIN, ask::here(&seat, question)).await.unwrap_or(Err(AskError::Overloaded))
}

/// A node that was removed may not know it, and goes on with what it has: nothing of it counts.
fn fence(seat: &Seat, id: RaftId) -> Result<(), String> {
    if seat.is_fenced(id) {
        return Err(format!(
            "raft id {} was removed from this cluster: start its node with an empty data directory",
            id.0
        ));
    }
    Ok(())
}

/// Whoever has a certificate can say any number that nobody holds yet. A member is who the membership knows under both.
fn member(core: &Core, from: &Caller) -> Result<RaftId, String> {
    let known = from.raft_id.filter(|id| {
        let seat = core.seat();
        seat.is_some_and(|seat| seat.is_member(*id, &from.name))
    });
    known.ok_or_else(|| format!("node {} is no member here: it may only ask to be let in", from.name))
}

async fn control(core: &Arc<Core>, from: Caller, kind: u16, payload: &[u8]) -> Result<Bytes, String> {
    let seat = core.seat();
    let fenced = from.raft_id.zip(seat).and_then(|(id, seat)| fence(&seat, id).err());
    if kind != kind::JOIN {
        if let Some(reason) = fenced {
            return Err(reason);
        }
        member(core, &from)?;
    }
    let answer = match kind {
        kind::APPLY => {
            let apply: ApplyV1 = read(payload)?;
            let seat = core.seat().ok_or("this node belongs to no cluster yet")?;
            let change = DocumentChange {
                json: apply.json.into(),
                expected: apply.expected.map(Revision),
                request_id: apply.request_id,
            };
            codec::encode(&match change::here(core, &seat, change).await {
                Changed::Done(applied) => {
                    ApplyAnswerV1::Applied { revision: applied.revision.0, unconfirmed: applied.unconfirmed }
                }
                Changed::Refused(reason) => ApplyAnswerV1::Refused(reason),
                Changed::NotDone | Changed::Unknown => ApplyAnswerV1::Again,
            })
        }
        kind::JOIN => {
            let join: JoinV1 = read(payload)?;
            // A member passes on what another node asked of it; a stranger speaks for itself alone.
            if member(core, &from).is_err() && !same(&from.name, &join.name) {
                return Err(format!("node {} asks to join as {}", from.name, join.name));
            }
            codec::encode(&membership::join::asked(core, join).await)
        }
        kind::PROBE => {
            let probe: ProbeV1 = read(payload)?;
            if from.raft_id != Some(RaftId(probe.node)) {
                return Err(format!("{:?} probes for node {}", from.raft_id, probe.node));
            }
            let answer = match core.seat() {
                Some(seat) => confirm(&seat, &probe).await,
                None => ProbeAnswerV1::NotLeader,
            };
            codec::encode(&answer)
        }
        kind::MEMBERS => codec::encode(&{
            let from = member(core, &from)?;
            membership::order::asked(core, from, read(payload)?).await?
        }),
        _ => return Err(format!("found message kind {kind}, wanted one of control's")),
    };
    Ok(answer.into())
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    codec::decode(payload).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
