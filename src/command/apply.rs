//! `quorumgate apply`: replaces the gateway document of a running cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use config::gateway::GatewayDocument;
use hyper::{Method, StatusCode};

use super::{Door, client};

/// `quorumgate apply`.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// The gateway document.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    door: Door,
    /// Change nothing unless this revision is in force.
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Longer than a failover and a view lease together.
const APPLY_WITHIN: Duration = Duration::from_secs(15);

impl Apply {
    /// Checks the document here, then applies it.
    ///
    /// # Errors
    /// All mistakes in the document, or why it was not applied.
    pub async fn run(self) -> Result<ExitCode, String> {
        let document = read_document(&self.file)?;
        println!("{}", apply(self.door.admin, &document, self.expect).await?);
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads and checks a gateway document and puts the text of its public key files in.
pub fn read_document(path: &Path) -> Result<GatewayDocument, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    let name = path.display().to_string();
    let checked =
        config::gateway::parse(&text).map_err(|mistakes| config::mistake::render(&name, &text, &mistakes))?;
    eprint!("{}", config::mistake::render(&name, &text, &checked.warnings));
    let mut document = checked.value;
    let folder = path.parent().unwrap_or(Path::new(""));
    crate::auth::secrets::resolve_public_files(&mut document, |file| std::fs::read(folder.join(file)))?;
    Ok(document)
}

/// Applies a document through the operators' door of `node`; a text that says what came of it.
pub async fn apply(
    node: std::net::SocketAddr,
    document: &GatewayDocument,
    expect: Option<u64>,
) -> Result<String, String> {
    let path = match expect {
        Some(revision) => format!("/v1/document?expected={revision}"),
        None => "/v1/document".to_owned(),
    };
    let body = Bytes::from(document.to_canonical_json());
    let answer = client::call(node, Method::POST, &path, crate::admin::CANONICAL, body, APPLY_WITHIN).await?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != StatusCode::OK {
        let why = json["detail"]
            .as_str()
            .map_or_else(|| String::from_utf8_lossy(&answer.body).into_owned(), str::to_owned);
        return Err(format!("not applied ({}): {why}", answer.status));
    }
    let unconfirmed: Vec<&str> = json["unconfirmed"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|name| name.as_str())
        .collect();
    let revision = &json["revision"];
    Ok(if unconfirmed.is_empty() {
        format!("revision {revision} is in force on every node")
    } else {
        format!(
            "revision {revision} is in force; not confirmed by {}: until contact, the revision before goes on there on \
             public routes, and on routes with a token for their serve_stale_for at most",
            unconfirmed.join(", ")
        )
    })
}
