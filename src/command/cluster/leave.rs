//! `quorumgate cluster leave`: removes a member.

use std::process::ExitCode;
use std::time::Duration;

use config::ids::NodeName;
use serde_json::json;

use super::follow;
use crate::command::{Door, duration, node_name};

/// `quorumgate cluster leave`.
#[derive(Debug, clap::Args)]
pub struct Leave {
    /// The member; the asked node, if none is named.
    #[arg(value_name = "NODE", value_parser = node_name)]
    node: Option<NodeName>,
    #[command(flatten)]
    door: Door,
    /// How long to follow it. It goes on by itself, whether it is followed or not.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = duration)]
    within: Duration,
}

impl Leave {
    /// Gives the order and follows it.
    ///
    /// # Errors
    /// Why it was not begun, or what came of it.
    pub async fn run(self) -> Result<ExitCode, String> {
        let node = self.node.as_ref().map(|node| node.as_str());
        let body = json!({ "node": node });
        follow::order(self.door.admin, "/v1/cluster/leave", body, self.within).await?;
        Ok(ExitCode::SUCCESS)
    }
}
