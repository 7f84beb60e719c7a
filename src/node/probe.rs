//! Whether this node can serve, by component.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::leader::times::FAILOVER_MAX;
use cluster::replica::{Parting, Replica};
use cluster::state::ids::Revision;
use cluster::world::World;
use serde::Serialize;

use crate::journey::freshness::{Age, Freshness};
use crate::quota::Keeper;
use crate::router::Routes;

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should.
    Ready,
    /// It serves, with less than it should have.
    Degraded,
    /// It cannot serve.
    Unready,
}

/// One component's health and, where it is not ready, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Component {
    /// How well it works.
    pub status: Health,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A node's health: the worst of its components'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The worst.
    pub status: Health,
    /// By name.
    pub components: BTreeMap<&'static str, Component>,
}

/// Reads the health of the node's parts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Probe {
    world: World,
    replica: Replica,
    routes: Routes,
    keeper: Keeper,
    freshness: Arc<Freshness>,
    draining: Arc<AtomicBool>,
    data_plane_broken: Arc<AtomicBool>,
}

impl Probe {
    /// Of these parts.
    pub fn new(
        world: World,
        replica: Replica,
        routes: Routes,
        keeper: Keeper,
        freshness: Arc<Freshness>,
    ) -> Self {
        let (draining, data_plane_broken) = (Arc::default(), Arc::default());
        Self { world, replica, routes, keeper, freshness, draining, data_plane_broken }
    }

    /// From now on the node is not ready: it is about to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// From now on the node is not ready: a data-plane thread has ended.
    pub fn data_plane_broke(&self) {
        self.data_plane_broken.store(true, Ordering::Release);
    }

    /// The present health.
    ///
    /// A lost quorum is no reason to be unready: if it were, a load balancer would take out every node at once
    /// (decisions 22).
    pub fn read(&self) -> Readiness {
        let view = self.replica.view();
        let age = self.freshness.age();
        let mut components = BTreeMap::new();
        let mut say = |name, status, detail: &str| {
            let detail = (!detail.is_empty()).then(|| detail.to_owned());
            components.insert(name, Component { status, detail });
        };
        let joining =
            self.replica.joining().map(|told| format!("; asked to join: {told}")).unwrap_or_default();
        let parting = *self.replica.partings().borrow();
        match (view.raft_id, view.leader) {
            _ if parting == Parting::Removed => {
                say("cluster", Health::Unready, "removed from the cluster: this node ends");
            }
            _ if parting == Parting::HandBack => {
                say(
                    "cluster",
                    Health::Unready,
                    "leaves the cluster: requests at hand finish, leases go back",
                );
            }
            (None, _) => {
                let detail = format!(
                    "member of no cluster: `quorumgate cluster init` founds one, nodes named as peers let this one \
                     join{joining}"
                );
                say("cluster", Health::Unready, &detail);
            }
            (Some(_), None) => {
                let detail = format!("no leader is known: does a majority of the nodes run?{joining}");
                say("cluster", Health::Degraded, &detail);
            }
            (Some(_), Some(_)) if matches!(age, Age::Stale(_) | Age::Unconfirmed) => say(
                "cluster",
                Health::Degraded,
                "the leader does not confirm: does it reach a majority of the nodes?",
            ),
            (Some(_), Some(_)) => say("cluster", Health::Ready, ""),
        }
        match age {
            Age::Fresh => say("view", Health::Ready, ""),
            Age::Stale(ago) => {
                let ago = ago.as_secs();
                let detail = format!(
                    "its lease ended {ago} s ago: routes that need a token answer 503, but for their serve_stale_for"
                );
                say("view", Health::Degraded, &detail);
            }
            Age::Expected(left) => {
                let left = left.as_secs();
                let detail = format!(
                    "not confirmed by a leader since this process began: routes answer 503 until then, or for {left} s"
                );
                say("view", Health::Unready, &detail);
            }
            Age::Unconfirmed => {
                let revision = view.revision.0;
                let detail = format!(
                    "not confirmed by a leader since this process began: revision {revision} of its disk is served, and \
                     routes that need a token answer 503"
                );
                say("view", Health::Degraded, &detail);
            }
        }
        match self.keeper.silent() {
            Some(silent) if silent >= FAILOVER_MAX => {
                let silent = silent.as_secs();
                let detail = format!(
                    "no leader has answered for {silent} s: quotas admit what leases hold, then nothing, or their local \
                     share where they say so"
                );
                say("quotas", Health::Degraded, &detail);
            }
            _ => say("quotas", Health::Ready, ""),
        }
        if view.revision == Revision(0) {
            say("configuration", Health::Unready, "no gateway document yet: `quorumgate apply FILE`");
        } else {
            match self.routes.problem() {
                Some(problem) if self.routes.load().is_none() => {
                    say("configuration", Health::Unready, &problem)
                }
                Some(problem) => say("configuration", Health::Degraded, &problem),
                None if self.routes.load().is_none() => {
                    say("configuration", Health::Unready, "being compiled")
                }
                None => say("configuration", Health::Ready, ""),
            }
        }
        match self.replica.certificate().problem(self.world.clock.wall()) {
            Some(problem) => say("certificate", Health::Degraded, &problem),
            None => say("certificate", Health::Ready, ""),
        }
        if self.data_plane_broken.load(Ordering::Acquire) {
            say("data-plane", Health::Unready, "a thread has ended; the log says why");
        } else if self.draining.load(Ordering::Acquire) {
            say("data-plane", Health::Unready, "draining");
        } else {
            say("data-plane", Health::Ready, "");
        }
        let status = components.values().map(|component| component.status).max().unwrap_or(Health::Ready);
        Readiness { status, components }
    }
}
