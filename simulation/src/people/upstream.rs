//! An upstream: tells what reached it, with what the gateway says of the admission, and answers as its mood is.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderName;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{NUMBER, UPSTREAM_PORT, content, has_body};
use crate::clock::{MachineClock, TrueNs};
use crate::event::{Charge, Event, RequestNumber};
use crate::host::{Ended, HostNumber};
use crate::network::{Network, SimListener, SimStream};
use crate::weather::Mood;
use crate::witness::Witness;

/// What an upstream needs.
#[derive(Clone)]
pub struct Upstream {
    pub host: HostNumber,
    pub name: Arc<str>,
    /// One port for each endpoint.
    pub endpoints: u16,
    /// Quotas that are paid before authentication.
    pub screens: Arc<BTreeSet<String>>,
    pub network: Network,
    pub witness: Witness,
    /// The moods that hold, the last first.
    pub moods: Arc<Mutex<Vec<Mood>>>,
    /// By node: admission instants are readings of its clock.
    pub clocks: BTreeMap<HostNumber, Arc<MachineClock>>,
}

impl Upstream {
    fn mood(&self) -> Option<Mood> {
        self.moods.lock().expect("no panic happens while moods are locked").last().copied()
    }

    /// Tells that a request is here, and yields its number.
    fn reached(&self, node: HostNumber, headers: &HeaderMap) -> RequestNumber {
        let number = text(headers, NUMBER).and_then(|number| number.parse().ok()).unwrap_or(u64::MAX);
        let charges = charges(headers, &self.screens, &self.clocks[&node]);
        self.witness.tell(Event::Reached { number, node, upstream: self.name.clone(), charges });
        number
    }
}

/// Serves for ever.
pub async fn serve(upstream: Upstream) -> Ended {
    let listen = |number| upstream.network.listen(upstream.host, UPSTREAM_PORT + number);
    let listeners = (0..upstream.endpoints).map(listen).collect::<Result<Vec<_>, _>>();
    let mut listeners = listeners.map_err(|error| cluster::fatal::Fatal::Setup(error.to_string()))?;
    let last = listeners.pop();
    for listener in listeners {
        tokio::spawn(accept(upstream.clone(), listener));
    }
    if let Some(listener) = last {
        accept(upstream, listener).await;
    }
    Ok(())
}

async fn accept(upstream: Upstream, listener: SimListener) {
    loop {
        let (stream, node, _) = listener.accept().await;
        tokio::spawn(connection(upstream.clone(), stream, node));
    }
}

async fn connection(upstream: Upstream, mut stream: SimStream, node: HostNumber) {
    match upstream.mood() {
        Some(Mood::Refuses) => return,
        Some(Mood::Garbage) => {
            // Nobody cares whether it is heard.
            let _ = stream.write_all(b"SPDY/9 over easy\r\n\r\n").await;
            return;
        }
        Some(mood @ (Mood::Doubles | Mood::Interim | Mood::Switches)) => {
            // A gateway that closes the connection is what it is for.
            let _ = by_hand(upstream, stream, node, mood).await;
            return;
        }
        _ => {}
    }
    let reset = Arc::new(tokio::sync::Notify::new());
    let told = reset.clone();
    let answer = service_fn(move |request| answer(upstream.clone(), node, told.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let served = builder.serve_connection(TokioIo::new(stream), answer);
    // A gateway that goes away in the middle is what simulations are for.
    tokio::select! {
        biased;
        () = reset.notified() => {}
        _ = served => {}
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    upstream: Upstream,
    node: HostNumber,
    reset: Arc<tokio::sync::Notify>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let number = upstream.reached(node, request.headers());
    let (head, body) = request.into_parts();
    let witness = upstream.witness.clone();
    let taken = async move {
        // A body that is cut off ends with an error.
        if let Ok(body) = body.collect().await
            && has_body(&head.method)
        {
            look(&witness, number, &body.to_bytes());
        }
    };
    // Some answer before they have read the body, or while it comes.
    if number.is_multiple_of(2) {
        taken.await;
    } else {
        tokio::spawn(taken);
    }
    let whole = Full::new(content(number)).boxed();
    let mut response = Response::builder().header(NUMBER, number);
    let body = match upstream.mood() {
        Some(Mood::Resets) => {
            reset.notify_one();
            std::future::pending::<()>().await;
            whole
        }
        Some(Mood::Hangs) => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            whole
        }
        Some(Mood::Fails) => {
            response = response.status(503);
            whole
        }
        // After the answer, without a word: the next request meets a closed connection, and one by hand after it.
        Some(Mood::Closes | Mood::Doubles | Mood::Interim | Mood::Switches) => {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(3)).await;
                reset.notify_one();
            });
            whole
        }
        Some(Mood::Trickles) => {
            let left = content(number);
            let piece = left.len().div_ceil(6);
            let bytes = futures_util::stream::unfold(left, move |mut left| async move {
                if left.is_empty() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
                let next = left.split_to(piece.min(left.len()));
                Some((Ok(Frame::data(next)), left))
            });
            BodyExt::boxed(StreamBody::new(bytes))
        }
        Some(Mood::Truncates) => {
            let all = content(number);
            if number.is_multiple_of(2) {
                response = response.header("content-length", all.len());
            }
            let half = all.slice(..all.len() / 2);
            let bytes = futures_util::stream::unfold(Some(half), move |half| {
                let reset = reset.clone();
                async move {
                    let Some(half) = half else {
                        tokio::time::sleep(Duration::from_millis(3)).await;
                        reset.notify_one();
                        return std::future::pending().await;
                    };
                    Some((Ok(Frame::data(half)), None))
                }
            });
            BodyExt::boxed(StreamBody::new(bytes))
        }
        Some(Mood::Refuses | Mood::Garbage) | None => whole,
    };
    Ok(response.body(body).expect("a well-formed response"))
}

/// Answers as no server should, and so without a library.
async fn by_hand(upstream: Upstream, mut stream: SimStream, node: HostNumber, mood: Mood) -> io::Result<()> {
    let mut came = Vec::new();
    loop {
        let head_bytes = loop {
            if let Some(at) = came.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut came).await? == 0 {
                return Ok(());
            }
        };
        if came.starts_with(b"PRI ") {
            // What is said to an HTTP/2 client makes no sense to it, whatever it is.
            return stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
        let headers = fields(&came[..head_bytes]);
        let number = upstream.reached(node, &headers);
        let body_bytes = text(&headers, "content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        while came.len() < head_bytes + body_bytes {
            if stream.read_buf(&mut came).await? == 0 {
                return Ok(());
            }
        }
        let rest = came.split_off(head_bytes + body_bytes);
        if body_bytes > 0 {
            look(&upstream.witness, number, &came[head_bytes..]);
        }
        came = rest;
        let answer = |number| {
            let body = content(number);
            let head =
                format!("HTTP/1.1 200 OK\r\n{NUMBER}: {number}\r\ncontent-length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        };
        let bytes = match mood {
            Mood::Doubles => [answer(number), answer(number + 1)].concat(),
            Mood::Interim => {
                let early = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
                [&early[..], b"HTTP/1.1 100 Continue\r\n\r\n", early, &answer(number)].concat()
            }
            _ => {
                let switch =
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                [&switch[..], &answer(number)].concat()
            }
        };
        stream.write_all(&bytes).await?;
    }
}

/// The fields of a head, which the gateway wrote.
fn fields(head: &[u8]) -> HeaderMap {
    let lines = std::str::from_utf8(head).unwrap_or_default().lines().skip(1);
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?))
    });
    pairs.collect()
}

/// Tells of a body that is not the one that was sent.
fn look(witness: &Witness, number: RequestNumber, body: &[u8]) {
    let wanted = content(number);
    if body != wanted {
        let found = format!("an upstream took {} bytes for the body, wanted {}", body.len(), wanted.len());
        witness.tell(Event::Garbled { number, found });
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What `quorumgate-charges` says, each with the instant at which it was paid.
fn charges(headers: &HeaderMap, screens: &BTreeSet<String>, clock: &MachineClock) -> Vec<Charge> {
    let instant = |name| text(headers, name).and_then(|ns| ns.parse().ok()).map(|ns| clock.true_at(ns));
    let admitted: TrueNs = instant("quorumgate-admitted-ns").unwrap_or(0);
    let screened = instant("quorumgate-screened-ns").unwrap_or(admitted);
    let all = text(headers, "quorumgate-charges").unwrap_or_default().split(',');
    let parsed = all.filter_map(|one| {
        let parts: Vec<&str> = one.split(':').collect();
        let [quota, limit, tenant, value, cost] = parts[..] else { return None };
        let at = if screens.contains(quota) { screened } else { admitted };
        let key = format!("{limit}:{tenant}:{value}");
        Some(Charge { quota: quota.to_owned(), key, cost: cost.parse().ok()?, at })
    });
    parsed.collect()
}
