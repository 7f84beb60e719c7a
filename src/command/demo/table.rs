//! The live table of a demo: a line a node, a line a quota.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use super::town::Town;
use crate::command::client;

const EVERY: Duration = Duration::from_secs(1);
const CALL_WITHIN: Duration = Duration::from_millis(500);

/// Shows the table until Ctrl-C: redrawn in place on a terminal, a block of plain lines every ten seconds elsewhere.
///
/// # Errors
/// If signals cannot be heard.
pub async fn watch(town: &Town) -> Result<(), String> {
    let terminal = std::io::stdout().is_terminal();
    let every = if terminal { EVERY } else { EVERY * 10 };
    let mut lines_drawn = 0;
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            biased;
            stop = tokio::signal::ctrl_c() => return stop.map_err(|error| error.to_string()),
            _ = ticks.tick() => {}
        }
        let text = render(town).await;
        let mut out = std::io::stdout().lock();
        if terminal && lines_drawn > 0 {
            // Up, to the first line drawn, and clear from there.
            let _ = write!(out, "\x1b[{lines_drawn}A\x1b[J");
        }
        // A closed pipe ends the demo at its next signal; there is nobody left to tell.
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
        lines_drawn = text.lines().count();
    }
}

async fn render(town: &Town) -> String {
    let mut text = format!(
        "{:<8} {:<9} {:>5} {:>9} {:>9} {:>9} {:>10} {:>7} {:>8}\n",
        "node", "role", "term", "requests", "admitted", "over", "undecided", "leases", "tokens"
    );
    let mut quotas: std::collections::BTreeMap<String, [u64; 3]> = std::collections::BTreeMap::new();
    for node in &town.nodes {
        let status = match client::get_json(node.admin, "/v1/status", CALL_WITHIN).await {
            Ok(status) => status,
            Err(_) => {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{:<8} down", node.name);
                continue;
            }
        };
        let number = |path: &str| status.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let _ = writeln!(
            text,
            "{:<8} {:<9} {:>5} {:>9} {:>9} {:>9} {:>10} {:>7} {:>8}",
            node.name,
            status["role"].as_str().unwrap_or("?"),
            number("/term"),
            number("/requests/received"),
            number("/requests/admitted"),
            number("/requests/refused_over_quota"),
            number("/requests/undecided"),
            number("/leases/cells"),
            number("/leases/tokens"),
        );
        for quota in status["quotas"].as_array().map_or(&[][..], Vec::as_slice) {
            let sums = quotas.entry(quota["name"].as_str().unwrap_or("?").to_owned()).or_default();
            for (sum, field) in sums.iter_mut().zip(["admitted", "refused", "undecided"]) {
                *sum += quota[field].as_u64().unwrap_or(0);
            }
        }
    }
    let _ =
        writeln!(text, "{:<18} {:>9} {:>9} {:>10}", "quota (cluster)", "admitted", "refused", "undecided");
    for (name, [admitted, refused, undecided]) in quotas {
        let _ = writeln!(text, "{name:<18} {admitted:>9} {refused:>9} {undecided:>10}");
    }
    for line in super::verdict::buckets(&town.recorder.recorded()) {
        let _ = writeln!(text, "{line}");
    }
    text
}
