//! `/v1/status`: what this node knows of itself and its cluster; and the same as metrics.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::Door;

/// The status as JSON; the README lists its fields.
pub async fn status(State(door): State<Arc<Door>>) -> axum::Json<Value> {
    let view = door.replica.view();
    let stats = door.keeper.stats();
    let name_of =
        |id| view.members.iter().find(|member| member.raft_id == id).map(|member| member.name.as_str());
    let members: Vec<Value> = view
        .members
        .iter()
        .map(|member| {
            json!({
                "raft_id": member.raft_id.0,
                "name": member.name.as_str(),
                "address": member.address,
                "voter": member.voter,
            })
        })
        .collect();
    let quotas: Vec<Value> = stats
        .quotas
        .iter()
        .map(|(name, quota)| {
            json!({
                "name": name.as_str(),
                "admitted": quota.admitted,
                "refused": quota.refused,
                "undecided": quota.undecided,
            })
        })
        .collect();
    axum::Json(json!({
        "node": {
            "name": door.name.as_str(),
            "raft_id": view.raft_id.map(|id| id.0),
            "cluster_id": view.cluster_id.map(|id| format!("{id:032x}")),
        },
        "role": role(&view),
        "term": view.term,
        "leader": view.leader.map(|id| json!({ "raft_id": id.0, "name": name_of(id) })),
        "applied_index": view.applied_index,
        "revision": view.revision.0,
        "serving_revision": door.routes.load().map(|published| published.revision.0),
        "members": members,
        "requests": door.telemetry.summary(),
        "leases": { "cells": stats.cells, "tokens": stats.tokens_held },
        "quotas": quotas,
        "health": door.probe.read(),
    }))
}

fn role(view: &cluster::view::View) -> &'static str {
    let member = view.raft_id.and_then(|id| view.members.iter().find(|member| member.raft_id == id));
    match member {
        Some(_) if view.is_leader => "leader",
        Some(member) if member.voter => "follower",
        Some(_) => "learner",
        None => "none",
    }
}

/// Cluster and quota figures in Prometheus' text format.
pub fn cluster_metrics(door: &Door) -> String {
    let view = door.replica.view();
    let stats = door.keeper.stats();
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    };
    gauge("quorumgate_raft_term", "Present term.", view.term);
    gauge("quorumgate_raft_is_leader", "1 on the node that leads.", u64::from(view.is_leader));
    gauge("quorumgate_raft_has_leader", "1 while a leader is known.", u64::from(view.leader.is_some()));
    gauge("quorumgate_raft_applied_index", "Last applied log index.", view.applied_index);
    gauge("quorumgate_members", "Members of the cluster.", view.members.len() as u64);
    gauge("quorumgate_document_revision", "Revision of the gateway document.", view.revision.0);
    gauge("quorumgate_lease_cells", "Keys with a lease cell on this node.", stats.cells);
    gauge("quorumgate_lease_tokens", "Tokens held in leases on this node.", stats.tokens_held);
    let name = "quorumgate_quota_decisions_total";
    let _ = writeln!(text, "# HELP {name} Decisions of this node by quota.\n# TYPE {name} counter");
    for (quota_name, quota) in &stats.quotas {
        // Quota names hold nothing that needs escaping.
        for (decision, count) in
            [("admitted", quota.admitted), ("refused", quota.refused), ("undecided", quota.undecided)]
        {
            let _ = writeln!(text, "{name}{{quota=\"{quota_name}\",decision=\"{decision}\"}} {count}");
        }
    }
    text
}
