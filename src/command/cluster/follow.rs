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
    let id = begun["id"].as_u64().ok_or("the node does not say which operation it has begun")?;
    let mut state = begun;
    let mut answered = Instant::now();
    loop {
        if let Some(ended) = result(&state, id) {
            if ended.is_ok() {
                println!("done");
            }
            return ended;
        }
        let operation = &state["operation"];
        if operation["id"] == id && operation["step"].is_string() {
            steps.say(&step_of(operation));
        }
        match client::get_json(node, "/v1/status", CALL_WITHIN).await {
            Ok(mut status) => {
                answered = Instant::now();
                state = status["membership"].take();
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

/// What came of the operation `id`; none: it has not ended yet, as far as `membership` knows. Operations that nodes begin
/// by themselves may have come and gone since.
fn result(membership: &Value, id: u64) -> Option<Result<(), String>> {
    let ended = membership["ended"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(ours) = ended.iter().find(|ended| ended["id"] == id) {
        return Some(match ours["result"].as_str() {
            Some("done") => Ok(()),
            result => Err(result.unwrap_or("it says no result").to_owned()),
        });
    }
    let later = ended.iter().chain([&membership["operation"]]).filter_map(|other| other["id"].as_u64());
    let over = later.max().is_some_and(|other| other > id);
    over.then(|| Err("it has ended, too long ago to say how: look at `quorumgate cluster status`".to_owned()))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_is_known_by_its_id_whatever_came_after_it() {
        // given a leave after which two nodes took a place by themselves
        let membership = json!({
            "operation": { "id": 40, "kind": "join" },
            "ended": [{ "id": 30, "result": "done" }, { "id": 20, "result": "failed: slow" }, { "id": 10, "result": "done" }],
        });
        // then each has the result of its own, and one that is under way has none yet
        assert_eq!(result(&membership, 10), Some(Ok(())));
        assert_eq!(result(&membership, 20), Some(Err("failed: slow".to_owned())));
        assert_eq!(result(&membership, 40), None);
        assert_eq!(result(&membership, 50), None);
        // and one that nobody remembers is not waited for
        assert!(matches!(result(&membership, 5), Some(Err(why)) if why.contains("too long ago")));
    }
}
