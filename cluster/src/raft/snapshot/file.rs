//! A snapshot file: records, each with a frame and checksum of its own, written and read one at a time.
//!
//! ```text
//! head: place, membership, the state's head │ part 1 │ part 2 │ … │ part n, which says that it is the end
//! ```
//! Each part has its number, so that one that is missing, doubled or in another's place is noticed; the end has the
//! state's digest, so that parts of two snapshots do not pass for one.

use std::io;

use super::Content;
use crate::peer::codec::{self, Kind};
use crate::peer::message::raft::{SnapshotFileV1, SnapshotPartV1};
use crate::raft::types::{SnapshotMeta, StoredMembership};
use crate::state::snapshot::{HeadV1, PartV1, Rebuilt, parts};

/// Writes `content` record by record.
///
/// # Errors
/// What `write` says.
pub fn encode(content: &Content, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let head = SnapshotFileV1 {
        last: content.meta.last_log_id.map(Into::into),
        membership_at: content.meta.last_membership.log_id().map(Into::into),
        membership: content.meta.last_membership.membership().into(),
        state: HeadV1::from(&content.state),
    };
    write(&codec::seal(Kind::Snapshot, &codec::encode(&head))?)?;
    for (number, part) in (1..).zip(parts(&content.state)) {
        write(&codec::seal(Kind::SnapshotPart, &codec::encode(&SnapshotPartV1 { number, part }))?)?;
    }
    Ok(())
}

/// Reads a file whose bytes come in pieces of any size. Holds one record at most besides what it has made of the others.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a record.
    rest: Vec<u8>,
    /// Where in the file that is.
    at: u64,
    /// Records so far.
    number: u64,
    begun: Option<(SnapshotMeta, Rebuilt)>,
    done: Option<Content>,
}

impl Decoder {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `InvalidData`: says where the file is damaged, and how.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut used = 0;
        loop {
            let next = &rest[used..];
            let len = codec::record_len(next).map_err(|why| self.damaged(why))?;
            let Some(record) = len.and_then(|len| next.get(..len)) else { break };
            self.record(record)?;
            self.number += 1;
            self.at += record.len() as u64;
            used += record.len();
        }
        rest.drain(..used);
        self.rest = rest;
        Ok(())
    }

    fn record(&mut self, record: &[u8]) -> io::Result<()> {
        if self.done.is_some() {
            return Err(self.damaged("found more, wanted nothing after the end"));
        }
        let Some((meta, mut rebuilt)) = self.begun.take() else {
            self.begun = Some(head(record).map_err(|why| self.damaged(why))?);
            return Ok(());
        };
        let part = codec::open(Kind::SnapshotPart, record).and_then(codec::decode_stored);
        let SnapshotPartV1::<PartV1> { number, part } = part.map_err(|why| self.damaged(why))?;
        if number != self.number {
            return Err(self.damaged(format!("found part {number}, wanted part {}", self.number)));
        }
        match rebuilt.add(part).map_err(|why| self.damaged(why))? {
            Some(state) => self.done = Some(Content { meta, state }),
            None => self.begun = Some((meta, rebuilt)),
        }
        Ok(())
    }

    /// What the file holds.
    ///
    /// # Errors
    /// `InvalidData` if it ends too early.
    pub fn finish(mut self) -> io::Result<Content> {
        match self.done.take() {
            Some(content) if self.rest.is_empty() => Ok(content),
            Some(_) => Err(self.damaged("found the beginning of a record, wanted nothing after the end")),
            None => Err(self.damaged("the file ends here, wanted its end record")),
        }
    }

    fn damaged(&self, why: impl std::fmt::Display) -> io::Error {
        let text = format!("the snapshot is damaged at byte {}, record {}: {why}", self.at, self.number);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

fn head(record: &[u8]) -> io::Result<(SnapshotMeta, Rebuilt)> {
    let head: SnapshotFileV1<HeadV1> = codec::decode_stored(codec::open(Kind::Snapshot, record)?)?;
    let membership = StoredMembership::new(head.membership_at.map(Into::into), head.membership.try_into()?);
    let meta = SnapshotMeta { last_log_id: head.last.map(Into::into), last_membership: membership };
    Ok((meta, Rebuilt::new(head.state).map_err(io::Error::other)?))
}
