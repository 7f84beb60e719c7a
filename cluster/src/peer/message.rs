//! What nodes say to each other and write to their logs: versioned structs, and what they stand for.
//!
//! ```text
//! log      commands and entries        on disk, and inside raft's messages
//! raft     append, vote, snapshot      between the consensus cores (converted in `raft::wire`)
//! quota    ask, register, push         between a gateway and the leader
//! control  apply, join, probe          between replicas
//! members  reports, orders, farewells  between replicas
//! ```
//!
//! A struct here is never edited after a release; a change is a new struct with the next number.

pub mod control;
pub mod log;
pub mod members;
pub mod quota;
pub mod raft;

#[cfg(test)]
mod golden;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which message a call carries. Numbers are never reused.
pub mod kind {
    /// [`super::raft::AppendV1`] → [`super::raft::AppendReplyV1`].
    pub const APPEND: u16 = 1;
    /// [`super::raft::VoteRequestV1`] → [`super::raft::VoteReplyV1`].
    pub const VOTE: u16 = 2;
    /// The same, as a question without consequences.
    pub const PRE_VOTE: u16 = 3;
    /// [`super::raft::SnapshotChunkV1`] → [`super::raft::SnapshotReplyV1`].
    pub const SNAPSHOT: u16 = 4;
    /// [`super::raft::TransferV1`] → [`super::raft::TransferReplyV1`].
    pub const TRANSFER: u16 = 5;
    /// [`super::quota::AskV1`] → [`super::quota::AskAnswerV1`].
    pub const ASK: u16 = 16;
    /// [`super::quota::RegisterV1`] → [`super::quota::RegisterAnswerV1`].
    pub const REGISTER: u16 = 17;
    /// [`super::quota::PushV1`] → nothing.
    pub const PUSH: u16 = 18;
    /// [`super::control::ApplyV1`] → [`super::control::ApplyAnswerV1`].
    pub const APPLY: u16 = 32;
    /// [`super::control::JoinV1`] → [`super::control::JoinAnswerV1`].
    pub const JOIN: u16 = 33;
    /// [`super::control::ProbeV1`] → [`super::control::ProbeAnswerV1`].
    pub const PROBE: u16 = 34;
    /// [`super::members::MembersV1`] → [`super::members::MembersAnswerV1`].
    pub const MEMBERS: u16 = 35;
}

/// Bytes that are written as one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a block of bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}
