//! `/v1/cluster/leave` and `/v1/cluster/replace`: operators' orders, begun by the leader, and what is known of members.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cluster::replica::{Ended, OrderError, Parting, Progress, Report};
use cluster::state::members::Operation;
use cluster::view::View;
use config::ids::NodeName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Door, problem};

/// The body of an order to leave; an empty body is one too.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Leave {
    /// The asked node, if none is named.
    node: Option<String>,
}

/// The body of an order to replace a member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    old: String,
    new: String,
}

/// Begins to remove a member.
pub async fn leave(State(door): State<Arc<Door>>, body: String) -> Response {
    let asked = if body.trim().is_empty() { Ok(Leave::default()) } else { read(&body) };
    let order =
        asked.and_then(|leave: Leave| leave.node.map_or_else(|| Ok(door.name.clone()), |node| name(&node)));
    match order {
        Ok(node) => begun(door.replica.leave(&node).await),
        Err(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

/// Begins to replace a member by another.
pub async fn replace(State(door): State<Arc<Door>>, body: String) -> Response {
    let order = read(&body).and_then(|replace: Replace| Ok((name(&replace.old)?, name(&replace.new)?)));
    match order {
        Ok((old, new)) => begun(door.replica.replace(&old, &new).await),
        Err(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| {
        format!("{error}; wanted {{\"node\": NAME}} to leave, or {{\"old\": NAME, \"new\": NAME}} to replace")
    })
}

fn name(text: &str) -> Result<NodeName, String> {
    NodeName::parse(text).map_err(|error| error.to_string())
}

fn begun(answer: Result<Report, OrderError>) -> Response {
    let error = match answer {
        Ok(report) => {
            let (id, operation) = (report.begun, report.operation.map(progress));
            let json = json!({ "id": id, "operation": operation, "ended": newest_first(report.ended) });
            return (StatusCode::ACCEPTED, axum::Json(json)).into_response();
        }
        Err(error) => error,
    };
    let status = match &error {
        OrderError::NoLeader => StatusCode::SERVICE_UNAVAILABLE,
        OrderError::Unanswered => StatusCode::GATEWAY_TIMEOUT,
        OrderError::Busy(_) | OrderError::Unsafe(_) => StatusCode::CONFLICT,
        OrderError::Unknown(_) => StatusCode::NOT_FOUND,
    };
    problem(status, &error.to_string())
}

/// The status' `membership`: as the leader knows it, else as far as this node does.
pub fn membership(view: &View, parting: Parting, joining: Option<String>, report: Option<&Report>) -> Value {
    let operation = match report {
        Some(report) => report.operation.clone().map(progress),
        None => view.operation.as_ref().map(|it| {
            json!({
                "id": it.id,
                "kind": it.change.kind(),
                "node": it.node.as_str(),
                "by": it.by.as_ref().map(|by| by.as_str()),
                "step": null, "since_ms": null, "has": null, "of": null,
            })
        }),
    };
    let known = || view.ended.iter().map(|it| result(&it.operation, it.failed.clone()));
    let all = match (report, view.operation.as_ref()) {
        // Its own end is the last that it can know of, and the leader tells it nothing any more.
        (_, Some(it)) if parting == Parting::Removed => {
            let all = known().chain([result(it, None)]).collect();
            return json!({ "operation": null, "ended": newest_first(all), "joining": null });
        }
        (Some(report), _) => report.ended.clone(),
        (None, _) => known().collect(),
    };
    json!({ "operation": operation, "ended": newest_first(all), "joining": joining })
}

fn result(it: &Operation, failed: Option<String>) -> Ended {
    let by = it.by.as_ref().map(|by| by.as_str().to_owned());
    let (kind, node) = (it.change.kind().to_owned(), it.node.as_str().to_owned());
    Ended { id: it.id, kind, node, by, failed }
}

fn newest_first(all: Vec<Ended>) -> Value {
    all.into_iter().rev().map(ended).collect()
}

fn progress(it: Progress) -> Value {
    json!({
        "id": it.id,
        "kind": it.kind,
        "node": it.node,
        "by": it.by,
        "step": it.step,
        "since_ms": it.since_ms,
        "has": it.entries.map(|(has, _)| has),
        "of": it.entries.map(|(_, of)| of),
    })
}

fn ended(it: Ended) -> Value {
    let result = it.failed.map_or_else(|| "done".to_owned(), |why| format!("failed: {why}"));
    json!({ "id": it.id, "kind": it.kind, "node": it.node, "by": it.by, "result": result })
}
