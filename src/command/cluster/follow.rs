//! Follows a membership operation to its end: each step is printed once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::CALL_WITHIN;
use crate::command::client;

const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A door that does not answer for so long is closed.
const DOOR_CLOSED: Duration = Duration::from_secs(5);

/// Prints a line unless it is the one before.
#[derive(Debug, Default)]
pub struct Steps {
    last: String,
}

impl Steps {
    /// Says `step`.
    pub fn say(&mut self, step: &str) {
        if step != self.last {
            println!("{step}");
            step.clone_into(&mut self.last);
        }
    }
}

/// Gives an order and follows it to its end.
///
/// # Errors
/// Why it was not begun, or what came of it.
pub async fn order(node: SocketAddr, path: &str, body: Value, within: Duration) -> Result<(), String> {
    let until = Instant::now() + within;
    let body = Bytes::from(body.to_string());
    let answer = client::call(node, Method::POST, path, "application/json", body, CALL_WITHIN).await?;
    let begun: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != StatusCode::ACCEPTED {
        let why = begun["detail"].as_str().unwrap_or("it says no reason");
        return Err(format!("not begun ({}): {why}", answer.status));
    }
    let mut steps = Steps::default();
    let running = if begun["operation"].is_null() { &begun["last"] } else { &begun["operation"] };
    let id = running["id"].clone();
    steps.say(&step_of(running));
    let mut answered = Instant::now();
    loop {
        match client::get_json(node, "/v1/status", CALL_WITHIN).await {
            Ok(status) => {
                answered = Instant::now();
                let (operation, last) = (&status["membership"]["operation"], &status["membership"]["last"]);
                if last["id"] == id {
                    return match last["result"].as_str() {
                        Some("done") => {
                            println!("done");
                            Ok(())
                        }
                        result => Err(result.unwrap_or("it says no result").to_owned()),
                    };
                }
                if operation["id"] == id && operation["step"].is_string() {
                    steps.say(&step_of(operation));
                }
            }
            Err(error) if answered.elapsed() > DOOR_CLOSED => {
                return Err(format!(
                    "{error}; the operation goes on by itself: ask another node with --admin"
                ));
            }
            Err(_) => {}
        }
        if Instant::now() >= until {
            return Err(format!(
                "not at its end within {within:?}; it goes on by itself, `quorumgate cluster status` shows it"
            ));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// An operation in one line.
pub fn step_of(operation: &Value) -> String {
    let text = |field: &str| operation[field].as_str().unwrap_or("?");
    let by = operation["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
    let entries = match (operation["has"].as_u64(), operation["of"].as_u64()) {
        (Some(has), Some(of)) => format!(": has entry {has} of {of}"),
        _ => String::new(),
    };
    format!(
        "{} {}{by}: {}{entries}",
        text("kind"),
        text("node"),
        operation["step"].as_str().unwrap_or("begun")
    )
}
