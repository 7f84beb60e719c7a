//! Upstreams.

use std::time::Duration;

use crate::ids::UpstreamName;
use crate::spot::{Notes, Spot, Wanted};
use crate::upstream::{Endpoint, Upstream};

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
    ];
    let mut fields = spot.fields(notes, &known)?;
    let endpoints = fields.required(notes, "endpoints").map(|spot| {
        let endpoints = spot.texts(notes, 1_000, parse_endpoint);
        if matches!(spot.value(), crate::tree::Value::List(list) if list.is_empty()) {
            spot.wrong(notes, "at least one endpoint");
        }
        endpoints
    });
    let default = Upstream::of(name.clone(), Vec::new());
    let mut time = |notes: &mut Notes, key, default| {
        let range = Duration::from_millis(1)..=Upstream::TIMEOUT_MAX;
        fields.or(notes, key, default, |notes, spot| spot.duration(notes, range))
    };
    let connect_timeout = time(notes, "connect_timeout", default.connect_timeout);
    let response_timeout = time(notes, "response_timeout", default.response_timeout);
    let body_idle_timeout = time(notes, "body_idle_timeout", default.body_idle_timeout);
    let idle_timeout = time(notes, "idle_timeout", default.idle_timeout);
    let tunnel_idle_timeout = time(notes, "tunnel_idle_timeout", default.tunnel_idle_timeout);
    let connections_max = fields.or(notes, "connections_max", default.connections_max, |notes, spot| {
        spot.integer(notes, 1..=65_536).and_then(|count| u32::try_from(count).ok())
    });
    Some(Upstream {
        name: name.clone(),
        endpoints: endpoints?,
        connect_timeout,
        response_timeout,
        body_idle_timeout,
        idle_timeout,
        tunnel_idle_timeout,
        connections_max,
    })
}

/// `http://host`, `http://host:port`, `http://[address]:port`, all with or without a last `/`.
fn parse_endpoint(text: &str) -> Result<Endpoint, Wanted> {
    let wanted = || Wanted::from("an address such as http://10.0.0.1:8080");
    if text.starts_with("https://") {
        let help = Some("upstreams are spoken to in plain HTTP/1.1; put a TLS proxy next to it".to_owned());
        return Err(Wanted { help, ..wanted() });
    }
    let rest = text.strip_prefix("http://").ok_or_else(wanted)?;
    let (host, port) = split_host_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wanted)?;
    Ok(Endpoint { host: host.to_owned(), port: port.unwrap_or(80) })
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
        let endpoint = |text| parse_endpoint(text).ok().map(|it| (it.host, it.port));
        assert_eq!(endpoint("http://127.0.0.1:9001"), Some(("127.0.0.1".into(), 9001)));
        assert_eq!(endpoint("http://echo.local/"), Some(("echo.local".into(), 80)));
        assert_eq!(endpoint("http://[::1]:81"), Some(("::1".into(), 81)));
        for text in
            ["", "http://", "echo:1", "https://a", "http://a:0", "http://a:+1", "http://a/b", "http://[::1"]
        {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }
}
