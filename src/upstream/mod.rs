//! Admitted in, reply out: one exchange with an endpoint, bodies streamed both ways, each wait with a deadline.

/// Bodies on their way through.
pub mod body;
/// Copies of bodies.
mod copying;
/// What of a head passes, and what is added.
pub mod head;
/// Copies of requests.
pub mod mirror;
/// Connections.
pub mod pool;
/// Writes with a deadline.
pub mod stall;

use std::sync::Arc;
use std::time::Duration;

use config::upstream::Upstream;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use body::{BodyFault, ClientBody, RequestEnd, UpstreamBody};
use pool::{Lease, Pool};

use crate::journey::evidence::{Aimed, RouteRule};
use crate::journey::received::RequestId;
use crate::refusal::Refusal;
use crate::router::paths;

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
    unsent: Option<Box<Request<ClientBody>>>,
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
pub async fn forward(pool: &Pool, outgoing: Outgoing) -> Result<Reply, Refusal> {
    let begin = Instant::now();
    let Outgoing { rule, upstream, request, mut end, deadline, .. } = outgoing;
    let upstream = &upstream;
    let host = rule.host.as_ref();
    // What is rare is boxed: every request would carry its size.
    let lease = match pool.idle(upstream) {
        Some(lease) => lease,
        None => Box::pin(within(deadline, upstream, pool.checkout(upstream, false))).await?,
    };
    let spare = Spare::of(&request, lease.reused);
    let (response, lease) = match exchange(upstream, host, lease, request, &mut end, deadline).await {
        Ok(got) => got,
        Err(lost) => {
            let request = lost.again(spare)?;
            let again = async {
                let lease = within(deadline, upstream, pool.checkout(upstream, true)).await?;
                exchange(upstream, host, lease, request, &mut end, deadline)
                    .await
                    .map_err(|lost| lost.refusal)
            };
            Box::pin(again).await?
        }
    };
    reply(upstream, response, lease, end, begin)
}

/// An admitted request as it goes to its upstream.
pub struct Outgoing {
    id: RequestId,
    rule: Arc<RouteRule>,
    /// One of the route's, or its mirror.
    upstream: Arc<Upstream>,
    request: Box<Request<ClientBody>>,
    end: RequestEnd,
    /// The route's, and how long it was from the request's arrival.
    deadline: Option<(Instant, Duration)>,
}

/// What to do if an idle connection turns out to be closed.
enum Spare {
    /// It was a new one: nothing.
    None,
    /// Send what was never written.
    Unsent,
    /// That, or the same head once more.
    Head(Box<Parts>),
}

impl Outgoing {
    /// Takes off what concerned the client's connection, and puts on what the upstream is told; `stamp`: also when it was
    /// admitted, and what paid.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], if the route makes a target of it that is too long.
    pub fn new(stamp: bool, aimed: Aimed) -> Result<Self, Refusal> {
        let (admitted, place) = aimed.into_parts();
        let (rule, flags) = (admitted.rule().clone(), admitted.flags());
        let (mut parts, mut body, arrival, spent) = admitted.into_parts();
        head::prepare(&mut parts, &arrival, rule.route.prefix_to_strip());
        let new_path = rule.route.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        if let Some(new) = new_path {
            head::replace_path(&mut parts.uri, |path| paths::renewed(new, &rule.route.matches.path, path))?;
        }
        rule.request_edits().apply(&mut parts.headers);
        head::add_flags(&mut parts.headers, flags);
        if stamp {
            head::stamp(&mut parts.headers, [&spent[0], &spent[1]]);
        }
        let deadline = rule.route.timeout.map(|timeout| (arrival.at + timeout, timeout));
        let end = body.watch_end();
        let (id, upstream) = (arrival.id, Arc::clone(&rule.upstreams[place]));
        let request = Box::new(Request::from_parts(parts, body));
        Ok(Self { id, rule, upstream, request, end, deadline })
    }

    /// The copy of another one, for `upstream`. It has no deadline but its sender's.
    fn copied(rule: Arc<RouteRule>, upstream: Arc<Upstream>, mut request: Request<ClientBody>) -> Self {
        let end = request.body_mut().watch_end();
        Self { id: RequestId(0), rule, upstream, request: Box::new(request), end, deadline: None }
    }
}

impl Spare {
    fn of(request: &Request<ClientBody>, reused: bool) -> Self {
        if !reused {
            return Self::None;
        }
        if !request.body().is_empty() || !head::is_idempotent(request.method()) {
            return Self::Unsent;
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method.clone_from(request.method());
        parts.uri.clone_from(request.uri());
        parts.headers.clone_from(request.headers());
        Self::Head(Box::new(parts))
    }
}

impl Lost {
    /// The request to send again over a new connection.
    fn again(self, spare: Spare) -> Result<Box<Request<ClientBody>>, Refusal> {
        match (self.unsent, spare) {
            (Some(unsent), Spare::Unsent | Spare::Head(_)) => Ok(unsent),
            (None, Spare::Head(parts)) if self.ended_early => {
                Ok(Box::new(Request::from_parts(*parts, ClientBody::empty())))
            }
            _ => Err(self.refusal),
        }
    }
}

/// The response's head as it passes, its body still to come.
fn reply(
    upstream: &Upstream,
    response: Response<Incoming>,
    lease: Lease,
    end: RequestEnd,
    begin: Instant,
) -> Result<Reply, Refusal> {
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
    host: Option<&HeaderValue>,
    mut lease: Lease,
    mut request: Box<Request<ClientBody>>,
    end: &mut RequestEnd,
    deadline: Option<(Instant, Duration)>,
) -> Result<(Response<Incoming>, Lease), Lost> {
    if let Some(host) = host.cloned().or_else(|| lease.host()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let has_body = !request.body().is_empty();
    let mut sending = std::pin::pin!(lease.sender().try_send_request(*request));
    let waited = async {
        if deadline.is_none() && has_body {
            // Until the request's last byte, silence on either side is bounded by the body's and the stream's deadlines.
            tokio::select! {
                biased;
                response = &mut sending => return Ok(response),
                () = end.wait() => {}
            }
        }
        let patience = upstream.response_timeout;
        let (at, waited) = deadline.unwrap_or_else(|| (Instant::now() + patience, patience));
        timeout_at(at, &mut sending).await.map_err(|_| waited)
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
            let unsent = failed.take_message().map(Box::new);
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
