//! A stopped node's disk: what it holds, and a new beginning made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use openraft::EntryPayload;

use super::backend::{Backend, Fact, Loaded, Redb, Write};
use super::log::{Image, blocking};
use super::snapshot::{Content, Shelf};
use super::types::{
    LeaderId, Local, LogId, Membership, PeerNode, SnapshotMeta, StoredMembership, Vote, term,
};
use crate::peer::codec::{self, Kind};
use crate::peer::message::log::{LogIdV1, VoteV1};
use crate::state::State;
use crate::state::command::Member;
use crate::state::ids::{RaftId, Revision};
use crate::world::World;

/// The log's store.
pub const STORE: &str = "raft.redb";

/// What a disk holds.
#[derive(Debug)]
pub struct Held {
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last entry, in the log or in the snapshot.
    pub last: Option<LogId>,
    /// The last entry that this node knew to be committed.
    pub committed: Option<LogId>,
    /// The document's revision after the committed entries.
    pub revision_committed: Revision,
    /// The state after all entries.
    pub state: State,
    /// The last membership, committed or not.
    pub membership: Membership,
}

/// Makes an empty log's store, for a node that has no identity yet. What a try before this one left half made is removed.
/// Blocks.
///
/// # Errors
/// The disk's; `InvalidData` if there is a log: it is some node's.
pub fn create(world: &World) -> io::Result<()> {
    let path = Path::new(STORE);
    if !Redb::is_whole(world, path)? {
        world.disk.remove(path)?;
    }
    if Redb::open(world, path)?.load()? == Loaded::default() {
        return Ok(());
    }
    let text = format!("{STORE} holds a log, but the file that says whose it is, is missing");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Reads the disk of a stopped node, and applies all that its log holds: what an election won by this node would commit.
///
/// # Errors
/// The disk's; a damaged record; a log that does not begin where the snapshot ends.
pub async fn read(world: &World) -> io::Result<Held> {
    let disk = world.clone();
    let image = blocking(world, move || Image::read(Redb::kept(&disk, Path::new(STORE))?.load()?)).await?;
    let Content { meta, mut state } = Shelf::new(world.clone()).load().await?.unwrap_or_default();
    let mut membership = meta.last_membership.membership().clone();
    let mut last = meta.last_log_id;
    let committed = image.committed.max(last);
    let mut revision_committed = state.revision();
    for held in image.entries.values() {
        let id = held.entry.log_id;
        if last.is_some_and(|last| id.index <= last.index) {
            continue;
        }
        let wanted = last.map_or(0, |last| last.index + 1);
        if id.index != wanted {
            let text = format!("found entry {} after the snapshot, wanted entry {wanted}", id.index);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        match &held.entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(Local(command)) => drop(state.apply(id.index, term(&id), command)),
            EntryPayload::Membership(next) => membership = next.clone(),
        }
        last = Some(id);
        if last <= committed {
            revision_committed = state.revision();
        }
    }
    Ok(Held { vote: image.vote, last, committed, revision_committed, state, membership })
}

/// Writes the disk of a new cluster, `cluster_id`, whose only member is `me`, and whose state is what `held` had: the
/// document, and all that is spent and lent. Yields its raft id.
///
/// The recovery itself takes the next place in the log, in a term of its own, so that the raft id is one that the old
/// cluster never gave out.
///
/// # Errors
/// The disk's.
pub async fn begin_anew(world: &World, held: Held, cluster_id: u128, me: Member) -> io::Result<RaftId> {
    let Held { vote, last, mut state, .. } = held;
    let term_last = last.map_or(0, |id| term(&id)).max(vote.map_or(0, |vote| vote.leader_id.term));
    let place = LogId { leader_id: (term_last + 1).into(), index: last.map_or(1, |id| id.index + 1) };
    let id = place.index;
    let node = PeerNode { name: me.name.as_str().to_owned(), address: me.address.clone() };
    let alone = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, node)]));
    let alone = alone.map_err(io::Error::other)?;
    state.begin_anew(cluster_id, RaftId(id), me);
    let last_membership = StoredMembership::new(Some(place), alone);
    let meta = SnapshotMeta { last_log_id: Some(place), last_membership };
    Shelf::new(world.clone()).store(Content { meta, state }).await?;
    let vote = Vote { leader_id: LeaderId { term: term_last + 1, voted_for: id }, committed: false };
    let place = codec::seal(Kind::LogId, &codec::encode(&LogIdV1::from(place)))?;
    let facts = vec![
        Write::Set(Fact::Vote, codec::seal(Kind::Vote, &codec::encode(&VoteV1::from(vote)))?),
        Write::Set(Fact::Purged, place.clone()),
        Write::Set(Fact::Committed, place),
    ];
    let disk = world.clone();
    blocking(world, move || Redb::open(&disk, Path::new(STORE))?.write(&facts)).await?;
    Ok(RaftId(id))
}
