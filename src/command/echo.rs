//! A small upstream for trying things: answers with what it was sent, and remembers stamped admissions.
//!
//! - `/slow?ms=N`, under any prefix: answers after N milliseconds (at most 60 000).
//! - `/status?code=N`, under any prefix: answers with that status.
//! - everything else: 200 with method, target and headers as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;

/// Admission instant in ns and cost in tokens.
pub type Stamp = (u64, u64);

/// A bucket as the gateway names it to a recording upstream: quota name, then key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketName {
    /// The quota's name.
    pub quota: String,
    /// The hashed key: `limit:tenant:value` in hexadecimal.
    pub key: String,
    /// The tenant of the forwarded token; empty without one.
    pub tenant: String,
}

/// Every admission that reached this upstream, also those whose answer was lost on the way back.
#[derive(Debug, Default)]
pub struct Recorder {
    inner: Mutex<Recorded>,
}

/// What was recorded.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Bucket → its admissions.
    pub admissions: BTreeMap<BucketName, Vec<Stamp>>,
    /// Admissions that found no place any more; a verdict is then impossible.
    pub dropped: u64,
    /// Requests that carried no admission.
    pub unstamped: u64,
    seen: BTreeSet<String>,
}

impl Recorder {
    /// The most admissions that are kept.
    pub const ADMISSIONS_MAX: usize = 4_000_000;

    /// A copy of everything recorded so far.
    pub fn recorded(&self) -> Recorded {
        self.inner.lock().clone()
    }

    fn record(&self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut inner = self.inner.lock();
        let (Some(at_ns), Some(charges)) =
            (text("quorumgate-admitted-ns").and_then(|value| value.parse().ok()), text("quorumgate-charges"))
        else {
            inner.unstamped += 1;
            return;
        };
        if inner.seen.len() >= Self::ADMISSIONS_MAX {
            inner.dropped += 1;
            return;
        }
        // A retried request carries the same id, and was admitted once.
        if let Some(id) = text("x-request-id")
            && !inner.seen.insert(format!("{id}/{at_ns}"))
        {
            return;
        }
        let tenant = text("authorization").and_then(tenant_of).unwrap_or_default();
        for charge in charges.split(',') {
            if let Some((bucket, cost)) = parse_charge(charge, &tenant) {
                inner.admissions.entry(bucket).or_default().push((at_ns, cost));
            }
        }
    }
}

/// The `tenant` claim of a bearer token that the gateway has verified before it forwarded it.
fn tenant_of(authorization: &str) -> Option<String> {
    let payload = authorization.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    Some(claims["tenant"].as_str()?.to_owned())
}

/// `name:limit:tenant:value:cost`.
fn parse_charge(text: &str, tenant: &str) -> Option<(BucketName, u64)> {
    let (bucket, cost) = text.trim().rsplit_once(':')?;
    let (quota, key) = bucket.split_once(':')?;
    Some((
        BucketName { quota: quota.to_owned(), key: key.to_owned(), tenant: tenant.to_owned() },
        cost.parse().ok()?,
    ))
}

/// Serves until dropped. Port 0 picks a free port.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn start(listen: SocketAddr, recorder: Arc<Recorder>) -> std::io::Result<Echo> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // Only throughput would notice Nagle's algorithm.
            let _ = stream.set_nodelay(true);
            let recorder = recorder.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, recorder.clone()));
                // A client that goes away in the middle is its own affair.
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(Echo { address, task })
}

/// A running echo upstream.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    recorder: Arc<Recorder>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    recorder.record(request.headers());
    let (head, body) = request.into_parts();
    let received = body.collect().await.map(|body| body.to_bytes().len()).unwrap_or(0);
    let number = |name: &str| -> Option<u64> {
        let pairs = head.uri.query()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
    };
    let path = head.uri.path();
    if path.ends_with("/slow") {
        tokio::time::sleep(Duration::from_millis(number("ms").unwrap_or(5_000).min(60_000))).await;
    }
    let status = match number("code") {
        Some(code) if path.ends_with("/status") => {
            u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok())
        }
        _ => None,
    };
    let headers: BTreeMap<&str, String> = head
        .headers
        .iter()
        // What a client is trusted with is not repeated on a terminal.
        .filter(|(name, _)| **name != hyper::header::AUTHORIZATION)
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let text = serde_json::json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "body_bytes": received,
        "headers": headers,
    });
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status.unwrap_or(StatusCode::OK);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(id: &str, charges: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("quorumgate-admitted-ns", HeaderValue::from_static("17"));
        headers.insert("quorumgate-charges", HeaderValue::from_str(charges).expect("ASCII"));
        headers.insert("x-request-id", HeaderValue::from_str(id).expect("ASCII"));
        headers
    }

    #[test]
    fn an_admission_counts_once_for_each_bucket_however_often_it_is_sent() {
        // given one admission to two buckets, sent twice
        let recorder = Recorder::default();
        recorder.record(&stamped("a", "per-tenant:1:2:3:1,hourly:4:0:5:2"));
        recorder.record(&stamped("a", "per-tenant:1:2:3:1,hourly:4:0:5:2"));
        // when it is read back, then each bucket has it once, with its cost
        let recorded = recorder.recorded();
        let costs: Vec<_> =
            recorded.admissions.iter().map(|(name, stamps)| (name.quota.as_str(), stamps.clone())).collect();
        assert_eq!(costs, [("hourly", vec![(17, 2)]), ("per-tenant", vec![(17, 1)])]);
    }

    #[test]
    fn a_request_without_a_stamp_is_counted_as_such() {
        let recorder = Recorder::default();
        recorder.record(&HeaderMap::new());
        assert_eq!(recorder.recorded().unstamped, 1);
    }
}
