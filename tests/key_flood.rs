//! Keys that cost nothing to mint: a flood of them harms no tenant beside it, and nothing of it stays.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use quorumgate::auth::mint::{Grant, mint};
use socket2::{Domain, Socket, Type};
use support::{AtEnd, Cluster, PATIENCE};

const DOCUMENT: &str = "
upstreams: {echo: {endpoints: [\"http://@UPSTREAM@\"], response_timeout: 5s}}
issuers:
  dev: {issuer: quorumgate-dev, audiences: [quorumgate], keys: [{kid: dev, algorithm: HS256, secret: {file: dev.secret}}]}
quotas:
  per-address: {key: address, limit: 5/s}
  per-client: {key: [tenant, client], limit: 5/s}
  per-tenant: {key: tenant, limit: 100/s}
routes:
  - {name: open, match: {path: /open}, upstream: echo, access: public, quotas: [per-address]}
  - {name: clients, match: {path: /clients}, upstream: echo, access: {issuers: [dev]}, quotas: [per-client]}
  - {name: normal, match: {path: /normal}, upstream: echo, access: {issuers: [dev]}, quotas: [per-tenant]}
";

/// A request from an address of its own.
fn from(address: Ipv4Addr, to: SocketAddr, path: &str, token: Option<&str>) -> std::io::Result<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(20))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = TcpStream::from(socket);
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n{token}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other(answer))
}

/// A gauge of a node.
fn gauge(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let metrics = cluster.admin(node, "/metrics").body;
    let line =
        metrics.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().expect("a whole number")
}

#[test]
fn a_flood_of_minted_keys_harms_no_tenant_and_leaves_nothing() {
    support::in_calm(|| {
        // given a cluster, and a tenant that sends ten requests a second to each node
        let cluster = Cluster::start(3, DOCUMENT);
        let normal = cluster.token("globex", &[]);
        let secret =
            std::fs::read_to_string(cluster.folder.path().join("dev.secret")).expect("it was written");
        let now = quorumgate::world::real().clock.wall();
        let (over, minted) = (AtomicBool::new(false), AtomicU32::new(0));
        let (seen, flooded) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let mut most = (0, 0);
        std::thread::scope(|scope| {
            let _end = AtEnd(|| over.store(true, SeqCst));
            for node in 0..3 {
                let (cluster, normal, over, seen) = (&cluster, &normal, &over, &seen);
                scope.spawn(move || {
                    while !over.load(SeqCst) {
                        let status = cluster.get(node, "/normal/1", Some(normal)).status;
                        seen.lock().expect("no panic").push(status);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                });
            }
            // when others send for six seconds or more, each request with an address or a client of its own
            for thread in 0..12 {
                let (cluster, over, minted, flooded, secret) = (&cluster, &over, &minted, &flooded, &secret);
                scope.spawn(move || {
                    while !over.load(SeqCst) {
                        let number = minted.fetch_add(1, SeqCst);
                        let to = cluster.nodes[number as usize % 3].http;
                        let [_, b, c, d] = number.to_be_bytes();
                        let status = if thread % 2 == 0 {
                            from(Ipv4Addr::new(127, 1 + b, c, 1 + d % 250), to, "/open/1", None)
                        } else {
                            let (client, lifetime) = (format!("client-{number}"), Duration::from_secs(600));
                            let (kid, issuer, audience, tenant) =
                                ("dev", "quorumgate-dev", "quorumgate", "acme");
                            let (scopes, claims) = (&[], &BTreeMap::new());
                            let grant = Grant {
                                kid,
                                issuer,
                                audience,
                                tenant,
                                client: &client,
                                scopes,
                                claims,
                                lifetime,
                            };
                            let token = mint(secret.trim().as_bytes(), &grant, now)
                                .expect("the secret is long enough");
                            from(Ipv4Addr::LOCALHOST, to, "/clients/1", Some(&token))
                        };
                        flooded.lock().expect("no panic").push(status.expect("the node answers"));
                    }
                });
            }
            let begun = Instant::now();
            let is_flood = |most: u64| most > 10 && flooded.lock().expect("no panic").len() > 100;
            while begun.elapsed() < Duration::from_secs(6)
                || (!is_flood(most.0) && begun.elapsed() < PATIENCE)
            {
                let cells =
                    (0..3).map(|node| gauge(&cluster, node, "quorumgate_lease_cells")).max().unwrap_or(0);
                most = (most.0.max(cells), most.1.max(gauge(&cluster, 0, "quorumgate_ledger_buckets")));
                std::thread::sleep(Duration::from_millis(200));
            }
            over.store(true, SeqCst);
        });
        let (seen, flooded) = (seen.into_inner().expect("no panic"), flooded.into_inner().expect("no panic"));
        println!(
            "{} minted keys; at most {} cells on a node, {} buckets in the ledger",
            flooded.len(),
            most.0,
            most.1
        );
        // then each minted key had its first token, and the tenant was never refused
        let good = |statuses: &[u16]| statuses.iter().filter(|status| **status == 200).count();
        println!("admitted {} of the flood, {} of {} of the tenant", good(&flooded), good(&seen), seen.len());
        assert!(flooded.len() > 100 && most.0 > 10, "this was no flood");
        assert!(!seen.contains(&429), "{seen:?}");
        // A stall of this machine may leave one undecided.
        assert!(good(&seen) * 100 >= seen.len() * 98, "{seen:?}");
        // and when it is over, the cells go first, and a few normal requests sweep the ledger
        let until = Instant::now() + PATIENCE;
        loop {
            let cells: Vec<u64> =
                (0..3).map(|node| gauge(&cluster, node, "quorumgate_lease_cells")).collect();
            let buckets = gauge(&cluster, 0, "quorumgate_ledger_buckets");
            if cells.iter().all(|cells| *cells <= 1) && buckets <= 1 {
                break;
            }
            assert!(Instant::now() < until, "{cells:?} cells, {buckets} buckets are left");
            (0..3).for_each(|node| drop(cluster.get(node, "/normal/1", Some(&normal))));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}
