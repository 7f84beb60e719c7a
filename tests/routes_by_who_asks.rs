//! `config/examples/routing.yaml`, asked route by route: who sends a request, and what it says of itself, decides where it goes.

mod support;

use support::{Answer, Cluster, Upstream, quorumgate, request};

/// The upstreams of the example, but for the first, which is the cluster's own.
struct Upstreams {
    gold: Upstream,
    eu: Upstream,
    us: Upstream,
}

impl Upstreams {
    fn start() -> Self {
        Self { gold: Upstream::start(), eu: Upstream::start(), us: Upstream::start() }
    }

    /// The example with the addresses of these.
    fn gateway(&self) -> String {
        let text = include_str!("../config/examples/routing.yaml").replace("127.0.0.1:9000", "@UPSTREAM@");
        let others = [("9001", &self.gold), ("9002", &self.eu), ("9003", &self.us)];
        others.into_iter().fold(text, |text, (port, upstream)| {
            text.replace(&format!("127.0.0.1:{port}"), &upstream.address.to_string())
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
        for headers in [vec![("authorization", other.as_str())], vec![("authorization", &forged)], vec![]] {
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
}

#[test]
fn every_node_sends_a_part_to_the_upstream_that_holds_it() {
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
        for (region, upstream) in [("eu", &upstreams.eu), ("us", &upstreams.us), ("asia", &upstreams.us)] {
            assert!(
                came_from(&ask(&cluster, node, "/catalogue", &[("x-region", region)]), upstream),
                "{region}"
            );
        }
    }
}
