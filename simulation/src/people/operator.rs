//! The operator: founds the cluster, applies the document's editions, looks at every node again and again, and says
//! when the cluster is well again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use super::{DOCUMENT, Standing, ask_admin};
use crate::event::{Event, Held};
use crate::host::{Ended, HostNumber};
use crate::network::Network;
use crate::scene::{NODES_MAX, OPERATOR, Scene};
use crate::witness::Witness;

/// Longer than a change of the document may take.
const CHANGE_WITHIN: Duration = Duration::from_secs(32);
/// A node that was looked at when it lost its power never answers.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// Rounds over all nodes until a change of members is given up: another one may be under way.
const CHANGE_TRIES: usize = 4;
/// More members than this listen and do not vote.
const VOTERS_MAX: usize = 5;
/// What was sent before a link opened again arrives within this time.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// Between two looks at a node.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the operator needs.
#[derive(Clone)]
pub struct Operator {
    pub network: Network,
    pub witness: Witness,
    pub scene: Scene,
    /// The founders.
    pub founders: Vec<HostNumber>,
    /// The nodes that should be members.
    pub nodes: Standing,
    /// What is to be done, one after the other.
    pub orders: Arc<Mutex<VecDeque<Order>>>,
    /// The cluster is founded and has its first edition.
    pub formed: Arc<AtomicBool>,
    /// All troubles have ended: the cluster should come to rest.
    pub calm: Arc<AtomicBool>,
    /// It has.
    pub converged: Arc<AtomicBool>,
}

/// What the weather asks of the operator.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Apply the next edition.
    Edition,
    /// Let a node leave.
    Leave(HostNumber),
    /// Let a node take another's place.
    Replace {
        /// Leaves.
        old: HostNumber,
        /// Has joined, or is about to.
        new: HostNumber,
    },
}

/// Works until the cluster has converged after all troubles, and then goes on looking.
pub async fn operate(operator: Operator) -> Ended {
    operator.form().await;
    operator.formed.store(true, Ordering::Relaxed);
    for node in 1..=NODES_MAX {
        tokio::spawn(operator.clone().look(node));
    }
    tokio::spawn(operator.clone().watch_convergence());
    // What was not done by the end of all troubles is not begun any more; what is half done, the cluster ends by itself.
    tokio::select! {
        biased;
        () = operator.is_calm() => {}
        () = operator.work() => {}
    }
    for order in operator.orders.lock().expect("no panic happens while orders are locked").drain(..) {
        operator.witness.miss(format!("the operator's {order:?}, which was not done before the calm"));
    }
    std::future::pending().await
}

impl Operator {
    async fn is_calm(&self) {
        while !self.calm.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Carries out orders, one after the other.
    async fn work(&self) {
        let mut edition = 0;
        loop {
            let orders = || self.orders.lock().expect("no panic happens while orders are locked");
            let order = orders().front().copied();
            match order {
                Some(Order::Edition) if edition + 1 < self.scene.gateway.len() => {
                    edition += 1;
                    self.apply(edition).await;
                }
                Some(Order::Leave(node)) => {
                    self.change("/v1/cluster/leave", format!("{{\"node\": \"node-{node}\"}}")).await;
                }
                Some(Order::Replace { old, new }) => {
                    let body = format!("{{\"old\": \"node-{old}\", \"new\": \"node-{new}\"}}");
                    self.change("/v1/cluster/replace", body).await;
                }
                Some(Order::Edition) => self.witness.miss("an edition after the last one".to_owned()),
                None => {}
            }
            orders().pop_front();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has something changed.
    async fn order(&self, node: HostNumber, path: &str, body: &str) -> Result<(u16, String), String> {
        ask_admin(&self.network, OPERATOR, node, Method::POST, path, body, CHANGE_WITHIN).await
    }

    async fn json(&self, node: HostNumber, path: &str) -> Option<Value> {
        let look = ask_admin(&self.network, OPERATOR, node, Method::GET, path, "", LOOK_WITHIN);
        serde_json::from_str(&look.await.ok()?.1).ok()
    }

    async fn form(&self) {
        let founder = self.founders[0];
        while self.order(founder, "/v1/cluster/init", "").await.map(|(status, _)| status) != Ok(200) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for node in &self.founders {
            while !self.json(*node, "/v1/status").await.is_some_and(|status| self.is_whole(&status)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        self.apply(0).await;
        for node in &self.founders {
            while self.json(*node, "/readyz").await.is_none_or(|readiness| readiness["status"] != "ready") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn is_whole(&self, status: &Value) -> bool {
        let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
        let voters = members.iter().filter(|member| member["voter"] == true).count();
        let nodes = self.nodes.all();
        let name = |node: &HostNumber| format!("node-{node}");
        let named = nodes.iter().all(|node| members.iter().any(|member| member["name"] == name(node)));
        named && members.len() == nodes.len() && voters == members.len().min(VOTERS_MAX)
    }

    /// Asks one node after the other for a change of members, until one takes the order or refuses it.
    async fn change(&self, path: &str, body: String) {
        for _ in 0..CHANGE_TRIES {
            for node in self.nodes.all() {
                if let Ok((202, _)) = self.order(node, path, &body).await {
                    return self.witness.count("changes of members begun", 1);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        self.witness.count("changes of members refused", 1);
        self.witness.miss(format!("the operator's {path} {body}"));
    }

    /// Sends an edition to one node after the other until the cluster says that it is in force.
    async fn apply(&self, edition: usize) {
        self.witness.tell(Event::Ordered { edition });
        let document = self.scene.gateway[edition].adopted(&self.scene.upstreams());
        for turn in edition.. {
            let nodes = self.nodes.all();
            let node = &nodes[turn % nodes.len()];
            match self.order(*node, DOCUMENT, &document).await {
                Ok((200, body)) => {
                    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
                    let revision = answer["revision"].as_u64().unwrap_or(0);
                    self.witness.tell(Event::InForce { edition, revision });
                    return;
                }
                // Its mistakes were found before the run, but for what a node alone knows.
                Ok((status @ (400 | 415 | 422), body)) => {
                    panic!("edition {edition} was refused: {status} {body}")
                }
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn look(self, node: HostNumber) {
        loop {
            if self.nodes.contains(node)
                && let Some(status) = self.json(node, "/v1/status").await
            {
                let number = |name: &str| status[name].as_u64().unwrap_or(0);
                let (revision, applied) = (number("revision"), number("applied_index"));
                self.witness.tell(Event::Status { host: node, revision, applied });
                let count = |group: &str, name: &str| status[group][name].as_u64().unwrap_or(0);
                self.witness.tell(Event::Holds(Held {
                    host: node,
                    tokens: count("leases", "tokens"),
                    cells: count("leases", "cells"),
                    waiting: count("leases", "waiting"),
                    buckets: count("kept", "buckets"),
                    sessions: count("kept", "sessions"),
                    log_entries: count("kept", "log_entries"),
                }));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn watch_convergence(self) {
        self.is_calm().await;
        // An order that was on its way may still arrive.
        tokio::time::sleep(ON_ITS_WAY).await;
        loop {
            let mut all = Vec::new();
            let nodes = self.nodes.all();
            for node in &nodes {
                let ready =
                    self.json(*node, "/readyz").await.is_some_and(|readiness| readiness["status"] == "ready");
                let status = self.json(*node, "/v1/status").await.unwrap_or_default();
                if ready && self.is_whole(&status) && status["membership"]["operation"].is_null() {
                    all.push((status["serving_revision"].as_u64(), status["applied_index"].as_u64()));
                }
            }
            let same = all.windows(2).all(|pair| pair[0].0 == pair[1].0);
            if all.len() == nodes.len() && same {
                let (revision, applied) = all[0];
                let (revision, applied) = (revision.unwrap_or(0), applied.unwrap_or(0));
                self.witness.tell(Event::Converged { revision, applied });
                self.converged.store(true, Ordering::Relaxed);
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
