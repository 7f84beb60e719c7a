//! `config/examples/routing.yaml`, asked route by route: who sends a request, and what it says of itself, decides where it goes.
#![allow(clippy::disallowed_methods)] // Upstreams of the test's own.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Answer, Cluster, PATIENCE, Upstream, port, quorumgate, request};

/// How long the mirror may be silent.
const SILENT: Duration = Duration::from_secs(60);

/// The upstreams of the example, but for the first, which is the cluster's own.
struct Upstreams {
    gold: Upstream,
    eu: Upstream,
    us: Upstream,
    shadow: Shadow,
}

/// An upstream that keeps what it was sent, answers when it is told to, and then says that it failed.
struct Shadow {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    answers: Arc<AtomicBool>,
}

impl Shadow {
    fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port()));
        let listener = TcpListener::bind(address).expect("the port was free a moment ago");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let keep = seen.clone();
        let answers = Arc::<AtomicBool>::default();
        let told = answers.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (keep, told) = (keep.clone(), told.clone());
                std::thread::spawn(move || {
                    let (mut text, mut piece) = (String::new(), [0; 4096]);
                    // Bodies of these tests end so.
                    while !text.ends_with("end") {
                        match stream.read(&mut piece) {
                            Ok(read) if read > 0 => text += &String::from_utf8_lossy(&piece[..read]),
                            _ => return,
                        }
                    }
                    keep.lock().expect("no panic").push(text);
                    while !told.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    // Nobody may be there any more.
                    let _ = stream
                        .write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                });
            }
        });
        Self { address, seen, answers }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Upstreams {
    fn start() -> Self {
        let [gold, eu, us] = [(); 3].map(|()| Upstream::start());
        Self { gold, eu, us, shadow: Shadow::start() }
    }

    /// The example with the addresses of these.
    fn gateway(&self) -> String {
        let text = include_str!("../config/examples/routing.yaml").replace("127.0.0.1:9000", "@UPSTREAM@");
        let others = [&self.gold, &self.eu, &self.us].map(|upstream| upstream.address);
        (9001..).zip(others.into_iter().chain([self.shadow.address])).fold(text, |text, (port, address)| {
            text.replace(&format!("127.0.0.1:{port}"), &address.to_string())
        })
    }
}

fn ask(cluster: &Cluster, node: usize, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(cluster.nodes[node].http, "GET", path, headers, "").expect("the node runs")
}

/// A development token of `tenant` with more claims.
fn token(cluster: &Cluster, tenant: &str, claims: &[&str]) -> String {
    let claims = claims.iter().flat_map(|claim| ["--claim", claim]);
    let args: Vec<&str> = ["token", "--tenant", tenant].into_iter().chain(claims).collect();
    let minted = quorumgate(cluster.folder.path(), &args);
    assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
    format!("Bearer {}", String::from_utf8_lossy(&minted.stdout).trim())
}

/// Whether `upstream` gave this answer.
fn came_from(answer: &Answer, upstream: &Upstream) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.contains(&format!("host: {}", upstream.address))
}

#[test]
fn a_claim_of_a_good_token_chooses_the_route_and_a_bad_token_chooses_nothing() {
    support::in_calm(|| {
        let upstreams = Upstreams::start();
        let cluster = Cluster::start(3, &upstreams.gateway());
        for node in 0..3 {
            // when a token has one of the claim's texts, alone or in a list, then its route takes the request, and counts it
            for claims in [&["plan=gold"][..], &["plan=silver", "plan=platinum"]] {
                let bearer = token(&cluster, "acme", claims);
                let answer = ask(&cluster, node, "/shop/1", &[("authorization", &bearer)]);
                assert!(came_from(&answer, &upstreams.gold), "{claims:?}");
                assert!(answer.header("ratelimit").is_some());
            }
            // and all others go on to the next route, which is public: another plan, a forged token, none
            let other = token(&cluster, "acme", &["plan=silver"]);
            let forged = format!("{}x", token(&cluster, "acme", &["plan=gold"]));
            for headers in [vec![("authorization", other.as_str())], vec![("authorization", &forged)], vec![]]
            {
                let answer = ask(&cluster, node, "/shop/1", &headers);
                assert!(came_from(&answer, &cluster.upstream), "{headers:?}");
            }
        }
        // and where no other route is left, a bad token is told so, and a good one that says something else finds nothing
        let only = upstreams.gateway().replace("match: {path: /shop}", "match: {path: /other}");
        let applied = cluster.apply(&only);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let silver = token(&cluster, "acme", &["plan=silver"]);
        let answer = ask(&cluster, 0, "/shop/1", &[]);
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (401, Some("urn:quorumgate:problem:no-token"))
        );
        assert_eq!(ask(&cluster, 0, "/shop/1", &[("authorization", "Bearer a.b.c")]).status, 401);
        assert_eq!(ask(&cluster, 0, "/shop/1", &[("authorization", &silver)]).status, 404);
    });
}

#[test]
fn every_node_sends_a_part_to_the_upstream_that_holds_it() {
    support::in_calm(|| {
        let upstreams = Upstreams::start();
        let cluster = Cluster::start(3, &upstreams.gateway());
        for node in 0..3 {
            // when parts are named by a claim
            for (claims, upstream) in [
                (&["region=eu"][..], Some(&upstreams.eu)),
                (&["region=uk"], Some(&upstreams.eu)),
                (&["region=us"], Some(&upstreams.us)),
                (&["region=asia"], None),
                (&["region=eu", "region=us"], None),
                (&[], None),
            ] {
                let bearer = token(&cluster, "acme", claims);
                let answer = ask(&cluster, node, "/accounts/1", &[("authorization", &bearer)]);
                match upstream {
                    Some(upstream) => assert!(came_from(&answer, upstream), "{claims:?}"),
                    // then what no upstream holds is refused, and costs nothing
                    None => {
                        let problem = answer.json();
                        assert_eq!(
                            (answer.status, problem["type"].as_str()),
                            (404, Some("urn:quorumgate:problem:no-partition"))
                        );
                        assert_eq!(answer.header("ratelimit"), None);
                    }
                }
            }
            // and by a header field, where the rest has its place
            for (region, upstream) in [("eu", &upstreams.eu), ("us", &upstreams.us), ("asia", &upstreams.us)]
            {
                assert!(
                    came_from(&ask(&cluster, node, "/catalogue", &[("x-region", region)]), upstream),
                    "{region}"
                );
            }
        }
    });
}

#[test]
fn a_mirror_gets_the_same_requests_and_neither_delays_nor_fails_them() {
    support::in_calm(|| {
        let upstreams = Upstreams::start();
        // given a mirror that is silent for longer than anything here lasts, and a quota of which nothing comes back meanwhile
        let gateway = upstreams.gateway().replace("timeout: 2s", &format!("timeout: {}s", SILENT.as_secs()));
        let cluster = Cluster::start(1, &gateway.replace("limit: 100/s", "limit: {rate: 1/h, burst: 100}"));
        let bearer = token(&cluster, "acme", &[]);
        let post = |body: &str| {
            let headers = [("authorization", bearer.as_str()), ("quorumgate-mirrored", "0")];
            request(cluster.nodes[0].http, "POST", "/search?q=1", &headers, body).expect("the node runs")
        };
        // when requests are sent, one of them with more than the mirror takes
        let begin = Instant::now();
        let answers = ["first end", &format!("{} end", "x".repeat(1024)), "second end"].map(post);
        // then they are answered by their own upstream, and wait for no answer of the mirror
        assert!(begin.elapsed() < SILENT, "{:?}", begin.elapsed());
        for answer in &answers {
            assert!(
                came_from(answer, &cluster.upstream) && !answer.body.contains("quorumgate-mirrored"),
                "{}",
                answer.body
            );
        }
        // and cost what they cost
        assert!(answers[2].header("ratelimit").is_some_and(|it| it.contains("r=97")), "{:?}", answers[2]);
        // and the mirror has seen the others, marked, with their bodies
        upstreams.shadow.answers.store(true, Ordering::SeqCst);
        let metrics = |outcome: &str, count: usize| {
            let line = format!(
                "quorumgate_mirrored_requests_total{{route=\"search\",outcome=\"{outcome}\"}} {count}\n"
            );
            cluster.wait(0, "/metrics", &line, |answer| answer.body.contains(&line));
        };
        metrics("5xx", 2);
        metrics("too-large", 1);
        let until = Instant::now() + PATIENCE;
        while upstreams.shadow.seen().len() < 2 {
            assert!(Instant::now() < until, "{:?}", upstreams.shadow.seen());
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut seen = upstreams.shadow.seen();
        seen.sort_by_key(|text| text.ends_with("second end"));
        for (seen, body) in seen.iter().zip(["first end", "second end"]) {
            assert!(
                seen.starts_with("POST /search?q=1 HTTP/1.1\r\n")
                    && seen.ends_with(&format!("\r\n\r\n{body}")),
                "{seen}"
            );
            assert!(seen.contains("quorumgate-mirrored: 1\r\n"), "{seen}");
        }
    });
}

#[test]
fn an_old_version_says_when_it_ends_and_is_gone_then_and_its_callers_are_known() {
    let upstreams = Upstreams::start();
    let cluster = Cluster::start(1, &upstreams.gateway());
    let tokens = ["acme", "globex"].map(|tenant| token(&cluster, tenant, &[]));
    // when a version is over, then its callers are told so before anything else, and what there is instead
    let gone = ask(&cluster, 0, "/v0/orders", &[]);
    assert_eq!(
        (gone.status, gone.json()["type"].as_str()),
        (410, Some("urn:quorumgate:problem:version-gone"))
    );
    assert_eq!(gone.header("sunset"), Some("Fri, 01 Jan 2021 00:00:00 GMT"));
    assert_eq!(gone.header("link"), Some("<https://api.example/v1/orders>; rel=\"successor-version\""));
    // and one that is not, is announced on every answer
    for (bearer, count) in tokens.iter().zip([3, 1]) {
        for _ in 0..count {
            let answer = ask(&cluster, 0, "/v1/orders", &[("authorization", bearer)]);
            assert!(came_from(&answer, &cluster.upstream));
            assert_eq!(answer.header("deprecation"), Some("@1767225600"));
            assert_eq!(answer.header("sunset"), Some("Thu, 31 Dec 2099 12:00:00 GMT"));
            assert!(
                answer.header("link").is_some_and(|it| it.contains("rel=\"deprecation\", <https")),
                "{answer:?}"
            );
        }
    }
    assert!(ask(&cluster, 0, "/v1/orders", &[]).header("sunset").is_some(), "refusals tell it, too");
    // and others are chosen by header and by media type
    let by_header = ask(&cluster, 0, "/orders/1", &[("authorization", &tokens[0]), ("x-version", "2")]);
    assert!(came_from(&by_header, &cluster.upstream) && by_header.header("sunset").is_none());
    for (accept, status) in [
        ("application/vnd.acme.v3+json", 200),
        ("text/html, application/vnd.acme.v3+json;q=0.9, */*", 200),
        ("application/vnd.acme.v3+jsonp", 404),
        ("*/*", 404),
    ] {
        assert_eq!(ask(&cluster, 0, "/orders/1", &[("accept", accept)]).status, status, "{accept}");
    }
    // and operators see who calls what
    let told =
        quorumgate(cluster.folder.path(), &["versions", "--admin", &cluster.nodes[0].admin.to_string()]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    for line in [
        "  orders-v1 v1: 4 requests, deprecated Thu, 01 Jan 2026 00:00:00 GMT, sunset Thu, 31 Dec 2099 12:00:00 GMT\n    acme: 3, the last on ",
        "    globex: 1, the last on ",
        "  orders-v2 v2: 1 requests\n    acme: 1, ",
        "  orders-v3 v3: 2 requests\n    (without a tenant): 2, ",
        "  orders-v0 v0: 0 requests, ",
    ] {
        assert!(told.contains(line), "{line} is missing in\n{told}");
    }
    let metrics = cluster.admin(0, "/metrics").body;
    assert!(
        metrics.contains("quorumgate_version_requests_total{route=\"orders-v1\",version=\"v1\"} 4\n"),
        "{metrics}"
    );
}

#[test]
fn an_upstream_is_told_the_flags_that_are_on_and_believes_no_client() {
    let upstreams = Upstreams::start();
    let cluster = Cluster::start(3, &upstreams.gateway());
    let told = |node: usize, bearer: &str, more: &[(&str, &str)]| {
        let headers = [&[("authorization", bearer), ("quorumgate-flags", "old-search")], more].concat();
        let answer = ask(&cluster, node, "/checkout", &headers);
        assert!(came_from(&answer, &cluster.upstream));
        let head = answer.json()["head"].as_str().expect("a text").to_owned();
        let found: Vec<&str> =
            head.lines().filter_map(|line| line.strip_prefix("quorumgate-flags: ")).collect();
        found.join(" and ")
    };
    // when a tenant is named, or a tester names the flag
    let acme = token(&cluster, "acme", &[]);
    assert_eq!(told(0, &acme, &[]), "dark-mode, new-checkout");
    // then for all others the share decides, the same on every node and at every time
    let mut on = 0;
    for number in 0..60 {
        let bearer = token(&cluster, &format!("tenant-{number}"), &[]);
        let found = [0, 1, 2, 0].map(|node| told(node, &bearer, &[]));
        assert!(found.iter().all(|it| *it == found[0]), "{found:?}");
        on += usize::from(found[0] == "dark-mode, new-checkout");
        assert_eq!(told(1, &bearer, &[("x-beta", "new-checkout")]), "dark-mode, new-checkout");
    }
    // Of sixty draws of one in five: fewer or more come once in a million times.
    assert!((1..=30).contains(&on), "{on} of 60");
}
