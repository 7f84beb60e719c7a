//! Members: found, join, catch up, vote, leave.
//!
//! ```text
//! a new node                          any node ──▶ the leader
//! join (no raft id) ────────────────▶ Admit in the log ─▶ a raft id, never reused
//! identity durable, core started
//! join (raft id) ───────────────────▶ Begin in the log ─▶ learner ─▶ caught up ─▶ voter ─▶ End in the log
//!
//! an operator ──▶ leave, replace ───▶ Begin ─▶ the member hands back ─▶ voters without it ─▶ End ─▶ it is told, and ends
//! ```
//!
//! One operation at a time, and it is in the log from its begin to its end: whoever leads carries it on (`plan` says what
//! is next, `drive` does it).
//!
//! A cluster is founded by one explicit order, never by an empty disk. A node whose disk was lost joins again under its
//! name with a new raft id and replaces the old one: added first, then swapped in one joint change. A node that comes
//! back at another address has it changed before it counts on it. A raft id that was taken away is fenced: it neither
//! votes nor spends, whatever its node knows.
//!
//! ```text
//! plan     the next step of an operation (pure)      join     asking to be let in, letting in
//! drive    carries an operation out                  order    operators' orders, the leader's report
//! parting  the node that leaves                        pace     whether a learner keeps up (pure)
//! ```

pub(crate) mod drive;
pub(crate) mod join;
pub(crate) mod order;
mod pace;
mod parting;
pub mod plan;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::fatal::Fatal;
use crate::peer::codec::{self, Kind};
use crate::peer::message::control::IdentityV1;
use crate::raft::log::blocking;
use crate::raft::offline;
use crate::raft::types::Local;
use crate::replica::core::{Core, Seat};
use crate::state::command::{Command, Member, Outcome};
use crate::state::ids::RaftId;
use crate::world::World;

/// The file that makes a directory a node's.
pub const IDENTITY: &str = "identity";
const PROPOSE_WITHIN: Duration = Duration::from_secs(5);
const LEAD_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who this disk belongs to; none: nobody yet. Blocks.
///
/// # Errors
/// The disk's; within, a text for the operator, if the disk is another node's.
pub(crate) fn identity(world: &World, name: &str) -> io::Result<Result<Option<IdentityV1>, String>> {
    let Some(record) = world.disk.read(Path::new(IDENTITY))? else { return Ok(Ok(None)) };
    let identity: IdentityV1 = codec::decode_stored(codec::open(Kind::Identity, &record)?)?;
    if identity.name != name {
        return Ok(Err(format!(
            "the data directory belongs to node {:?}, the node file says {name:?}: use the directory of this node",
            identity.name
        )));
    }
    if identity.removed {
        return Ok(Err(parting::removed_text(identity.raft_id, identity.cluster_id)));
    }
    Ok(Ok(Some(identity)))
}

fn identity_of(core: &Core, seat: &Seat, removed: bool) -> IdentityV1 {
    let name = core.node.name.as_str().to_owned();
    IdentityV1 { cluster_id: seat.cluster_id, raft_id: seat.raft_id.0, name, removed }
}

async fn keep(core: &Core, identity: &IdentityV1) -> Result<(), Fatal> {
    let written = write_identity(&core.world, identity).await;
    written.map_err(|error| core.bell.storage("writing whose it is", &error))
}

/// Makes it durable whose disk this is.
pub(crate) async fn write_identity(world: &World, identity: &IdentityV1) -> io::Result<()> {
    let disk = world.disk.clone();
    let record = codec::seal(Kind::Identity, &codec::encode(identity))?;
    blocking(world, move || disk.write(Path::new(IDENTITY), &record)).await
}

/// Founds a cluster of this node alone, or finishes a founding that was cut off.
pub(crate) async fn found(core: &Arc<Core>) -> Result<(), String> {
    let _alone = core.membership.lock().await;
    let seat = match core.seat() {
        Some(seat) => seat,
        None => {
            let name = core.node.name.as_str().to_owned();
            let identity =
                IdentityV1 { cluster_id: core.random(), raft_id: RaftId::FOUNDER.0, name, removed: false };
            sit(core, &identity).await.map_err(|fatal| fatal.to_string())?
        }
    };
    let founded = seat.shared.replicated.lock().state.cluster_id();
    if seat.raft_id != RaftId::FOUNDER || founded.is_some() {
        return Err(format!("this node already belongs to cluster {:032x}", seat.cluster_id));
    }
    let initialized = seat.raft.is_initialized().await.map_err(|e| e.to_string())?;
    if !initialized {
        let members = BTreeMap::from([(RaftId::FOUNDER.0, core.myself())]);
        seat.raft.initialize(members).await.map_err(|e| e.to_string())?;
    }
    let mut role = seat.role.clone();
    let leads = timeout(LEAD_WITHIN, role.wait_for(|role| role.leading.is_some())).await;
    leads
        .map_err(|_| "this node did not come to lead itself in time: try again")?
        .map_err(|e| e.to_string())?;
    let command = Command::Found {
        cluster_id: seat.cluster_id,
        secret: core.random().to_le_bytes(),
        founder: Member { name: core.node.name.clone(), address: core.node.cluster.advertise.clone() },
    };
    match propose(&seat, command).await? {
        Outcome::Founded(_) => {
            tracing::info!(cluster = format!("{:032x}", seat.cluster_id), "cluster founded");
            Ok(())
        }
        other => Err(format!("founding was answered with {other:?}")),
    }
}

async fn propose(seat: &Seat, command: Command) -> Result<Outcome, String> {
    let end = Instant::now() + PROPOSE_WITHIN;
    loop {
        // A leader that a majority has not yet answered refuses; it takes some milliseconds.
        let error = match timeout(PROPOSE_WITHIN, seat.raft.client_write(Local(command.clone()))).await {
            Ok(Ok(response)) => return Ok(response.data.0),
            Ok(Err(error)) if !seat.leads() => return Err(error.to_string()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => return Err(format!("not committed within {PROPOSE_WITHIN:?}")),
        };
        if Instant::now() >= end {
            return Err(error);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Becomes the node that the cluster admitted under `raft_id`.
async fn take_seat(core: &Arc<Core>, cluster_id: u128, raft_id: u64) -> Result<(), Fatal> {
    let _alone = core.membership.lock().await;
    if core.seat().is_some() {
        return Ok(());
    }
    let name = core.node.name.as_str().to_owned();
    let identity = IdentityV1 { cluster_id, raft_id, name, removed: false };
    sit(core, &identity).await?;
    Ok(())
}

/// Makes an empty log, then the identity, durable, and takes its seat: an identity without a log is a disk that has lost
/// it. A node that fails at this ends.
async fn sit(core: &Arc<Core>, identity: &IdentityV1) -> Result<Arc<Seat>, Fatal> {
    let seated = async {
        let world = core.world.clone();
        let created = blocking(&core.world, move || offline::create(&world)).await;
        created.map_err(|error| core.bell.storage("making the log", &error))?;
        keep(core, identity).await?;
        core.sit(identity).await
    };
    seated.await.inspect_err(|fatal| core.bell.ring(fatal.clone()))
}
