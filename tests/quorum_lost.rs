//! A node that has lost its quorum spends what it was lent, then does what each quota says, and says so itself; healed, it
//! is exact again.
//!
//! `QUORUM_LOST_SECONDS=20` makes the loss as long as the one in the README's table; the default is shorter and passes
//! through the same phases.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Answer, AtEnd, Cluster, PATIENCE, request};

const RATE: f64 = 30.0;
const BURST: f64 = 90.0;
const NODES: f64 = 3.0;

/// Six routes, each with a bucket of its own: 30/s, B = 90. `slow` is for its `Retry-After`.
const DOCUMENT: &str = "
upstreams: {echo: {endpoints: [\"http://@UPSTREAM@\"], response_timeout: 5s}}
issuers:
  dev: {issuer: quorumgate-dev, audiences: [quorumgate], keys: [{kid: dev, algorithm: HS256, secret: {file: dev.secret}}]}
quotas:
  deny: {key: route, limit: 30/s, burst: 90}
  share: {key: route, limit: 30/s, burst: 90, on_quorum_loss: local-share}
  known-deny: {key: [tenant, route], limit: 30/s, burst: 90}
  known-share: {key: [tenant, route], limit: 30/s, burst: 90, on_quorum_loss: local-share}
  slow: {key: route, limit: 6/min, burst: 3, on_quorum_loss: local-share}
routes:
  - {name: public-deny, match: {path: /public-deny}, upstream: echo, access: public, quotas: [deny]}
  - {name: public-share, match: {path: /public-share}, upstream: echo, access: public, quotas: [share]}
  - {name: token-deny, match: {path: /token-deny}, upstream: echo, access: {issuers: [dev]}, quotas: [known-deny]}
  - {name: token-share, match: {path: /token-share}, upstream: echo, access: {issuers: [dev]}, quotas: [known-share]}
  - {name: stale-deny, match: {path: /stale-deny}, upstream: echo, access: {issuers: [dev], serve_stale_for: 1h}, quotas: [known-deny]}
  - {name: stale-share, match: {path: /stale-share}, upstream: echo, access: {issuers: [dev], serve_stale_for: 1h}, quotas: [known-share]}
  - {name: slow, match: {path: /slow-share}, upstream: echo, access: public, quotas: [slow]}
  - {name: free, match: {path: /free}, upstream: echo, access: public}
";

const ROUTES: [&str; 6] =
    ["public-deny", "public-share", "token-deny", "token-share", "stale-deny", "stale-share"];

const BEFORE: u8 = 0;
const LOST: u8 = 1;
const OVER: u8 = 2;

/// One answer, with the seconds since the loss at which it was asked for and came.
#[derive(Debug)]
struct Seen {
    route: &'static str,
    to: SocketAddr,
    sent: Instant,
    answered: Instant,
    what: String,
    retry_after: Option<u64>,
}

impl Seen {
    fn is_admitted(&self) -> bool {
        self.what == "200"
    }
}

fn what(answer: &Answer) -> String {
    if answer.status == 200 {
        return "200".to_owned();
    }
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let slug = problem["type"].as_str().and_then(|name| name.rsplit(':').next()).unwrap_or("?");
    format!("{} {slug}", answer.status)
}

fn ask(to: SocketAddr, route: &'static str, token: &str) -> Option<Seen> {
    let sent = Instant::now();
    let headers = [("authorization", token)];
    let headers = if route.starts_with("public") { &[][..] } else { &headers[..] };
    // A node that was taken away answers late or not at all.
    let answer = request(to, "GET", &format!("/{route}/1"), headers, "").ok()?;
    let retry_after = answer.header("retry-after").and_then(|value| value.parse().ok());
    Some(Seen { route, to, sent, answered: Instant::now(), what: what(&answer), retry_after })
}

/// What a cluster told while two of its three nodes were away.
struct Story {
    seen: Vec<Seen>,
    survivor: SocketAddr,
    lost: Instant,
    healed: Instant,
}

/// Loads all routes of the survivor, and two routes of the others while they are there; takes them away, looks at the
/// survivor, brings them back.
fn lose(
    cluster: &mut Cluster,
    survivor: usize,
    away: impl Fn(&mut Cluster, usize),
    back: impl Fn(&mut Cluster, usize),
    look: impl Fn(&Cluster),
) -> Story {
    let seconds = std::env::var("QUORUM_LOST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    let token = format!("Bearer {}", cluster.token("acme", &[]));
    let others: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    let (phase, seen) = (AtomicU8::new(BEFORE), Mutex::new(Vec::new()));
    let doors: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.http).collect();
    let mut times = None;
    std::thread::scope(|scope| {
        let _end = AtEnd(|| phase.store(OVER, SeqCst));
        let load = |node: usize, route: &'static str, every_ms: u64, through_the_loss: bool| {
            let (phase, seen, token, to) = (&phase, &seen, token.as_str(), doors[node]);
            scope.spawn(move || {
                while phase.load(SeqCst) != OVER {
                    if through_the_loss || phase.load(SeqCst) == BEFORE {
                        let one = ask(to, route, token);
                        seen.lock().expect("no panic").extend(one);
                    }
                    std::thread::sleep(Duration::from_millis(every_ms));
                }
            });
        };
        for route in ROUTES {
            load(survivor, route, 100, true);
            load(survivor, route, 100, true);
        }
        for node in &others {
            load(*node, "public-deny", 200, false);
            load(*node, "public-share", 200, false);
        }
        std::thread::sleep(Duration::from_secs(3));
        phase.store(LOST, SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        others.iter().for_each(|node| away(cluster, *node));
        let lost = Instant::now();
        let look_at = lost + Duration::from_secs(8);
        std::thread::sleep(look_at.saturating_duration_since(Instant::now()));
        look(cluster);
        let end = lost + Duration::from_secs(seconds);
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        others.iter().for_each(|node| back(cluster, *node));
        let healed = Instant::now();
        phase.store(BEFORE, SeqCst);
        let until = healed + PATIENCE;
        let exact = |seen: &Seen| seen.route == "public-deny" && seen.is_admitted() && seen.sent > healed;
        while !seen.lock().expect("no panic").iter().any(exact) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_secs(4));
        phase.store(OVER, SeqCst);
        times = Some((lost, healed));
    });
    let (lost, healed) = times.expect("the scope has ended");
    Story { seen: seen.into_inner().expect("no panic"), survivor: doors[survivor], lost, healed }
}

impl Story {
    /// Answers of the survivor on a route between two instants.
    fn between(&self, route: &str, from: Instant, to: Instant) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| {
            seen.to == self.survivor && seen.route == route && seen.sent >= from && seen.answered <= to
        })
    }

    /// The table: what the survivor answered, by phase and route.
    fn print(&self) {
        let at = |ms: u64| self.lost + Duration::from_millis(ms);
        let far = Duration::from_secs(3600);
        let phases = [
            ("before the loss", self.lost - far, self.lost),
            ("0 to 2.5 s: leases last", self.lost, at(2500)),
            ("2.5 to 6 s: leases and view run out", at(2500), at(6000)),
            ("6 s to the heal", at(6000), self.healed),
            ("healed, first second", self.healed, self.healed + Duration::from_secs(1)),
            ("healed, later", self.healed + Duration::from_secs(1), self.healed + far),
        ];
        for (phase, from, to) in phases {
            println!("{phase}");
            for route in ROUTES {
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                let of_phase =
                    self.seen.iter().filter(|seen| seen.to == self.survivor && seen.route == route);
                for seen in of_phase.filter(|seen| (from..to).contains(&seen.answered)) {
                    *counts.entry(&seen.what).or_default() += 1;
                }
                let counts: Vec<String> =
                    counts.iter().map(|(what, count)| format!("{what} x{count}")).collect();
                println!("    {route:13} {}", counts.join(", "));
            }
        }
        let first = |route: &str| {
            let later = self.seen.iter().filter(|seen| seen.route == route && seen.sent > self.healed);
            later.filter(|seen| seen.is_admitted()).map(|seen| seen.answered).min()
        };
        for route in ["public-deny", "token-deny"] {
            let after = first(route).map(|at| at.duration_since(self.healed));
            println!("first exact admission after the heal, {route}: {after:?}");
        }
    }

    /// By how much the worst interval is over `(burst + rate (1 + eps) t)(1 + cut_off / nodes)`, in tokens.
    fn over(&self, route: &str, cut_off: f64) -> f64 {
        let admitted: Vec<&Seen> =
            self.seen.iter().filter(|seen| seen.route == route && seen.is_admitted()).collect();
        let mut worst = f64::MIN;
        for start in admitted.iter().map(|seen| seen.sent) {
            let mut ends: Vec<Instant> =
                admitted.iter().filter(|seen| seen.sent >= start).map(|seen| seen.answered).collect();
            ends.sort_unstable();
            for (before, end) in ends.into_iter().enumerate() {
                let t = end.duration_since(start).as_secs_f64();
                let bound = (BURST + RATE * 1.001 * t) * (1.0 + cut_off / NODES);
                worst = worst.max((before + 1) as f64 - bound);
            }
        }
        worst
    }

    fn check(&self) {
        let settled = self.lost + Duration::from_millis(6500);
        let all = |route: &str, wanted: &[&str]| {
            for seen in self.between(route, settled, self.healed) {
                assert!(wanted.contains(&seen.what.as_str()), "{route}: wanted {wanted:?}: {seen:?}");
            }
            assert!(self.between(route, settled, self.healed).count() > 0, "{route} was asked");
        };
        // A quota that denies leaves everybody undecided; a token is not believed under a stale view, whatever its quota says,
        // but where the route allows it.
        all("public-deny", &["503 quota-undecided"]);
        all("stale-deny", &["503 quota-undecided"]);
        all("token-deny", &["503 stale-view"]);
        all("token-share", &["503 stale-view"]);
        all("public-share", &["200", "503 quota-undecided"]);
        all("stale-share", &["200", "503 quota-undecided"]);
        // Nobody was refused: no leader said so.
        for seen in self.seen.iter().filter(|seen| seen.sent > self.lost && seen.answered < self.healed) {
            assert_ne!(seen.what, "429 over-quota", "{seen:?}");
        }
        for seen in self.seen.iter().filter(|seen| seen.what.starts_with("503")) {
            assert_eq!(
                seen.retry_after,
                Some(1),
                "a token of a share of 10/s comes within the second: {seen:?}"
            );
        }
        // Exactly its bound for the one rule, the wider one for the other; and the share is a real one.
        for route in ["public-deny", "token-deny", "stale-deny"] {
            support::always(self.over(route, 0.0) <= 0.0, || {
                format!("{route} is over its bound by {}", self.over(route, 0.0))
            });
        }
        for route in ["public-share", "token-share", "stale-share"] {
            support::always(self.over(route, 1.0) <= 0.0, || {
                format!("{route} is over its bound by {}", self.over(route, 1.0))
            });
        }
        for route in ["public-share", "stale-share"] {
            let seconds = self.healed.duration_since(settled).as_secs_f64();
            let given =
                self.between(route, settled, self.healed).filter(|seen| seen.is_admitted()).count() as f64;
            let share = RATE / NODES * 1.001 * seconds;
            support::always(given <= BURST / NODES + share, || {
                format!("{route}: {given} of a share of {share}")
            });
            assert!(given >= share / 3.0, "{route}: only {given} of a share of {share}");
        }
        // And then everything is as before.
        for route in ROUTES {
            let after = self.seen.iter().filter(|seen| seen.route == route && seen.sent > self.healed);
            assert!(after.filter(|seen| seen.is_admitted()).count() > 0, "{route} serves again");
        }
    }
}

/// What the survivor says of itself while it is alone.
fn look(cluster: &Cluster, survivor: usize) {
    let readyz = cluster.admin(survivor, "/readyz");
    assert_eq!(readyz.status, 200, "{readyz:?}");
    let health = readyz.json();
    println!("readiness: {health}");
    assert_eq!(health["status"], "degraded");
    for (component, status) in [
        ("cluster", "degraded"),
        ("view", "degraded"),
        ("quotas", "degraded"),
        ("configuration", "ready"),
        ("data-plane", "ready"),
    ] {
        assert_eq!(health["components"][component]["status"], status, "{component}: {health}");
    }
    let metrics = cluster.admin(survivor, "/metrics").body;
    let value = |name: &str| -> f64 {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}\n{metrics}"));
        line.trim().parse().expect("a number")
    };
    let (silent, age) = (value("quorumgate_ledger_silent_seconds "), value("quorumgate_view_age_seconds "));
    let shared = value("quorumgate_quota_local_share_total{quota=\"share\"} ");
    println!("ledger silent {silent} s, view {age} s old, {shared} from the share");
    assert!(silent >= 2.5 && age >= 5.0 && shared >= 1.0);
    assert_eq!(value("quorumgate_quota_local_share_total{quota=\"deny\"} "), 0.0);
    // The share of 6/min with B = 3 is one token, and two a minute.
    let door = cluster.nodes[survivor].http;
    let slow: Vec<Answer> =
        (0..2).map(|_| request(door, "GET", "/slow-share", &[], "").expect("it runs")).collect();
    assert_eq!(what(&slow[1]), "503 quota-undecided");
    let wait: u64 = slow[1].header("retry-after").expect("it says when").parse().expect("whole seconds");
    assert!((2..=30).contains(&wait), "{slow:?}");
    println!("the slow share's Retry-After: {wait} s");
}

/// And once the others are back.
fn healed(cluster: &Cluster, survivor: usize) {
    cluster.wait_until_ready();
    cluster.wait(survivor, "/readyz", "ready in every part", |answer| {
        let health = answer.json();
        let components = health["components"].as_object().expect("by name");
        components.values().all(|component| component["status"] == "ready")
    });
}

#[test]
fn a_follower_alone_keeps_every_rule_while_the_others_stand_still() {
    support::in_calm(|| {
        let mut cluster = Cluster::start(3, DOCUMENT);
        let survivor = (cluster.leader() + 1) % 3;
        let story = lose(
            &mut cluster,
            survivor,
            |cluster, node| cluster.signal(node, Signal::STOP),
            |cluster, node| cluster.signal(node, Signal::CONT),
            |cluster| look(cluster, survivor),
        );
        story.print();
        story.check();
        healed(&cluster, survivor);
    });
}

#[test]
fn a_leader_alone_keeps_every_rule_while_the_others_are_dead() {
    support::in_calm(|| {
        let mut cluster = Cluster::start(3, DOCUMENT);
        let survivor = cluster.leader();
        let story = lose(&mut cluster, survivor, Cluster::kill, Cluster::start_node, |cluster| {
            look(cluster, survivor)
        });
        story.print();
        story.check();
        healed(&cluster, survivor);
    });
}

#[test]
fn a_node_that_restarts_alone_serves_its_last_revision_marked_and_only_after_a_wait() {
    // given a cluster whose nodes all died, of which one comes back; entries after the document's are on its disk
    let mut cluster = Cluster::start(3, DOCUMENT);
    let token = cluster.token("acme", &[]);
    let applied = |cluster: &Cluster| cluster.status(0)["applied_index"].as_u64().unwrap_or(0);
    let document = applied(&cluster);
    let until = Instant::now() + PATIENCE;
    while applied(&cluster) < document + 4 {
        cluster.get(1, "/public-deny/1", None);
        assert!(Instant::now() < until, "{}", cluster.log(0));
        std::thread::sleep(Duration::from_millis(50));
    }
    (0..3).for_each(|node| cluster.kill(node));
    let begun = Instant::now();
    cluster.start_node(0);
    let free = |cluster: &Cluster| cluster.try_get(0, "/free", None).ok().map(|answer| what(&answer));
    // when it is asked, from its first moment on
    let mut said = Vec::new();
    let until = begun + 2 * PATIENCE;
    let served = loop {
        let now = free(&cluster);
        if now.is_some() && said.last() != Some(&now) {
            if now.as_deref() == Some("503 stale-view") {
                // then it is not ready while it waits for a leader
                let health = cluster.admin(0, "/readyz");
                println!("waiting: {}", health.body);
            }
            said.push(now.clone());
        }
        if now.as_deref() == Some("200") {
            break begun.elapsed();
        }
        assert!(Instant::now() < until, "{said:?}\n{}", cluster.log(0));
        std::thread::sleep(Duration::from_millis(100));
    };
    // then it serves its disk's revision, and no sooner than half a minute after it began
    println!("{said:?}, served after {served:?}");
    assert!(served >= Duration::from_secs(30), "{served:?}");
    assert!(said.contains(&Some("503 stale-view".to_owned())), "{said:?}");
    let readyz = cluster.admin(0, "/readyz");
    assert_eq!((readyz.status, &readyz.json()["status"]), (200, &"degraded".into()), "{readyz:?}");
    let detail = readyz.json()["components"]["view"]["detail"].to_string();
    assert!(detail.contains("revision 1 of its disk"), "{detail}");
    // and believes no token, on whichever route: how old its view is nobody knows
    for path in ["/token-share/1", "/stale-share/1"] {
        assert_eq!(what(&cluster.get(0, path, Some(&token))), "503 stale-view");
    }
    // and when the others come back, contact is all it takes
    cluster.start_node(1);
    cluster.start_node(2);
    cluster.wait_until_ready();
    assert_eq!(what(&cluster.decided(0, "/token-share/1", &token)), "200");
}
