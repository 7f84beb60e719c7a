//! A new cluster from one disk of an old one, for the day when a majority of the disks is gone.
//!
//! ```text
//! old disk    snapshot, then the whole log ─▶ state ─┬─ the document, sessions, buckets, leases: as they were
//!                                                    └─ another cluster id, one new raft id, no other member
//! new disk    snapshot of that state, an empty log, a vote; the identity last, which makes it a disk that can be used
//! ```
//!
//! Leases of the old cluster stay booked until they expire in cluster time, which stood still meanwhile, so nothing that
//! the disk knows to be lent is lent twice. What only the lost disks knew is forgotten. Nodes of the old cluster are kept
//! out by the cluster id.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use config::node::NodeFile;

use crate::fatal::{Bell, Fatal};
use crate::membership;
use crate::peer::message::control::IdentityV1;
use crate::raft::offline::{self, Held};
use crate::raft::types::{LogId, term};
use crate::state::command::Member;
use crate::state::ids::{RaftId, Revision};
use crate::view::ViewMember;
use crate::world::World;

pub use crate::membership::IDENTITY;

/// The folder of a data directory in which a new beginning is prepared. As long as an identity is in it, it must be
/// finished before a node can start.
pub const FOLDER: &str = "recovering";

/// What a stopped node's disk holds, for an operator who looks for the disk that has most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The node.
    pub name: String,
    /// Its cluster.
    pub cluster_id: u128,
    /// Its number there.
    pub raft_id: RaftId,
    /// The term in which it voted last, and for whom.
    pub vote: Option<(u64, u64)>,
    /// Term and index of its last entry. The disk with the highest one has most.
    pub last: Option<(u64, u64)>,
    /// Term and index of the last entry that it knew to be committed.
    pub committed: Option<(u64, u64)>,
    /// The document's revision after the committed entries, and after all.
    pub revisions: (Revision, Revision),
    /// Members in its last membership.
    pub members: Vec<ViewMember>,
}

/// What was made of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The cluster that was.
    pub old_cluster_id: u128,
    /// The cluster that begins.
    pub cluster_id: u128,
    /// The only member's number.
    pub raft_id: RaftId,
    /// The document in force.
    pub revision: Revision,
}

/// Says what the disk of the stopped node of `node` holds. Changes nothing that counts.
///
/// # Errors
/// A text for the operator.
pub async fn inspect(world: &World, node: &NodeFile) -> Result<Inspection, Fatal> {
    let _lock = lock(world, node, &node.data)?;
    let (identity, held) = read(world, node).await?;
    Ok(inspection(identity, &held))
}

/// Prepares a new cluster of this node alone from the disk of the stopped node of `node`, in another directory, `into`,
/// which is empty and on the disk of `fresh`.
///
/// # Errors
/// A text for the operator. The old disk is as it was.
pub async fn recover(world: &World, fresh: &World, node: &NodeFile, into: &Path) -> Result<Recovered, Fatal> {
    let _lock = lock(world, node, &node.data)?;
    let (identity, held) = read(world, node).await?;
    let voters: BTreeSet<u64> = held.membership.voter_ids().collect();
    if voters == BTreeSet::from([identity.raft_id]) {
        return Err(Fatal::Setup(format!(
            "{} is the only voter of its cluster, so no majority is lost: start it with `quorumgate run`",
            node.name
        )));
    }
    if !voters.contains(&identity.raft_id) {
        return Err(Fatal::Setup(format!(
            "{} is no voter of its cluster, whose state may have gone on without it: recover a voter's disk",
            node.name
        )));
    }
    let _fresh_lock = lock(fresh, node, into)?;
    let mut random = [0; 16];
    world.chance.fill(&mut random);
    let cluster_id = u128::from_le_bytes(random);
    let me = Member { name: node.name.clone(), address: node.cluster.advertise.clone() };
    let revision = held.state.revision();
    let bell = Bell::new(into.to_owned()).0;
    let raft_id = offline::begin_anew(fresh, held, cluster_id, me)
        .await
        .map_err(|error| bell.storage("writing the new beginning", &error))?;
    // Last: with it, the directory is one that a node can start on.
    let anew = IdentityV1 { cluster_id, raft_id: raft_id.0, name: identity.name, removed: false };
    membership::write_identity(fresh, &anew)
        .await
        .map_err(|error| bell.storage("writing whose it is", &error))?;
    Ok(Recovered { old_cluster_id: identity.cluster_id, cluster_id, raft_id, revision })
}

fn lock(world: &World, node: &NodeFile, dir: &Path) -> Result<Box<dyn Send + Sync>, Fatal> {
    world.disk.lock(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            Fatal::Setup(format!("{} must be stopped, and so must all nodes: {error}", node.name))
        }
        _ => Bell::new(dir.to_owned()).0.storage("taking it", &error),
    })
}

async fn read(world: &World, node: &NodeFile) -> Result<(IdentityV1, Held), Fatal> {
    let storage = |what: &str, error: std::io::Error| Bell::new(node.data.clone()).0.storage(what, &error);
    let identity = membership::identity(world, node.name.as_str());
    let identity = identity.map_err(|error| storage("reading whose it is", error))?.map_err(Fatal::Setup)?;
    let identity = identity.ok_or_else(|| {
        let data = node.data.display();
        Fatal::Setup(format!("the data directory {data} belongs to no cluster: there is nothing to recover"))
    })?;
    let held = offline::read(world).await.map_err(|error| storage("reading log and snapshot", error))?;
    if held.state.cluster_id() != Some(identity.cluster_id) {
        return Err(Fatal::Setup(format!(
            "the disk of {} has no state of its cluster yet: recover the disk of another node",
            node.name
        )));
    }
    Ok((identity, held))
}

fn inspection(identity: IdentityV1, held: &Held) -> Inspection {
    let place = |id: LogId| (term(&id), id.index);
    let voters: BTreeSet<u64> = held.membership.voter_ids().collect();
    let members = held.membership.nodes().filter_map(|(id, node)| {
        Some(ViewMember {
            raft_id: RaftId(*id),
            name: config::ids::NodeName::parse(&node.name).ok()?,
            address: node.address.clone(),
            voter: voters.contains(id),
        })
    });
    Inspection {
        name: identity.name,
        cluster_id: identity.cluster_id,
        raft_id: RaftId(identity.raft_id),
        vote: held.vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for)),
        last: held.last.map(place),
        committed: held.committed.map(place),
        revisions: (held.revision_committed, held.state.revision()),
        members: members.collect(),
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |place: Option<(u64, u64)>| {
            place.map_or("none".to_owned(), |(term, index)| format!("term {term}, index {index}"))
        };
        let vote =
            self.vote.map_or("none".to_owned(), |(term, node)| format!("term {term}, for raft id {node}"));
        writeln!(f, "node       {} (raft id {})", self.name, self.raft_id.0)?;
        writeln!(f, "cluster    {:032x}", self.cluster_id)?;
        writeln!(f, "last entry {}", place(self.last))?;
        writeln!(f, "committed  {}", place(self.committed))?;
        writeln!(f, "vote       {vote}")?;
        writeln!(f, "revision   {} committed, {} with all entries", self.revisions.0.0, self.revisions.1.0)?;
        for member in &self.members {
            let kind = if member.voter { "voter" } else { "learner" };
            writeln!(
                f,
                "member     {:<16} id {:<6} {kind:<8} {}",
                member.name, member.raft_id.0, member.address
            )?;
        }
        Ok(())
    }
}
