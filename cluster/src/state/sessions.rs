//! Gateways' lives as the ledger knows them.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::command::Register;
use super::digest::Digester;
use super::ids::{RaftId, SessionId, Tau};

/// A session unheard of for so long in cluster time, and without leases, is dropped.
const SILENT_NS: u64 = 60_000_000_000;

/// What a reader may know of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Where it lives.
    pub node: RaftId,
    /// Its last applied batch; 0: none.
    pub last_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub node: RaftId,
    pub nonce: u128,
    pub last_seq: u64,
    /// Last batch applied, or the registration.
    pub heard: Tau,
    /// No lease of the session lives beyond.
    pub leases_end: Tau,
}

/// All sessions. Numbers are never reused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    pub(super) last: u64,
    pub(super) by_id: BTreeMap<SessionId, Session>,
    by_nonce: BTreeMap<(RaftId, u128), SessionId>,
    pub(super) cursor: SessionId,
}

impl Sessions {
    /// A session, if it is known.
    pub fn get(&self, id: SessionId) -> Option<SessionInfo> {
        self.by_id.get(&id).map(|session| SessionInfo { node: session.node, last_seq: session.last_seq })
    }

    /// All sessions in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, SessionInfo)> {
        self.by_id.iter().map(|(id, it)| (*id, SessionInfo { node: it.node, last_seq: it.last_seq }))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.by_id.len() as u64
    }

    pub(super) fn restored(last: u64, cursor: SessionId, by_id: BTreeMap<SessionId, Session>) -> Self {
        let by_nonce = by_id.iter().map(|(id, session)| ((session.node, session.nonce), *id)).collect();
        Self { last, by_id, by_nonce, cursor }
    }

    /// The same node and nonce have the same session.
    pub(super) fn register(&mut self, register: &Register, tau: Tau) -> SessionId {
        let Register { node, nonce } = *register;
        if let Some(id) = self.by_nonce.get(&(node, nonce)) {
            return *id;
        }
        self.last += 1;
        let id = SessionId(self.last);
        self.by_id.insert(id, Session { node, nonce, last_seq: 0, heard: tau, leases_end: Tau(0) });
        self.by_nonce.insert((node, nonce), id);
        id
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    /// Looks at a few sessions and drops those that are silent and hold nothing.
    pub(super) fn sweep(&mut self, tau: Tau, most: usize) {
        let next = (Bound::Excluded(self.cursor), Bound::Unbounded);
        let seen: Vec<SessionId> = self.by_id.range(next).take(most).map(|(id, _)| *id).collect();
        self.cursor = if seen.len() < most { SessionId(0) } else { seen[most - 1] };
        for id in seen {
            let session = self.by_id[&id];
            let silent = tau.0.saturating_sub(session.heard.0) >= SILENT_NS;
            if silent && session.leases_end <= tau {
                self.by_id.remove(&id);
                self.by_nonce.remove(&(session.node, session.nonce));
            }
        }
    }

    pub(super) fn digest(&self, into: &mut Digester) {
        into.number(self.last).number(self.cursor.0).number(self.by_id.len() as u64);
        for (id, it) in &self.by_id {
            into.number(id.0).number(it.node.0).wide(it.nonce);
            into.number(it.last_seq).number(it.heard.0).number(it.leases_end.0);
        }
    }
}
