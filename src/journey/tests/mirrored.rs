//! Copies of requests, as the client does not notice them.

use config::action::Mirror;
use config::units::Part;

use super::*;
use crate::upstream::mirror::MirrorRule;
use crate::upstream::pool::Traffic;

/// The usual route, with all its requests copied to `shadow`.
fn rule_with(shadow: u16, body_bytes_max: u64) -> Arc<RouteRule> {
    let mut rule = Arc::into_inner(rule(80)).expect("nobody else has it");
    let upstream = Upstream {
        name: UpstreamName::parse("shadow").expect("a good name"),
        endpoints: vec![Endpoint { host: "shadow.test".into(), port: shadow }],
        ..Upstream::clone(&rule.upstreams[0])
    };
    let share = Part::parse("100%").expect("a part");
    let timeout = Duration::from_secs(5);
    let mirror = Mirror { upstream: upstream.name.clone(), share, body_bytes_max, timeout };
    rule.mirror = Some(MirrorRule::new(mirror, Arc::new(upstream), [7; 16]));
    Arc::new(rule)
}

/// Waits until so many copies have come to this end.
async fn wait_for(client: &Client, outcome: &str, count: u64) {
    let line = format!("quorumgate_mirrored_requests_total{{route=\"v1\",outcome=\"{outcome}\"}} {count}\n");
    for _ in 0..1_000 {
        if client.telemetry.render_prometheus().contains(&line) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("{line} is missing in\n{}", client.telemetry.render_prometheus());
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_marked_and_its_answer_is_thrown_away() {
    let mut client = Client::connect_to(|_, _| Act::Say(OK), rule_with(81, 10)).await;
    // when a client sends the mark itself
    let marked = GET.replace("\r\n\r\n", "\r\nquorumgate-mirrored: 1\r\n\r\n");
    let (head, _) = client.ask(&marked).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    wait_for(&client, "2xx", 1).await;
    // then the copy alone has it, and is otherwise the same
    let seen = client.seen();
    let (copies, real): (Vec<_>, Vec<_>) =
        seen.iter().partition(|head| head.contains("quorumgate-mirrored: 1"));
    assert_eq!((copies.len(), real.len()), (1, 1), "{seen:?}");
    assert!(copies[0].contains("host: shadow.test") && real[0].contains("host: echo.test"), "{seen:?}");
    let lines = |head: &str| {
        let lines = head.lines().filter(|line| !line.starts_with("host:") && !line.contains("mirrored"));
        lines.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(lines(copies[0]), lines(real[0]));
    // and it is admitted once
    assert_eq!(client.telemetry.summary().admitted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_hangs_or_is_gone_delays_and_fails_nothing() {
    // given a mirror that never answers, and a node that makes one copy at a time
    fn hangs(connection: usize, _: usize) -> Act {
        if connection == 0 { Act::Say(OK) } else { Act::SayAfter(WEEK, OK) }
    }
    let mut client = Client::connect_to(hangs, rule_with(81, 10)).await;
    let begin = Instant::now();
    for _ in 0..3 {
        assert!(client.ask(GET).await.0.starts_with("http/1.1 200"));
    }
    assert!(begin.elapsed() < Duration::from_secs(1));
    // then the first copy takes the only place until its time is over, and the others are not made
    wait_for(&client, "busy", 2).await;
    wait_for(&client, "slow", 1).await;
    assert!(begin.elapsed() < Duration::from_secs(6));
    // and one that cannot be reached is counted, too
    let mut client = Client::connect_to(|_, _| Act::Say(OK), rule_with(1, 10)).await;
    assert!(client.ask(GET).await.0.starts_with("http/1.1 200"));
    wait_for(&client, "failed", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_is_copied_whole_or_not_at_all() {
    let post =
        |length: &str, body: &str| format!("POST /v1/a HTTP/1.1\r\nhost: api.test\r\n{length}\r\n\r\n{body}");
    let chunked = "transfer-encoding: chunked";
    let of = |bytes: u64| Client::connect_to(|_, _| Act::Say(OK), rule_with(81, bytes));
    // given bounds that the body fits in
    for (length, body) in
        [("content-length: 2", "hi"), (chunked, "2\r\nhi\r\n0\r\n\r\n"), ("content-length: 0", "")]
    {
        let mut client = of(2).await;
        client.ask(&post(length, body)).await;
        wait_for(&client, "2xx", 1).await;
        let seen = client.seen();
        let copy = seen.iter().find(|head| head.contains("quorumgate-mirrored")).expect("a copy");
        assert_eq!(copy.contains("content-length: 2"), !body.is_empty(), "{copy}");
        assert!(!copy.contains("chunked"), "{copy}");
    }
    // and some that it does not, whether it says its length or not
    for (length, body) in [("content-length: 3", "hey"), (chunked, "2\r\nhe\r\n1\r\ny\r\n0\r\n\r\n")] {
        let mut client = of(2).await;
        assert!(client.ask(&post(length, body)).await.0.starts_with("http/1.1 200"));
        wait_for(&client, "too-large", 1).await;
    }
    // and a client that goes away in the middle
    let mut client = of(10).await;
    client.send(&post("content-length: 9", "half")).await;
    sleep(Duration::from_millis(10)).await;
    drop(std::mem::replace(&mut client.stream, tokio::io::duplex(1).0));
    wait_for(&client, "incomplete", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_late_keeps_its_place_until_its_bytes_are_gone() {
    // given a request whose body takes longer than its copy may, on a node that makes one copy at a time
    fn script(connection: usize, _: usize) -> Act {
        if connection == 0 { Act::SayAfter(WEEK, OK) } else { Act::Say(OK) }
    }
    let mut client = Client::connect_to(script, rule_with(81, 10)).await;
    client.send("POST /v1/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
    wait_for(&client, "slow", 1).await;
    // then what was copied of it counts, until the body goes on
    let mut other = client.another().await;
    assert!(other.ask(GET).await.0.starts_with("http/1.1 200"));
    wait_for(&client, "busy", 1).await;
    client.send("1\r\ny\r\n").await;
    sleep(Duration::from_millis(10)).await;
    assert!(other.ask(GET).await.0.starts_with("http/1.1 200"));
    wait_for(&client, "2xx", 1).await;
}

#[tokio::test(start_paused = true)]
async fn copies_take_no_connection_from_requests() {
    // given an upstream to which all connections that there may be are used by copies
    let client = Client::connect(|_, _| Act::Say(OK)).await;
    let (pool, upstream) = (&client.gateway.pool, &rule(80).upstreams[0]);
    let one = pool.checkout(upstream, Traffic::Copies, false).await.expect("a connection");
    let other = pool.checkout(upstream, Traffic::Copies, false).await.expect("another");
    // when a request wants one
    let begin = Instant::now();
    let own = pool.checkout(upstream, Traffic::Requests, false).await;
    // then it gets one, at once
    assert!(own.is_ok() && begin.elapsed() == Duration::ZERO, "{own:?}");
    drop((one, other));
}
