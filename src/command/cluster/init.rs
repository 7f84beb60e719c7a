//! `quorumgate cluster init`: founds a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use hyper::Method;

use super::CALL_WITHIN;
use crate::command::{Door, apply, client};

/// `quorumgate cluster init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    #[command(flatten)]
    door: Door,
    /// Apply this gateway document as the first revision.
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
}

impl Init {
    /// Founds, waits until the founder leads, and applies the document.
    ///
    /// # Errors
    /// What the node answered, or that it did not.
    pub async fn run(self) -> Result<ExitCode, String> {
        // Read first: a cluster is not founded for a document that cannot be applied.
        let document = self.apply.map(|path| apply::read_document(&path)).transpose()?;
        found(self.door.admin).await?;
        println!("the cluster is founded; nodes that name this one as a peer join by themselves");
        if let Some(document) = document {
            println!("{}", apply::apply(self.door.admin, &document, Some(0)).await?);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Founds a cluster of `node` and waits until it leads.
pub async fn found(node: SocketAddr) -> Result<(), String> {
    let answer =
        client::call(node, Method::POST, "/v1/cluster/init", "application/json", Bytes::new(), CALL_WITHIN)
            .await?;
    if !answer.status.is_success() {
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        return Err(format!("not founded ({}): {}", answer.status, json["detail"].as_str().unwrap_or("")));
    }
    let until = Instant::now() + CALL_WITHIN;
    while Instant::now() < until {
        if client::get_json(node, "/v1/status", CALL_WITHIN).await?["role"] == "leader" {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Err(format!("the founder did not lead within {CALL_WITHIN:?}; its log says why"))
}
