//! Which protocol a client may switch to: its connection of HTTP/1.1 (RFC 9110 section 7.8), or one stream of HTTP/2
//! (RFC 8441). Pure.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Version};
use hyper::ext::Protocol;

use super::websocket::{Handshake, NONCE_BYTES};

/// A switch that a client asks for and its route permits, as its upstream is asked for it: in HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Upgrade {
    protocol: HeaderValue,
    client: Client,
}

/// What of the client's leaves HTTP.
#[derive(Clone, Debug)]
enum Client {
    /// Its connection.
    Connection,
    /// One stream. For WebSocket: what the client left out.
    Stream(Option<Handshake>),
}

/// Whether a route permits a protocol.
///
/// - `permitted`: in lower case.
pub fn permits(permitted: &[String], protocol: &str) -> bool {
    permitted.iter().any(|name| name.eq_ignore_ascii_case(protocol))
}

/// The first protocol that the client asks for and its route permits; none: the request stays what it is.
///
/// An upgrade of a connection is an offer that may be ignored, so nothing is refused here. It is ignored where it does not
/// count: with another version than HTTP/1.1, without its `Connection` option, and together with a body, which the new
/// protocol's bytes would have to wait for. A stream asks for one protocol, which was permitted when its route was found.
///
/// - `permitted`: in lower case.
/// - `nonce`: random.
pub fn asked(
    parts: &mut Parts,
    has_body: bool,
    permitted: &[String],
    nonce: impl FnOnce() -> [u8; NONCE_BYTES],
) -> Option<Upgrade> {
    if let Some(protocol) = parts.extensions.remove::<Protocol>() {
        let is_websocket = protocol.as_str().eq_ignore_ascii_case("websocket");
        let client = Client::Stream(is_websocket.then(|| Handshake::new(nonce())));
        return Some(Upgrade { protocol: HeaderValue::from_str(protocol.as_str()).ok()?, client });
    }
    if permitted.is_empty() || has_body || parts.version != Version::HTTP_11 {
        return None;
    }
    if !listed(&parts.headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut offers = listed(&parts.headers, &header::UPGRADE);
    let offer = offers.find(|offer| permits(permitted, offer))?;
    Some(Upgrade { protocol: HeaderValue::from_str(offer).ok()?, client: Client::Connection })
}

impl Upgrade {
    /// Whether a stream asks for it: then every answer of 2xx begins its tunnel.
    pub fn is_of_stream(&self) -> bool {
        matches!(self.client, Client::Stream(_))
    }

    /// Makes a head one that asks for it.
    pub fn ask(&self, headers: &mut HeaderMap) {
        self.write(headers);
        if let Client::Stream(Some(handshake)) = &self.client {
            handshake.ask(headers);
        }
    }

    /// Whether an upstream's 101 agrees to it.
    ///
    /// # Errors
    /// Why it does not, for the log.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let found = headers.get(header::UPGRADE);
        if !found.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes())) {
            return Err("switched to a protocol that it was not asked for");
        }
        match &self.client {
            Client::Stream(Some(handshake)) if !handshake.is_proven(headers) => {
                Err("switched protocols with a wrong Sec-WebSocket-Accept")
            }
            _ => Ok(()),
        }
    }

    /// Makes an upstream's agreement, without what concerns its connection, the client's. Yields its status.
    pub fn tell(&self, headers: &mut HeaderMap) -> StatusCode {
        // A tunnel has no length.
        headers.remove(header::CONTENT_LENGTH);
        if let Client::Connection = self.client {
            self.write(headers);
            return StatusCode::SWITCHING_PROTOCOLS;
        }
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        StatusCode::OK
    }

    fn write(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }
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
        upgrade(request, has_body).map(|upgrade| upgrade.protocol)
    }

    fn upgrade(request: http::request::Builder, has_body: bool) -> Option<Upgrade> {
        let (mut parts, ()) = request.body(()).expect("well-formed").into_parts();
        asked(&mut parts, has_body, &["websocket".to_owned(), "chat/2".to_owned()], || [7; NONCE_BYTES])
    }

    fn stream(protocol: &'static str) -> Upgrade {
        let request = http::Request::get("/a").version(Version::HTTP_2);
        let request = request.extension(Protocol::from_static(protocol)).header("sec-websocket-key", "x");
        upgrade(request, false).expect("a stream asks for it")
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
        let websocket = upgrade(get("upgrade", "websocket"), false).expect("an offer");
        let mut headers = HeaderMap::new();
        assert!(websocket.check(&headers).is_err());
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        assert_eq!(websocket.check(&headers), Ok(()));
        headers.insert(header::UPGRADE, HeaderValue::from_static("chat"));
        assert!(websocket.check(&headers).is_err());
    }

    #[test]
    fn a_stream_has_its_handshake_done_for_it() {
        for (protocol, has_key) in [("websocket", true), ("WebSocket", true), ("chat/2", false)] {
            // given a stream that asks for a protocol
            let stream = stream(protocol);
            assert!(stream.is_of_stream());
            // when the upstream is asked, then as by a client of HTTP/1.1, with a key of our own for WebSocket alone
            let mut headers = HeaderMap::new();
            stream.ask(&mut headers);
            assert_eq!(
                (&headers["connection"], &headers["upgrade"]),
                (&"upgrade".parse().expect("a value"), &stream.protocol)
            );
            assert_eq!(headers.contains_key("sec-websocket-key"), has_key);
            // and it has to prove that it has read it
            assert_eq!(stream.check(&headers).is_err(), has_key);
            // and the client hears nothing of all that
            headers.insert("sec-websocket-accept", HeaderValue::from_static("x"));
            headers.insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
            headers.insert("content-length", HeaderValue::from_static("2"));
            assert_eq!(stream.tell(&mut headers), StatusCode::OK);
            assert!(headers.contains_key("sec-websocket-protocol"));
            assert!(!headers.contains_key("sec-websocket-accept") && !headers.contains_key("content-length"));
        }
    }
}
