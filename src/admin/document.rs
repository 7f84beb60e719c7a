//! `/v1/document`: the gateway document, shown and replaced.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cluster::replica::ProposeError;
use cluster::state::ids::Revision;
use config::gateway::GatewayDocument;

use super::{Door, problem};
use crate::auth::secrets;

/// The largest document.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// The media type of a document's canonical form, as `quorumgate apply` sends it. Anything else is read as YAML, of which
/// JSON is a part.
pub const CANONICAL: &str = "application/vnd.quorumgate.document+json";

/// The document in force and its revision.
pub async fn show(State(door): State<Arc<Door>>) -> Response {
    let view = door.replica.view();
    match &view.document {
        Some(document) => {
            axum::Json(serde_json::json!({ "revision": view.revision.0, "document": document.as_ref() }))
                .into_response()
        }
        None => problem(StatusCode::NOT_FOUND, "no gateway document yet: `quorumgate apply FILE`"),
    }
}

/// The query of a change.
#[derive(Debug, serde::Deserialize)]
pub struct Condition {
    /// Change nothing unless this revision is in force.
    expected: Option<u64>,
}

/// Replaces the document. All mistakes are answered at once, and then nothing is changed.
pub async fn apply(
    State(door): State<Arc<Door>>,
    Query(condition): Query<Condition>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let canonical =
        headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes() == CANONICAL.as_bytes());
    let mut document = match read(&body, canonical) {
        Ok(document) => document,
        Err(text) => return problem(StatusCode::UNPROCESSABLE_ENTITY, &text),
    };
    let resolved = secrets::resolve_public_files(&mut document, |file| {
        let bytes = door.world.disk.read(&door.folder.join(file))?;
        bytes.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
    });
    if let Err(text) =
        resolved.and_then(|()| secrets::fill_fingerprints(&mut document, &door.folder, &door.world))
    {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, &text);
    }
    let expected = condition.expected.map(Revision);
    match door.replica.apply_document(Arc::new(document), expected).await {
        Ok(applied) => axum::Json(serde_json::json!({
            "revision": applied.revision.0,
            "unconfirmed": applied.unconfirmed,
        }))
        .into_response(),
        Err(error @ ProposeError::Refused(_)) => problem(StatusCode::CONFLICT, &error.to_string()),
        Err(error @ ProposeError::NoLeader) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(error @ ProposeError::Unknown) => problem(StatusCode::GATEWAY_TIMEOUT, &error.to_string()),
    }
}

fn read(body: &str, canonical: bool) -> Result<GatewayDocument, String> {
    if canonical {
        let document = GatewayDocument::from_canonical_json(body)
            .map_err(|mistakes| config::mistake::render("document", body, &mistakes))?;
        return document.judge_patterns().map(|()| document);
    }
    let checked = config::gateway::parse(body);
    checked
        .map(|checked| checked.value)
        .map_err(|mistakes| config::mistake::render("document", body, &mistakes))
}
