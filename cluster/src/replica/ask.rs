//! Batches and registrations on their way to the leader, wherever it is.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::core::{Core, Seat};
use super::slot::Question;
use crate::lease::{Ask, AskError, AskReply};
use crate::peer::message::kind;
use crate::peer::message::quota::{AskAnswerV1, AskV1, RegisterAnswerV1, RegisterV1};
use crate::peer::{CallError, Lane, codec};
use crate::state::command::Register;
use crate::state::ids::SessionId;

/// The gateway gives up long before.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// Puts a question to the slot of this node.
pub(crate) async fn here<T>(
    seat: &Seat,
    question: impl FnOnce(oneshot::Sender<Result<T, AskError>>) -> Question,
) -> Result<T, AskError> {
    let (reply, answer) = oneshot::channel();
    seat.questions.try_send(question(reply)).map_err(|e| match e {
        mpsc::error::TrySendError::Full(_) => AskError::Overloaded,
        mpsc::error::TrySendError::Closed(_) => AskError::Unreachable,
    })?;
    answer.await.unwrap_or(Err(AskError::NotLeader))
}

/// Sends a batch.
pub(crate) async fn ask(core: &Core, ask: Ask) -> Result<AskReply, AskError> {
    let seat = core.seat().ok_or(AskError::Unreachable)?;
    if seat.leads() {
        return here(&seat, |reply| Question::Ask(seat.raft_id, ask, reply)).await;
    }
    let answer: AskAnswerV1 = call(core, &seat, kind::ASK, codec::encode(&AskV1::from(&ask))).await?;
    answer.into()
}

/// Asks for a session of this node.
pub(crate) async fn register(core: &Core, nonce: u128) -> Result<SessionId, AskError> {
    let seat = core.seat().ok_or(AskError::Unreachable)?;
    if seat.leads() {
        let register = Register { node: seat.raft_id, nonce };
        return here(&seat, |reply| Question::Register(register, reply)).await;
    }
    let register = RegisterV1 { node: seat.raft_id.0, nonce };
    match call(core, &seat, kind::REGISTER, codec::encode(&register)).await? {
        RegisterAnswerV1::Session(session) => Ok(SessionId(session)),
        RegisterAnswerV1::Error(error) => Err(error.into()),
    }
}

async fn call<A: serde::de::DeserializeOwned>(
    core: &Core,
    seat: &Seat,
    kind: u16,
    payload: Vec<u8>,
) -> Result<A, AskError> {
    let leader = seat.leader().ok_or(AskError::Unreachable)?;
    let answer = core.peers.call(&leader, Lane::Quota, kind, Bytes::from(payload), ASK_WITHIN).await;
    let answer = answer.map_err(|e| match e {
        CallError::Unreachable(_) | CallError::Timeout => AskError::Unreachable,
        CallError::Refused(_) => AskError::NotLeader,
        CallError::Overloaded => AskError::Overloaded,
    })?;
    codec::decode(&answer).map_err(|_| AskError::Unreachable)
}
