//! What gRPC says in HTTP's fields. Pure.
//!
//! The names and the codes are those of "gRPC over HTTP2" and of its status codes.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::fields;

/// How a call ended.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Words to that, percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How a call ended, if not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it, and gRPC's own documentation says more")]
pub enum Code {
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The content type of a request that is a gRPC call.
pub fn content_type(headers: &HeaderMap) -> Option<&HeaderValue> {
    let found = headers.get(header::CONTENT_TYPE)?;
    let begin = found.as_bytes().get(..b"application/grpc".len())?;
    begin.eq_ignore_ascii_case(b"application/grpc").then_some(found)
}

/// How long a call's client waits; none: for ever, or it does not say it well.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    content_type(headers)?;
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Words as `grpc-message` has them.
pub fn message(words: &str) -> Option<HeaderValue> {
    fields::value(|text| {
        for byte in words.bytes() {
            match byte {
                b'%' => text.write_str("%25")?,
                b' '..=b'~' => text.write_char(char::from(byte))?,
                other => write!(text, "%{other:02X}")?,
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(timeout: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(timeout));
        headers
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, wanted) in [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("99999999m", Some(99_999_999_000_000)),
            ("5u", Some(5_000)),
            ("0n", Some(0)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
            ("1 S", None),
        ] {
            assert_eq!(timeout(&call(text)).map(|it| it.as_nanos()), wanted, "{text}");
        }
    }

    #[test]
    fn a_request_that_is_no_call_has_no_timeout_of_one() {
        let mut headers = call("1S");
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!((content_type(&headers), timeout(&headers)), (None, None));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("Application/gRPC"));
        assert!(content_type(&headers).is_some());
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(message("100 % ä\n").expect("a value"), "100 %25 %C3%A4%0A");
    }
}
