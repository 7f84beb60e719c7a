//! Which protocol a client may switch to (RFC 9110 section 7.8). Pure.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Version, request::Parts};

/// The first protocol that the client asks for and its route permits; none: the request stays what it is.
///
/// An upgrade is an offer that may be ignored, so nothing is refused here. It is ignored where it does not count: with
/// another version than HTTP/1.1, without its `Connection` option, and together with a body, which the new protocol's bytes
/// would have to wait for.
///
/// - `permitted`: in lower case.
pub fn asked(parts: &Parts, has_body: bool, permitted: &[String]) -> Option<HeaderValue> {
    if permitted.is_empty() || has_body || parts.version != Version::HTTP_11 {
        return None;
    }
    if !listed(&parts.headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut offers = listed(&parts.headers, &header::UPGRADE);
    let offer = offers.find(|offer| permitted.iter().any(|name| name.eq_ignore_ascii_case(offer)))?;
    HeaderValue::from_str(offer).ok()
}

/// Makes a head one that asks for `protocol`, or agrees to it.
pub fn write(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Whether an upstream's 101 agrees to what it was asked for.
pub fn agrees(headers: &HeaderMap, asked: &HeaderValue) -> bool {
    let found = headers.get(header::UPGRADE);
    found.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
}

/// The items of a field that is a list.
fn listed<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'h str> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(request: http::request::Builder, has_body: bool) -> Option<HeaderValue> {
        let (parts, ()) = request.body(()).expect("well-formed").into_parts();
        asked(&parts, has_body, &["websocket".to_owned(), "chat/2".to_owned()])
    }

    fn get(connection: &str, upgrade: &str) -> http::request::Builder {
        http::Request::get("/a").header("connection", connection).header("upgrade", upgrade)
    }

    #[test]
    fn the_first_offer_that_is_permitted_counts() {
        for (upgrade, wanted) in [
            ("websocket", Some("websocket")),
            ("WebSocket", Some("WebSocket")),
            ("h2c, chat/2, websocket", Some("chat/2")),
            ("h2c", None),
            ("chat/1", None),
            ("", None),
        ] {
            let found = asks(get("keep-alive, Upgrade", upgrade), false);
            assert_eq!(found.as_ref().and_then(|it| it.to_str().ok()), wanted, "{upgrade}");
        }
    }

    #[test]
    fn an_offer_that_does_not_count_is_ignored() {
        assert_eq!(asks(get("keep-alive", "websocket"), false), None);
        assert_eq!(asks(get("upgrade", "websocket"), true), None);
        assert_eq!(asks(get("upgrade", "websocket").version(Version::HTTP_10), false), None);
        assert_eq!(asks(get("upgrade", "websocket").version(Version::HTTP_2), false), None);
        assert_eq!(asks(http::Request::get("/a").header("connection", "upgrade"), false), None);
    }

    #[test]
    fn an_agreement_is_to_the_protocol_that_was_asked_for() {
        let websocket = HeaderValue::from_static("websocket");
        let mut headers = HeaderMap::new();
        assert!(!agrees(&headers, &websocket));
        write(&mut headers, HeaderValue::from_static("WebSocket"));
        assert!(agrees(&headers, &websocket));
        write(&mut headers, HeaderValue::from_static("chat"));
        assert!(!agrees(&headers, &websocket));
    }
}
