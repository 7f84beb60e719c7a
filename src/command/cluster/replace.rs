//! `quorumgate cluster replace`: replaces a member by another.

use std::process::ExitCode;
use std::time::Duration;

use config::ids::NodeName;
use serde_json::json;

use super::follow;
use crate::command::{Door, duration, node_name};

/// `quorumgate cluster replace`.
#[derive(Debug, clap::Args)]
pub struct Replace {
    /// The member that goes.
    #[arg(value_name = "OLD", value_parser = node_name)]
    old: NodeName,
    /// The member that comes. It was started with peers in its file and joined before.
    #[arg(value_name = "NEW", value_parser = node_name)]
    new: NodeName,
    #[command(flatten)]
    door: Door,
    /// How long to follow it. It goes on by itself, whether it is followed or not.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = duration)]
    within: Duration,
}

impl Replace {
    /// Gives the order and follows it.
    ///
    /// # Errors
    /// Why it was not begun, or what came of it.
    pub async fn run(self) -> Result<ExitCode, String> {
        let body = json!({ "old": self.old.as_str(), "new": self.new.as_str() });
        follow::order(self.door.admin, "/v1/cluster/replace", body, self.within).await?;
        Ok(ExitCode::SUCCESS)
    }
}
