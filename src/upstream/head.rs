//! What of a message's head passes the gateway, and what the gateway adds. Pure.

use std::fmt::Write as _;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Version};

use config::upstream::Endpoint;
use smallvec::SmallVec;

use super::trace;
use crate::journey::evidence::Spent;
use crate::journey::forwarded;
use crate::journey::received::{Arrival, X_REQUEST_ID};
use crate::refusal::Refusal;

/// Fields that concern one connection (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields that say how a message is framed, routed, authorized or cached, and so come too late in a trailer (RFC 9110
/// section 6.5.1).
const NO_TRAILERS: [HeaderName; 20] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::EXPIRES,
    header::HOST,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHORIZATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::TRAILER,
    header::VARY,
    header::WWW_AUTHENTICATE,
];

const ADMITTED_NS: HeaderName = HeaderName::from_static("quorumgate-admitted-ns");
const SCREENED_NS: HeaderName = HeaderName::from_static("quorumgate-screened-ns");
const CHARGES: HeaderName = HeaderName::from_static("quorumgate-charges");
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("quorumgate-client-certificate");
const FLAGS: HeaderName = HeaderName::from_static("quorumgate-flags");
const MIRRORED: HeaderName = HeaderName::from_static("quorumgate-mirrored");
/// Fields of ours; a client's are never believed.
const OUR_PREFIX: &str = "quorumgate-";

/// Removes what concerns the connection that a message came over.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: SmallVec<[HeaderName; 4]> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| headers.contains_key(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove(headers, |name| HOP_BY_HOP.contains(name));
}

/// Removes the fields that `goes` names. One look at each field that is there costs less than one search for each that
/// might be.
fn remove(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let gone: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// Removes from a trailer what may not stand in one, and what only the gateway says.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| {
        let ours = [OUR_PREFIX, "x-forwarded-"].iter().any(|prefix| name.as_str().starts_with(prefix));
        ours || *name == X_REQUEST_ID || NO_TRAILERS.contains(name) || HOP_BY_HOP.contains(name)
    });
}

/// Whether a request's sender reads trailers.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::TE).iter().filter_map(|field| field.to_str().ok());
    codings.flat_map(|field| field.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Tells an upstream of HTTP/2 that we read trailers.
pub fn tell_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Appends us to `Via`.
///
/// - `received`: the version in which the message came.
pub fn add_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => "1.0 quorumgate",
        Version::HTTP_2 => "2 quorumgate",
        _ => "1.1 quorumgate",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// Makes a received head ready for an upstream. `Host` is set for each endpoint, by the exchange.
pub fn prepare(parts: &mut Parts, arrival: &Arrival, prefix_to_strip: Option<&str>) {
    let asked_host = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(header::HOST).cloned(),
    };
    let headers = &mut parts.headers;
    strip_hop_by_hop(headers);
    remove(headers, |name| {
        *name == header::EXPECT
            || *name == header::PROXY_AUTHORIZATION
            || name.as_str().starts_with(OUR_PREFIX)
    });
    forwarded::tell(headers, &arrival.caller, asked_host);
    if let Some(certificate) = &arrival.caller.certificate {
        headers.insert(CLIENT_CERTIFICATE, certificate.clone());
    }
    headers.insert(X_REQUEST_ID, arrival.id.field());
    trace::pass_on(headers);
    add_via(headers, parts.version);
    parts.uri = target(&parts.uri, prefix_to_strip);
    parts.version = Version::HTTP_11;
}

/// Tells which flags are on. What the client said of them is gone by now.
pub fn add_flags(headers: &mut HeaderMap, flags: Option<HeaderValue>) {
    if let Some(flags) = flags {
        headers.insert(FLAGS, flags);
    }
}

/// The head of a request's copy for a mirror: marked as one, and without what was said of the one that paid.
///
/// - `takes_trailers`: whether the mirror is told that their sender reads trailers. It may speak another version of HTTP than
///   the upstream, whose head has been made.
pub fn mirrored<B>(request: &Request<B>, takes_trailers: bool) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method.clone_from(request.method());
    parts.uri.clone_from(request.uri());
    parts.headers.clone_from(request.headers());
    remove(&mut parts.headers, |name| [ADMITTED_NS, SCREENED_NS, CHARGES].contains(name));
    // The copy's body is there as a whole, and says its length itself; there is nothing behind it.
    remove(&mut parts.headers, |name| {
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER, header::TE].contains(name)
    });
    if takes_trailers {
        tell_trailers(&mut parts.headers);
    }
    parts.headers.insert(MIRRORED, HeaderValue::from_static("1"));
    parts
}

/// The target in origin form, without the prefix.
fn target(uri: &Uri, prefix_to_strip: Option<&str>) -> Uri {
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = match prefix_to_strip {
        Some(prefix) if prefix != "/" => whole.strip_prefix(prefix).unwrap_or(whole),
        _ => whole,
    };
    if rest.len() == whole.len() && uri.authority().is_none() {
        return uri.clone();
    }
    let text = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    text.parse().unwrap_or_else(|_| Uri::from_static("/"))
}

/// Puts another path in place of a target's, in origin form. The query stays.
///
/// # Errors
/// [`Refusal::Malformed`], if that becomes too long for a target.
pub fn replace_path(uri: &mut Uri, new: impl FnOnce(&str) -> String) -> Result<(), Refusal> {
    let mut text = new(uri.path());
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    *uri = text
        .parse()
        .map_err(|_| Refusal::Malformed { why: "the path is too long for what its route makes of it" })?;
    Ok(())
}

/// What `Host` says to an endpoint; none: its name is no field value.
pub fn host_of(endpoint: &Endpoint, secured: bool) -> Option<HeaderValue> {
    let host = &endpoint.host;
    let literal = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let usual = if secured { 443 } else { 80 };
    let text = if endpoint.port == usual { literal } else { format!("{literal}:{}", endpoint.port) };
    HeaderValue::try_from(text).ok()
}

/// Makes a head in origin form one of HTTP/2, whose target has all that HTTP/1.1 says in `Host`.
///
/// - `host`: in place of the `Host` field.
pub fn speak_http2<B>(request: &mut Request<B>, host: &HeaderValue, secured: bool) -> Option<()> {
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    *request.version_mut() = Version::HTTP_2;
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(if secured { Scheme::HTTPS } else { Scheme::HTTP });
    target.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    *request.uri_mut() = Uri::from_parts(target).ok()?;
    Some(())
}

/// Tells a recording upstream when the request was admitted, and which buckets paid:
/// `name:limit:tenant:value:cost`, comma separated, the middle three in hexadecimal.
///
/// Quotas that count by address or route were paid at an instant of their own, before authentication; if there are such and
/// others, theirs is `quorumgate-screened-ns`.
pub fn stamp(headers: &mut HeaderMap, spent: [&Spent; 2]) {
    let [screened, admitted] = spent;
    let mut text = String::new();
    for charge in screened.charges.iter().chain(&admitted.charges) {
        let key = charge.key;
        let comma = if text.is_empty() { "" } else { "," };
        write!(
            text,
            "{comma}{}:{:016x}:{:016x}:{:016x}:{}",
            charge.quota.name, key.limit.0, key.tenant, key.value, charge.cost
        )
        .expect("writing to a String cannot fail");
    }
    let at = if admitted.charges.is_empty() && !screened.charges.is_empty() { screened } else { admitted };
    headers.insert(ADMITTED_NS, HeaderValue::from(at.admission.at.0));
    if !screened.charges.is_empty() && !admitted.charges.is_empty() {
        headers.insert(SCREENED_NS, HeaderValue::from(screened.admission.at.0));
    }
    headers.insert(CHARGES, HeaderValue::try_from(text).expect("names, digits and colons are a field value"));
}

/// Whether sending a request twice means the same as once (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::state::ids::{Key, LimitId};
    use cluster::world::BootNs;
    use tokio::time::Instant;

    use super::*;
    use crate::journey::caller::Caller;
    use crate::journey::received::RequestId;
    use crate::quota::{Admission, Charge, QuotaRule};

    fn prepared(request: http::request::Builder, prefix: Option<&str>) -> Parts {
        let (mut parts, ()) = request.body(()).expect("well-formed").into_parts();
        let caller = Arc::new(Caller::plain(([192, 0, 2, 9], 1).into()));
        let arrival = Arrival { id: RequestId(7), caller, at: Instant::now() };
        prepare(&mut parts, &arrival, prefix);
        parts
    }

    fn get(uri: &str) -> http::request::Builder {
        http::Request::get(uri).header("host", "api.example")
    }

    #[test]
    fn fields_of_one_connection_do_not_pass() {
        let request = get("/a")
            .header("connection", "close, X-Private")
            .header("connection", "keep-alive")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("te", "trailers")
            .header("proxy-authorization", "Basic eA==")
            .header("x-public", "2");
        let headers = prepared(request, None).headers;
        for gone in ["connection", "x-private", "keep-alive", "te", "proxy-authorization"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["x-public"], "2");
    }

    #[test]
    fn a_copy_says_of_trailers_what_its_mirror_may_hear() {
        // given heads for upstreams of both versions, the one of HTTP/2 with what it was told
        let http1 = Request::from_parts(prepared(get("/a"), None), ());
        let mut http2 = Request::from_parts(prepared(get("/a"), None), ());
        tell_trailers(http2.headers_mut());
        // then a copy of either says it where its own mirror speaks HTTP/2, and nowhere else
        for head in [&http1, &http2] {
            assert_eq!(mirrored(head, true).headers["te"], "trailers");
            assert!(!mirrored(head, false).headers.contains_key("te"));
        }
    }

    #[test]
    fn a_trailer_says_nothing_that_a_head_must_say() {
        let mut trailers = HeaderMap::new();
        for name in
            ["grpc-status", "x-sum", "content-length", "authorization", "connection", "quorumgate-charges"]
        {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        trailers.insert("x-forwarded-for", HeaderValue::from_static("1"));
        clean_trailers(&mut trailers);
        let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["grpc-status", "x-sum"]);
    }

    #[test]
    fn a_client_cannot_write_our_fields_but_its_token_passes() {
        let request = get("/a").header("quorumgate-admitted-ns", "1").header("authorization", "Bearer x");
        let headers = prepared(request, None).headers;
        assert!(!headers.contains_key("quorumgate-admitted-ns"));
        assert_eq!(headers["authorization"], "Bearer x");
    }

    #[test]
    fn the_upstream_learns_who_asked_for_what() {
        let headers = prepared(get("/a").header("x-forwarded-for", "10.0.0.1"), None).headers;
        assert_eq!(
            headers["x-forwarded-for"], "192.0.2.9",
            "nobody knows whether the client tells the truth"
        );
        assert_eq!(headers["x-forwarded-host"], "api.example");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["via"], "1.1 quorumgate");
    }

    #[test]
    fn via_tells_the_version_that_was_received() {
        for (version, via) in [
            (Version::HTTP_10, "1.0 quorumgate"),
            (Version::HTTP_11, "1.1 quorumgate"),
            (Version::HTTP_2, "2 quorumgate"),
        ] {
            let parts = prepared(get("/a").version(version).header("via", "1.1 other"), None);
            let all: Vec<_> = parts.headers.get_all("via").iter().collect();
            assert_eq!(all, ["1.1 other", via]);
        }
    }

    #[test]
    fn the_prefix_is_cut_off_at_a_segment_and_the_query_stays() {
        let target = |uri, prefix| prepared(get(uri), prefix).uri.to_string();
        assert_eq!(target("/v1/a?x=/v1", Some("/v1")), "/a?x=/v1");
        assert_eq!(target("/v1", Some("/v1")), "/");
        assert_eq!(target("/v1?x=1", Some("/v1")), "/?x=1");
        assert_eq!(target("/v1/a", Some("/")), "/v1/a");
        assert_eq!(target("http://api.example/v1/a?q", None), "/v1/a?q");
    }

    #[test]
    fn the_host_is_the_endpoint() {
        for (host, port, secured, wanted) in [
            ("a", 80, false, "a"),
            ("a", 81, false, "a:81"),
            ("::1", 81, false, "[::1]:81"),
            ("a", 443, true, "a"),
            ("a", 80, true, "a:80"),
        ] {
            let host = host_of(&Endpoint { host: host.into(), port }, secured).expect("a field value");
            assert_eq!(host, wanted);
        }
    }

    #[test]
    fn a_stamp_tells_which_buckets_paid() {
        let limit = config::quota::Limit { tokens: 1, per_ns: 1, burst: 1 };
        let quota = Arc::new(QuotaRule {
            name: config::ids::QuotaName::parse("per-tenant").expect("a good name"),
            limit_id: LimitId(1),
            wait: None,
            on_quorum_loss: config::quota::OnQuorumLoss::Deny,
            limit,
        });
        let key = Key { limit: LimitId(1), tenant: 0xab, value: 0xcd };
        let spent = |at, charges: Vec<Charge>| Spent {
            charges: charges.into(),
            admission: Admission { at: BootNs(at), standings: SmallVec::new() },
        };
        let mut headers = HeaderMap::new();
        stamp(&mut headers, [&spent(4, vec![]), &spent(5, vec![Charge { quota, key, cost: 3 }])]);
        assert_eq!(headers["quorumgate-admitted-ns"], "5");
        assert_eq!(
            headers["quorumgate-charges"],
            "per-tenant:0000000000000001:00000000000000ab:00000000000000cd:3"
        );
    }
}
