//! `quorumgate cluster status`: a node's view of its cluster.

use std::process::ExitCode;

use super::CALL_WITHIN;
use super::follow::step_of;
use crate::command::{Door, client};

/// `quorumgate cluster status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    door: Door,
    /// The whole status as JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Asks the node and shows what it says.
    ///
    /// # Errors
    /// What the node answered, or that it did not.
    pub async fn run(self) -> Result<ExitCode, String> {
        let status = client::get_json(self.door.admin, "/v1/status", CALL_WITHIN).await?;
        if self.json {
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
            let leads = if member["raft_id"] == status["leader"]["raft_id"] { "  leads" } else { "" };
            let lag = member["lag"].as_u64().map_or(String::new(), |lag| format!("  {lag} entries behind"));
            println!(
                "member    {:<16} id {:<6} {kind:<8} {}{lag}{leads}",
                field("name"),
                member["raft_id"],
                field("address")
            );
        }
        let (operation, last) = (&status["membership"]["operation"], &status["membership"]["ended"][0]);
        if !operation.is_null() {
            println!("under way {}", step_of(operation));
        }
        if !last.is_null() {
            let by = last["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
            let field = |name: &str| last[name].as_str().unwrap_or("?").to_owned();
            println!("last      {} {}{by}: {}", field("kind"), field("node"), field("result"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
