//! What routes look at in a request, and nothing else of it. Pure.
//!
//! A name may have several values: repeated header fields, parameters, cookies. One that fits is enough. A value that is
//! no text (bytes that are not UTF-8, a broken percent-encoding) is there, and fits nothing.

use std::borrow::Cow;
use std::net::IpAddr;

use config::route::Condition;
use http::header::{self, HeaderMap};

use crate::journey::received::Received;

/// A request as routes see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// As it was sent.
    pub method: &'a str,
    /// Lower case, without port.
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
    /// What stands behind `?`, as it was sent.
    pub query: Option<&'a str>,
    /// As they were sent.
    pub headers: &'a HeaderMap,
    /// The connection's other end.
    pub address: IpAddr,
}

impl<'a> Asked<'a> {
    /// What a request asks.
    pub fn of(received: &'a Received) -> Self {
        Self {
            method: received.method().as_str(),
            host: received.host(),
            path: received.path(),
            query: received.query(),
            headers: received.headers(),
            address: received.address(),
        }
    }

    /// Values of a header field; none: no text.
    pub(super) fn header(self, name: &str) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        let values = self.headers.get_all(name).into_iter();
        values.map(|value| std::str::from_utf8(value.as_bytes()).ok().map(Cow::Borrowed))
    }

    /// Values of a query parameter, decoded; none: they can not be. A parameter without `=` has the empty value.
    pub(super) fn parameter(self, name: &str) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        let parts = self.query.unwrap_or("").split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
        pairs
            .filter(move |(key, _)| decode(key).is_some_and(|key| key == name))
            .map(|(_, value)| decode(value))
    }

    /// Values of a cookie, as they were sent; none: no text. Source: RFC 6265 section 4.2.1.
    pub(super) fn cookie(self, name: &str) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        let fields = self.headers.get_all(header::COOKIE).into_iter();
        let parts = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        parts.filter_map(move |part| {
            let at = part.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (part[..at].trim_ascii(), part[at + 1..].trim_ascii());
            (key == name.as_bytes()).then(|| std::str::from_utf8(value).ok().map(Cow::Borrowed))
        })
    }
}

/// Whether the values of a name are what a condition wants.
pub(super) fn fits<'v>(
    condition: &Condition,
    mut values: impl Iterator<Item = Option<Cow<'v, str>>>,
) -> bool {
    match condition {
        Condition::Present(present) => values.next().is_some() == *present,
        Condition::Equal(text) => values.flatten().any(|value| value == text.as_str()),
        Condition::Regex(pattern) => values.flatten().any(|value| pattern.fits(&value)),
    }
}

/// Undoes percent-encoding, and `+` for a space. None: the encoding is broken, or what it holds is no text.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        decoded.push(match first {
            b'+' => b' ',
            b'%' => {
                let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
                let byte = digit(0)? * 16 + digit(1)?;
                rest = &rest[2..];
                u8::try_from(byte).ok()?
            }
            plain => *plain,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_decoded_or_is_none() {
        for (text, wanted) in [("a", "a"), ("", ""), ("a+b%20c", "a b c"), ("%C3%a4", "ä"), ("%2B", "+")] {
            assert_eq!(decode(text).as_deref(), Some(wanted), "{text}");
        }
        for text in ["%", "%4", "%zz", "%+1", "a%", "%ff", "%C3"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
