//! The operators' door: health, figures, status, and changes of the gateway document. Loopback only, for it asks
//! nobody who they are.

mod document;
mod guests;
mod members;
mod status;
mod versions;

pub use document::CANONICAL;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cluster::replica::Replica;
use cluster::world::{Listener, World};
use config::ids::NodeName;

use guests::{GUESTS_MAX, Guests};

use crate::node::probe::{Health, Probe};
use crate::quota::Keeper;
use crate::router::Routes;
use crate::telemetry::Telemetry;

/// What the door shows and changes.
#[derive(Clone)]
pub struct Door {
    /// This node.
    pub name: NodeName,
    /// The cluster.
    pub replica: Replica,
    /// Leases and quotas.
    pub keeper: Keeper,
    /// What is compiled.
    pub routes: Routes,
    /// Traffic.
    pub telemetry: Telemetry,
    /// Health.
    pub probe: Probe,
    /// Where relative files of documents are.
    pub folder: std::path::PathBuf,
    /// Files are read through it.
    pub world: World,
}

/// Serves until dropped.
pub async fn serve(door: Door, listener: Box<dyn Listener>) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status::status))
        .route("/v1/versions", get(versions::show))
        .route("/v1/document", get(document::show).post(document::apply))
        .route("/v1/cluster/init", post(init))
        .route("/v1/cluster/leave", post(members::leave))
        .route("/v1/cluster/replace", post(members::replace))
        .merge(test_hooks())
        .fallback(|| async {
            problem(StatusCode::NOT_FOUND, "there is nothing here; see the README's list of paths")
        })
        .layer(DefaultBodyLimit::max(document::BODY_BYTES_MAX))
        .with_state(Arc::new(door));
    // `axum::serve` retries failed accepts by itself and never returns an error.
    let _ = axum::serve(Guests::new(listener, GUESTS_MAX), router).await;
}

/// Nothing, but in a test build a way to make a part of this node panic.
fn test_hooks() -> Router<Arc<Door>> {
    #[cfg(feature = "test-hooks")]
    return Router::new().route(
        "/v1/test/panic/{part}/{times}",
        post(|axum::extract::Path((part, times)): axum::extract::Path<(String, u32)>| async move {
            cluster::hooks::arm(part, times);
        }),
    );
    #[cfg(not(feature = "test-hooks"))]
    Router::new()
}

async fn readyz(State(door): State<Arc<Door>>) -> Response {
    let readiness = door.probe.read();
    let code = match readiness.status {
        Health::Ready | Health::Degraded => StatusCode::OK,
        Health::Unready => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, axum::Json(readiness)).into_response()
}

async fn metrics(State(door): State<Arc<Door>>) -> Response {
    let text = door.telemetry.render_prometheus() + &status::cluster_metrics(&door);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn init(State(door): State<Arc<Door>>) -> Response {
    match door.replica.found().await {
        Ok(()) => axum::Json(serde_json::json!({ "node": door.name.as_str() })).into_response(),
        Err(why) => problem(StatusCode::CONFLICT, &why),
    }
}

/// An answer in the form of RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
