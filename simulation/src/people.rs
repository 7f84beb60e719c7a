//! The hosts that are no nodes: callers, upstreams, the operator. They tell the witness what they see.

pub mod caller;
pub mod operator;
pub mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster::world::UnixMs;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::http::uri;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorumgate::auth::mint::{Grant, mint};

use crate::edition::Pass;
use crate::event::{RequestNumber, Token};
use crate::host::HostNumber;
use crate::network::Network;
use crate::scene::Protocol;
use crate::shim::EPOCH_UNIX_S;

/// Where nodes meet.
pub const CLUSTER_PORT: u16 = 7101;
/// Where nodes serve.
pub const HTTP_PORT: u16 = 8101;
/// Where nodes hear operators.
pub const ADMIN_PORT: u16 = 9101;
/// Where upstreams serve.
pub const UPSTREAM_PORT: u16 = 8000;
/// Where nodes find the issuers' secret, beside their node file.
pub const SECRET_FILE: &str = "dev.secret";
/// The secret of all issuers.
pub const SECRET: &[u8] = b"a-simulated-secret-of-forty-bytes-or-so!";
const OTHER_SECRET: &[u8] = b"another-secret-that-the-nodes-do-not-know";
/// Where the gateway document is replaced, by one in its canonical form.
const DOCUMENT: &str = "/v1/document";
/// The request's name, in requests and in upstreams' answers.
pub const NUMBER: &str = "x-number";

/// What request `number` has for a body, and what its answer has: short, and now and then of several pieces.
fn content(number: RequestNumber) -> Bytes {
    let times = if number.is_multiple_of(16) { 2_000 } else { 2 };
    format!("{number};").repeat(times).into()
}

/// Whether requests with this method have a body.
fn has_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// A token of a tenant's client that is good where `pass` says; none: nothing is shown.
fn token(pass: Option<&Pass>, tenant: &str, client: &str, token: Token) -> Option<String> {
    let (secret, since_s) = match token {
        Token::None => return None,
        Token::Good => (SECRET, 0),
        Token::Forged => (OTHER_SECRET, 0),
        // Out of reach of any jump of a wall clock.
        Token::Expired => (SECRET, 90 * 86_400),
    };
    let Pass { kid, issuer, audience, scopes } = pass?;
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let (claims, lifetime) = (BTreeMap::new(), Duration::from_secs(2 * 86_400));
    let grant = Grant { kid, issuer, audience, tenant, client, scopes: &scopes, claims: &claims, lifetime };
    // A day old: a wall clock that jumps back does not make it one of the future.
    let minted = mint(secret, &grant, UnixMs((EPOCH_UNIX_S - 86_400 - since_s) * 1000));
    Some(minted.expect("the secrets are long enough"))
}

/// The nodes that should be members now. Clones share the list.
#[derive(Clone, Default)]
pub struct Standing(Arc<Mutex<BTreeSet<HostNumber>>>);

impl Standing {
    /// All of them, in ascending order.
    pub fn all(&self) -> Vec<HostNumber> {
        self.lock().iter().copied().collect()
    }

    /// The node of this number, 1 or more; once it has left, whoever stands in its place.
    pub fn named(&self, number: u8) -> HostNumber {
        let nodes = self.lock();
        let place = usize::from(number.max(1) - 1) % nodes.len().max(1);
        if nodes.contains(&number) {
            number
        } else {
            *nodes.iter().nth(place).expect("a cluster has members")
        }
    }

    /// Whether it is one.
    pub fn contains(&self, node: HostNumber) -> bool {
        self.lock().contains(&node)
    }

    /// One more.
    pub fn add(&self, node: HostNumber) {
        self.lock().insert(node);
    }

    /// One less. Whether it was one.
    pub fn remove(&self, node: HostNumber) -> bool {
        self.lock().remove(&node)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<HostNumber>> {
        self.0.lock().expect("no panic happens while the list is locked")
    }
}

/// Sends requests over one connection.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// A new connection.
async fn connect(
    network: &Network,
    from: HostNumber,
    to: HostNumber,
    port: u16,
    protocol: Protocol,
) -> Result<Sender, String> {
    let stream = TokioIo::new(network.connect(from, to, port).await.map_err(|e| e.to_string())?);
    match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(stream).await.map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            Ok(Sender::Http1(sender))
        }
        Protocol::Http2 => {
            let handshake = http2::handshake(TokioExecutor::new(), stream);
            let (sender, connection) = handshake.await.map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            Ok(Sender::Http2(sender))
        }
    }
}

/// One exchange over a connection.
async fn exchange(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
    let response = match sender {
        Sender::Http1(sender) => {
            sender.ready().await.map_err(|e| e.to_string())?;
            sender.send_request(request).await
        }
        Sender::Http2(sender) => {
            sender.ready().await.map_err(|e| e.to_string())?;
            sender.send_request(of_http2(request)).await
        }
    };
    let (head, body) = response.map_err(|e| e.to_string())?.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// The host stands in the target, and not in a field.
fn of_http2(request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let (mut head, body) = request.into_parts();
    if let Some(host) = head.headers.remove(header::HOST) {
        let mut parts = head.uri.into_parts();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = uri::Authority::try_from(host.as_bytes()).ok();
        head.uri = uri::Uri::from_parts(parts).expect("a scheme, a host and a path are a target");
    }
    Request::from_parts(head, body)
}

/// One call of a node's admin door over a connection of its own.
async fn ask_admin(
    network: &Network,
    from: HostNumber,
    node: HostNumber,
    method: Method,
    path: &str,
    body: &str,
    within: Duration,
) -> Result<(u16, String), String> {
    let call = async {
        let mut sender = connect(network, from, node, ADMIN_PORT, Protocol::Http1).await?;
        let mut request = Request::builder().method(method).uri(path).header("host", "admin.example");
        if path == DOCUMENT {
            request = request.header("content-type", quorumgate::admin::CANONICAL);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|e| e.to_string())?;
        let answer = exchange(&mut sender, request).await?;
        Ok((answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned()))
    };
    match tokio::time::timeout(within, call).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("node {node} did not answer {path} within {within:?}")),
    }
}
