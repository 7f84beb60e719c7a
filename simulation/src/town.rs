//! Who lives in the simulation: nodes, one upstream, one operator who is also a client.
//!
//! Hosts 1 to 5 are nodes, 8 is the upstream, 9 the operator. turmoil numbers hosts in the order they are made, so the
//! numbers that are not used are made too.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cluster::world::{Disk, UnixMs};
use config::node::NodeFile;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use quorumgate::auth::mint::{Grant, mint};

use crate::disk::SimDisk;
use crate::world::{host_name, world};
use crate::{shim, trace};

const UPSTREAM: u8 = 8;
const OPERATOR: u8 = 9;
const CLUSTER_PORT: u16 = 7101;
const HTTP_PORT: u16 = 8101;
const ADMIN_PORT: u16 = 9101;
/// A run that takes longer hangs.
const SIMULATED_MAX: Duration = Duration::from_secs(60);
const SECRET: &[u8] = b"a-simulated-secret-of-forty-bytes-or-so!";

const GATEWAY: &str = "
upstreams:
  echo: {endpoints: [\"http://127.0.0.8:8000\"]}
issuers:
  dev: {issuer: quorumgate-dev, audiences: [quorumgate], keys: [{kid: dev, algorithm: HS256, secret: {file: dev.secret}}]}
quotas:
  per-tenant: {key: tenant, limit: 5/min}
routes:
  - {name: orders, match: {path: /orders}, upstream: echo, access: {issuers: [dev], scopes: []}, quotas: [per-tenant]}
";

type Failure = Box<dyn std::error::Error>;

/// Runs one seed. Returns one line that says what clients saw.
///
/// # Errors
/// What did not happen, or what happened instead.
pub fn run(seed: u64, nodes: u8, trace_file: Option<&Path>) -> Result<String, Failure> {
    shim::activate(seed);
    let _trace = trace_file.map(trace::to_file).transpose()?;
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(shim::EPOCH_UNIX_S))
        .simulation_duration(SIMULATED_MAX)
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    for number in 1..UPSTREAM {
        let present = number <= nodes;
        let disk = SimDisk::default();
        disk.write(Path::new("/etc/dev.secret"), SECRET)?;
        let lives = Mutex::new(0_u64);
        sim.host(host_name(number), move || {
            let mut lives = lives.lock().expect("no panic happens while lives are locked");
            *lives += 1;
            let chance = seed ^ (u64::from(number) << 32) ^ (*lives << 40);
            let world = world(disk.clone(), chance);
            async move {
                if !present {
                    return std::future::pending().await;
                }
                let file = node_file(number, nodes)?;
                quorumgate::node::run(world, file, std::future::pending()).await.map_err(Failure::from)
            }
        });
    }
    sim.host(host_name(UPSTREAM), upstream);
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    sim.client(host_name(OPERATOR), operate(nodes, seen.clone()));
    loop {
        shim::set_now(sim.elapsed());
        if sim.step()? {
            break;
        }
    }
    let seen = seen.lock().expect("the operator has ended");
    Ok(format!("{nodes} nodes served {seen:?} in {} simulated ms", sim.elapsed().as_millis()))
}

fn node_file(number: u8, nodes: u8) -> Result<NodeFile, Failure> {
    let peers: String = (1..=nodes)
        .filter(|peer| *peer != number)
        .map(|peer| format!("    node-{peer}: 127.0.0.{peer}:{CLUSTER_PORT}\n"))
        .collect();
    let peers = if peers.is_empty() { String::new() } else { format!("  peers:\n{peers}") };
    let text = format!(
        "name: node-{number}\ndata: /data\ncluster:\n  listen: 127.0.0.{number}:{CLUSTER_PORT}\n  plaintext: true\n{peers}\
         http: {{listen: \"127.0.0.{number}:{HTTP_PORT}\", workers: 1}}\nadmin: {{listen: \"127.0.0.{number}:{ADMIN_PORT}\"}}\n"
    );
    let checked = config::node::parse(&text, Path::new("/etc"))
        .map_err(|mistakes| config::mistake::render("node file", &text, &mistakes))?;
    Ok(checked.value)
}

async fn upstream() -> Result<(), Failure> {
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", 8000)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<hyper::body::Incoming>| async move {
                tracing::info!(target: "upstream", method = %request.method(), uri = %request.uri(), "served");
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello\n"))))
            });
            // A gateway that goes away in the middle is what simulations are for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

/// Founds the cluster, applies the document, and asks every node in turn, three times and more often than the quota
/// allows: the last request left may be in the lease of a node that is not the next one to be asked.
async fn operate(nodes: u8, seen: Arc<Mutex<BTreeMap<u16, u64>>>) -> Result<(), Failure> {
    until(1, "/livez", |_| true).await?;
    call(1, ADMIN_PORT, Method::POST, "/v1/cluster/init", "", None).await?;
    for number in 1..=nodes {
        until(number, "/v1/status", |status| {
            let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            members.len() == usize::from(nodes) && members.iter().all(|member| member["voter"] == true)
        })
        .await?;
    }
    let (status, body) = call(1, ADMIN_PORT, Method::POST, "/v1/document", GATEWAY, None).await?;
    if status != 200 {
        return Err(format!("the document was not applied: {status} {body}").into());
    }
    for number in 1..=nodes {
        until(number, "/readyz", |readiness| readiness["status"] == "ready").await?;
    }
    let grant = Grant {
        kid: "dev",
        issuer: "quorumgate-dev",
        audience: "quorumgate",
        tenant: "acme",
        client: "operator",
        scopes: &[],
        lifetime: Duration::from_secs(3600),
    };
    let token = mint(SECRET, &grant, UnixMs(shim::EPOCH_UNIX_S * 1000))?;
    let asked = nodes.saturating_mul(3).max(6);
    for round in 0..asked {
        let node = round % nodes + 1;
        let (status, _) = call(node, HTTP_PORT, Method::GET, "/orders/1", "", Some(&token)).await?;
        tracing::info!(target: "client", node, status, "answered");
        *seen.lock().expect("no panic happens while it is locked").entry(status).or_default() += 1;
    }
    let (unauthenticated, _) = call(1, HTTP_PORT, Method::GET, "/orders/1", "", None).await?;
    let expected = BTreeMap::from([(200, 5), (429, u64::from(asked) - 5)]);
    let got = seen.lock().expect("no panic happens while it is locked").clone();
    if got != expected || unauthenticated != 401 {
        return Err(format!("wanted {expected:?} and 401, found {got:?} and {unauthenticated}").into());
    }
    Ok(())
}

/// Asks until the answer holds; the end of simulated time is the deadline.
async fn until(node: u8, path: &str, holds: impl Fn(&serde_json::Value) -> bool) -> Result<(), Failure> {
    loop {
        if let Ok((200, body)) = call(node, ADMIN_PORT, Method::GET, path, "", None).await
            && holds(&serde_json::from_str(&body).unwrap_or_default())
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn call(
    node: u8,
    port: u16,
    method: Method,
    path: &str,
    body: &str,
    token: Option<&str>,
) -> Result<(u16, String), Failure> {
    let exchange = async {
        let stream = turmoil::net::TcpStream::connect((host_name(node), port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "api.example");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
    };
    match tokio::time::timeout(Duration::from_secs(5), exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("node {node} did not answer {path} in time").into()),
    }
}
