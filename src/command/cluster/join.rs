//! `quorumgate cluster join`: follows a node that asks its peers to let it join.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::CALL_WITHIN;
use super::follow::{Steps, step_of};
use crate::command::{Door, client, duration};

const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `quorumgate cluster join`.
#[derive(Debug, clap::Args)]
pub struct Join {
    #[command(flatten)]
    door: Door,
    /// How long to follow it. The node goes on asking by itself.
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = duration)]
    within: Duration,
}

impl Join {
    /// Waits until the node is a member.
    ///
    /// # Errors
    /// Why it is none, or not within the time.
    pub async fn run(self) -> Result<ExitCode, String> {
        let until = Instant::now() + self.within;
        let mut steps = Steps::default();
        loop {
            let last = match client::get_json(self.door.admin, "/v1/status", CALL_WITHIN).await {
                Ok(status) => match see(&status) {
                    Seen::Done(text) => {
                        steps.say(&text);
                        return Ok(ExitCode::SUCCESS);
                    }
                    Seen::Refused(why) => return Err(why),
                    Seen::Step(text) => {
                        steps.say(&text);
                        text
                    }
                },
                // It may have been started a moment ago.
                Err(error) => error,
            };
            if Instant::now() >= until {
                return Err(format!("no member within {:?}; last: {last}", self.within));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

enum Seen {
    Done(String),
    Refused(String),
    Step(String),
}

fn see(status: &Value) -> Seen {
    let name = status["node"]["name"].as_str().unwrap_or("?");
    let joining = status["membership"]["joining"].as_str();
    let operation = &status["membership"]["operation"];
    let ours = operation["kind"] == "join" && operation["node"] == name && operation["step"].is_string();
    match status["role"].as_str() {
        Some("leader") => Seen::Done(format!("{name} is a voter, and leads")),
        Some("follower") if !ours => Seen::Done(format!("{name} is a voter")),
        Some("learner") if joining.is_none() && !ours => Seen::Done(format!(
            "{name} is a learner and waits: the cluster has as many voters as it can have; `quorumgate cluster replace OLD \
             {name}` gives it a vote"
        )),
        _ if ours => Seen::Step(step_of(operation)),
        _ => match (joining, status["node"]["raft_id"].as_u64()) {
            (Some(told), _) if told.starts_with("refused") => Seen::Refused(format!("{name}: {told}")),
            (Some(told), _) => Seen::Step(format!("{name} asked to join: {told}")),
            (None, Some(id)) => Seen::Step(format!("{name} was admitted under raft id {id}")),
            (None, None) => Seen::Step(format!("{name} asks to join")),
        },
    }
}
