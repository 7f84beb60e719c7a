//! A changed limit is in force on every node at one revision, keeps what was spent, and mints nothing.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::{Cluster, GATEWAY, refilled};

#[test]
fn a_changed_limit_keeps_what_was_spent() {
    support::in_calm(|| {
        // given a tenant that has spent all of 5 a minute
        let cluster = Cluster::start(3, GATEWAY);
        let token = cluster.token("acme", &["orders:read"]);
        let begun = Instant::now();
        let before = cluster.burst(9, "/orders/1", &token);
        let spent = before.get(&200).copied().unwrap_or(0);
        let most = 5 + refilled(begun, Duration::from_secs(12));
        assert!((5..=most).contains(&spent), "{before:?}, {most} at most");
        assert_eq!(before, BTreeMap::from([(200, spent), (429, 9 - spent)]));
        // when the limit is raised to 600 an hour with a burst of 50
        let raised = GATEWAY.replace("limit: 5/min", "limit: {rate: 600/1h, burst: 50}");
        let applied = cluster.apply(&raised);
        let said = String::from_utf8_lossy(&applied.stdout).into_owned();
        assert!(
            applied.status.success() && said.contains("revision 2 is in force on every node"),
            "{applied:?}"
        );
        // then every node has that revision, and nobody gets a burst for nothing: at most what 10 a minute refills meanwhile
        for node in 0..3 {
            cluster
                .wait(node, "/v1/status", "at revision 2", |answer| answer.json()["serving_revision"] == 2);
        }
        let after = cluster.burst(30, "/orders/1", &token);
        let most = 5 + refilled(begun, Duration::from_secs(6)) - spent;
        support::always(after.get(&200).copied().unwrap_or(0) <= most, || {
            format!("a raise gave a burst for nothing: {after:?}, {most}")
        });
        assert_eq!(after.values().sum::<usize>(), 30);
        let logs: String = (0..3).map(|node| cluster.log(node)).collect();
        let refused = logs.lines().filter(|line| line.contains("status=503")).collect::<Vec<_>>().join("\n");
        assert!(after.keys().all(|status| [200, 429].contains(status)), "{after:?}\n{refused}");
        // and a tenant that had spent nothing has the old burst at once, and refills from there
        let fresh = cluster.token("globex", &["orders:read"]);
        let first = cluster.burst(12, "/orders/1", &fresh);
        let most = 5 + refilled(begun, Duration::from_secs(6));
        assert!(first.get(&200).is_some_and(|count| (5..=most).contains(count)), "{first:?}, {most} at most");
    });
}

#[test]
fn a_document_with_five_mistakes_lists_all_five_and_changes_nothing() {
    let cluster = Cluster::start(1, GATEWAY);
    let wrong = GATEWAY
        .replace("response_timeout: 1s", "response_timeout: soon")
        .replace("limit: 1/30s", "limit: lots")
        .replace("algorithm: HS256", "algorithm: none")
        .replace("quotas: [ten-an-hour]", "quotas: [ten-a-day]")
        .replace("path: /rare", "path: rare");
    let refused = cluster.apply(&wrong);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    for found in ["soon", "lots", "none", "ten-a-day", "rare"] {
        let (number, line) = wrong
            .replace("@UPSTREAM@", &cluster.upstream.address.to_string())
            .lines()
            .enumerate()
            .find(|(_, line)| line.contains(&format!(" {found}")) || line.contains(&format!("[{found}]")))
            .map(|(number, line)| (number + 1, line.to_owned()))
            .expect("the mistake is in the document");
        let place = format!("gateway.yaml:{number}:");
        assert!(said.contains(&place), "{found} of line {line:?} is not reported at {place}:\n{said}");
    }
    assert_eq!(said.matches(": error").count(), 5, "{said}");
    assert_eq!(cluster.status(0)["revision"], 1);
}
