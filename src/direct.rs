//! Admitted in, answered without an upstream: redirects, and answers of the document's own.

use bytes::Bytes;
use config::action::{Redirect, Respond, Scheme};
use config::path::Path;
use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{Response, StatusCode};

use crate::journey::evidence::Admitted;
use crate::refusal::Refusal;
use crate::router::paths;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What a route answers by itself, compiled.
#[derive(Debug)]
pub enum Direct {
    /// Ask elsewhere.
    Redirect(StatusCode, Redirect),
    /// This.
    Respond(StatusCode, Bytes, Option<HeaderValue>),
}

impl Direct {
    /// # Errors
    /// What is wrong, if its status is none.
    pub fn redirect(redirect: &Redirect) -> Result<Self, String> {
        let status = Some(redirect.status).filter(|status| Redirect::STATUSES.contains(status));
        if let Some(host) = redirect.host.as_deref().filter(|host| !is_host(host)) {
            return Err(format!("found {host:?}, wanted a host without a port"));
        }
        Ok(Self::Redirect(status_of(status, redirect.status)?, redirect.clone()))
    }

    /// # Errors
    /// What is wrong, if its status or its content type is none.
    pub fn respond(respond: &Respond) -> Result<Self, String> {
        let status = Some(respond.status).filter(|status| Respond::STATUSES.contains(status));
        let status = status_of(status, respond.status)?;
        let kind = match &respond.content_type {
            Some(text) => {
                Some(HeaderValue::from_str(text).map_err(|_| format!("{text:?} is no content type"))?)
            }
            None => None,
        };
        let kind = kind.or(Some(TEXT)).filter(|_| !respond.body.is_empty());
        Ok(Self::Respond(status, Bytes::copy_from_slice(respond.body.as_bytes()), kind))
    }

    fn to(&self, admitted: &Admitted) -> Response<Bytes> {
        match self {
            Self::Redirect(status, redirect) => {
                let received = admitted.received();
                let matched = &admitted.rule().route.matches.path;
                let asked = (received.scheme(), received.host(), received.path(), received.query());
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = *status;
                if let Ok(location) = HeaderValue::try_from(location(redirect, matched, asked)) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
            Self::Respond(status, body, kind) => {
                let mut response = Response::new(body.clone());
                *response.status_mut() = *status;
                if let Some(kind) = kind {
                    response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
                }
                response
            }
        }
    }
}

/// The answer to an admitted request that goes to no upstream.
///
/// # Errors
/// [`Refusal::Internal`], if its route has none: a fault of ours.
pub fn answer(admitted: &Admitted) -> Result<Response<Bytes>, Refusal> {
    let direct = admitted.rule().direct.as_ref();
    let direct =
        direct.ok_or(Refusal::Internal { why: "a route without an upstream and without an answer" })?;
    Ok(direct.to(admitted))
}

/// A host alone: nothing in it ends the authority of a location, or begins another one.
fn is_host(text: &str) -> bool {
    text.parse::<Authority>().is_ok_and(|authority| authority.host() == text)
}

fn status_of(good: Option<u16>, found: u16) -> Result<StatusCode, String> {
    good.and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("found the status {found}, wanted one that an answer may have"))
}

/// Where a client is sent: made anew of a scheme, a host, a path and a query, so that none of them can be read as another.
///
/// - `asked`: the request's scheme, host, path and query.
fn location(redirect: &Redirect, matched: &Path, asked: (Scheme, &str, &str, Option<&str>)) -> String {
    let (came_by, host, path, query) = asked;
    let mut text = String::new();
    let Redirect { scheme, host: other, port, path: new, .. } = redirect;
    if scheme.is_some() || other.is_some() || port.is_some() {
        let scheme = scheme.unwrap_or(came_by);
        text.push_str(scheme.as_str());
        text.push_str("://");
        text.push_str(other.as_deref().unwrap_or(host));
        if let Some(port) = port.filter(|port| *port != scheme.port()) {
            text.push_str(&format!(":{port}"));
        }
    }
    text.push_str(&match new {
        Some(new) => paths::renewed(new, matched, path),
        None => paths::rooted(path),
    });
    if let Some(query) = query {
        text.push('?');
        paths::encode(query, &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use config::action::NewPath;

    use super::*;

    fn to(path: Option<NewPath>) -> Redirect {
        Redirect { status: 308, scheme: None, host: None, port: None, path }
    }

    #[test]
    fn a_location_keeps_what_the_redirect_leaves_out() {
        let old = Path::Prefix("/old".into());
        let asked = (Scheme::Http, "api.test", "/old/a", Some("b=c&d"));
        let new = || Some(NewPath::Prefix("/new".into()));
        let of = |redirect: &Redirect| location(redirect, &old, asked);
        assert_eq!(of(&to(new())), "/new/a?b=c&d");
        let https = Redirect { scheme: Some(Scheme::Https), ..to(None) };
        assert_eq!(of(&https), "https://api.test/old/a?b=c&d");
        assert_eq!(of(&Redirect { port: Some(443), ..https.clone() }), "https://api.test/old/a?b=c&d");
        assert_eq!(of(&Redirect { port: Some(8443), ..https }), "https://api.test:8443/old/a?b=c&d");
        let by_tls = (Scheme::Https, asked.1, asked.2, asked.3);
        assert_eq!(
            location(&Redirect { port: Some(443), ..to(None) }, &old, by_tls),
            "https://api.test/old/a?b=c&d"
        );
        let other = Redirect { host: Some("other.example".into()), ..to(new()) };
        assert_eq!(of(&other), "http://other.example/new/a?b=c&d");
    }

    #[test]
    fn a_host_that_is_more_than_one_is_refused() {
        let host = |host: &str| Direct::redirect(&Redirect { host: Some(host.into()), ..to(None) });
        for good in ["a.example", "[::1]", "10.0.0.1"] {
            assert!(host(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "u@a", "a:1", "a?b", "a\\b", "a\r\nx: y", "a b"] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_location_leads_nowhere_else_and_ends_in_its_line() {
        // given whatever a client can write into its path and its query
        let any = Path::Prefix("/".into());
        for path in
            ["//evil.example", "/\\evil.example", "/\r\nset-cookie: a=b", "/%2f%2fevil", "/%0d%0ax", "/ä\"<"]
        {
            for query in [None, Some("\r\nx: y"), Some("//evil"), Some("a=%0d%0a\"<ä")] {
                for redirect in
                    [to(None), to(Some(NewPath::Prefix("/".into()))), to(Some(NewPath::Path("/n".into())))]
                {
                    let text = location(&redirect, &any, (Scheme::Http, "h", path, query));
                    // then the location is a path on this host, and a field value
                    assert!(text.starts_with('/') && !text.starts_with("//"), "{text:?}");
                    assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'), "{text:?}");
                    let there = Redirect { host: Some("there.example".into()), ..redirect };
                    let text = location(&there, &any, (Scheme::Http, "h", path, query));
                    let uri: http::Uri = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
                    assert_eq!(uri.host(), Some("there.example"), "{text}");
                }
            }
        }
    }
}
