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
/// How long a slow peer is waited for.
pub mod rate;
/// Connections that serve many requests at once.
mod shared;
/// Writes with a deadline.
pub mod stall;
/// Which trace a request belongs to.
pub mod trace;
/// Connections that have switched protocols.
pub mod tunnel;
/// Which protocol a client may switch to.
pub mod upgrade;
/// Bodies of requests on shared connections.
mod upload;
/// What of WebSocket's handshake no client over HTTP/2 does.
mod websocket;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use cluster::world::World;
use config::upstream::{Protocol, Upstream};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use body::{BodyFault, ClientBody, RequestEnd, UpstreamBody};
use pool::{Lease, Pool, Traffic};
use tunnel::{Origin, Tunnel};
use upgrade::Upgrade;
use upload::Upload;

use crate::grpc;
use crate::journey::evidence::{Aimed, RouteRule};
use crate::journey::received::Arrival;
use crate::refusal::Refusal;
use crate::router::paths;

/// An upstream's answer.
#[derive(Debug)]
pub struct Reply {
    /// Without fields that concern the connection.
    pub response: Response<Content>,
    /// From the first attempt until the response's head.
    pub waited: Duration,
}

/// What follows the head of an upstream's answer.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would cost each request an allocation"
)]
pub enum Content {
    /// Its body.
    Body(UpstreamBody),
    /// Another protocol.
    Tunnel(Box<Tunnel>),
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
    let Outgoing { rule, upstream, traffic, request, mut end, deadline, arrival, upgrade, .. } = outgoing;
    let upstream = &upstream;
    let host = rule.host.as_ref();
    // What is rare is boxed: every request would carry its size.
    let lease = match pool.idle(upstream, traffic) {
        Some(lease) => lease,
        None => Box::pin(within(deadline, upstream, pool.checkout(upstream, traffic, false))).await?,
    };
    let spare = Spare::of(&request, lease.reused);
    let (response, lease) = match exchange(upstream, host, lease, request, &mut end, deadline).await {
        Ok(got) => got,
        Err(lost) => {
            let request = lost.again(spare)?;
            let again = async {
                let lease = within(deadline, upstream, pool.checkout(upstream, traffic, true)).await?;
                exchange(upstream, host, lease, request, &mut end, deadline)
                    .await
                    .map_err(|lost| lost.refusal)
            };
            Box::pin(again).await?
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let origin = Origin::of(&arrival, &rule.route.name, &upstream.name);
        return Box::pin(switch(upstream, response, lease, upgrade, origin, begin)).await;
    }
    if upgrade.is_some_and(|upgrade| upgrade.is_of_stream()) && response.status().is_success() {
        // The client would take it for the tunnel's beginning.
        let why = "answered, and did not switch protocols".to_owned();
        return Err(Refusal::UpstreamBroken { upstream: upstream.name.clone(), why });
    }
    Ok(reply(upstream, response, lease, end, begin))
}

/// An admitted request as it goes to its upstream.
pub struct Outgoing {
    rule: Arc<RouteRule>,
    /// One of the route's, or its mirror.
    upstream: Arc<Upstream>,
    traffic: Traffic,
    request: Box<Request<ClientBody>>,
    end: RequestEnd,
    /// The route's, or a call's that comes sooner, and how long it was from the request's arrival.
    deadline: Option<(Instant, Duration)>,
    arrival: Arrival,
    /// The protocol that it asks for.
    upgrade: Option<Box<Upgrade>>,
    /// Whether its client reads trailers.
    takes_trailers: bool,
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
    /// [`Refusal::Malformed`], if the route makes a target of it that is too long; [`Refusal::NotSupported`], if a stream is
    /// to become a tunnel to where none can begin.
    pub fn new(world: &World, stamp: bool, aimed: Aimed) -> Result<Self, Refusal> {
        let (admitted, place) = aimed.into_parts();
        let (rule, flags) = (admitted.rule().clone(), admitted.flags());
        let (mut parts, mut body, arrival, spent) = admitted.into_parts();
        let upstream = &rule.upstreams[place];
        let takes_trailers = head::takes_trailers(&parts.headers);
        let patience = rule.route.timeout.unwrap_or(upstream.response_timeout);
        let sooner = grpc::timeout(&parts.headers).filter(|timeout| *timeout < patience);
        let nonce = || {
            let mut nonce = [0; websocket::NONCE_BYTES];
            world.chance.fill(&mut nonce);
            nonce
        };
        let upgrade = upgrade::asked(&mut parts, !body.is_empty(), &rule.route.upgrades, nonce).map(Box::new);
        let is_of_stream = upgrade.as_deref().is_some_and(Upgrade::is_of_stream);
        if is_of_stream && upstream.protocol == Protocol::Http2 {
            return Err(Refusal::NotSupported {
                what: "the service behind the gateway cannot switch protocols",
            });
        }
        head::prepare(&mut parts, &arrival, rule.route.prefix_to_strip());
        let new_path = rule.route.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        if let Some(new) = new_path {
            head::replace_path(&mut parts.uri, |path| paths::renewed(new, &rule.route.matches.path, path))?;
        }
        rule.request_edits().apply(&mut parts.headers);
        if takes_trailers && upstream.protocol == Protocol::Http2 {
            head::tell_trailers(&mut parts.headers);
        }
        if let Some(upgrade) = &upgrade {
            upgrade.ask(&mut parts.headers);
        }
        head::add_flags(&mut parts.headers, flags);
        if stamp {
            head::stamp(&mut parts.headers, [&spent[0], &spent[1]]);
        }
        let deadline = sooner.or(rule.route.timeout).map(|timeout| (arrival.at + timeout, timeout));
        if body.size_hint().exact().is_some() {
            // Nothing comes behind a body of a known length.
            parts.headers.remove(header::TRAILER);
        } else if upstream.protocol == Protocol::Http1 {
            // hyper would send a GET or HEAD without its body, whose length is not known, if it were not told how.
            parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if upstream.protocol == Protocol::Http2 && grpc::content_type(&parts.headers).is_some() {
            body.is_of_a_call();
        }
        let end = body.watch_end();
        let upstream = Arc::clone(upstream);
        let request = Box::new(Request::from_parts(parts, body));
        let traffic = Traffic::Requests;
        Ok(Self { rule, upstream, traffic, request, end, deadline, arrival, upgrade, takes_trailers })
    }

    /// The copy of another one, for `upstream`. It has no deadline but its sender's.
    fn copied(
        rule: Arc<RouteRule>,
        upstream: Arc<Upstream>,
        arrival: Arrival,
        mut request: Request<ClientBody>,
    ) -> Self {
        let end = request.body_mut().watch_end();
        let (traffic, request) = (Traffic::Copies, Box::new(request));
        let (deadline, upgrade, takes_trailers) = (None, None, false);
        Self { rule, upstream, traffic, request, end, deadline, arrival, upgrade, takes_trailers }
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
) -> Reply {
    let (mut parts, incoming) = response.into_parts();
    head::strip_hop_by_hop(&mut parts.headers);
    head::add_via(&mut parts.headers, parts.version);
    parts.version = Version::HTTP_11;
    let body = UpstreamBody::new(incoming, upstream.body_idle_timeout, lease, end);
    Reply { response: Response::from_parts(parts, Content::Body(body)), waited: begin.elapsed() }
}

/// The head that agrees to another protocol. Its connection leaves HTTP, and the pool.
///
/// - `asked`: what the upstream was asked for.
async fn switch(
    upstream: &Upstream,
    mut response: Response<Incoming>,
    lease: Lease,
    asked: Option<Box<Upgrade>>,
    origin: Origin,
    begin: Instant,
) -> Result<Reply, Refusal> {
    let broken = |why: String| Refusal::UpstreamBroken { upstream: upstream.name.clone(), why };
    let Some(upgrade) = asked else {
        return Err(broken("switched protocols without being asked".to_owned()));
    };
    upgrade.check(response.headers()).map_err(|why| broken(why.to_owned()))?;
    let stream = match timeout(upstream.connect_timeout, hyper::upgrade::on(&mut response)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(broken(error.to_string())),
        Err(_) => return Err(broken("its connection did not leave HTTP in time".to_owned())),
    };
    let (mut parts, _) = response.into_parts();
    head::strip_hop_by_hop(&mut parts.headers);
    head::add_via(&mut parts.headers, parts.version);
    parts.status = upgrade.tell(&mut parts.headers);
    let tunnel = Tunnel::new(stream, lease, upstream.tunnel_idle_timeout, origin);
    let response = Response::from_parts(parts, Content::Tunnel(Box::new(tunnel)));
    Ok(Reply { response, waited: begin.elapsed() })
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
    let host = host.cloned().or_else(|| lease.host());
    let lost = |refusal| Lost { refusal, unsent: None, ended_early: false };
    match (lease.speech(), host) {
        ((Protocol::Http1, _), Some(host)) => {
            request.headers_mut().insert(header::HOST, host);
        }
        ((Protocol::Http1, _), None) => {}
        ((Protocol::Http2, secured), host) => {
            let spoken = host.and_then(|host| head::speak_http2(&mut request, &host, secured));
            spoken.ok_or_else(|| lost(Refusal::Internal { why: "an endpoint that is no authority" }))?;
        }
    }
    let has_body = !request.body().is_empty();
    let mut sending = std::pin::pin!(lease.send(*request));
    let patience = upstream.response_timeout;
    // As long as one without a body would be waited for, if the connection never has room for it.
    let queued = async {
        if lease.upload().is_some() {
            tokio::time::sleep(patience).await;
        }
        if !lease.upload().is_some_and(Upload::is_queued) {
            std::future::pending().await
        }
    };
    let waited = async {
        if deadline.is_none() && has_body {
            // Until the request's last byte, silence on either side is bounded by the body's and the stream's deadlines.
            tokio::select! {
                biased;
                response = &mut sending => return Ok(response),
                () = end.wait() => {}
                () = queued => return Err(patience),
            }
            if lease.upload().is_some_and(Upload::is_given_up) {
                return Err(upstream.body_idle_timeout);
            }
        }
        let (at, waited) = deadline.unwrap_or_else(|| (Instant::now() + patience, patience));
        timeout_at(at, &mut sending).await.map_err(|_| waited)
    };
    let name = || upstream.name.clone();
    match waited.await {
        Ok(Ok(response)) => {
            if let Some(upload) = lease.upload() {
                upload.answered();
            }
            Ok((response, lease))
        }
        Ok(Err(mut failed)) => {
            if let Some(Err(fault)) = end.look() {
                return Err(lost(match fault {
                    BodyFault::TooLarge { bytes_max } => Refusal::BodyTooLarge { bytes_max },
                    BodyFault::Silent => Refusal::BodyTooSlow,
                    BodyFault::Malformed => Refusal::Malformed { why: "the body's chunks are malformed" },
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

/// Whether the other side had closed the connection, or says that it has not looked at the request.
fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(stream) = error.downcast_ref::<h2::Error>() {
            // A connection that the other side ends says which requests it has seen; those beyond end with its words.
            let unseen = stream.reason() == Some(h2::Reason::REFUSED_STREAM) || stream.is_go_away();
            return (unseen && stream.is_remote()) || stream.get_io().is_some_and(is_end);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return is_end(io);
        }
        source = error.source();
    }
    false
}

fn is_end(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
        ErrorKind::ConnectionAborted,
    ];
    kinds.contains(&error.kind())
}
