//! W3C Trace Context: which trace a request belongs to. Pure.
//!
//! The gateway records no spans, so it begins no trace: a parent that nobody recorded would be missing from every one, and
//! whether to sample is not its decision. It passes a good context on as it is, and nothing of one that is not.

use http::header::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Of `version-traceid-parentid-flags` in version 00. Later ones may be longer.
const PARENT_BYTES: usize = 55;
/// Of a tracestate that is passed on, all of its fields together.
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;

/// The trace that a request says it belongs to. None: it says none, or not well.
pub fn trace_id(headers: &HeaderMap) -> Option<u128> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    match (parents.next(), parents.next()) {
        (Some(one), None) => parse(one.as_bytes()),
        _ => None,
    }
}

/// Leaves of a context what is well-formed. A state without its trace is none.
pub fn pass_on(headers: &mut HeaderMap) {
    let is_traced = trace_id(headers).is_some();
    if !is_traced {
        headers.remove(TRACEPARENT);
    }
    if headers.contains_key(TRACESTATE) && !(is_traced && is_state(headers)) {
        headers.remove(TRACESTATE);
    }
}

fn parse(text: &[u8]) -> Option<u128> {
    let (known, rest) = text.split_at_checked(PARENT_BYTES)?;
    let known = std::str::from_utf8(known).ok()?;
    let [version, trace, parent, flags] = parts(known)?;
    let fits = match version {
        "00" => rest.is_empty(),
        "ff" => false,
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    let hexadecimal = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !fits || ![version, trace, parent, flags].into_iter().all(hexadecimal) {
        return None;
    }
    let is_parent = u64::from_str_radix(parent, 16).ok()? != 0;
    u128::from_str_radix(trace, 16).ok().filter(|trace| is_parent && *trace != 0)
}

/// Version, trace, parent and flags, each of its length.
fn parts(known: &str) -> Option<[&str; 4]> {
    let mut parts = known.split('-');
    let all = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let lengths = all.map(str::len);
    (parts.next().is_none() && lengths == [2, 32, 16, 2]).then_some(all)
}

fn is_state(headers: &HeaderMap) -> bool {
    let (mut bytes, mut members) = (0, 0);
    headers.get_all(TRACESTATE).iter().all(|field| {
        let Ok(text) = field.to_str() else { return false };
        bytes += text.len();
        text.split(',').map(str::trim).filter(|member| !member.is_empty()).all(|member| {
            members += 1;
            bytes <= STATE_BYTES_MAX && members <= STATE_MEMBERS_MAX && is_member(member)
        })
    })
}

fn is_member(member: &str) -> bool {
    let in_key = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let in_value = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
    member.split_once('=').is_some_and(|(key, value)| {
        (1..=256).contains(&key.len())
            && key.bytes().all(in_key)
            && (1..=256).contains(&value.len())
            && value.bytes().all(in_value)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn passed(fields: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::try_from(value).expect("a value"));
        }
        pass_on(&mut headers);
        headers
    }

    #[test]
    fn a_good_context_passes_as_it_is() {
        for parent in [GOOD, &GOOD.replacen("00", "cc", 1), &format!("{}-more", GOOD.replacen("00", "01", 1))]
        {
            let state = "a=1, b@c=2,,d/e= x".to_owned();
            let headers = passed(&[("traceparent", parent.to_owned()), ("tracestate", state.clone())]);
            assert_eq!(
                (&headers["traceparent"], &headers["tracestate"]),
                (&parent.parse().expect("a value"), &state.parse().expect("a value"))
            );
            assert_eq!(trace_id(&headers), Some(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c));
        }
    }

    #[test]
    fn a_context_that_is_none_ends_here_with_its_state() {
        let zeros = |at: std::ops::Range<usize>| {
            let mut text = GOOD.to_owned();
            text.replace_range(at.clone(), &"0".repeat(at.len()));
            text
        };
        for bad in [
            String::new(),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            format!("{GOOD}-more"),
            format!("{}.more", GOOD.replacen("00", "01", 1)),
            GOOD[..54].to_owned(),
            GOOD.replace('-', "_"),
            zeros(3..35),
            zeros(36..52),
        ] {
            let headers = passed(&[("traceparent", bad.clone()), ("tracestate", "a=1".to_owned())]);
            assert!(headers.is_empty(), "{bad}: {headers:?}");
        }
        // and two of them are none
        let headers = passed(&[("traceparent", GOOD.to_owned()), ("traceparent", GOOD.to_owned())]);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn a_state_that_is_too_much_or_none_is_left_out() {
        let many = |count: usize| (0..count).map(|it| format!("k{it}=v")).collect::<Vec<_>>().join(",");
        for (state, passes) in [
            (many(32), true),
            (many(33), false),
            (format!("a={}", "x".repeat(256)), true),
            (format!("a={}", "x".repeat(257)), false),
            (format!("a={v},b={v},c=d", v = "x".repeat(256)), false),
            ("a".to_owned(), false),
            ("A=1".to_owned(), false),
            ("a==1".to_owned(), false),
        ] {
            let headers = passed(&[("traceparent", GOOD.to_owned()), ("tracestate", state.clone())]);
            assert_eq!(headers.contains_key("tracestate"), passes, "{state}");
            assert_eq!(headers["traceparent"], GOOD);
        }
    }
}
