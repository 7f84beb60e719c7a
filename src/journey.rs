//! Received in, answered out: the whole gateway as one function.
//!
//! ```text
//! Received -> Routed -> Screened -> Authenticated -> Admitted -> Answered
//!             router    quota       auth             quota       upstream, or direct
//! ```
//! Each arrow consumes what is on its left, or refuses. Whatever comes out, `response` turns it into an answer.

/// Who sent it.
pub mod caller;
/// What each step hands to the next.
pub mod evidence;
/// What hops before us say.
pub mod forwarded;
/// How old the view may be.
pub mod freshness;
/// A request as it was received.
pub mod received;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::warnings::Warnings;
use cluster::world::World;
use config::ids::{RouteName, UpstreamName};
use config::node::Limits;
use http::{HeaderValue, Method, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::auth::{Bearer, Tokens};
use crate::direct;
use crate::grpc;
use crate::quota::{Keeper, Standings};
use crate::refusal::{Fault, Refusal};
use crate::response::{self, AnswerBody};
use crate::telemetry::{Answer, Recorder};
use crate::upstream::body::ClientBody;
use crate::upstream::mirror::Mirrors;
use crate::upstream::pool::Pool;
use crate::upstream::rate::Credit;
use crate::upstream::trace;
use crate::upstream::{self, Outgoing, Reply};
use caller::Caller;
use evidence::{Admitted, Aim, Authenticated, RouteRule, Routed, Screened, Spent};
use freshness::Freshness;
use received::{Arrival, Received, RequestId, RequestIds};

/// The router's published table, as a request sees it.
pub trait Routes: Send + Sync {
    /// The route that takes this request. Reads an immutable table; never waits. Looks at the token only where a route wants
    /// claims of it. If none takes it and one might with a good token, which its is not, that one: it will refuse it, after
    /// it was counted.
    ///
    /// # Errors
    /// [`Refusal::NoConfiguration`], [`Refusal::NoRoute`] or [`Refusal::MethodNotAllowed`].
    fn find(&self, received: &Received, bearer: &mut Bearer<'_>) -> Result<Arc<RouteRule>, Refusal>;
}

/// One data-plane thread's doors to everything that a request meets.
pub struct Gateway {
    /// Clocks.
    pub world: World,
    /// The node file's.
    pub limits: Limits,
    /// The node file's `stamp_admissions`.
    pub stamp_admissions: bool,
    /// Where requests go.
    pub routes: Arc<dyn Routes>,
    /// How old the view is that they are served from.
    pub freshness: Arc<Freshness>,
    /// Whose tokens are good.
    pub tokens: Tokens,
    /// What is left of the quotas.
    pub keeper: Keeper,
    /// This thread's connections to upstreams.
    pub pool: Arc<Pool>,
    /// This thread's copies of requests.
    pub mirrors: Mirrors,
    /// This thread's figures.
    pub recorder: Arc<Recorder>,
    /// Of which refusals this thread warns.
    pub warnings: Mutex<Warnings>,
    /// This thread's request ids.
    pub ids: RequestIds,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

/// What became of a request that was not refused.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would cost each request an allocation"
)]
pub enum Answered {
    /// An upstream's answer.
    Upstream(Reply),
    /// Its route's own.
    Direct(Response<Bytes>),
}

/// One request, from received to its answer, or to the reason why there is none.
///
/// # Errors
/// The first step's refusal.
pub async fn journey(gateway: &Gateway, received: Received, trail: &mut Trail) -> Result<Answered, Refusal> {
    let routed = Routed::find(gateway, received)?;
    trail.routed(&routed);
    let screened = Screened::pass(gateway, routed).await?;
    trail.spent(screened.spent());
    let known = Authenticated::prove(gateway, screened)?;
    let admitted = Admitted::spend(gateway, known).await?;
    trail.admitted(gateway, &admitted);
    match admitted.aim() {
        Aim::Upstream(aimed) => {
            trail.upstream = Some(aimed.place());
            let mut outgoing = Outgoing::new(&gateway.world, gateway.stamp_admissions, aimed)?;
            gateway.mirrors.copy(&mut outgoing);
            upstream::forward(&gateway.pool, outgoing).await.map(Answered::Upstream)
        }
        Aim::Here(admitted) => direct::answer(&admitted).map(Answered::Direct),
    }
}

/// What answers, figures and logs tell of a request besides its outcome.
#[derive(Debug, Default)]
pub struct Trail {
    rule: Option<Arc<RouteRule>>,
    standings: Standings,
    /// Its place among the route's.
    upstream: Option<usize>,
    /// The content type of a gRPC call.
    grpc: Option<HeaderValue>,
    /// The trace that its client says it belongs to.
    trace: Option<u128>,
}

impl Trail {
    fn routed(&mut self, routed: &Routed) {
        self.rule = Some(routed.rule().clone());
    }

    fn route(&self) -> Option<&RouteName> {
        self.rule.as_ref().map(|rule| &rule.route.name)
    }

    /// The upstream that was chosen.
    fn upstream(&self) -> Option<&UpstreamName> {
        let (rule, place) = self.rule.as_ref().zip(self.upstream)?;
        Some(&rule.upstreams[place].name)
    }

    /// The same, where the route has several.
    fn branch(&self) -> Option<&UpstreamName> {
        self.upstream().filter(|_| self.rule.as_ref().is_some_and(|rule| rule.choice.is_some()))
    }

    fn spent(&mut self, spent: &Spent) {
        self.standings.extend(spent.admission.standings.iter().cloned());
    }

    fn admitted(&mut self, gateway: &Gateway, admitted: &Admitted) {
        gateway.recorder.admitted();
        let rule = admitted.rule();
        if let Some(lifecycle) = &rule.lifecycle {
            let now = gateway.world.clock.wall();
            gateway.recorder.called(&rule.route.name, &lifecycle.version, admitted.tenant(), now);
        }
        self.spent(admitted.spent());
    }
}

/// One request of a connection, answered. Never fails: what goes wrong is an answer, too.
pub async fn answer(
    gateway: &Gateway,
    caller: &Arc<Caller>,
    request: http::Request<Incoming>,
) -> Response<AnswerBody> {
    let arrival = Arrival { id: gateway.ids.next(), caller: caller.clone(), at: Instant::now() };
    gateway.recorder.received();
    let limits = &gateway.limits;
    let (parts, incoming) = request.into_parts();
    let method = parts.method.clone();
    // A call is refused with a 200, which would open a tunnel.
    let grpc = grpc::content_type(&parts.headers).filter(|_| method != Method::CONNECT).cloned();
    let credit = Credit::new(limits.body_rate_min);
    let (bytes_max, patience) = (limits.body_bytes_max, limits.body_idle_timeout);
    let body = ClientBody::new(incoming, parts.version, bytes_max, patience, credit);
    let mut trail = Trail { grpc, trace: trace::trace_id(&parts.headers), ..Trail::default() };
    let received = if parts.headers.len() > limits.headers_max {
        // Over HTTP/2; of HTTP/1.1, hyper reads no more.
        Err(Refusal::TooManyFields { fields_max: limits.headers_max })
    } else {
        Received::check(parts, body, arrival.clone(), limits.body_bytes_max)
    };
    let outcome = match received {
        Ok(received) => journey(gateway, received, &mut trail).await,
        Err(refusal) => Err(refusal),
    };
    finish(gateway, &arrival, &method, trail, outcome)
}

/// Answers, counts, logs.
fn finish(
    gateway: &Gateway,
    arrival: &Arrival,
    method: &Method,
    mut trail: Trail,
    outcome: Result<Answered, Refusal>,
) -> Response<AnswerBody> {
    let (mut response, upstream, refusal) = match outcome {
        Ok(answered) => {
            let (mut response, waited) = match answered {
                Answered::Upstream(reply) => {
                    let waited = reply.waited;
                    (response::reply(arrival.id, &trail.standings, reply), Some(waited))
                }
                Answered::Direct(own) => (response::direct(arrival.id, method, &trail.standings, own), None),
            };
            if let Some(rule) = &trail.rule {
                rule.response_edits().apply(response.headers_mut());
            }
            (response, waited, None)
        }
        Err(refusal) => {
            if let Refusal::OverQuota { violated, .. } = &refusal {
                trail.standings.extend(violated.iter().map(|violation| violation.standing.clone()));
            }
            let response = match trail.grpc.take() {
                Some(kind) => response::refuse_call(arrival.id, kind, &trail.standings, &refusal),
                None => response::refuse(arrival.id, method, &trail.standings, &refusal),
            };
            (response, None, Some(refusal))
        }
    };
    if let Some(lifecycle) = trail.rule.as_ref().and_then(|rule| rule.lifecycle.as_ref()) {
        lifecycle.mark(response.headers_mut());
    }
    // A refused call is a 200 on the wire; figures and logs tell it like any other refusal.
    let status = refusal.as_ref().map_or(response.status(), response::status).as_u16();
    let total = arrival.at.elapsed();
    let slug = refusal.as_ref().map(Refusal::slug);
    let (route, branch) = (trail.route(), trail.branch());
    gateway.recorder.answered(&Answer { route, branch, status, refusal: slug, total, upstream });
    log(gateway, arrival, method, &trail, status, total, refusal.as_ref());
    response
}

/// The access log, and now and then a warning where somebody else than the client has to act.
fn log(
    gateway: &Gateway,
    arrival: &Arrival,
    method: &Method,
    trail: &Trail,
    status: u16,
    total: Duration,
    refusal: Option<&Refusal>,
) {
    let (id, peer) = (arrival.id, arrival.caller.peer);
    let (route, upstream) =
        (trail.route().map_or("", RouteName::as_str), trail.upstream().map_or("", UpstreamName::as_str));
    let total_us = total.as_micros() as u64;
    let trace = RequestId(trail.trace.unwrap_or(id.0));
    let Some(refusal) = refusal else {
        debug!(%id, %trace, %peer, %method, route, upstream, status, total_us, "answered");
        return;
    };
    let reason = refusal.slug();
    let line = if refusal.fault() == Fault::Client {
        None
    } else {
        gateway.warnings.lock().line(reason, gateway.world.clock.boot())
    };
    match line {
        Some(unsaid) => {
            warn!(%id, %trace, %peer, %method, route, upstream, status, total_us, reason, %refusal, unsaid, "refused");
        }
        None => {
            debug!(%id, %trace, %peer, %method, route, upstream, status, total_us, reason, %refusal, "refused")
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
