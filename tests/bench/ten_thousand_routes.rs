//! What it costs to find a route among few and among many.
//!
//! ```sh
//! cargo bench --bench ten_thousand_routes
//! ```
//!
//! CPU time of a lookup, for documents of different sizes in one run: the ratios are what counts. Every tenth route has a
//! path of each kind, some with a host, a method, a field or a network beside it; each question is asked for a path of its
//! document, and every eighth for one that no route takes.
#![allow(clippy::disallowed_methods)] // It stands outside the product: it measures with the kernel's own clocks.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use http::{HeaderMap, Method};
use quorumgate::router::{Asked, Table};
use rustix::time::{ClockId, clock_gettime};

const LOOKUPS: usize = 400_000;

fn main() {
    println!("{:>8}  {:>12}  {:>8}", "routes", "ns a lookup", "ratio");
    let mut first = None;
    for count in [10, 100, 1_000, 10_000] {
        let ns = nanoseconds(count);
        let first = *first.get_or_insert(ns);
        println!("{count:>8}  {ns:>12.0}  {:>8.2}", ns / first);
    }
}

/// Of one lookup among `count` routes.
fn nanoseconds(count: usize) -> f64 {
    let document = config::gateway::parse(&document(count)).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let table = Table::new(document.value.routes.iter().map(|route| (route, ())));
    let paths: Vec<String> = (0..count.max(64) * 2).map(|number| path(number % count, number)).collect();
    let headers = HeaderMap::new();
    let method = Method::GET;
    let mut found = 0;
    let begun = cpu();
    for number in 0..LOOKUPS {
        let asked = Asked {
            method: method.as_str(),
            host: "api.example",
            path: &paths[number % paths.len()],
            query: None,
            headers: &headers,
            address: [192, 0, 2, 9].into(),
        };
        found += usize::from(black_box(table.find(&asked, |_| true)).is_ok());
    }
    let took = cpu() - begun;
    assert!(found > LOOKUPS / 2 && found < LOOKUPS, "{found} of {LOOKUPS} found a route");
    took.as_nanos() as f64 / LOOKUPS as f64
}

/// This thread's.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.try_into().expect("after the start"),
        now.tv_nsec.try_into().expect("below a second"),
    )
}

fn document(count: usize) -> String {
    let mut text = "upstreams: {u: {endpoints: \"http://127.0.0.1:1\"}}\nroutes:\n".to_owned();
    for number in 0..count {
        let group = number / 10;
        let matches = match number % 10 {
            0 => format!("path: /g{group}"),
            1 => format!("path: {{exact: /g{group}/x}}"),
            2 => format!("path: {{template: '/g{group}/{{id}}'}}"),
            3 => format!("path: {{template: '/g{group}/{{id}}/{{rest*}}'}}"),
            // A document has at most 1000 of these.
            4 => format!("path: {{regex: '/g{group}/v[0-9]+/.*'}}"),
            5 => format!("path: /g{group}, hosts: ['*.h{}.example']", group % 7),
            6 => format!("path: /g{group}/x, methods: [PUT, POST]"),
            7 => format!("path: /g{group}, headers: {{x-stage: beta}}"),
            8 => format!("path: {{template: '/{{any}}/g{group}'}}"),
            _ => format!("path: /g{group}/x/y, sources: [10.0.0.0/8]"),
        };
        writeln!(text, "  - {{name: r{number}, match: {{{matches}}}, upstream: u, access: public}}")
            .expect("into a String");
    }
    text
}

fn path(number: usize, turn: usize) -> String {
    let group = number / 10;
    match turn % 8 {
        0 => format!("/g{group}"),
        1 => format!("/g{group}/x"),
        2 => format!("/g{group}/7"),
        3 => format!("/g{group}/7/8/9"),
        4 => format!("/g{group}/v1/a"),
        5 => format!("/g{group}/x/y"),
        6 => format!("/else/g{group}"),
        _ => format!("/nothing{group}"),
    }
}
