//! `/v1/status`: what this node knows of itself and its cluster; and the same as metrics.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use cluster::replica::VIEW_LEASE;
use serde_json::{Value, json};

use super::{Door, members};

/// The status as JSON; the README lists its fields.
pub async fn status(State(door): State<Arc<Door>>) -> axum::Json<Value> {
    let view = door.replica.view();
    let stats = door.keeper.stats();
    let report = door.replica.members().await;
    let parting = *door.replica.partings().borrow();
    let membership = members::membership(&view, parting, door.replica.joining(), report.as_ref());
    let name_of =
        |id| view.members.iter().find(|member| member.raft_id == id).map(|member| member.name.as_str());
    let members: Vec<Value> = view
        .members
        .iter()
        .map(|member| {
            let matched = report.as_ref().and_then(|report| {
                if Some(member.raft_id) == view.leader {
                    return Some(report.last_index);
                }
                let found = report.matched.iter().find(|(id, _)| *id == member.raft_id.0);
                found.and_then(|(_, matched)| *matched)
            });
            let lag = matched.zip(report.as_ref()).map(|(at, report)| report.last_index.saturating_sub(at));
            json!({
                "matched": matched,
                "lag": lag,
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
                "local_share": quota.shared,
                "turned_away": quota.turned_away,
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
        "membership": membership,
        "requests": door.telemetry.summary(),
        "view_age_ms": view_age(&door).map(|age| age.as_millis() as u64),
        "ledger_silent_ms": stats.silent.map(|silent| silent.as_millis() as u64),
        "leases": {
            "cells": stats.cells,
            "tokens": stats.tokens_held,
            "waiting": stats.waiting,
            "asked": stats.asked,
            "pushed": stats.pushed,
        },
        "kept": {
            "buckets": view.buckets,
            "sessions": view.sessions,
            "log_entries": view.log_entries,
        },
        "quotas": quotas,
        "health": door.probe.read(),
    }))
}

/// Since when the view may be outdated: the send of the last probe that a leader confirmed. None: none was since the start.
fn view_age(door: &Door) -> Option<Duration> {
    let until = door.replica.view_lease()?;
    Some(Duration::from_nanos(door.world.clock.boot().plus(VIEW_LEASE).since(until)))
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
    let mut gauge = |name: &str, help: &str, value: u64| sample(&mut text, name, help, value);
    gauge("quorumgate_raft_term", "Present term.", view.term);
    gauge("quorumgate_raft_is_leader", "1 on the node that leads.", u64::from(view.is_leader));
    gauge("quorumgate_raft_has_leader", "1 while a leader is known.", u64::from(view.leader.is_some()));
    gauge("quorumgate_raft_applied_index", "Last applied log index.", view.applied_index);
    gauge("quorumgate_ledger_buckets", "Keys with a bucket in the cluster's ledger.", view.buckets);
    gauge("quorumgate_ledger_sessions", "Gateways' lives that the cluster's ledger knows.", view.sessions);
    gauge("quorumgate_log_entries", "Entries in this node's log.", view.log_entries);
    gauge("quorumgate_members", "Members of the cluster.", view.members.len() as u64);
    let voters = view.members.iter().filter(|member| member.voter).count();
    gauge("quorumgate_voters", "Members that vote.", voters as u64);
    let help = "1 while a membership operation is under way.";
    gauge("quorumgate_membership_operation", help, u64::from(view.operation.is_some()));
    gauge("quorumgate_document_revision", "Revision of the gateway document.", view.revision.0);
    gauge("quorumgate_lease_cells", "Keys with a lease cell on this node.", stats.cells);
    gauge("quorumgate_lease_tokens", "Tokens held in leases on this node.", stats.tokens_held);
    gauge("quorumgate_waiters", "Requests that wait for tokens.", stats.waiting);
    for (name, help, count) in [
        ("quorumgate_lease_asks_total", "Batches of questions about quotas sent to the leader.", stats.asked),
        (
            "quorumgate_lease_pushes_total",
            "Recalls of tokens and other words of the leader's own.",
            stats.pushed,
        ),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}");
    }
    let help =
        "Seconds for which no leader has answered this node's questions about quotas; 0: none is owed.";
    sample(&mut text, "quorumgate_ledger_silent_seconds", help, seconds(stats.silent.unwrap_or_default()));
    if let Some(age) = view_age(door) {
        let help =
            "Seconds since the probe with which a leader last confirmed this node's view; its lease is 5.";
        sample(&mut text, "quorumgate_view_age_seconds", help, seconds(age));
    }
    if let Some(left) = door.replica.certificate().left(door.world.clock.wall()) {
        let help = "Seconds until this node's certificate expires; 0: it has.";
        sample(&mut text, "quorumgate_certificate_expires_seconds", help, left.as_secs());
    }
    let name = "quorumgate_quota_decisions_total";
    let _ = writeln!(text, "# HELP {name} Decisions of this node by quota.\n# TYPE {name} counter");
    for (quota_name, quota) in &stats.quotas {
        // Quota names hold nothing that needs escaping.
        for (decision, count) in [
            ("admitted", quota.admitted),
            ("refused", quota.refused),
            ("undecided", quota.undecided),
            ("turned-away", quota.turned_away),
        ] {
            let _ = writeln!(text, "{name}{{quota=\"{quota_name}\",decision=\"{decision}\"}} {count}");
        }
    }
    let name = "quorumgate_quota_local_share_total";
    let help = "Requests that got tokens of this node's local share, while no leader answered.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (quota_name, quota) in &stats.quotas {
        let _ = writeln!(text, "{name}{{quota=\"{quota_name}\"}} {}", quota.shared);
    }
    text
}

/// Writing to a String cannot fail.
fn sample(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}
