//! What clients are told, through any node.

mod support;

use support::{Cluster, GATEWAY, request};

#[test]
fn every_node_gives_every_answer_of_the_readme() {
    support::in_calm(|| {
        // given a cluster of three, and a token with one scope
        let cluster = Cluster::start(3, GATEWAY);
        let token = cluster.token("acme", &["orders:read"]);
        let scopeless = cluster.token("globex", &[]);
        for node in 0..3 {
            // when a good request comes, then the upstream's answer goes back with the state of its quota
            let good = cluster.get(node, "/many/1?x=y", Some(&token));
            assert_eq!(good.status, 200, "{good:?}");
            assert!(
                good.header("ratelimit").is_some_and(|value| value.contains("\"plenty\";r=")),
                "{good:?}"
            );
            assert!(
                good.header("ratelimit-policy").is_some_and(|value| value.contains("\"plenty\";q=100;w=1")),
                "{good:?}"
            );
            assert!(good.body.contains("GET /many/1?x=y"), "{good:?}");

            // when it carries no token, or a broken one
            let bare = cluster.get(node, "/orders/1", None);
            assert_eq!(bare.status, 401, "{bare:?}");
            assert!(
                bare.header("www-authenticate")
                    .is_some_and(|value| value.starts_with("Bearer") && !value.contains("error"))
            );
            let broken = cluster.get(node, "/orders/1", Some(&format!("{token}x")));
            assert_eq!(broken.status, 401, "{broken:?}");
            assert!(
                broken
                    .header("www-authenticate")
                    .is_some_and(|value| value.contains("error=\"invalid_token\""))
            );
            assert_eq!(broken.header("content-type"), Some("application/problem+json"));

            // when the scope is missing, there is no route, or the method is another
            let scope = cluster.get(node, "/orders/1", Some(&scopeless));
            assert_eq!(scope.status, 403, "{scope:?}");
            assert!(
                scope.header("www-authenticate").is_some_and(|value| value.contains("orders:read")),
                "{scope:?}"
            );
            assert_eq!(cluster.get(node, "/nowhere", Some(&token)).status, 404);
            let method =
                request(cluster.nodes[node].http, "DELETE", "/orders/1", &[], "").expect("the node runs");
            assert_eq!((method.status, method.header("allow")), (405, Some("GET")), "{method:?}");

            // when the upstream is dead, or too slow
            assert_eq!(cluster.get(node, "/dead", Some(&token)).status, 502);
            assert_eq!(cluster.get(node, "/many/slow", Some(&token)).status, 504);
        }
        // when the quota is spent
        let spent: Vec<u16> =
            (0..6).map(|number| cluster.get(number % 3, "/orders/1", Some(&token)).status).collect();
        assert_eq!(spent, [200, 200, 200, 200, 200, 429]);
        for node in 0..3 {
            let over = cluster.get(node, "/orders/1", Some(&token));
            assert_eq!(over.status, 429, "{over:?}");
            let wait: u64 =
                over.header("retry-after").expect("a 429 says when").parse().expect("whole seconds");
            assert!((1..=60).contains(&wait), "{over:?}");
            let problem = over.json();
            assert_eq!(problem["status"], 429);
            assert!(problem["violated-policies"].to_string().contains("five-a-minute"), "{problem}");
        }
    });
}
