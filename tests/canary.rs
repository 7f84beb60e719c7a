//! A canary is moved by `apply` while requests come: none fails, shares follow the weights, and tenants move only where
//! the weights move them.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{AtEnd, Cluster, Upstream};

const TENANTS: usize = 100;

/// A route split by tenant; `@GREEN@` stands for the second upstream's address.
const GATEWAY: &str = "
upstreams:
  blue: {endpoints: [\"http://@UPSTREAM@\"]}
  green: {endpoints: [\"http://@GREEN@\"]}
issuers:
  dev: {issuer: quorumgate-dev, audiences: [quorumgate], keys: [{kid: dev, algorithm: HS256, secret: {file: dev.secret}}]}
routes:
  - name: shop
    match: {path: /shop}
    split: {by: tenant, branches: [{upstream: blue, weight: @REST@}, {upstream: green, weight: @SHARE@}]}
    access: {issuers: [dev]}
";

fn gateway(green: &Upstream, percent: usize) -> String {
    let text = GATEWAY.replace("@GREEN@", &green.address.to_string());
    text.replace("@REST@", &(100 - percent).to_string()).replace("@SHARE@", &percent.to_string())
}

/// Which tenants are on green: by every node, the first one twice, and all must agree.
fn on_green(cluster: &Cluster, green: &Upstream, tokens: &[String]) -> Vec<bool> {
    let host = format!("host: {}", green.address);
    let ask = |node: usize, token: &String| {
        let answer = cluster.get(node, "/shop/1", Some(token));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.contains(&host)
    };
    let of = |token: &String| {
        let found: Vec<bool> = [0, 1, 2, 0].into_iter().map(|node| ask(node, token)).collect();
        assert!(found.iter().all(|it| *it == found[0]), "a tenant is on two branches at once: {found:?}");
        found[0]
    };
    tokens.iter().map(of).collect()
}

#[test]
fn a_canary_grows_and_goes_while_requests_come_and_none_of_them_fails() {
    // given a hundred tenants, all on blue, and light load on every node
    let green = Upstream::start();
    let cluster = Cluster::start(3, &gateway(&green, 0));
    let tokens: Vec<String> =
        (0..TENANTS).map(|number| cluster.token(&format!("tenant-{number}"), &[])).collect();
    let stop = AtomicBool::new(false);
    let ((count, failed), steps) = std::thread::scope(|scope| {
        let _end = AtEnd(|| stop.store(true, Ordering::SeqCst));
        let load = scope.spawn(|| cluster.ask_all("/shop/2", &tokens[0], &stop));
        // when green's share is moved by one document after the other
        let mut steps = BTreeMap::from([(0, (0, on_green(&cluster, &green, &tokens)))]);
        for (step, percent) in (1..).zip([5, 50, 100, 0]) {
            let applied = cluster.apply(&gateway(&green, percent));
            assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
            steps.insert(step, (percent, on_green(&cluster, &green, &tokens)));
        }
        stop.store(true, Ordering::SeqCst);
        (load.join().expect("no panic"), steps)
    });
    // then nobody noticed
    assert!(failed.is_empty() && count > 0, "{count} requests, of which failed: {failed:?}");
    // and green has its share of the tenants: five standard deviations of a draw, and all or none at the ends
    for (percent, tenants) in steps.values() {
        let found = tenants.iter().filter(|it| **it).count();
        let bounds = match percent {
            0 => 0..=0,
            5 => 0..=16,
            50 => 25..=75,
            _ => TENANTS..=TENANTS,
        };
        assert!(bounds.contains(&found), "{percent} %: {found} of {TENANTS} tenants are on green");
    }
    // and whoever was there stayed there while it grew
    for step in 1..=3 {
        let (before, after) = (&steps[&(step - 1)].1, &steps[&step].1);
        assert!(before.iter().zip(after).all(|(before, after)| before <= after), "step {step}");
    }
}
