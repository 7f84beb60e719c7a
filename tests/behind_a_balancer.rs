//! A node behind a balancer believes whom its file names, and nobody else: who asks is then not who connects.
#![allow(clippy::disallowed_methods)] // Clients of the test's own.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use support::{Cluster, PATIENCE};

const GATEWAY: &str = "
upstreams: {echo: {endpoints: [\"http://@UPSTREAM@\"]}}
quotas: {by-address: {key: address, limit: {rate: 1/h, burst: 2}}}
routes:
  - {name: open, match: {path: /open}, upstream: echo, access: public}
  - {name: inner, match: {path: /inner, sources: [10.0.0.0/8]}, upstream: echo, access: public}
  - {name: few, match: {path: /few}, upstream: echo, access: public, quotas: [by-address]}
";
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// What comes back on a connection from `from` on which `bytes` are said.
fn ask(cluster: &Cluster, from: Ipv4Addr, bytes: &[u8]) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("all of 127.0.0.0/8 is here");
    socket.connect(&cluster.nodes[0].http.into()).expect("the node listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(bytes).expect("the node takes it");
    let mut answer = Vec::new();
    // A connection that is reset has said what it had to say.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, forwarded_for: &str) -> Vec<u8> {
    let field = if forwarded_for.is_empty() {
        String::new()
    } else {
        format!("x-forwarded-for: {forwarded_for}\r\n")
    };
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{field}\r\n").into_bytes()
}

/// What the upstream was told of who asks.
fn told(answer: &str) -> &str {
    let (_, rest) =
        answer.split_once("x-forwarded-for: ").unwrap_or_else(|| panic!("no such field in {answer}"));
    rest.split("\\r\\n").next().unwrap_or_default()
}

#[test]
fn who_asks_is_whom_those_say_who_are_believed() {
    support::in_calm(|| {
        let of_http = ", trusted_proxies: [127.0.0.2/32], proxy_protocol: {from: [127.0.0.3/32]}";
        let cluster = Cluster::start_behind(1, GATEWAY, of_http, "");
        // a stranger speaks for nobody, a proxy for its clients
        assert_eq!(told(&ask(&cluster, STRANGER, &get("/open", "10.1.1.1"))), "127.0.0.1");
        assert_eq!(told(&ask(&cluster, PROXY, &get("/open", "10.1.1.1"))), "10.1.1.1, 127.0.0.2");
        // routes by source go by the client, as far as it is known
        assert!(ask(&cluster, STRANGER, &get("/inner", "10.1.1.1")).starts_with("HTTP/1.1 404"));
        assert!(ask(&cluster, PROXY, &get("/inner", "10.1.1.1")).starts_with("HTTP/1.1 200"));
        assert!(ask(&cluster, PROXY, &get("/inner", "10.1.1.1, 192.0.2.7")).starts_with("HTTP/1.1 404"));
        // and so do quotas
        let statuses =
            |address: &str| [(); 3].map(|()| ask(&cluster, PROXY, &get("/few", address))[9..12].to_owned());
        assert_eq!(statuses("192.0.2.7"), ["200", "200", "429"]);
        assert_eq!(statuses("192.0.2.8"), ["200", "200", "429"]);
        // a balancer says whose bytes it passes on, in either version
        let first =
            [b"PROXY TCP4 192.0.2.9 127.0.0.1 4000 80\r\n".as_slice(), &get("/open", "10.1.1.1")].concat();
        assert_eq!(told(&ask(&cluster, BALANCER, &first)), "192.0.2.9");
        let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        second.extend([192, 0, 2, 10, 127, 0, 0, 1, 0x0f, 0xa0, 0, 80]);
        second.extend(get("/open", ""));
        assert_eq!(told(&ask(&cluster, BALANCER, &second)), "192.0.2.10");
        // it has to say so, and nobody else can
        assert_eq!(ask(&cluster, BALANCER, &get("/open", "")), "");
        assert!(ask(&cluster, STRANGER, &first).starts_with("HTTP/1.1 400"));
    });
}
