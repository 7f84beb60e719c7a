//! An upstream: tells what reached it, with what the gateway says of the admission, and answers as its mood is.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::{NUMBER, UPSTREAM_PORT};
use crate::clock::{MachineClock, TrueNs};
use crate::event::{Charge, Event};
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
        _ => {}
    }
    let reset = Arc::new(tokio::sync::Notify::new());
    let told = reset.clone();
    let answer = service_fn(move |request| answer(upstream.clone(), node, told.clone(), request));
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
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
    let headers = request.headers().clone();
    let number = text(&headers, NUMBER).and_then(|number| number.parse().ok()).unwrap_or(u64::MAX);
    let charges = charges(&headers, &upstream.screens, &upstream.clocks[&node]);
    upstream.witness.tell(Event::Reached { number, node, upstream: upstream.name.clone(), charges });
    let whole = Full::new(Bytes::from_static(b"hello\n")).boxed();
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
        Some(Mood::Closes) => {
            // After the answer, without a word: the next request meets a closed connection.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(3)).await;
                reset.notify_one();
            });
            whole
        }
        Some(Mood::Trickles) => {
            let bytes = futures_util::stream::unfold(0_u32, |sent| async move {
                if sent == 6 {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
                Some((Ok(Frame::data(Bytes::from_static(b"x"))), sent + 1))
            });
            BodyExt::boxed(StreamBody::new(bytes))
        }
        Some(Mood::Refuses | Mood::Garbage) | None => whole,
    };
    Ok(response.body(body).expect("a well-formed response"))
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
