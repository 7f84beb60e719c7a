//! A request as it was received: checked once for everything that could be read in two ways, before any policy sees it.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::world::World;
use config::action::Scheme;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri, Version};
use hyper::ext::Protocol;
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
        check_method(&parts)?;
        check_names(&parts.headers)?;
        check_values(&parts.headers)?;
        let host = host(&parts)?;
        check_path(parts.uri.path()).map_err(|why| Refusal::Malformed { why })?;
        if !parts.uri.query().is_none_or(str::is_ascii) {
            return Err(Refusal::Malformed { why: "the query holds a byte that must be percent-encoded" });
        }
        if let Some(plain) = without_needless_codes(&parts.uri) {
            parts.uri = plain;
        }
        check_body(&parts.headers, body_bytes_max)?;
        check_expectation(&parts.headers)?;
        if parts.method == Method::CONNECT {
            // Over HTTP/1.1 the same is asked for with a GET, and must meet the same route.
            parts.method = Method::GET;
        }
        let address = forwarded::client(&parts.headers, &arrival.caller);
        let scheme = forwarded::scheme(&parts.headers, &arrival.caller);
        Ok(Self(Box::new(Whole { parts, body, host, address, scheme, arrival })))
    }

    /// As it was sent; methods are case-sensitive. Of a stream that is to become a tunnel: GET.
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

    /// The protocol that an HTTP/2 stream is to become a tunnel of (RFC 8441).
    pub fn protocol(&self) -> Option<&str> {
        self.0.parts.extensions.get::<Protocol>().map(Protocol::as_str)
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

/// Refuses what an upstream could take for another method, and what would tell a client of fields that we add.
fn check_method(parts: &Parts) -> Result<(), Refusal> {
    const WELL_KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    let method = parts.method.as_str();
    if WELL_KNOWN.iter().any(|known| known.eq_ignore_ascii_case(method) && *known != method) {
        return Err(Refusal::Malformed { why: "methods are case-sensitive, and this one is in capitals" });
    }
    match parts.method {
        Method::CONNECT if parts.extensions.get::<Protocol>().is_none() => {
            Err(Refusal::NotSupported { what: "CONNECT" })
        }
        Method::TRACE => Err(Refusal::NotSupported { what: "TRACE" }),
        // In HTTP/2, it stands beside an authority.
        Method::OPTIONS if parts.uri.path() == "*" => Err(Refusal::NotSupported { what: "OPTIONS *" }),
        _ => Ok(()),
    }
}

/// Refuses names that an upstream which takes `_` for `-` would read as one that decides how a request is understood, or
/// that only we may say.
fn check_names(headers: &HeaderMap) -> Result<(), Refusal> {
    let deceives = |name: &HeaderName| {
        name.as_str().contains('_') && {
            let meant = name.as_str().replace('_', "-");
            matches!(meant.as_str(), "content-length" | "transfer-encoding" | "x-request-id")
                || meant.starts_with("x-forwarded-")
                || meant.starts_with("quorumgate-")
        }
    };
    if headers.keys().any(deceives) {
        return Err(Refusal::Malformed { why: "a field's name is spelled with an underscore for a hyphen" });
    }
    Ok(())
}

/// Refuses values with blanks around them: HTTP/2 has room for them, and no reader of HTTP/1.1 knows whether they belong to
/// the value (RFC 9113 section 8.2.1). An upstream that is strict would refuse our request, as if it were to blame.
fn check_values(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let has_blanks = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        is_blank(bytes.first()) || is_blank(bytes.last())
    };
    if headers.values().any(has_blanks) {
        return Err(Refusal::Malformed { why: "a field's value begins or ends with a blank" });
    }
    Ok(())
}

/// Exactly one host, from the target in absolute form (of HTTP/2: `:authority`), the `Host` field, or both, which then must
/// say the same: a client that differs with itself would be routed by the one and answered by the other (RFC 9112
/// section 3.2.2, RFC 9113 section 8.3.1).
fn host(parts: &Parts) -> Result<Box<str>, Refusal> {
    let bad = || Refusal::Malformed { why: "the Host field is not a host" };
    let authority = parts.uri.authority();
    let may_lack_field = matches!(parts.version, Version::HTTP_10 | Version::HTTP_2) && authority.is_some();
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (Some(field), None) => Some(field.to_str().ok().and_then(host_and_port).ok_or_else(bad)?),
        (None, _) if may_lack_field => None,
        (None, _) => return Err(Refusal::Malformed { why: "the Host field is missing" }),
        (Some(_), Some(_)) => return Err(Refusal::Malformed { why: "there is more than one Host field" }),
    };
    let Some(authority) = authority else {
        return field.map(|(host, _)| host.into()).ok_or_else(bad);
    };
    let usual_port = match parts.uri.scheme_str() {
        None | Some("http") => 80,
        Some("https") => 443,
        Some(_) => return Err(Refusal::Malformed { why: "the target's scheme is not HTTP's" }),
    };
    let (host, port) = host_and_port(authority.as_str()).ok_or_else(bad)?;
    let is_same = |field: &(Cow<'_, str>, Option<u16>)| {
        field.0 == host && field.1.unwrap_or(usual_port) == port.unwrap_or(usual_port)
    };
    if field.as_ref().is_some_and(|field| !is_same(field)) {
        return Err(Refusal::Malformed { why: "the target and the Host field name different hosts" });
    }
    Ok(host.into())
}

/// The host, in lower case, and the port of `host[:port]`. A host is a name of letters, digits, `.`, `-` and `_`, or an IPv6
/// address in brackets: what else RFC 3986 allows in a name no resolver knows, and one reader or another cuts it in two.
fn host_and_port(text: &str) -> Option<(Cow<'_, str>, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            address.parse::<Ipv6Addr>().ok()?;
            (&text[..address.len() + 2], rest)
        }
        None => {
            let host = text.find(':').map_or(text, |colon| &text[..colon]);
            let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if host.is_empty() || !host.bytes().all(in_name) {
                return None;
            }
            (host, &text[host.len()..])
        }
    };
    let port = match rest.strip_prefix(':') {
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        None if rest.is_empty() => None,
        _ => return None,
    };
    let is_lower = !host.bytes().any(|b| b.is_ascii_uppercase());
    Some((if is_lower { host.into() } else { host.to_ascii_lowercase().into() }, port))
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
            Some(0..=0x1f | 0x7f) => return Err("the path holds an encoded control character"),
            Some(b'.') => return Err("the path holds an encoded dot"),
            Some(lead) if is_overlong(lead, &rest[at + 3..]) => {
                return Err("the path holds a character that is encoded longer than it may be");
            }
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

/// Whether `lead` and the encoded byte behind it are UTF-8 for a character that has a shorter one: lenient readers see a
/// slash or a dot there (RFC 3629 section 10).
fn is_overlong(lead: u8, rest: &[u8]) -> bool {
    let next = match rest {
        [b'%', high, low, ..] => {
            std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
        }
        _ => None,
    };
    matches!(
        (lead, next),
        (0xc0 | 0xc1, Some(0x80..=0xbf)) | (0xe0, Some(0x80..=0x9f)) | (0xf0, Some(0x80..=0x8f))
    )
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
        (None, Some(length)) => match one_length(headers, length) {
            Some(bytes) if bytes <= body_bytes_max => Ok(()),
            Some(_) => Err(Refusal::BodyTooLarge { bytes_max: body_bytes_max }),
            None => Err(Refusal::Malformed { why: "the Content-Length is not one plain number" }),
        },
        (None, None) => Ok(()),
    }
}

fn one_length(headers: &HeaderMap, length: &HeaderValue) -> Option<u64> {
    let is_one = headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_none();
    plain_length(length.as_bytes()).filter(|_| is_one)
}

/// A length in digits; no leading zero, which some read as octal. None also for what no signed integer holds.
pub(crate) fn plain_length(value: &[u8]) -> Option<u64> {
    let is_plain = value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || value.first() != Some(&b'0'));
    let length: i64 = std::str::from_utf8(value).ok().filter(|_| is_plain)?.parse().ok()?;
    u64::try_from(length).ok()
}

/// A client that waits for 100 gets it once its body is wanted; nothing else can be expected (RFC 9110 section 10.1.1).
fn check_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let known = |field: &HeaderValue| field.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let all = headers.get_all(header::EXPECT).iter().all(known);
    all.then_some(()).ok_or(Refusal::ExpectationFailed)
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
            "/a%0d%0ab",
            "/%7F",
            "/%c0%af",
            "/%C0%AE%C0%AE/b",
            "/%e0%80%af",
            "/%f0%80%80%af",
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
        for path in
            ["/", "/a", "/a/", "/a/b.c/..d", "/a%20b", "/%C3%A4", "/%C0", "/%E0%A4%84", "/a;b=c/d:e@f"]
        {
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
        for bad in [
            "", "a b", "u@a", "a/b", "a,b", "a%2eb", ":80", "a:x", "a:65536", "a:80:80", "[::1", "[a]",
            "::1", "[::1]a",
        ] {
            assert!(check(get().header("host", bad)).is_err(), "{bad}");
        }
        for (good, host) in
            [("a:", "a"), ("a_b.c-d:65535", "a_b.c-d"), ("192.0.2.1", "192.0.2.1"), ("[::FFFF]:", "[::ffff]")]
        {
            assert_eq!(check(get().header("host", good)).expect("one host").host(), host);
        }
        assert_eq!(check(get().header("host", "API.Example:8080")).expect("one host").host(), "api.example");
        assert_eq!(check(get().header("host", "[::1]:8080")).expect("one host").host(), "[::1]");
    }

    #[test]
    fn a_target_with_an_authority_and_the_host_field_name_one_host() {
        let get = |target: &str, host: &str| check(http::Request::get(target).header("host", host));
        for host in ["target", "TARGET", "target:80", "target:"] {
            let received = get("http://Target/a", host).expect("one reading");
            assert_eq!((received.host(), received.path()), ("target", "/a"));
        }
        for other in ["other", "target:81", "u@target", "targe", "a b"] {
            assert!(matches!(get("http://target/a", other), Err(Refusal::Malformed { .. })), "{other}");
        }
        for bad in ["http://target:8443/a", "http://u@target/a", "ftp://target/a"] {
            assert!(get(bad, "target").is_err(), "{bad}");
        }
        assert!(get("https://target:443/a", "target").is_ok());
        // and HTTP/2 need not say it twice
        let second = || http::Request::get("http://target/a").version(Version::HTTP_2);
        assert_eq!(check(second()).expect("one reading").host(), "target");
        assert!(check(second().header("host", "other")).is_err());
        assert!(check(http::Request::get("/a").version(Version::HTTP_2)).is_err(), "nobody is asked for");
        assert!(check(http::Request::get("http://target/a")).is_err(), "HTTP/1.1 has to say it in the field");
    }

    #[test]
    fn a_method_is_not_spelled_like_another() {
        let ask = |method: &str, target: &str| {
            check(http::Request::builder().method(method).uri(target).header("host", "a"))
        };
        for taken in ["GET", "PURGE", "purge", "M-SEARCH"] {
            assert_eq!(ask(taken, "/").expect("a method").method().as_str(), taken);
        }
        for lookalike in ["get", "Post", "oPTIONS"] {
            assert!(matches!(ask(lookalike, "/"), Err(Refusal::Malformed { .. })), "{lookalike}");
        }
        for unsupported in [("TRACE", "/"), ("CONNECT", "a:80")] {
            assert!(
                matches!(ask(unsupported.0, unsupported.1), Err(Refusal::NotSupported { .. })),
                "{unsupported:?}"
            );
        }
        assert!(matches!(ask("OPTIONS", "*"), Err(Refusal::NotSupported { .. })));
        let asterisk = http::Uri::builder().scheme("http").authority("a").path_and_query("*").build();
        let second = http::Request::builder().method("OPTIONS").uri(asterisk.expect("a target"));
        assert!(matches!(check(second.version(Version::HTTP_2)), Err(Refusal::NotSupported { .. })));
        assert!(matches!(ask("GET", "*"), Err(Refusal::Malformed { .. })));
    }

    #[test]
    fn a_name_is_not_spelled_like_one_that_decides() {
        let with = |name: &str| check(http::Request::get("/").header("host", "a").header(name, "1"));
        for lookalike in [
            "content_length",
            "Transfer_Encoding",
            "x_forwarded-for",
            "quorumgate_admitted-ns",
            "x-request_id",
        ] {
            assert!(matches!(with(lookalike), Err(Refusal::Malformed { .. })), "{lookalike}");
        }
        assert!(with("my_field").is_ok());
    }

    #[test]
    fn a_value_has_no_blanks_around_it() {
        let with = |value: &str| check(http::Request::get("/").header("host", "a").header("x-a", value));
        for blank in [" 1", "1 ", "\t1", "1\t", " "] {
            assert!(matches!(with(blank), Err(Refusal::Malformed { .. })), "{blank:?}");
        }
        assert!(with("").is_ok() && with("1 2\t3").is_ok());
    }

    #[test]
    fn a_body_has_one_end_and_fits() {
        let post = || http::Request::post("/a").header("host", "a");
        assert!(check(post().header("content-length", "100")).is_ok());
        assert!(check(post().header("transfer-encoding", "Chunked")).is_ok());
        let large = check(post().header("content-length", "101"));
        assert!(matches!(large, Err(Refusal::BodyTooLarge { bytes_max: 100 })));
        for unclear in ["+1", "01", "1, 1", "", "18446744073709551617", "1 "] {
            let unclear = check(post().header("content-length", unclear));
            assert!(matches!(unclear, Err(Refusal::Malformed { .. })), "{unclear:?}");
        }
        assert!(check(post().header("content-length", "1").header("content-length", "1")).is_err());
        let both = check(post().header("content-length", "1").header("transfer-encoding", "chunked"));
        assert!(matches!(both, Err(Refusal::Malformed { .. })));
        let coded = check(post().header("transfer-encoding", "gzip, chunked"));
        assert!(matches!(coded, Err(Refusal::NotSupported { .. })));
    }

    #[test]
    fn nothing_but_100_can_be_expected() {
        let post = |expect: &str| http::Request::post("/a").header("host", "a").header("expect", expect);
        assert!(check(post("100-Continue")).is_ok());
        for other in ["", "200-ok", "100-continue, x"] {
            assert!(matches!(check(post(other)), Err(Refusal::ExpectationFailed)), "{other}");
        }
    }

    #[test]
    fn connect_is_not_supported_and_an_upgrade_is_an_offer() {
        let connect = || http::Request::builder().method("CONNECT").uri("/a").header("host", "a");
        assert!(matches!(check(connect()), Err(Refusal::NotSupported { .. })));
        let extended = check(connect().extension(Protocol::from_static("websocket"))).expect("RFC 8441");
        assert_eq!((extended.method().as_str(), extended.protocol()), ("GET", Some("websocket")));
        let upgrade = http::Request::get("/a").header("host", "a").header("upgrade", "websocket");
        assert!(check(upgrade).is_ok());
    }
}
