//! Reply or refusal in, answered out. The only file that picks status codes.
//!
//! Refusals are problem details (RFC 9457). `RateLimit` and `RateLimit-Policy` are those of
//! draft-ietf-httpapi-ratelimit-headers-10, and so is the member `violated-policies`. Their figures are estimates; only the
//! decision is exact.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::action::Respond;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::json;

use crate::auth::AuthRefusal;
use crate::fields;
use crate::grpc::{self, Code};
use crate::journey::received::{RequestId, X_REQUEST_ID};
use crate::quota::{QuotaRule, Standing};
use crate::refusal::Refusal;
use crate::upstream::body::{BodyFault, UpstreamBody};
use crate::upstream::tunnel::Tunnel;
use crate::upstream::{Content, Reply};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What `WWW-Authenticate` calls everything behind this gateway.
const REALM: &str = "quorumgate";

/// The body of an answer.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would cost each request an allocation"
)]
pub enum AnswerBody {
    /// Streamed from the upstream.
    Upstream(UpstreamBody),
    /// Our own; none: empty, or sent.
    Ours(Option<Bytes>),
    /// None: HTTP ends here. The connection takes the tunnel, and drives it.
    Tunnel(Option<Box<Tunnel>>),
}

impl AnswerBody {
    /// The tunnel that this answer begins.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        match self {
            Self::Tunnel(tunnel) => tunnel.take(),
            Self::Upstream(_) | Self::Ours(_) => None,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Ours(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(body) => body.is_end_stream(),
            Self::Ours(bytes) => bytes.is_none(),
            Self::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body) => body.size_hint(),
            Self::Ours(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

/// An upstream's reply as the client gets it.
pub fn reply(id: RequestId, standings: &[Standing], reply: Reply) -> Response<AnswerBody> {
    let mut response = reply.response.map(|content| match content {
        Content::Body(body) => AnswerBody::Upstream(body),
        Content::Tunnel(tunnel) => AnswerBody::Tunnel(Some(tunnel)),
    });
    mark(response.headers_mut(), id, standings);
    response
}

/// A route's own answer as the client gets it.
pub fn direct(
    id: RequestId,
    method: &Method,
    standings: &[Standing],
    own: Response<Bytes>,
) -> Response<AnswerBody> {
    let (mut parts, text) = own.into_parts();
    if !Respond::BODILESS.contains(&parts.status.as_u16()) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    }
    mark(&mut parts.headers, id, standings);
    // The answer to HEAD has the fields of the answer to GET, and no body.
    let body = (*method != Method::HEAD && !text.is_empty()).then_some(text);
    Response::from_parts(parts, AnswerBody::Ours(body))
}

/// A refusal as the client gets it.
pub fn refuse(
    id: RequestId,
    method: &Method,
    standings: &[Standing],
    refusal: &Refusal,
) -> Response<AnswerBody> {
    let status = status(refusal);
    let mut problem = json!({
        "type": format!("urn:quorumgate:problem:{}", refusal.slug()),
        "title": title(refusal),
        "status": status.as_u16(),
    });
    if let Some(detail) = detail(refusal) {
        problem["detail"] = detail.into();
    }
    if let Refusal::OverQuota { violated, .. } = refusal {
        problem["violated-policies"] = names(violated.iter().map(|violation| &violation.standing.quota));
    }
    if let Refusal::TooManyKeys { quota, .. } = refusal {
        problem["violated-policies"] = names([quota]);
    }
    if let Refusal::QuotaUndecided { quotas, .. } = refusal {
        problem["undecided-policies"] = names(quotas);
    }
    let text = Bytes::from(problem.to_string());
    let length = HeaderValue::from(text.len());
    // The answer to HEAD has the fields of the answer to GET, and no body.
    let body = (*method != Method::HEAD).then_some(text);
    let mut response = Response::new(AnswerBody::Ours(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    explain(headers, refusal);
    mark(headers, id, standings);
    response
}

/// A refusal as the client of a gRPC call gets it: an answer of trailers alone, which HTTP/2 writes as a head.
///
/// - `kind`: the call's content type.
pub fn refuse_call(
    id: RequestId,
    kind: HeaderValue,
    standings: &[Standing],
    refusal: &Refusal,
) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Ours(None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(grpc::GRPC_STATUS, HeaderValue::from(code(refusal) as u16));
    let words = match detail(refusal) {
        Some(detail) => Cow::from(format!("{}: {detail}", title(refusal))),
        None => title(refusal).into(),
    };
    if let Some(words) = grpc::message(&words) {
        headers.insert(grpc::GRPC_MESSAGE, words);
    }
    explain(headers, refusal);
    mark(headers, id, standings);
    response
}

/// The same for gRPC.
fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::ClientGone => Code::Cancelled,
        Refusal::BodyTooSlow | Refusal::UpstreamSlow { .. } => Code::DeadlineExceeded,
        Refusal::Auth(refusal) if refusal.is_forbidden() => Code::PermissionDenied,
        Refusal::Auth(_) => Code::Unauthenticated,
        Refusal::TooManyFields { .. }
        | Refusal::BodyTooLarge { .. }
        | Refusal::OverQuota { .. }
        | Refusal::TooManyKeys { .. } => Code::ResourceExhausted,
        Refusal::NotSupported { .. }
        | Refusal::ExpectationFailed
        | Refusal::NoRoute { .. }
        | Refusal::NoPartition
        | Refusal::VersionGone { .. }
        | Refusal::MethodNotAllowed { .. } => Code::Unimplemented,
        Refusal::NoConfiguration
        | Refusal::StaleView
        | Refusal::QuotaUndecided { .. }
        | Refusal::Overloaded { .. }
        | Refusal::UpstreamUnreachable { .. }
        | Refusal::UpstreamBroken { .. } => Code::Unavailable,
        Refusal::Malformed { .. } | Refusal::Internal { .. } => Code::Internal,
    }
}

/// One place, one table.
pub fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Malformed { .. } => StatusCode::BAD_REQUEST,
        Refusal::TooManyFields { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Refusal::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::BodyTooSlow | Refusal::ClientGone => StatusCode::REQUEST_TIMEOUT,
        Refusal::NotSupported { .. } => StatusCode::NOT_IMPLEMENTED,
        Refusal::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
        Refusal::NoConfiguration
        | Refusal::StaleView
        | Refusal::QuotaUndecided { .. }
        | Refusal::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::NoRoute { .. } | Refusal::NoPartition => StatusCode::NOT_FOUND,
        Refusal::VersionGone { .. } => StatusCode::GONE,
        Refusal::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        Refusal::Auth(refusal) if refusal.is_forbidden() => StatusCode::FORBIDDEN,
        Refusal::Auth(_) => StatusCode::UNAUTHORIZED,
        Refusal::OverQuota { .. } | Refusal::TooManyKeys { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::UpstreamUnreachable { .. } | Refusal::UpstreamBroken { .. } => StatusCode::BAD_GATEWAY,
        Refusal::UpstreamSlow { .. } => StatusCode::GATEWAY_TIMEOUT,
        Refusal::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The same words for every occurrence of a problem.
fn title(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed { .. } => "The request is malformed",
        Refusal::TooManyFields { .. } => "The request has too many fields",
        Refusal::BodyTooLarge { .. } => "The request's body is too large",
        Refusal::BodyTooSlow | Refusal::ClientGone => "The request's body did not arrive in time",
        Refusal::ExpectationFailed => "The gateway cannot meet the expectation",
        Refusal::NotSupported { .. } => "The gateway does not support this",
        Refusal::NoConfiguration => "The gateway has no configuration yet",
        Refusal::StaleView => "The gateway has lost contact with its cluster",
        Refusal::NoRoute { .. } => "There is nothing here",
        Refusal::VersionGone { .. } => "This version is gone",
        Refusal::NoPartition => "Nothing here holds what the request is about",
        Refusal::MethodNotAllowed { .. } => "The method is not allowed here",
        Refusal::Auth(AuthRefusal::Missing) => "A bearer token is needed",
        Refusal::Auth(refusal) if refusal.is_forbidden() => "The bearer token grants too little",
        Refusal::Auth(_) => "The bearer token is not valid",
        Refusal::OverQuota { .. } => "The quota is used up",
        Refusal::QuotaUndecided { .. } => "Nobody could say in time whether the quota allows it",
        Refusal::TooManyKeys { .. } => "A quota counts as many callers as it can, and this one is new to it",
        Refusal::Overloaded { .. } => "The gateway is overloaded",
        Refusal::UpstreamUnreachable { .. } => "The service behind the gateway cannot be reached",
        Refusal::UpstreamBroken { .. } => "The service behind the gateway gave no valid response",
        Refusal::UpstreamSlow { .. } => "The service behind the gateway did not respond in time",
        Refusal::Internal { .. } => "The gateway failed",
    }
}

/// What the client may know of this occurrence. Never an address, a name of ours, or a library's words.
fn detail(refusal: &Refusal) -> Option<Cow<'static, str>> {
    match refusal {
        Refusal::Malformed { why } => Some((*why).into()),
        Refusal::NotSupported { what } => Some((*what).into()),
        Refusal::TooManyFields { fields_max } => {
            Some(format!("at most {fields_max} fields are taken").into())
        }
        Refusal::BodyTooLarge { bytes_max } => Some(format!("at most {bytes_max} bytes are taken").into()),
        Refusal::VersionGone { version } => Some(format!("version {version} has ended").into()),
        Refusal::Auth(refusal) => Some(refusal.client_text()),
        _ => None,
    }
}

/// The fields that belong to a status.
fn explain(headers: &mut HeaderMap, refusal: &Refusal) {
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    match refusal {
        Refusal::Auth(refusal) => {
            let mut challenge = format!("Bearer realm=\"{REALM}\"");
            if let Some(error) = refusal.oauth_error() {
                write!(challenge, ", error=\"{error}\"").expect("writing to a String cannot fail");
            }
            if let AuthRefusal::InsufficientScope { needed } = refusal {
                write!(challenge, ", scope=\"{}\"", needed.join(" "))
                    .expect("writing to a String cannot fail");
            }
            put(header::WWW_AUTHENTICATE, challenge);
        }
        Refusal::MethodNotAllowed { allowed, .. } => put(header::ALLOW, allowed.join(", ")),
        Refusal::OverQuota { retry_after, .. }
        | Refusal::QuotaUndecided { retry_after, .. }
        | Refusal::TooManyKeys { retry_after, .. } => {
            put(header::RETRY_AFTER, whole_seconds(*retry_after).to_string())
        }
        Refusal::NoConfiguration | Refusal::StaleView | Refusal::Overloaded { .. } => {
            put(header::RETRY_AFTER, "1".to_owned())
        }
        // What is left of the request is not read: the connection cannot go on.
        Refusal::BodyTooLarge { .. } | Refusal::BodyTooSlow | Refusal::ClientGone => {
            put(header::CONNECTION, "close".to_owned());
        }
        _ => {}
    }
}

/// What every answer carries.
fn mark(headers: &mut HeaderMap, id: RequestId, standings: &[Standing]) {
    headers.insert(X_REQUEST_ID, id.field());
    if standings.is_empty() {
        return;
    }
    // A quota's name is plain ASCII without quotes, so both are structured field lists.
    let limit = listed(standings, |text, standing| {
        write!(text, "\"{}\";r={}", standing.quota.name.as_str(), standing.left)?;
        if standing.left > 0 { Ok(()) } else { write!(text, ";t={}", standing.reset_s.max(1)) }
    });
    let policy = listed(standings, |text, standing| {
        let (name, q, w) = (standing.quota.name.as_str(), standing.limit.burst, window_s(standing));
        write!(text, "\"{name}\";q={q};w={w}")
    });
    if let (Some(limit), Some(policy)) = (limit, policy) {
        headers.insert(RATE_LIMIT, limit);
        headers.insert(RATE_LIMIT_POLICY, policy);
    }
}

/// One item a standing, comma separated.
fn listed(
    standings: &[Standing],
    item: impl Fn(&mut BytesMut, &Standing) -> std::fmt::Result,
) -> Option<HeaderValue> {
    fields::value(|text| {
        for (place, standing) in standings.iter().enumerate() {
            if place > 0 {
                text.write_str(", ")?;
            }
            item(text, standing)?;
        }
        Ok(())
    })
}

/// Seconds in which an empty bucket is full again, rounded up.
fn window_s(standing: &Standing) -> u64 {
    let limit = standing.limit;
    let ns = (u128::from(limit.burst) * u128::from(limit.per_ns)).div_ceil(u128::from(limit.tokens.max(1)));
    u64::try_from(ns.div_ceil(1_000_000_000)).unwrap_or(u64::MAX).max(1)
}

/// Rounded up, and never 0: a client that waits so long does not come too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn names<'a>(quotas: impl IntoIterator<Item = &'a Arc<QuotaRule>>) -> serde_json::Value {
    quotas.into_iter().map(|quota| quota.name.as_str()).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use cluster::state::ids::LimitId;
    use config::ids::QuotaName;
    use config::quota::{Limit, OnQuorumLoss};

    use super::*;
    use crate::quota::Violation;

    fn standing(name: &str, limit: Limit, left: u64, reset_s: u64) -> Standing {
        let name = QuotaName::parse(name).expect("a good name");
        let (limit_id, on_quorum_loss) = (LimitId(1), OnQuorumLoss::Deny);
        Standing {
            quota: Arc::new(QuotaRule { name, limit_id, wait: None, on_quorum_loss, limit }),
            limit,
            left,
            reset_s,
        }
    }

    fn refused(method: &Method, refusal: &Refusal) -> (Response<()>, String) {
        let (parts, body) = refuse(RequestId(7), method, &[], refusal).into_parts();
        let AnswerBody::Ours(text) = body else { panic!("a refusal has a body of ours") };
        let text = text.map(|text| String::from_utf8(text.to_vec()).expect("JSON is text"));
        (Response::from_parts(parts, ()), text.unwrap_or_default())
    }

    #[test]
    fn rate_limit_fields_name_every_quota_that_was_charged() {
        // given a quota with tokens left and one without
        let second = Limit { tokens: 100, per_ns: 1_000_000_000, burst: 100 };
        let hour = Limit { tokens: 1, per_ns: 700_000_000, burst: 3 };
        let standings = [standing("per-tenant", second, 99, 0), standing("all", hour, 0, 2)];
        // when an answer is marked
        let mut headers = HeaderMap::new();
        mark(&mut headers, RequestId(7), &standings);
        // then both are told, and the time only where nothing is left
        assert_eq!(headers[RATE_LIMIT], "\"per-tenant\";r=99, \"all\";r=0;t=2");
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"per-tenant\";q=100;w=1, \"all\";q=3;w=3");
        assert_eq!(headers["x-request-id"], "00000000000000000000000000000007");
    }

    #[test]
    fn a_refusal_over_quota_names_the_violated_policies() {
        let retry_after = Duration::from_millis(1_200);
        let limit = Limit { tokens: 1, per_ns: 1, burst: 1 };
        let violated = vec![Violation { standing: standing("per-tenant", limit, 0, 2), retry_after }];
        let refusal = Refusal::OverQuota { violated, retry_after };
        let (head, text) = refused(&Method::GET, &refusal);
        assert_eq!((head.status().as_u16(), head.headers()["retry-after"].to_str().ok()), (429, Some("2")));
        assert_eq!(head.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(problem["type"], "urn:quorumgate:problem:over-quota");
        assert_eq!(problem["violated-policies"], json!(["per-tenant"]));
        assert_eq!(problem["status"], 429);
    }

    #[test]
    fn a_refused_call_is_trailers_alone() {
        let kind = HeaderValue::from_static("application/grpc+proto");
        let call = |refusal: &Refusal, standings: &[Standing]| {
            let response = refuse_call(RequestId(7), kind.clone(), standings, refusal);
            assert_eq!((response.status().as_u16(), response.body().is_end_stream()), (200, true));
            assert_eq!(response.headers()["content-type"], "application/grpc+proto");
            response.into_parts().0.headers
        };
        let retry_after = Duration::from_millis(1_200);
        let limit = Limit { tokens: 1, per_ns: 1, burst: 1 };
        let standing = standing("per-tenant", limit, 0, 2);
        let violated = vec![Violation { standing: standing.clone(), retry_after }];
        let headers = call(&Refusal::OverQuota { violated, retry_after }, &[standing]);
        assert!(headers["grpc-status"] == "8" && headers["retry-after"] == "2");
        assert_eq!(headers["grpc-message"], "The quota is used up");
        assert_eq!(headers["ratelimit"], "\"per-tenant\";r=0;t=2");
        let upstream = || config::ids::UpstreamName::parse("u").expect("a name");
        for (refusal, code) in [
            (Refusal::Auth(AuthRefusal::Missing), "16"),
            (Refusal::Auth(AuthRefusal::InsufficientScope { needed: Arc::new([]) }), "7"),
            (Refusal::NoRoute { method: Method::POST, path: "/".into() }, "12"),
            (Refusal::QuotaUndecided { quotas: vec![], retry_after }, "14"),
            (Refusal::UpstreamUnreachable { upstream: upstream(), why: "10.0.0.1".into() }, "14"),
            (Refusal::UpstreamSlow { upstream: upstream(), waited: retry_after }, "4"),
            (Refusal::Internal { why: "a bug" }, "13"),
        ] {
            let headers = call(&refusal, &[]);
            assert_eq!(headers["grpc-status"], code, "{refusal}");
            let words = headers["grpc-message"].to_str().expect("text");
            assert!(!words.contains("10.0.0.1") && !words.contains("bug"), "{words}");
        }
    }

    #[test]
    fn head_gets_the_fields_and_no_body() {
        let refusal = Refusal::NoRoute { method: Method::HEAD, path: "/".into() };
        let (get, text) = refused(&Method::GET, &refusal);
        let (head, nothing) = refused(&Method::HEAD, &refusal);
        assert_eq!(nothing, "");
        assert_eq!(head.headers()["content-length"], get.headers()["content-length"]);
        assert_eq!(head.headers()["content-length"], text.len().to_string().as_str());
    }

    #[test]
    fn no_token_is_no_error_and_a_bad_one_is() {
        let (none, _) = refused(&Method::GET, &AuthRefusal::Missing.into());
        assert_eq!(none.headers()["www-authenticate"], "Bearer realm=\"quorumgate\"");
        let (bad, text) =
            refused(&Method::GET, &AuthRefusal::Invalid { reason: "the signature does not match" }.into());
        assert_eq!(bad.status(), 401);
        assert_eq!(bad.headers()["www-authenticate"], "Bearer realm=\"quorumgate\", error=\"invalid_token\"");
        assert!(!text.contains("signature"), "{text}");
        let needed: Arc<[Box<str>]> = Arc::from(["a".into(), "b".into()]);
        let (scope, _) = refused(&Method::GET, &AuthRefusal::InsufficientScope { needed }.into());
        assert_eq!(scope.status(), 403);
        let wanted = "Bearer realm=\"quorumgate\", error=\"insufficient_scope\", scope=\"a b\"";
        assert_eq!(scope.headers()["www-authenticate"], wanted);
    }

    #[test]
    fn what_an_upstream_did_is_for_the_log_alone() {
        let upstream = config::ids::UpstreamName::parse("secret-name").expect("a good name");
        let refusal = Refusal::UpstreamUnreachable { upstream, why: "10.0.0.7:80: refused".into() };
        let (head, text) = refused(&Method::GET, &refusal);
        assert_eq!(head.status(), 502);
        assert!(!text.contains("10.0.0.7") && !text.contains("secret-name"), "{text}");
    }

    #[test]
    fn other_methods_are_named() {
        let allowed = vec!["GET".to_owned(), "POST".to_owned()];
        let (head, _) = refused(&Method::PUT, &Refusal::MethodNotAllowed { method: Method::PUT, allowed });
        assert_eq!((head.status().as_u16(), head.headers()["allow"].to_str().ok()), (405, Some("GET, POST")));
    }
}
