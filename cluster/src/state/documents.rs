//! The gateway document and its last revisions.

use std::collections::VecDeque;
use std::sync::Arc;

use config::gateway::GatewayDocument;

use super::command::DocumentChange;
use super::digest::Digester;
use super::ids::{Revision, Tau};

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// Its number.
    pub revision: Revision,
    /// When it was applied, in cluster time.
    pub tau: Tau,
    /// Canonical JSON.
    pub json: Arc<str>,
    /// Names the request that brought it.
    pub request_id: u128,
}

/// The last revisions, the newest last, and the newest as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    history: VecDeque<Edition>,
    document: Option<Arc<GatewayDocument>>,
}

impl Documents {
    /// Revisions that are kept.
    pub const HISTORY_MAX: usize = 32;

    /// The document in force.
    pub fn document(&self) -> Option<&Arc<GatewayDocument>> {
        self.document.as_ref()
    }

    /// The revision in force; 0 before the first.
    pub fn revision(&self) -> Revision {
        self.history.back().map_or(Revision(0), |edition| edition.revision)
    }

    /// At most [`Self::HISTORY_MAX`], the oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Edition> {
        self.history.iter()
    }

    /// What a request was answered before.
    pub(super) fn already(&self, request_id: u128) -> Option<Revision> {
        let mut editions = self.history.iter();
        editions.find(|edition| edition.request_id == request_id).map(|edition| edition.revision)
    }

    pub(super) fn push(&mut self, change: &DocumentChange, document: GatewayDocument, tau: Tau) -> Revision {
        let revision = Revision(self.revision().0 + 1);
        let (json, request_id) = (change.json.clone(), change.request_id);
        self.history.push_back(Edition { revision, tau, json, request_id });
        if self.history.len() > Self::HISTORY_MAX {
            self.history.pop_front();
        }
        self.document = Some(Arc::new(document));
        revision
    }

    pub(super) fn restored(history: VecDeque<Edition>) -> Result<Self, String> {
        let newest = history.back();
        let document = newest.map(|edition| read(&edition.json).map(Arc::new)).transpose()?;
        Ok(Self { history, document })
    }

    pub(super) fn digest(&self, into: &mut Digester) {
        for edition in &self.history {
            into.number(edition.revision.0).number(edition.tau.0).wide(edition.request_id);
            into.bytes(edition.json.as_bytes());
        }
    }
}

/// Reads canonical JSON.
pub(super) fn read(json: &str) -> Result<GatewayDocument, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}
