//! Redirects and answers of the document's own, as a client of a real node meets them.

mod support;

use std::collections::BTreeMap;

use support::{Cluster, GATEWAY, request};

fn gateway() -> String {
    let routes = "routes:
  - {name: moved, match: {path: /old}, redirect: {status: 301, prefix: /many}, access: {issuers: [dev]}, quotas: [five-a-minute]}
  - {name: robots, match: {path: {exact: /robots.txt}}, respond: {status: 200, body: \"User-agent: *\"}, access: public}
";
    GATEWAY.replace("routes:\n", routes)
}

#[test]
fn a_redirect_needs_a_token_and_is_charged_and_an_answer_has_its_head() {
    support::in_calm(|| {
        let cluster = Cluster::start(1, &gateway());
        // when a route that redirects is asked, then without a token nobody learns where to
        let stranger = cluster.get(0, "/old/a", None);
        assert_eq!((stranger.status, stranger.header("location")), (401, None));
        let token = cluster.token("acme", &[]);
        let told = cluster.get(0, "/old/a?b=c", Some(&token));
        assert_eq!((told.status, told.header("location")), (301, Some("/many/a?b=c")));
        assert!(told.header("ratelimit").is_some_and(|it| it.contains("five-a-minute")), "{told:?}");
        // and its quota counts
        assert_eq!(cluster.burst(8, "/old/a", &token), BTreeMap::from([(301, 4), (429, 4)]));
        // and an answer of the document's own is the same for GET and HEAD, but for the body
        for (method, body) in [("GET", "User-agent: *"), ("HEAD", "")] {
            let answer =
                request(cluster.nodes[0].http, method, "/robots.txt", &[], "").expect("the node runs");
            assert_eq!((answer.status, answer.body.as_str()), (200, body), "{method}");
            assert_eq!(answer.header("content-length"), Some("13"), "{method}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{method}");
        }
        // and no upstream heard of it
        assert_eq!(cluster.upstream.served(), 0);
    });
}
