//! A request as it was received: checked once for everything that could be read in two ways, before any policy sees it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::world::World;
use config::action::Scheme;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{self, Authority};
use http::{Method, Uri, Version};
use tokio::time::Instant;

use super::caller::Caller;
use super::forwarded;
use crate::fields;
use crate::refusal::Refusal;
use crate::upstream::body::ClientBody;

/// A request's number: unique in the cluster with overwhelming likelihood. Answered as `x-request-id`, written to logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// As the field `x-request-id` says it.
    pub fn field(self) -> HeaderValue {
        fields::hexadecimal(self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Gives out request ids: 64 random bits of the worker, then a counter that begins at random.
#[derive(Debug)]
pub struct RequestIds {
    worker: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that no other worker gives out.
    pub fn new(world: &World) -> Self {
        let mut seed = [0; 16];
        world.chance.fill(&mut seed);
        let seed = u128::from_le_bytes(seed);
        Self { worker: (seed >> 64) as u64, next: AtomicU64::new(seed as u64) }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId(u128::from(self.worker) << 64 | u128::from(count))
    }
}

/// Where and when a request came in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Names the request.
    pub id: RequestId,
    /// Who sent it.
    pub caller: Arc<Caller>,
    /// When the head was complete.
    pub at: Instant,
}

/// A well-formed request. What the other steps read of it, they read here.
///
/// Boxed: it moves from step to step, and a pointer moves cheaper than 400 bytes.
#[derive(Debug)]
pub struct Received(Box<Whole>);

#[derive(Debug)]
struct Whole {
    parts: Parts,
    body: ClientBody,
    /// Lower case, without port.
    host: Box<str>,
    address: IpAddr,
    scheme: Scheme,
    arrival: Arrival,
}

impl Received {
    /// Checks a request's head. `body_bytes_max` bounds a length that the head announces.
    ///
    /// # Errors
    /// A [`Refusal`] for everything that two readers could understand in two ways, and for what this gateway does not do.
    pub fn check(
        mut parts: Parts,
        body: ClientBody,
        arrival: Arrival,
        body_bytes_max: u64,
    ) -> Result<Self, Refusal> {
        let host = host(&parts)?;
        check_path(parts.uri.path()).map_err(|why| Refusal::Malformed { why })?;
        if let Some(plain) = without_needless_codes(&parts.uri) {
            parts.uri = plain;
        }
        check_body(&parts.headers, body_bytes_max)?;
        if parts.method == Method::CONNECT || parts.headers.contains_key(header::UPGRADE) {
            return Err(Refusal::NotSupported { what: "CONNECT and Upgrade" });
        }
        let address = forwarded::client(&parts.headers, &arrival.caller);
        let scheme = forwarded::scheme(&parts.headers, &arrival.caller);
        Ok(Self(Box::new(Whole { parts, body, host, address, scheme, arrival })))
    }

    /// As it was sent; methods are case-sensitive.
    pub fn method(&self) -> &Method {
        &self.0.parts.method
    }

    /// The host that the client asked for: lower case, without port.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Begins with `/`; no empty, `.` or `..` segment, no encoded slash, and nothing encoded that need not be, so that
    /// segments compare byte by byte.
    pub fn path(&self) -> &str {
        self.0.parts.uri.path()
    }

    /// What stands behind `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.0.parts.uri.query()
    }

    /// The fields, as they were sent.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.parts.headers
    }

    /// The client's address: its connection's, or where that is a trusted proxy's, the one that the proxy names.
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// How the client asked.
    pub fn scheme(&self) -> Scheme {
        self.0.scheme
    }

    /// Where and when it came in.
    pub fn arrival(&self) -> &Arrival {
        &self.0.arrival
    }

    /// For the upstream.
    pub(crate) fn into_parts(self) -> (Parts, ClientBody, Arrival) {
        let Whole { parts, body, arrival, .. } = *self.0;
        (parts, body, arrival)
    }
}

/// Exactly one host, from the target in absolute form (of HTTP/2: `:authority`), the `Host` field, or both, which then must
/// say the same: a client that differs with itself would be routed by the one and answered by the other (RFC 9112
/// section 3.2.2, RFC 9113 section 8.3.1).
fn host(parts: &Parts) -> Result<Box<str>, Refusal> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let may_lack_field = matches!(parts.version, Version::HTTP_10 | Version::HTTP_2);
    let field = match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().ok(),
        (None, _) if may_lack_field && parts.uri.authority().is_some() => {
            parts.uri.authority().map(Authority::as_str)
        }
        (None, _) => return Err(Refusal::Malformed { why: "the Host field is missing" }),
        (Some(_), Some(_)) => return Err(Refusal::Malformed { why: "there is more than one Host field" }),
    };
    let text = match parts.uri.authority() {
        Some(authority) if authority.as_str().contains('@') => None,
        Some(authority) if field.is_none_or(|field| !same_host(field, authority, parts.uri.scheme())) => {
            return Err(Refusal::Malformed { why: "the target and the Host field name different hosts" });
        }
        Some(authority) => Some(authority.as_str()),
        None => field,
    };
    if let Some(plain) = text.and_then(plain_host) {
        return Ok(plain.into());
    }
    let authority: Option<Authority> = text.and_then(|text| text.parse().ok());
    match authority {
        Some(authority) if !authority.host().is_empty() && !authority.as_str().contains('@') => {
            Ok(authority.host().to_ascii_lowercase().into())
        }
        _ => Err(Refusal::Malformed { why: "the Host field is not a host" }),
    }
}

/// Whether a `Host` field names what a target's authority names. Where one of them names no port, it is the scheme's.
fn same_host(field: &str, authority: &Authority, scheme: Option<&uri::Scheme>) -> bool {
    let usual = if scheme == Some(&uri::Scheme::HTTPS) { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
    field.parse::<Authority>().is_ok_and(|field| {
        let host_is_same = field.host().eq_ignore_ascii_case(authority.host());
        host_is_same && port(&field) == port(authority) && !field.as_str().contains('@')
    })
}

/// The host of an authority that needs no second look: lower-case letters, digits, dots and hyphens, and a port perhaps.
fn plain_host(text: &str) -> Option<&str> {
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    let is_plain = !host.is_empty() && host.bytes().all(plain);
    (is_plain && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())).then_some(host)
}

/// Refuses a path that the router and an upstream could read differently.
///
/// # Errors
/// What is wrong, for the client.
pub fn check_path(path: &str) -> Result<(), &'static str> {
    let Some(inner) = path.strip_prefix('/') else {
        return Err("the path does not begin with a slash");
    };
    if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err("the path holds a byte that must be percent-encoded");
    }
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        let code = rest.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let digits = code.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            None => return Err("the path holds a broken percent-encoding"),
            Some(b'/' | b'\\') => return Err("the path holds an encoded slash"),
            Some(0) => return Err("the path holds an encoded NUL"),
            Some(b'.') => return Err("the path holds an encoded dot"),
            Some(_) => rest = &rest[at + 3..],
        }
    }
    let mut segments = inner.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_some() => return Err("the path holds an empty segment"),
            "." | ".." => return Err("the path holds a dot segment"),
            _ => {}
        }
    }
    Ok(())
}

/// The target with every percent-encoding undone that stands for a letter, a digit, `-`, `_` or `~`: such paths are the same
/// (RFC 3986 section 6.2.2.2), and a route that takes the one must take the other. None: there is none.
fn without_needless_codes(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains('%') {
        return None;
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let code = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let needless = code.filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~'));
        let end = (at + 3).min(rest.len());
        match needless {
            Some(byte) => {
                plain.push_str(&rest[..at]);
                plain.push(char::from(byte));
            }
            None => plain.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    plain.push_str(rest);
    if plain.len() == path.len() {
        return None;
    }
    if let Some(query) = uri.query() {
        plain.push('?');
        plain.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = plain.parse().ok();
    Uri::from_parts(parts).ok()
}

/// One reading of where the body ends, and no more than we take.
fn check_body(headers: &HeaderMap, body_bytes_max: u64) -> Result<(), Refusal> {
    let coded = headers.get(header::TRANSFER_ENCODING);
    let length = headers.get(header::CONTENT_LENGTH);
    match (coded, length) {
        (Some(_), Some(_)) => {
            Err(Refusal::Malformed { why: "Content-Length and Transfer-Encoding exclude each other" })
        }
        (Some(coded), None) => {
            let one = headers.get_all(header::TRANSFER_ENCODING).iter().nth(1).is_none();
            if one && coded.as_bytes().eq_ignore_ascii_case(b"chunked") {
                Ok(())
            } else {
                Err(Refusal::NotSupported { what: "transfer codings other than chunked" })
            }
        }
        (None, Some(length)) => match length.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(bytes) if bytes <= body_bytes_max => Ok(()),
            Some(_) => Err(Refusal::BodyTooLarge { bytes_max: body_bytes_max }),
            None => Err(Refusal::Malformed { why: "the Content-Length is not a number" }),
        },
        (None, None) => Ok(()),
    }
}

/// The request id's field.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival() -> Arrival {
        let caller = Arc::new(Caller::plain(([127, 0, 0, 1], 4000).into()));
        Arrival { id: RequestId(7), caller, at: Instant::now() }
    }

    fn check(request: http::request::Builder) -> Result<Received, Refusal> {
        let (parts, ()) = request.body(()).expect("the test's request is well-formed").into_parts();
        Received::check(parts, ClientBody::empty(), arrival(), 100)
    }

    #[test]
    fn a_code_that_need_not_be_is_undone() {
        let path = |target: &str| {
            let received = check(http::Request::get(target).header("host", "h")).expect("a good path");
            (received.path().to_owned(), received.query().map(str::to_owned))
        };
        assert_eq!(path("/%61dmin/x?a=%61"), ("/admin/x".to_owned(), Some("a=%61".to_owned())));
        assert_eq!(path("/a%2Db%5F%7e%30"), ("/a-b_~0".to_owned(), None));
        assert_eq!(path("http://h/%61"), ("/a".to_owned(), None));
        for same in ["/%C3%A4", "/a%20b", "/%25%36%31", "/a"] {
            let wanted = same.replace("%36%31", "61");
            assert_eq!(path(same).0, wanted);
        }
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_refused() {
        let ambiguous = [
            "/a/../b",
            "/a/./b",
            "/..",
            "//a",
            "/a//b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/%2e%2e/b",
            "/%00",
            "/%4",
            "/%zz",
            "/%+1",
            "a",
            "",
            "*",
            "/a/..",
        ];
        for path in ambiguous {
            assert!(check_path(path).is_err(), "{path}");
        }
        for path in ["/", "/a", "/a/", "/a/b.c/..d", "/a%20b", "/%C3%A4", "/a;b=c/d:e@f"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_request_needs_exactly_one_host() {
        let get = || http::Request::get("/a");
        assert!(matches!(check(get()), Err(Refusal::Malformed { .. })));
        assert!(matches!(
            check(get().header("host", "a").header("host", "a")),
            Err(Refusal::Malformed { .. })
        ));
        for bad in ["", "a b", "u@a", "a/b"] {
            assert!(check(get().header("host", bad)).is_err(), "{bad}");
        }
        assert_eq!(check(get().header("host", "API.Example:8080")).expect("one host").host(), "api.example");
        assert_eq!(check(get().header("host", "[::1]:8080")).expect("one host").host(), "[::1]");
    }

    #[test]
    fn a_target_with_an_authority_and_the_host_field_name_one_host() {
        let get = |target: &str, host: &str| check(http::Request::get(target).header("host", host));
        for host in ["target", "TARGET", "target:80"] {
            let received = get("http://Target/a", host).expect("one reading");
            assert_eq!((received.host(), received.path()), ("target", "/a"));
        }
        for other in ["other", "target:81", "u@target", "targe"] {
            assert!(matches!(get("http://target/a", other), Err(Refusal::Malformed { .. })), "{other}");
        }
        assert!(get("http://target:8443/a", "target").is_err());
        // and HTTP/2 need not say it twice
        let second = || http::Request::get("http://target/a").version(Version::HTTP_2);
        assert_eq!(check(second()).expect("one reading").host(), "target");
        assert!(check(second().header("host", "other")).is_err());
        assert!(check(http::Request::get("/a").version(Version::HTTP_2)).is_err(), "nobody is asked for");
        assert!(check(http::Request::get("http://target/a")).is_err(), "HTTP/1.1 has to say it in the field");
    }

    #[test]
    fn a_body_has_one_end_and_fits() {
        let post = || http::Request::post("/a").header("host", "a");
        assert!(check(post().header("content-length", "100")).is_ok());
        assert!(check(post().header("transfer-encoding", "Chunked")).is_ok());
        let large = check(post().header("content-length", "101"));
        assert!(matches!(large, Err(Refusal::BodyTooLarge { bytes_max: 100 })));
        let both = check(post().header("content-length", "1").header("transfer-encoding", "chunked"));
        assert!(matches!(both, Err(Refusal::Malformed { .. })));
        let coded = check(post().header("transfer-encoding", "gzip, chunked"));
        assert!(matches!(coded, Err(Refusal::NotSupported { .. })));
    }

    #[test]
    fn an_upgrade_is_not_supported_yet() {
        let upgrade = http::Request::get("/a").header("host", "a").header("upgrade", "websocket");
        assert!(matches!(check(upgrade), Err(Refusal::NotSupported { .. })));
    }
}
