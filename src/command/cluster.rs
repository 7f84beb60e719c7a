//! `quorumgate cluster`: found a cluster, look at one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;

use super::{Door, apply, client};

/// `quorumgate cluster`.
#[derive(Debug, clap::Args)]
pub struct Cluster {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Found a cluster of this one running node, once in a cluster's life. Nodes whose files name it as a peer join it
    /// by themselves.
    Init {
        #[command(flatten)]
        door: Door,
        /// Apply this gateway document as the first revision.
        #[arg(long, value_name = "FILE")]
        apply: Option<PathBuf>,
    },
    /// Show a node's view of its cluster.
    Status {
        #[command(flatten)]
        door: Door,
        /// The whole status as JSON.
        #[arg(long)]
        json: bool,
    },
}

const CALL_WITHIN: Duration = Duration::from_secs(10);

impl Cluster {
    /// Carries the action out.
    ///
    /// # Errors
    /// What the node answered, or that it did not.
    pub async fn run(self) -> Result<ExitCode, String> {
        match self.action {
            Action::Init { door, apply } => init(door.admin, apply).await,
            Action::Status { door, json } => status(door.admin, json).await,
        }
    }
}

async fn init(node: std::net::SocketAddr, document: Option<PathBuf>) -> Result<ExitCode, String> {
    // Read first: a cluster is not founded for a document that cannot be applied.
    let document = document.map(|path| apply::read_document(&path)).transpose()?;
    found(node).await?;
    println!("the cluster is founded; nodes that name this one as a peer join by themselves");
    if let Some(document) = document {
        println!("{}", apply::apply(node, &document, Some(0)).await?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Founds a cluster of `node` and waits until it leads.
pub async fn found(node: std::net::SocketAddr) -> Result<(), String> {
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("the founder did not lead within {CALL_WITHIN:?}; its log says why"))
}

async fn status(node: std::net::SocketAddr, json: bool) -> Result<ExitCode, String> {
    let status = client::get_json(node, "/v1/status", CALL_WITHIN).await?;
    if json {
        println!("{status:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let text = |path: &str| match status.pointer(path) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    println!("cluster   {}", text("/node/cluster_id"));
    println!("asked     {} ({}), term {}", text("/node/name"), text("/role"), text("/term"));
    println!("leader    {}", text("/leader/name"));
    println!("revision  {}", text("/revision"));
    println!("applied   {}", text("/applied_index"));
    for member in status["members"].as_array().map_or(&[][..], Vec::as_slice) {
        let kind = if member["voter"] == true { "voter" } else { "learner" };
        let field = |name: &str| member[name].as_str().unwrap_or("?").to_owned();
        println!(
            "member    {:<16} id {:<6} {kind:<8} {}",
            field("name"),
            member["raft_id"],
            field("address")
        );
    }
    Ok(ExitCode::SUCCESS)
}
