//! Figures as Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;

use super::recorder::{Latency, Tally};

/// Upper bounds of the latency buckets, in µs.
const BUCKETS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// All figures; each family once, with its help and type.
pub(super) fn prometheus(tally: &Tally) -> String {
    let mut text = String::with_capacity(4096);
    let open = tally.connections_opened.saturating_sub(tally.connections_closed);
    family(&mut text, "quorumgate_requests_received_total", "counter", "Requests whose head was complete.");
    sample(&mut text, "quorumgate_requests_received_total", &[], tally.received);
    family(
        &mut text,
        "quorumgate_requests_admitted_total",
        "counter",
        "Requests that were debited, and sent on or answered by their route.",
    );
    sample(&mut text, "quorumgate_requests_admitted_total", &[], tally.admitted);
    let name = "quorumgate_requests_answered_total";
    family(
        &mut text,
        name,
        "counter",
        "Answers by route, status class, and reason where the gateway refused.",
    );
    for (route, answers) in tally.by_route() {
        let route = route.map_or("", |route| route.as_str());
        for (outcome, count) in answers {
            let class = format!("{}xx", outcome.class);
            let refusal = outcome.refusal.unwrap_or("");
            let labels = [("route", route), ("class", class.as_str()), ("refusal", refusal)];
            sample(&mut text, name, &labels, *count);
        }
    }
    let name = "quorumgate_split_requests_answered_total";
    let help = "Answers of routes with several upstreams, by the upstream that was chosen and status class.";
    family(&mut text, name, "counter", help);
    for (route, branches) in &tally.branches {
        for (upstream, counts) in branches {
            for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let class = format!("{class}xx");
                let labels =
                    [("route", route.as_str()), ("upstream", upstream.as_str()), ("class", class.as_str())];
                sample(&mut text, name, &labels, *count);
            }
        }
    }
    let name = "quorumgate_version_requests_total";
    family(&mut text, name, "counter", "Admitted requests of routes whose version is known, by it.");
    for ((route, version), callers) in &tally.callers {
        let labels = [("route", route.as_str()), ("version", version.as_str())];
        sample(&mut text, name, &labels, callers.total());
    }
    let name = "quorumgate_mirrored_requests_total";
    let help = "Copies of requests, by the class of their answers, or by why there is none.";
    family(&mut text, name, "counter", help);
    for (route, outcomes) in &tally.mirrors {
        for (outcome, count) in outcomes {
            sample(&mut text, name, &[("route", route.as_str()), ("outcome", outcome)], *count);
        }
    }
    family(&mut text, "quorumgate_connections", "gauge", "Open client connections.");
    sample(&mut text, "quorumgate_connections", &[], open);
    family(
        &mut text,
        "quorumgate_connections_opened_total",
        "counter",
        "Client connections that were taken.",
    );
    sample(&mut text, "quorumgate_connections_opened_total", &[], tally.connections_opened);
    let name = "quorumgate_connections_refused_total";
    family(
        &mut text,
        name,
        "counter",
        "Client connections that were closed at once because there were too many.",
    );
    sample(&mut text, name, &[], tally.connections_refused);
    let open = tally.tunnels_opened.saturating_sub(tally.tunnels_closed);
    family(
        &mut text,
        "quorumgate_tunnels",
        "gauge",
        "Connections that have switched protocols and are open.",
    );
    sample(&mut text, "quorumgate_tunnels", &[], open);
    let name = "quorumgate_tunnels_opened_total";
    family(&mut text, name, "counter", "Connections that have switched protocols.");
    sample(&mut text, name, &[], tally.tunnels_opened);
    let name = "quorumgate_tunnel_bytes_total";
    family(&mut text, name, "counter", "Bytes that came over tunnels which have ended, by who sent them.");
    for (from, bytes) in [("client", tally.tunnel_up_bytes), ("upstream", tally.tunnel_down_bytes)] {
        sample(&mut text, name, &[("from", from)], bytes);
    }
    let name = "quorumgate_connections_failed_total";
    let help = "Client connections that were closed before their first request, by reason.";
    family(&mut text, name, "counter", help);
    for (why, count) in &tally.connections_failed {
        sample(&mut text, name, &[("reason", *why)], *count);
    }
    let help = "From the request sent on to the head of the upstream's response.";
    latency(&mut text, "quorumgate_upstream_duration_seconds", help, &tally.upstream);
    let help = "From the request's head to the answer's head, without the upstream's part.";
    latency(&mut text, "quorumgate_added_duration_seconds", help, &tally.added);
    text
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    put(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    text.push_str(name);
    for (i, (label, value)) in labels.iter().enumerate() {
        put(text, format_args!("{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(value)));
    }
    put(text, format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
}

fn latency(text: &mut String, name: &str, help: &str, latency: &Latency) {
    family(text, name, "histogram", help);
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    let mut from = 0;
    for bound in BUCKETS_US {
        below += latency.histogram.count_between(from, bound);
        from = latency.histogram.highest_equivalent(bound) + 1;
        sample(text, &bucket, &[("le", seconds(bound).as_str())], below);
    }
    sample(text, &bucket, &[("le", "+Inf")], latency.histogram.len());
    put(
        text,
        format_args!("{name}_sum {}\n{name}_count {}\n", seconds(latency.sum_us), latency.histogram.len()),
    );
}

/// µs as decimal seconds, without a float.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::ids::{RouteName, UpstreamName};

    use super::super::{Answer, Telemetry};
    use super::*;

    fn answer<'a>(route: &'a RouteName, status: u16, refusal: Option<&'static str>) -> Answer<'a> {
        let upstream = refusal.is_none().then(|| Duration::from_millis(3));
        let total = Duration::from_micros(3_040);
        Answer { route: Some(route), branch: None, status, refusal, total, upstream }
    }

    #[test]
    fn figures_of_two_threads_are_added() {
        // given two threads' recorders
        let telemetry = Telemetry::new();
        let orders = RouteName::parse("orders").expect("a good name");
        let split = RouteName::parse("split").expect("a good name");
        let green = UpstreamName::parse("green").expect("a good name");
        for recorder in [telemetry.recorder(), telemetry.recorder()] {
            recorder.connection_opened();
            recorder.received();
            recorder.admitted();
            recorder.answered(&answer(&orders, 200, None));
            recorder
                .answered(&Answer { branch: Some(&green), ..answer(&split, 502, Some("upstream-broken")) });
            recorder.received();
            recorder.answered(&answer(&orders, 429, Some("over-quota")));
        }
        // when they are read
        let summary = telemetry.summary();
        // then the sums are seen
        assert_eq!((summary.received, summary.answered_2xx, summary.answered_4xx), (4, 2, 2));
        assert_eq!((summary.admitted, summary.refused_over_quota, summary.connections), (2, 2, 2));
        let text = telemetry.render_prometheus();
        for line in [
            "quorumgate_requests_answered_total{route=\"orders\",class=\"2xx\",refusal=\"\"} 2",
            "quorumgate_requests_answered_total{route=\"orders\",class=\"4xx\",refusal=\"over-quota\"} 2",
            "quorumgate_split_requests_answered_total{route=\"split\",upstream=\"green\",class=\"5xx\"} 2",
            "quorumgate_upstream_duration_seconds_bucket{le=\"0.0025\"} 0",
            "quorumgate_upstream_duration_seconds_bucket{le=\"0.005\"} 2",
            "quorumgate_upstream_duration_seconds_bucket{le=\"+Inf\"} 2",
            "quorumgate_upstream_duration_seconds_sum 0.006",
            "quorumgate_added_duration_seconds_count 6",
            "# TYPE quorumgate_connections gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_family_has_its_help_and_type_once() {
        let text = prometheus(&Tally::default());
        let helped: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let names: std::collections::BTreeSet<&str> =
            helped.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(helped.len(), names.len());
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE ")).count(), names.len());
    }

    #[test]
    fn a_label_is_escaped_and_a_duration_is_decimal() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
        assert_eq!([seconds(50), seconds(1_000_000), seconds(1_500_000)], ["0.00005", "1", "1.5"]);
    }
}
