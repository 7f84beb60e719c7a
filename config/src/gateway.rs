//! The gateway document: what the cluster does, equal on every node.

use serde::{Deserialize, Serialize};

use crate::identity::Issuer;
use crate::quota::{Plan, Quota, Tenant};
use crate::route::Route;
use crate::upstream::Upstream;

/// A complete, checked gateway document. Its canonical JSON is what the cluster replicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayDocument {
    /// Sorted by name.
    pub upstreams: Vec<Upstream>,
    /// Sorted by name.
    pub issuers: Vec<Issuer>,
    /// Sorted by name.
    pub quotas: Vec<Quota>,
    /// Sorted by name.
    pub plans: Vec<Plan>,
    /// Sorted by id.
    pub tenants: Vec<Tenant>,
    /// In the document's order; the order decides nothing.
    pub routes: Vec<Route>,
}
