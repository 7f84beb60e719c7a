//! openraft's calls to other nodes, over the peers' lanes.
//!
//! Entries, heartbeats and snapshots go over connections of their own, so that none waits behind another. Whatever
//! fails is `Unreachable`: openraft then backs off instead of trying again at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::ids::NodeName;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::log::blocking;
use super::snapshot::Parcel;
use super::types::{PeerNode, Snapshot, StoredMembership, TypeConfig, Vote};
use super::wire;
use crate::HISTORY;
use crate::peer::codec;
use crate::peer::message::raft::{
    AppendReplyV1, AppendV1, SnapshotChunkV1, SnapshotReplyV1, TransferReplyV1, TransferV1, VoteReplyV1,
    VoteRequestV1,
};
use crate::peer::message::{Blob, kind};
use crate::peer::{Lane, Peers, Target};
use crate::state::ids::RaftId;
use crate::world::World;

/// A busy follower may need longer for its sync than openraft's heartbeat interval; heartbeats go their own way.
const APPEND_WITHIN: Duration = Duration::from_secs(2);
/// One piece of a snapshot; the last one includes its installation.
const CHUNK_WITHIN: Duration = Duration::from_secs(20);

/// Where members are now. openraft goes on with the clients that it has when a member's address changes, so a client looks
/// here with each call. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<BTreeMap<u64, PeerNode>>>);

impl Addresses {
    /// The effective membership is this.
    pub fn learn(&self, membership: &StoredMembership) {
        let nodes = membership.membership().nodes();
        *self.0.lock() = nodes.map(|(id, node)| (*id, node.clone())).collect();
    }
}

/// How far snapshots have been sent: member → bytes that it acknowledged of the one on its way. openraft says nothing of a
/// snapshot before it is in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Transfers(Arc<Mutex<BTreeMap<u64, u64>>>);

impl Transfers {
    /// What `id` has of the snapshot that is being sent to it; 0: none is.
    pub fn bytes(&self, id: u64) -> u64 {
        self.0.lock().get(&id).copied().unwrap_or(0)
    }

    fn begin(&self, id: u64) -> Transfer {
        Transfer { all: self.clone(), id }
    }
}

/// A snapshot on its way; forgotten when dropped.
struct Transfer {
    all: Transfers,
    id: u64,
}

impl Transfer {
    fn acknowledged(&self, bytes: u64) {
        self.all.0.lock().insert(self.id, bytes);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.id);
    }
}

/// Makes clients.
#[derive(Debug)]
pub struct Network {
    peers: Peers,
    addresses: Addresses,
    transfers: Transfers,
    world: World,
}

impl Network {
    /// Calls go through `peers`, to where `addresses` says; snapshots are read from `world`'s disk, and `transfers` notes how
    /// far they are.
    pub fn new(peers: Peers, addresses: Addresses, transfers: Transfers, world: World) -> Self {
        Self { peers, addresses, transfers, world }
    }

    fn client(&self, id: u64, node: &PeerNode, lane: Lane) -> Client {
        let (peers, addresses, transfers) =
            (self.peers.clone(), self.addresses.clone(), self.transfers.clone());
        Client { peers, addresses, transfers, world: self.world.clone(), id, node: node.clone(), lane }
    }
}

/// A member as the peers' door knows it; none: its name breaks the rule for names.
pub fn target(id: u64, node: &PeerNode) -> Option<Target> {
    let name = NodeName::parse(&node.name).ok()?;
    Some(Target { name, address: node.address.clone(), raft_id: Some(RaftId(id)) })
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, id: u64, node: &PeerNode) -> Client {
        self.client(id, node, Lane::Raft)
    }

    async fn new_heartbeat_client(&mut self, id: u64, node: &PeerNode) -> Client {
        self.client(id, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, id: u64, node: &PeerNode) -> Client {
        self.client(id, node, Lane::Snapshot)
    }
}

/// Calls one node over one lane.
#[derive(Debug)]
pub struct Client {
    peers: Peers,
    addresses: Addresses,
    transfers: Transfers,
    world: World,
    id: u64,
    /// Where it was when this client was made: the last word on a node that is no member any more.
    node: PeerNode,
    lane: Lane,
}

type Failed = RPCError<TypeConfig>;

impl Client {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: u16,
        question: &Q,
        within: Duration,
    ) -> Result<A, Unreachable<TypeConfig>> {
        let unreachable = |why: String| Unreachable::new(&AnyError::error(why));
        let target = match self.addresses.0.lock().get(&self.id) {
            Some(node) => target(self.id, node),
            None => target(self.id, &self.node),
        };
        let Some(target) = target else {
            return Err(unreachable("the membership names a node by no valid name".to_owned()));
        };
        let payload = Bytes::from(codec::encode(question));
        let answer = self
            .peers
            .call(&target, self.lane, kind, payload, within)
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        codec::decode(&answer).map_err(|e| unreachable(e.to_string()))
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Parcel;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failed> {
        let within = match self.lane {
            Lane::Heartbeat => option.hard_ttl(),
            _ => option.hard_ttl().max(APPEND_WITHIN),
        };
        let reply: AppendReplyV1 = self.call(kind::APPEND, &AppendV1::from(&rpc), within).await?;
        Ok(reply.into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failed> {
        let reply: VoteReplyV1 = self.call(kind::VOTE, &VoteRequestV1::from(&rpc), option.hard_ttl()).await?;
        Ok(reply.into())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failed> {
        let reply: VoteReplyV1 =
            self.call(kind::PRE_VOTE, &VoteRequestV1::from(&rpc), option.hard_ttl()).await?;
        Ok(reply.into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut cancel = std::pin::pin!(cancel);
        let failed = |text: String| NetworkError::from_string(text);
        let Parcel::Kept(file) = snapshot.snapshot else {
            return Err(failed("a snapshot that is not on this disk yet is not sent on".to_owned()).into());
        };
        let (last, total) = (snapshot.meta.last_log_id.map(Into::into), file.size());
        tracing::debug!(target: HISTORY, "snapshots begun to be sent");
        let transfer = self.transfers.begin(self.id);
        let mut offset = 0;
        loop {
            let from = file.clone();
            let piece = blocking(&self.world, move || from.piece(offset)).await;
            let piece = piece.map_err(|error| failed(format!("reading the snapshot: {error}")))?;
            let end = offset + piece.len() as u64;
            let chunk = SnapshotChunkV1 { vote: vote.into(), last, total, offset, bytes: Blob(piece) };
            let reply: SnapshotReplyV1 = tokio::select! {
                biased;
                closed = &mut cancel => return Err(closed.into()),
                reply = self.call(kind::SNAPSHOT, &chunk, CHUNK_WITHIN) => reply?,
            };
            match reply {
                SnapshotReplyV1::Done(vote) => {
                    tracing::debug!(target: HISTORY, "snapshots sent");
                    return Ok(SnapshotResponse::new(vote.into()));
                }
                SnapshotReplyV1::Continue(next) if next == end && end < total => {
                    offset = end;
                    transfer.acknowledged(offset);
                }
                SnapshotReplyV1::Continue(next) => {
                    let text = format!("the receiver wants byte {next}, {end} of {total} were sent");
                    return Err(failed(text).into());
                }
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failed> {
        let reply: TransferReplyV1 =
            self.call(kind::TRANSFER, &TransferV1::from(&req), option.hard_ttl().max(APPEND_WITHIN)).await?;
        Ok(wire::transfer_response(reply))
    }
}
