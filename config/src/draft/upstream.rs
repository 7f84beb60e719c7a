//! Upstreams.

use std::ops::RangeInclusive;

use super::identity::text;
use crate::ids::UpstreamName;
use crate::spot::{Notes, Spot, Wanted};
use crate::upstream::{ClientFiles, Endpoint, Protocol, Upstream, UpstreamTls};

/// Reads `{endpoints: ["http://127.0.0.1:9001"], connect_timeout: 1s, …}`.
pub(super) fn read(notes: &mut Notes, spot: &Spot<'_>, name: &UpstreamName) -> Option<Upstream> {
    let known = [
        "endpoints",
        "connect_timeout",
        "response_timeout",
        "body_idle_timeout",
        "idle_timeout",
        "tunnel_idle_timeout",
        "connections_max",
        "protocol",
        "streams_max",
        "tls",
    ];
    let mut fields = spot.fields(notes, &known)?;
    let endpoints = fields.required(notes, "endpoints").map(|spot| {
        let endpoints = spot.texts(notes, Upstream::ENDPOINTS_MAX, parse_endpoint);
        if matches!(spot.value(), crate::tree::Value::List(list) if list.is_empty()) {
            spot.wrong(notes, "at least one endpoint");
        }
        (spot, endpoints)
    });
    let default = Upstream::of(name.clone(), Vec::new());
    let mut time = |notes: &mut Notes, key, default| {
        fields.or(notes, key, default, |notes, spot| spot.duration(notes, Upstream::TIMEOUTS))
    };
    let connect_timeout = time(notes, "connect_timeout", default.connect_timeout);
    let response_timeout = time(notes, "response_timeout", default.response_timeout);
    let body_idle_timeout = time(notes, "body_idle_timeout", default.body_idle_timeout);
    let idle_timeout = time(notes, "idle_timeout", default.idle_timeout);
    let tunnel_idle_timeout = time(notes, "tunnel_idle_timeout", default.tunnel_idle_timeout);
    let connections_max = fields.or(notes, "connections_max", default.connections_max, |notes, spot| {
        read_count(notes, spot, Upstream::CONNECTIONS)
    });
    let protocols = [("http1", Protocol::Http1), ("http2", Protocol::Http2)];
    let protocol =
        fields.or(notes, "protocol", Protocol::default(), |notes, spot| spot.word(notes, &protocols));
    let streams_max = fields.optional("streams_max").and_then(|spot| {
        if protocol == Protocol::Http1 {
            spot.wrong_key(notes, "`streams_max` of HTTP/1.1".into(), "`protocol: http2` beside it");
        }
        read_count(notes, &spot, Upstream::STREAMS)
    });
    let tls_spot = fields.optional("tls");
    let (endpoints_spot, endpoints) = endpoints?;
    let secured = endpoints.iter().filter(|(scheme, _)| *scheme == Scheme::Https).count();
    match &tls_spot {
        None if secured > 0 => {
            let wanted = "`tls: {ca: FILE}` beside endpoints with https";
            endpoints_spot.wrong(notes, wanted).help =
                Some("the file has the certificates that may sign the endpoints'".into());
        }
        Some(_) if secured < endpoints.len() => {
            endpoints_spot.wrong(notes, "endpoints with https beside `tls`");
        }
        _ => {}
    }
    let tls = match tls_spot {
        Some(spot) => Some(read_tls(notes, &spot)?),
        None => None,
    };
    // What an empty list is missing has been said.
    if endpoints.is_empty() {
        return None;
    }
    Some(Upstream {
        name: name.clone(),
        endpoints: endpoints.into_iter().map(|(_, endpoint)| endpoint).collect(),
        connect_timeout,
        response_timeout,
        body_idle_timeout,
        idle_timeout,
        tunnel_idle_timeout,
        connections_max,
        protocol,
        streams_max: streams_max.unwrap_or(default.streams_max),
        tls,
    })
}

fn read_count(notes: &mut Notes, spot: &Spot<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let count = spot.integer(notes, u64::from(*range.start())..=u64::from(*range.end()))?;
    u32::try_from(count).ok()
}

/// Reads `{ca: ca.pem, server_name: shop.internal, certificate: gateway.pem, key: gateway.key}`.
fn read_tls(notes: &mut Notes, spot: &Spot<'_>) -> Option<UpstreamTls> {
    let mut fields = spot.fields(notes, &["ca", "server_name", "certificate", "key"])?;
    let ca = fields.required(notes, "ca").and_then(|spot| spot.parse(notes, text));
    let server_name = fields.optional("server_name").and_then(|spot| spot.parse(notes, parse_name));
    let (certificate, key) = (fields.optional("certificate"), fields.optional("key"));
    if let (Some(alone), None) | (None, Some(alone)) = (&certificate, &key) {
        alone.wrong_key(notes, "one of `certificate` and `key`".into(), "both, or none");
    }
    let mut file = |spot: Option<Spot<'_>>| spot.and_then(|spot| spot.parse(notes, text));
    let client = file(certificate).zip(file(key));
    let client = client.map(|(certificate, key)| ClientFiles { certificate, key });
    Some(UpstreamTls { ca: ca?, server_name, client })
}

/// A name or an address, as a certificate bears it.
fn parse_name(text: &str) -> Result<String, Wanted> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    match split_host_port(text) {
        Some((_, None)) => Ok(text.to_ascii_lowercase()),
        _ if is_address => Ok(text.to_owned()),
        _ => Err("a name without a port, such as shop.internal".into()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// `http://host`, `http://host:port`, `http://[address]:port`, or the same with `https`, all with or without a last `/`.
fn parse_endpoint(text: &str) -> Result<(Scheme, Endpoint), Wanted> {
    let wanted = || Wanted::from("an address such as http://10.0.0.1:8080");
    let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (Scheme::Http, rest),
        (_, Some(rest)) => (Scheme::Https, rest),
        (None, None) => return Err(wanted()),
    };
    let default = if scheme == Scheme::Http { 80 } else { 443 };
    let (host, port) = split_host_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wanted)?;
    Ok((scheme, Endpoint { host: host.to_owned(), port: port.unwrap_or(default) }))
}

/// `host`, `host:port` or `[IPv6 address]:port` → host without brackets, port ≥ 1.
pub(super) fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if !(1..=253).contains(&host.len()) || !host.bytes().all(plain) {
            return None;
        }
        (host, port)
    };
    match port {
        None => Some((host, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(digits.parse().ok().filter(|port| *port > 0)?)))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_a_port() {
        let endpoint = |text| parse_endpoint(text).ok().map(|(_, it)| (it.host, it.port));
        assert_eq!(endpoint("http://127.0.0.1:9001"), Some(("127.0.0.1".into(), 9001)));
        assert_eq!(endpoint("http://echo.local/"), Some(("echo.local".into(), 80)));
        assert_eq!(endpoint("http://[::1]:81"), Some(("::1".into(), 81)));
        assert_eq!(endpoint("https://a"), Some(("a".into(), 443)));
        for text in [
            "",
            "http://",
            "echo:1",
            "ftp://a",
            "https://",
            "http://a:0",
            "http://a:+1",
            "http://a/b",
            "http://[::1",
        ] {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }
}
