//! `quorumgate versions`: who still calls which version.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::client;

/// `quorumgate versions`.
#[derive(Debug, clap::Args)]
pub struct Versions {
    /// The operators' doors of the nodes to ask; repeat for more. Each node knows what it has seen itself.
    #[arg(
        long = "admin",
        default_value = "127.0.0.1:9101",
        env = "QUORUMGATE_ADMIN",
        value_name = "ADDRESS"
    )]
    admins: Vec<SocketAddr>,
    /// How many callers to print of each version.
    #[arg(long, default_value_t = 10)]
    top: usize,
}

const CALL_WITHIN: Duration = Duration::from_secs(10);

impl Versions {
    /// Prints what each node says.
    ///
    /// # Errors
    /// If a node does not answer.
    pub async fn run(self) -> Result<ExitCode, String> {
        for admin in &self.admins {
            print!("{}", told(&client::get_json(*admin, "/v1/versions", CALL_WITHIN).await?, self.top));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A node's answer for people.
fn told(answer: &Value, top: usize) -> String {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut out = format!("{}\n", text(&answer["node"]));
    for version in items(&answer["versions"]) {
        out += &format!(
            "  {} {}: {} requests",
            text(&version["route"]),
            text(&version["version"]),
            version["requests"]
        );
        for (field, what) in [("deprecated_s", "deprecated"), ("sunset_s", "sunset")] {
            if let Some(at) = version[field].as_u64() {
                out += &format!(", {what} {}", date(at.saturating_mul(1000)));
            }
        }
        out.push('\n');
        for caller in items(&version["callers"]).iter().take(top) {
            let tenant = caller["tenant"].as_str().unwrap_or("(without a tenant)");
            let over = match caller["over"].as_u64() {
                Some(over) if over > 0 => format!(", of which {over} may be another's"),
                _ => String::new(),
            };
            let last = date(caller["last_ms"].as_u64().unwrap_or(0));
            out += &format!("    {tenant}: {}{over}, the last on {last}\n", caller["requests"]);
        }
        if version["others"].as_u64().is_some_and(|others| others > 0) {
            out += &format!("    others: at most {} each\n", version["others"]);
        }
    }
    out
}

/// As HTTP writes it, to the second; at the latest the end of the year 9999.
fn date(unix_ms: u64) -> String {
    let ms = unix_ms.min(253_402_300_799_000);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn callers_stand_below_their_version() {
        let caller = |tenant: Option<&str>, over: u64| json!({"tenant": tenant, "requests": 7, "over": over, "last_ms": 1_767_225_600_000_u64});
        let answer = json!({"node": "node-1", "versions": [
            {"route": "orders", "version": "v1", "deprecated_s": 1_767_225_600, "sunset_s": null, "requests": 30,
             "others": 2, "callers": [caller(Some("acme"), 0), caller(None, 2), caller(Some("x"), 0)]},
        ]});
        let expected = "node-1
  orders v1: 30 requests, deprecated Thu, 01 Jan 2026 00:00:00 GMT
    acme: 7, the last on Thu, 01 Jan 2026 00:00:00 GMT
    (without a tenant): 7, of which 2 may be another's, the last on Thu, 01 Jan 2026 00:00:00 GMT
    others: at most 2 each
";
        assert_eq!(told(&answer, 2), expected);
    }
}
