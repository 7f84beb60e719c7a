//! `/v1/versions`: which versions there are, and who still calls them, as this node has seen it since it was started.

use std::sync::Arc;

use axum::extract::State;
use config::ids::TenantId;
use serde_json::{Value, json};

use super::Door;

/// One item a route with a version; the README lists the fields.
pub async fn show(State(door): State<Arc<Door>>) -> axum::Json<Value> {
    let (view, counted) = (door.replica.view(), door.telemetry.callers());
    let routes = view.document.iter().flat_map(|document| &document.routes);
    let versions: Vec<Value> = routes
        .filter_map(|route| {
            let lifecycle = route.lifecycle.as_ref()?;
            let callers = counted.get(&(route.name.clone(), lifecycle.version.clone()));
            let (top, others) = callers.map(|callers| callers.top()).unwrap_or_default();
            let top = top.into_iter().map(|(tenant, calls)| {
                json!({
                    "tenant": tenant.map(TenantId::as_str),
                    "requests": calls.count,
                    "over": calls.over,
                    "last_ms": calls.last.0,
                })
            });
            Some(json!({
                "route": route.name.as_str(),
                "version": lifecycle.version.as_str(),
                "deprecated_s": lifecycle.deprecated.map(u64::from),
                "sunset_s": lifecycle.sunset.map(u64::from),
                "requests": callers.map_or(0, |callers| callers.total()),
                "others": others,
                "callers": top.collect::<Vec<_>>(),
            }))
        })
        .collect();
    axum::Json(json!({ "node": door.name.as_str(), "versions": versions }))
}
