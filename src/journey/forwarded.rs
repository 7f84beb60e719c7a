//! What hops before us say of a request, and what the next one is told: `X-Forwarded-For`, `-Proto`, `-Host`, `-Port`, and
//! `Forwarded` (RFC 7239). Pure.
//!
//! Whoever connects can write anything into these fields. They are believed, and extended, from trusted hops alone; from
//! all others they are replaced. A chain is read from its right end, which the nearest hop wrote: the client is the first
//! one there that is not trusted itself.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use config::action::Scheme;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::caller::Caller;
use crate::fields;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The client's address.
pub fn client(headers: &HeaderMap, caller: &Caller) -> IpAddr {
    let peer = caller.peer.ip();
    if !caller.is_trusted {
        return peer;
    }
    if headers.contains_key(X_FORWARDED_FOR) {
        return walk(peer, caller, from_the_right(headers, &X_FORWARDED_FOR).map(address));
    }
    let elements = from_the_right(headers, &header::FORWARDED);
    walk(peer, caller, elements.map(|element| parameter(element, "for").and_then(address)))
}

/// As far as the chain can be read: whoever wrote what cannot be read is the last one that is known.
fn walk(peer: IpAddr, caller: &Caller, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
    let mut client = peer;
    for hop in hops {
        let Some(hop) = hop else { return client };
        client = hop;
        if !caller.proxies.is_trusted(hop) {
            return client;
        }
    }
    client
}

/// How the client asked, as the nearest hop says.
pub fn scheme(headers: &HeaderMap, caller: &Caller) -> Scheme {
    if !caller.is_trusted {
        return caller.scheme;
    }
    let told = from_the_right(headers, &X_FORWARDED_PROTO).next();
    let told = told.or_else(|| parameter(from_the_right(headers, &header::FORWARDED).next()?, "proto"));
    match told {
        Some(told) if told.eq_ignore_ascii_case("https") => Scheme::Https,
        Some(told) if told.eq_ignore_ascii_case("http") => Scheme::Http,
        _ => caller.scheme,
    }
}

/// Writes what the next hop is told. `asked_host`: the client's, as it wrote it.
pub fn tell(headers: &mut HeaderMap, caller: &Caller, asked_host: Option<HeaderValue>) {
    let scheme = scheme(headers, caller);
    if caller.is_trusted {
        extend(headers, caller);
    } else {
        headers.insert(X_FORWARDED_FOR, caller.address_field.clone());
        headers.remove(header::FORWARDED);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    if !(caller.is_trusted && headers.contains_key(X_FORWARDED_PORT)) {
        headers.insert(X_FORWARDED_PORT, caller.port_field.clone());
    }
    if !(caller.is_trusted && headers.contains_key(X_FORWARDED_HOST)) {
        match asked_host {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(X_FORWARDED_HOST),
        };
    }
}

/// Appends the trusted hop to what it says.
fn extend(headers: &mut HeaderMap, caller: &Caller) {
    let chain = fields::value(|text| {
        for field in headers.get_all(X_FORWARDED_FOR) {
            text.extend_from_slice(field.as_bytes());
            text.write_str(", ")?;
        }
        text.extend_from_slice(caller.address_field.as_bytes());
        Ok(())
    });
    if let Some(chain) = chain {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    if headers.contains_key(header::FORWARDED) {
        let proto = caller.scheme.as_str();
        let element = match caller.peer.ip().to_canonical() {
            IpAddr::V4(address) => fields::display(format_args!("for={address};proto={proto}")),
            IpAddr::V6(address) => fields::display(format_args!("for=\"[{address}]\";proto={proto}")),
        };
        if let Some(element) = element {
            headers.append(header::FORWARDED, element);
        }
    }
}

/// The items of a list field, the last first. What is no text is an item that nobody can read.
fn from_the_right<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let fields: smallvec::SmallVec<[&HeaderValue; 4]> = headers.get_all(name).iter().collect();
    let texts = fields.into_iter().rev().map(|field| field.to_str().unwrap_or("?"));
    texts.flat_map(|text| text.rsplit(',').map(str::trim))
}

/// The value of a parameter of a `Forwarded` element, without its quotes. A comma or a semicolon inside of quotes ends the
/// element or the parameter early: no address and no scheme holds one.
fn parameter<'e>(element: &'e str, wanted: &str) -> Option<&'e str> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
    values.next().map(|(_, value)| value.trim().trim_matches('"'))
}

/// An address, with a port or without; IPv6 in brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    plain.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::node::HttpFile;

    use super::*;
    use crate::journey::caller::Proxies;

    fn caller(peer: &str) -> Caller {
        let trusted_proxies =
            ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")).into();
        let proxies = Proxies::new(&HttpFile { trusted_proxies, ..HttpFile::default() });
        let peer = SocketAddr::new(peer.parse().expect("an address"), 4000);
        Caller::new(peer, Scheme::Https, 8443, Arc::new(proxies))
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        let of =
            |peer: &str, fields: &[(&'static str, &str)]| client(&headers(fields), &caller(peer)).to_string();
        let xff = "x-forwarded-for";
        // given whatever a stranger says
        assert_eq!(of("192.0.2.9", &[(xff, "203.0.113.1")]), "192.0.2.9");
        assert_eq!(of("192.0.2.9", &[("forwarded", "for=203.0.113.1")]), "192.0.2.9");
        // and what trusted hops say
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("::ffff:10.0.0.1", &[(xff, "203.0.113.1")]), "203.0.113.1");
        assert_eq!(of("10.0.0.1", &[(xff, "1.1.1.1, 203.0.113.1 , 10.9.9.9")]), "203.0.113.1");
        assert_eq!(
            of("10.0.0.1", &[(xff, "1.1.1.1, 203.0.113.1"), (xff, "10.9.9.9,10.8.8.8")]),
            "203.0.113.1"
        );
        assert_eq!(of("10.0.0.1", &[(xff, "10.0.0.3,10.0.0.2")]), "10.0.0.3");
        assert_eq!(of("10.0.0.1", &[(xff, "203.0.113.1:80")]), "203.0.113.1");
        assert_eq!(of("fd00::1", &[(xff, "[2001:db8::1]:80")]), "2001:db8::1");
        // then what cannot be read ends the chain
        for broken in ["unknown", "", "1.1.1", "203.0.113.1,", "a b", "[::1", "203.0.113.1 10.0.0.1"] {
            assert_eq!(of("10.0.0.1", &[(xff, broken)]), "10.0.0.1", "{broken:?}");
        }
        // and the standard's field counts where the other one is missing
        let forwarded = "for=1.1.1.1, For=\"[2001:db8::1]:4711\";proto=http, for=10.9.9.9";
        assert_eq!(of("10.0.0.1", &[("forwarded", forwarded)]), "2001:db8::1");
        assert_eq!(of("10.0.0.1", &[("forwarded", "for=_hidden")]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &[("forwarded", forwarded), (xff, "2.2.2.2")]), "2.2.2.2");
    }

    fn told(peer: &str, fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = headers(fields);
        tell(&mut headers, &caller(peer), Some(HeaderValue::from_static("api.test:8443")));
        headers
    }

    #[test]
    fn a_stranger_is_told_of_by_us_and_a_trusted_hop_by_itself_and_us() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.test"),
            ("x-forwarded-port", "80"),
            ("forwarded", "for=1.1.1.1"),
        ];
        let stranger = told("192.0.2.9", &fields);
        assert_eq!(stranger["x-forwarded-for"], "192.0.2.9");
        assert_eq!(stranger.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(
            (&stranger["x-forwarded-proto"], &stranger["x-forwarded-port"]),
            (&"https".parse().unwrap(), &"8443".parse().unwrap())
        );
        assert_eq!(stranger["x-forwarded-host"], "api.test:8443");
        assert!(!stranger.contains_key("forwarded"));
        let trusted = told("10.0.0.1", &fields);
        assert_eq!(trusted["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 10.0.0.1");
        assert_eq!(
            (&trusted["x-forwarded-proto"], &trusted["x-forwarded-port"]),
            (&"http".parse().unwrap(), &"80".parse().unwrap())
        );
        assert_eq!(trusted["x-forwarded-host"], "shop.test");
        let forwarded: Vec<_> = trusted.get_all("forwarded").iter().collect();
        assert_eq!(forwarded, ["for=1.1.1.1", "for=10.0.0.1;proto=https"]);
        // and one that says nothing is told of like a stranger
        let quiet = told("fd00::1", &[]);
        assert_eq!(
            (&quiet["x-forwarded-for"], &quiet["x-forwarded-host"]),
            (&"fd00::1".parse().unwrap(), &"api.test:8443".parse().unwrap())
        );
    }

    #[test]
    fn the_scheme_is_the_nearest_hops_word() {
        let of = |peer: &str, fields: &[(&'static str, &str)]| scheme(&headers(fields), &caller(peer));
        assert_eq!(of("192.0.2.9", &[("x-forwarded-proto", "http")]), Scheme::Https);
        assert_eq!(of("10.0.0.1", &[("x-forwarded-proto", "https, HTTP")]), Scheme::Http);
        assert_eq!(of("10.0.0.1", &[("x-forwarded-proto", "gopher")]), Scheme::Https);
        assert_eq!(of("10.0.0.1", &[("forwarded", "for=a;proto=https, for=b;proto=http")]), Scheme::Http);
    }
}
