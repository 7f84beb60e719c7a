//! Copies of requests, for another upstream. What becomes of one is counted, and nobody waits for it.
//!
//! A copy takes a permit before anything of it is made: so its body counts against the bound from its first byte, and
//! without a permit nothing happens but a count. It is sent once the request's body has gone by as a whole, on a task of its
//! own, over connections that only copies use; its deadline runs from the request's head. The permit is kept until both the
//! task and the bytes are gone.

use std::sync::Arc;

use bytes::Bytes;
use cluster::state::key::{Draw, Drawn, share};
use config::action::Mirror;
use config::ids::RouteName;
use config::upstream::{Protocol, Upstream};
use http::Request;
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::body::ClientBody;
use super::copying::{Copied, Copying};
use super::pool::Pool;
use super::{Content, Outgoing, forward, head};
use crate::journey::evidence::RouteRule;
use crate::journey::received::{Arrival, RequestId};
use crate::telemetry::Recorder;

/// Who gets copies of a route's requests, compiled.
#[derive(Debug)]
pub struct MirrorRule {
    mirror: Mirror,
    upstream: Arc<Upstream>,
    /// The cluster's.
    secret: [u8; 16],
}

impl MirrorRule {
    /// `upstream` is the mirror's.
    pub fn new(mirror: Mirror, upstream: Arc<Upstream>, secret: [u8; 16]) -> Self {
        Self { mirror, upstream, secret }
    }

    /// Whether this request is one of the share.
    fn takes(&self, route: &RouteName, id: RequestId) -> bool {
        // Numbers are drawn from the world's chance.
        self.mirror.share.holds(share(&self.secret, Draw::Mirror(route.as_str()), Drawn::Request(id.0)))
    }
}

/// One data-plane thread's copies.
#[derive(Debug)]
pub struct Mirrors {
    /// One permit a copy under way.
    free: Arc<Semaphore>,
    pool: Arc<Pool>,
    recorder: Arc<Recorder>,
}

impl Mirrors {
    /// At most `mirrors_max` at once.
    pub fn new(mirrors_max: u32, pool: Arc<Pool>, recorder: Arc<Recorder>) -> Self {
        Self { free: Arc::new(Semaphore::new(mirrors_max as usize)), pool, recorder }
    }

    /// Has a request copied that is about to be sent, if its route wants that.
    pub fn copy(&self, outgoing: &mut Outgoing) {
        let rule = Arc::clone(&outgoing.rule);
        let Some(mirror) = &rule.mirror else { return };
        // Of a switch of protocols nothing could be copied but its handshake.
        if outgoing.upgrade.is_some() || !mirror.takes(&rule.route.name, outgoing.arrival.id) {
            return;
        }
        match self.permit(mirror, outgoing.request.body()) {
            Err(why) => self.recorder.mirrored(&rule.route.name, why),
            Ok(permit) => {
                let permit = Arc::new(permit);
                let takes_trailers = outgoing.takes_trailers && mirror.upstream.protocol == Protocol::Http2;
                let parts = head::mirrored(&outgoing.request, takes_trailers);
                let body = outgoing.request.body_mut();
                let coming = (!body.is_empty()).then(|| {
                    let (copying, coming) = Copying::new(mirror.mirror.body_bytes_max, Arc::clone(&permit));
                    body.copy_to(copying);
                    coming
                });
                let (pool, recorder) = (Arc::clone(&self.pool), Arc::clone(&self.recorder));
                let copy = Copy { rule: Arc::clone(&rule), arrival: outgoing.arrival.clone(), parts };
                tokio::spawn(carry_out(pool, recorder, copy, coming, permit));
            }
        }
    }

    /// A permit for a copy, or why there will be none.
    fn permit(&self, mirror: &MirrorRule, body: &ClientBody) -> Result<OwnedSemaphorePermit, &'static str> {
        if body.size_hint().lower() > mirror.mirror.body_bytes_max {
            return Err("too-large");
        }
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| "busy")
    }
}

/// What is sent, but for its body.
struct Copy {
    rule: Arc<RouteRule>,
    arrival: Arrival,
    parts: Parts,
}

async fn carry_out(
    pool: Arc<Pool>,
    recorder: Arc<Recorder>,
    copy: Copy,
    coming: Option<oneshot::Receiver<Copied>>,
    _permit: Arc<OwnedSemaphorePermit>,
) {
    let Copy { rule, arrival, parts } = copy;
    let Some(mirror) = &rule.mirror else { return };
    let exchange = async {
        let bytes = match coming {
            None => Bytes::new(),
            Some(coming) => match coming.await {
                Ok(Copied::Whole(bytes)) => bytes,
                Ok(Copied::TooLarge) => return "too-large",
                Err(_) => return "incomplete",
            },
        };
        let request = Request::from_parts(parts, ClientBody::whole(bytes));
        match answered(&pool, &rule, mirror, arrival, request).await {
            Ok(class) => class,
            Err(why) => {
                let (route, upstream) = (rule.route.name.as_str(), mirror.upstream.name.as_str());
                debug!(route, upstream, why, "a copy failed");
                "failed"
            }
        }
    };
    let outcome = timeout(mirror.mirror.timeout, exchange).await.unwrap_or("slow");
    recorder.mirrored(&rule.route.name, outcome);
}

/// Sends a copy and throws its answer away; the answer's class.
async fn answered(
    pool: &Pool,
    rule: &Arc<RouteRule>,
    mirror: &MirrorRule,
    arrival: Arrival,
    request: Request<ClientBody>,
) -> Result<&'static str, String> {
    let outgoing = Outgoing::copied(Arc::clone(rule), Arc::clone(&mirror.upstream), arrival, request);
    let reply = forward(pool, outgoing).await.map_err(|refusal| refusal.to_string())?;
    let (parts, body) = reply.response.into_parts();
    let Content::Body(mut body) = body else {
        return Err("it switched protocols, which it was not asked to".to_owned());
    };
    while let Some(frame) = body.frame().await {
        frame.map_err(|fault| fault.to_string())?;
    }
    Ok(match parts.status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    })
}
