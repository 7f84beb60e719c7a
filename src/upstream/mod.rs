//! Admitted in, reply out: one exchange with an endpoint, bodies streamed both ways, each wait with a deadline.

/// Bodies on their way through.
pub mod body;
/// What of a head passes, and what is added.
pub mod head;
/// Connections.
pub mod pool;
/// Writes with a deadline.
pub mod stall;

use std::sync::Arc;
use std::time::Duration;

use config::upstream::Upstream;
use http::header;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use body::{BodyFault, ClientBody, RequestEnd, UpstreamBody};
use pool::{Lease, Pool};

use crate::journey::evidence::Admitted;
use crate::refusal::Refusal;

/// An upstream's answer.
#[derive(Debug)]
pub struct Reply {
    /// Without fields that concern the connection.
    pub response: Response<UpstreamBody>,
    /// From the first attempt until the response's head.
    pub waited: Duration,
}

/// Why an exchange yielded no head, and the request if it was never written.
struct Lost {
    refusal: Refusal,
    unsent: Option<Request<ClientBody>>,
    /// The connection ended before a byte of the response: what happens to an idle connection that the other side closed.
    ended_early: bool,
}

/// Sends an admitted request to its upstream and yields the response's head with the body still to come.
///
/// A connection that was idle may have been closed by the other side meanwhile. A request that was never written is then
/// sent once more over a new connection; one that was written only if it has no body and its method is idempotent.
///
/// # Errors
/// One of [`Refusal`]'s variants about upstreams, bodies, or overload.
pub async fn forward(pool: &Pool, stamp: bool, admitted: Admitted) -> Result<Reply, Refusal> {
    let begin = Instant::now();
    let rule = admitted.rule().clone();
    let upstream = &rule.upstream;
    let (mut parts, mut body, arrival, spent) = admitted.into_parts();
    head::prepare(&mut parts, &arrival, rule.route.strip_prefix.then_some(rule.route.matches.path.as_str()));
    if stamp {
        head::stamp(&mut parts.headers, [&spent[0], &spent[1]]);
    }
    let deadline = rule.route.timeout.map(|timeout| (arrival.at + timeout, timeout));
    let repeatable = body.is_empty() && head::is_idempotent(&parts.method);
    let mut end = body.watch_end();

    let lease = within(deadline, upstream, pool.checkout(upstream, false)).await?;
    let spare: Option<Parts> = (repeatable && lease.reused).then(|| parts.clone());
    let reused = lease.reused;
    let exchanged = exchange(upstream, lease, Request::from_parts(parts, body), &mut end, deadline).await;
    let (response, lease) = match exchanged {
        Ok(got) => got,
        Err(lost) => {
            let again = match (lost.unsent, spare) {
                (Some(unsent), _) if reused => Some(unsent),
                (None, Some(spare)) if lost.ended_early => {
                    Some(Request::from_parts(spare, ClientBody::empty()))
                }
                _ => None,
            };
            let Some(request) = again else { return Err(lost.refusal) };
            let lease = within(deadline, upstream, pool.checkout(upstream, true)).await?;
            exchange(upstream, lease, request, &mut end, deadline).await.map_err(|lost| lost.refusal)?
        }
    };
    let (mut parts, incoming) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let why = "switched protocols without being asked".to_owned();
        return Err(Refusal::UpstreamBroken { upstream: upstream.name.clone(), why });
    }
    head::strip_hop_by_hop(&mut parts.headers);
    head::add_via(&mut parts.headers);
    let body = UpstreamBody::new(incoming, upstream.body_idle_timeout, lease, end);
    Ok(Reply { response: Response::from_parts(parts, body), waited: begin.elapsed() })
}

/// The route's deadline over a step before the request is sent.
async fn within<T>(
    deadline: Option<(Instant, Duration)>,
    upstream: &Upstream,
    step: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match deadline {
        None => step.await,
        Some((at, waited)) => timeout_at(at, step)
            .await
            .unwrap_or_else(|_| Err(Refusal::UpstreamSlow { upstream: upstream.name.clone(), waited })),
    }
}

/// One attempt on one connection.
async fn exchange(
    upstream: &Arc<Upstream>,
    mut lease: Lease,
    mut request: Request<ClientBody>,
    end: &mut RequestEnd,
    deadline: Option<(Instant, Duration)>,
) -> Result<(Response<Incoming>, Lease), Lost> {
    if let Some(host) = lease.host() {
        request.headers_mut().insert(header::HOST, host);
    }
    let has_body = !request.body().is_empty();
    let mut sending = std::pin::pin!(lease.sender().try_send_request(request));
    let waited = async {
        if let Some((at, waited)) = deadline {
            return timeout_at(at, &mut sending).await.map_err(|_| waited);
        }
        if has_body {
            // Until the request's last byte, silence on either side is bounded by the body's and the stream's deadlines.
            tokio::select! {
                biased;
                response = &mut sending => return Ok(response),
                () = end.wait() => {}
            }
        }
        timeout(upstream.response_timeout, &mut sending).await.map_err(|_| upstream.response_timeout)
    };
    let lost = |refusal| Lost { refusal, unsent: None, ended_early: false };
    let name = || upstream.name.clone();
    match waited.await {
        Ok(Ok(response)) => Ok((response, lease)),
        Ok(Err(mut failed)) => {
            if let Some(Err(fault)) = end.look() {
                return Err(lost(match fault {
                    BodyFault::TooLarge { bytes_max } => Refusal::BodyTooLarge { bytes_max },
                    BodyFault::Silent => Refusal::BodyTooSlow,
                    BodyFault::Broken => Refusal::ClientGone,
                }));
            }
            let unsent = failed.take_message();
            let error = failed.into_error();
            let ended_early =
                error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_reset(&error);
            let endpoint = lease.endpoint();
            let why = format!("{}:{}: {error}", endpoint.host, endpoint.port);
            Err(Lost { refusal: Refusal::UpstreamBroken { upstream: name(), why }, unsent, ended_early })
        }
        Err(waited) => Err(lost(Refusal::UpstreamSlow { upstream: name(), waited })),
    }
}

/// Whether the other side had closed the connection.
fn is_reset(error: &hyper::Error) -> bool {
    use std::io::ErrorKind;
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let kinds = [
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
                ErrorKind::UnexpectedEof,
                ErrorKind::ConnectionAborted,
            ];
            return kinds.contains(&io.kind());
        }
        source = error.source();
    }
    false
}
