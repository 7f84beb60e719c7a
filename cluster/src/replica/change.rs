//! A new document on its way: to the leader, through its slot, until all members show it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::core::{Core, Seat};
use super::lease::{VIEW_LEASE, seen_by_all};
use super::slot::Question;
use super::{Applied, ProposeError};
use crate::leader::NotChanged;
use crate::peer::message::control::{ApplyAnswerV1, ApplyV1};
use crate::peer::message::kind;
use crate::peer::{Lane, codec};
use crate::state::command::DocumentChange;
use crate::state::ids::Revision;

/// Commit, and the members' view leases.
const LEADER_WITHIN: Duration = Duration::from_secs(5);
/// All attempts together: outlives a change of leader.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(100);
/// A document travels in one message.
const JSON_BYTES_MAX: usize = 2 << 20;

/// What became of one attempt.
pub(crate) enum Changed {
    /// In force.
    Done(Applied),
    /// Refused for good.
    Refused(String),
    /// Nothing was done: try again.
    NotDone,
    /// It may have been done: try again with the same request id.
    Unknown,
}

/// Proposes `change` until its fate is known. Safe to repeat: the state knows the request by its id.
pub(crate) async fn propose(core: &Arc<Core>, change: DocumentChange) -> Result<Applied, ProposeError> {
    if change.json.len() > JSON_BYTES_MAX {
        let found = change.json.len();
        let text = format!("the document has {found} bytes, at most {JSON_BYTES_MAX} are allowed: split it");
        return Err(ProposeError::Refused(text));
    }
    let end = Instant::now() + ATTEMPTS_WITHIN;
    let mut may_have_been = false;
    while Instant::now() < end {
        match attempt(core, &change).await {
            Changed::Done(applied) => return Ok(applied),
            Changed::Refused(reason) => return Err(ProposeError::Refused(reason)),
            Changed::NotDone => {}
            Changed::Unknown => may_have_been = true,
        }
        sleep(AGAIN).await;
    }
    Err(if may_have_been { ProposeError::Unknown } else { ProposeError::NoLeader })
}

async fn attempt(core: &Arc<Core>, change: &DocumentChange) -> Changed {
    let Some(seat) = core.seat() else {
        let text = "this node belongs to no cluster: run `quorumgate cluster init`, or let it join one";
        return Changed::Refused(text.to_owned());
    };
    if seat.leads() {
        return here(core, &seat, change.clone()).await;
    }
    let Some(leader) = seat.leader() else { return Changed::NotDone };
    let apply = ApplyV1 {
        json: change.json.as_ref().to_owned(),
        expected: change.expected.map(|revision| revision.0),
        request_id: change.request_id,
    };
    let payload = Bytes::from(codec::encode(&apply));
    let within = LEADER_WITHIN + VIEW_LEASE + Duration::from_secs(1);
    let Ok(answer) = core.peers.call(&leader, Lane::Control, kind::APPLY, payload, within).await else {
        return Changed::Unknown;
    };
    match codec::decode(&answer) {
        Ok(ApplyAnswerV1::Applied { revision, unconfirmed }) => {
            Changed::Done(Applied { revision: Revision(revision), unconfirmed })
        }
        Ok(ApplyAnswerV1::Refused(reason)) => Changed::Refused(reason),
        Ok(ApplyAnswerV1::Again) | Err(_) => Changed::Unknown,
    }
}

/// One attempt on the leader.
pub(crate) async fn here(core: &Arc<Core>, seat: &Seat, change: DocumentChange) -> Changed {
    let (reply, answer) = oneshot::channel();
    if seat.questions.try_send(Question::Document(change, reply)).is_err() {
        return Changed::NotDone;
    }
    match timeout(LEADER_WITHIN, answer).await {
        Ok(Ok(Ok(revision))) => {
            let unconfirmed = seen_by_all(core, seat, revision).await;
            Changed::Done(Applied { revision, unconfirmed })
        }
        Ok(Ok(Err(NotChanged::Refused(reason)))) => Changed::Refused(reason.to_string()),
        Ok(Ok(Err(NotChanged::NotProposed))) => Changed::NotDone,
        Ok(Ok(Err(NotChanged::Unknown)) | Err(_)) | Err(_) => Changed::Unknown,
    }
}
