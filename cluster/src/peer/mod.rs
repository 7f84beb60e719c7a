//! Node to node: five lanes of calls between every two nodes, each lane a connection of its own.
//!
//! ```text
//! frame      (pure)  bytes <-> length-prefixed, checked frames
//! handshake  (pure)  who calls whom, and whether they belong together
//! codec, message     what the payloads say
//! trust      (pure)  how long a far end is believed
//! places             how many connections the door has
//! wire               frames over one secured stream, both directions at once
//! link               outgoing: Peers::call
//! door               incoming: Door::open
//! ```

use std::sync::Arc;

use bytes::Bytes;
use config::ids::NodeName;

use crate::state::ids::RaftId;
use crate::world::BoxFuture;

pub mod codec;
pub mod door;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod message;
mod places;
#[cfg(test)]
pub(crate) mod tests;
mod trust;
mod wire;

pub use door::Door;
pub use link::Peers;

/// What a connection between two nodes is for. Each lane is a connection of its own, so that a heartbeat never waits
/// behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Log replication and votes: served one after another, in the order of the calls.
    Raft,
    /// Signs of life.
    Heartbeat,
    /// Whole states.
    Snapshot,
    /// Leases.
    Quota,
    /// Joining, forwarded proposals, views.
    Control,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 5] = [Self::Raft, Self::Heartbeat, Self::Snapshot, Self::Quota, Self::Control];

    /// Calls of one lane to one node that may be unanswered at once.
    pub const fn calls_max(self) -> usize {
        match self {
            Self::Raft | Self::Control => 64,
            Self::Heartbeat => 16,
            Self::Snapshot => 4,
            Self::Quota => 256,
        }
    }

    /// Requests of one connection that are served at the same time.
    pub const fn served_at_once(self) -> usize {
        match self {
            Self::Raft => 1,
            _ => self.calls_max(),
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Raft => 1,
            Self::Heartbeat => 2,
            Self::Snapshot => 3,
            Self::Quota => 4,
            Self::Control => 5,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.code() == code)
    }
}

/// The longest payload of a call or an answer, in bytes. Senders of anything larger (snapshots) cut it themselves.
pub const PAYLOAD_BYTES_MAX: usize = frame::BODY_BYTES_MAX - 16;

/// Payload bytes of one lane to one node that may be unanswered at once.
pub const UNANSWERED_BYTES_MAX: usize = 16 << 20;

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The name that its certificate must carry.
    pub name: NodeName,
    /// `host:port`.
    pub address: String,
    /// Its number, when the caller knows it; a node with another or none is not the one.
    pub raft_id: Option<RaftId>,
}

/// Who this node is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: NodeName,
    /// The cluster it belongs to; none before it was initialised or has joined.
    pub cluster: Option<u128>,
    /// Its number in the consensus group; none before it has joined.
    pub raft_id: Option<RaftId>,
}

/// Reads who this node is; asked at every handshake, because joining changes the answer.
pub type Me = Arc<dyn Fn() -> Identity + Send + Sync>;

/// Who sent a request: its name is certified, its number is what it declared when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Certified name.
    pub name: NodeName,
    /// Declared number; none if it had not joined when it connected.
    pub raft_id: Option<RaftId>,
    /// Where the connection comes from.
    pub address: std::net::SocketAddr,
}

/// Answers requests of other nodes.
pub trait Serve: Send + Sync + 'static {
    /// Whether a caller with this certified name may have the number that it declares, and may talk on this lane.
    ///
    /// # Errors
    /// Why not, for the caller and the log.
    fn admits(&self, caller: &Caller, lane: Lane) -> Result<(), String>;

    /// Answers one request, or says why not. `kind` and `payload` are as the caller gave them. The future is dropped
    /// when the connection ends.
    fn serve(
        &self,
        from: Caller,
        lane: Lane,
        kind: u16,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection: the request was not served, or its answer was lost with the connection.
    #[error("peer unreachable: {0}")]
    Unreachable(String),
    /// No answer within the caller's deadline; the request may have been served.
    #[error("no answer within the deadline")]
    Timeout,
    /// The peer answered that it will not, or is not the node that was meant.
    #[error("refused by the peer: {0}")]
    Refused(String),
    /// Too many unanswered calls on this lane, here or there. The request was not served.
    #[error("too many unanswered calls on this lane")]
    Overloaded,
}
