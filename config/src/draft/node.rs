//! The node file.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::clients;
use super::identity::text;
use super::upstream::split_host_port;
use crate::ids::NodeName;
use crate::node::{
    ADMIN_LISTEN_DEFAULT, ClusterFile, Http2Limits, Limits, LogFile, NodeFile,
    SNAPSHOT_AFTER_ENTRIES_DEFAULT, TlsFiles,
};
use crate::spot::{Fields, Notes, Spot, Wanted};
use crate::tree::{Node, quote};

/// Reads a node file; `notes` has what could not be read.
pub(crate) fn read(tree: &Node, dir: &Path, notes: &mut Notes) -> Option<NodeFile> {
    let root = Spot::root(tree);
    let mut fields =
        root.fields(notes, &["name", "data", "cluster", "http", "https", "admin", "limits", "log", "debug"])?;
    let name = fields.required(notes, "name").and_then(|spot| spot.parse(notes, NodeName::parse));
    let data = fields.required(notes, "data").and_then(|spot| read_path(notes, &spot, dir));
    let cluster =
        fields.required(notes, "cluster").and_then(|spot| read_cluster(notes, &spot, dir, name.as_ref()));
    let clients = clients::read(notes, &mut fields, dir);
    let admin = fields.or(notes, "admin", ADMIN_LISTEN_DEFAULT, read_admin);
    let limits = fields.optional("limits").map_or_else(Limits::default, |spot| read_limits(notes, &spot));
    let log = fields.or(notes, "log", LogFile::default(), read_log);
    let debug = (false, SNAPSHOT_AFTER_ENTRIES_DEFAULT);
    let (stamp_admissions, snapshot_after_entries) = fields.or(notes, "debug", debug, |notes, spot| {
        let mut fields = spot.fields(notes, &["stamp_admissions", "snapshot_after_entries"])?;
        let stamp = fields.or(notes, "stamp_admissions", debug.0, |notes, spot| spot.boolean(notes));
        let after = fields
            .or(notes, "snapshot_after_entries", debug.1, |notes, spot| spot.integer(notes, 8..=1_000_000));
        Some((stamp, after))
    });
    let (http, https) = clients?;
    Some(NodeFile {
        name: name?,
        folder: dir.to_owned(),
        data: data?,
        cluster: cluster?,
        http,
        https,
        admin,
        limits,
        log,
        stamp_admissions,
        snapshot_after_entries,
    })
}

/// A path, joined to the file's folder unless it is absolute.
pub(super) fn read_path(notes: &mut Notes, spot: &Spot<'_>, dir: &Path) -> Option<PathBuf> {
    let path = spot.parse(notes, text)?;
    Some(Path::new(&path).components().filter(|part| *part != Component::CurDir).fold(
        dir.to_path_buf(),
        |mut joined, part| {
            joined.push(part);
            joined
        },
    ))
}

fn read_cluster(
    notes: &mut Notes,
    spot: &Spot<'_>,
    dir: &Path,
    name: Option<&NodeName>,
) -> Option<ClusterFile> {
    let mut fields = spot.fields(notes, &["listen", "advertise", "peers", "tls", "plaintext"])?;
    let listen_spot = fields.required(notes, "listen");
    let listen = listen_spot.as_ref().and_then(|spot| spot.parse(notes, parse_socket));
    let advertise_spot = fields.optional("advertise");
    let advertise = match &advertise_spot {
        Some(spot) => spot.parse(notes, parse_host_port),
        None => listen.and_then(|listen| {
            if listen.ip().is_unspecified() || listen.port() == 0 {
                let wanted =
                    "`advertise: host:port`, since peers cannot connect to the address it listens on";
                spot.wrong_key(notes, "no address for peers".into(), wanted);
                return None;
            }
            Some(listen.to_string())
        }),
    };
    let mut peer_spots = Vec::new();
    let mut peers = BTreeMap::new();
    if let Some(spot) = fields.optional("peers") {
        for (key, spot) in spot.entries(notes).unwrap_or_default() {
            match NodeName::parse(key) {
                Ok(peer) if Some(&peer) == name => {
                    spot.wrong_key(notes, "this node itself".into(), "other nodes alone");
                }
                Ok(peer) => {
                    if let Some(address) = spot.parse(notes, parse_host_port) {
                        peers.insert(peer, address.clone());
                        peer_spots.push((spot, address));
                    }
                }
                Err(bad) => drop(spot.wrong_key(notes, quote(key), bad.wanted)),
            }
        }
    }
    let tls_spot = fields.optional("tls");
    let plaintext_spot = fields.optional("plaintext");
    let plaintext = plaintext_spot.as_ref().is_some_and(|spot| spot.boolean(notes) == Some(true));
    let tls = tls_spot.as_ref().map(|spot| read_tls(notes, spot, dir));
    if plaintext == tls.is_some() {
        let found =
            if plaintext { "both `tls` and `plaintext`" } else { "neither `tls` nor `plaintext: true`" };
        spot.wrong_key(notes, found.into(), "one of them").help =
            Some("`plaintext: true` is for trying things out on one machine".into());
    } else if plaintext {
        let wanted = "a loopback address, since the cluster side is plaintext";
        let help = Some("give `tls` to leave this machine".to_owned());
        if let (Some(spot), Some(listen)) = (&listen_spot, listen)
            && !listen.ip().is_loopback()
        {
            spot.wrong(notes, wanted).help = help.clone();
        }
        let advertised = advertise_spot.into_iter().zip(advertise.clone());
        for (spot, address) in advertised.chain(peer_spots) {
            if !is_loopback(&address) {
                spot.wrong(notes, wanted).help = help.clone();
            }
        }
    }
    let tls = match tls {
        None => None,
        Some(read) => Some(read?),
    };
    Some(ClusterFile { listen: listen?, advertise: advertise?, peers, tls })
}

fn read_tls(notes: &mut Notes, spot: &Spot<'_>, dir: &Path) -> Option<TlsFiles> {
    let mut fields = spot.fields(notes, &["ca", "certificate", "key"])?;
    let mut path = |key| fields.required(notes, key).and_then(|spot| read_path(notes, &spot, dir));
    let (ca, certificate, key) = (path("ca"), path("certificate"), path("key"));
    Some(TlsFiles { ca: ca?, certificate: certificate?, key: key? })
}

fn read_admin(notes: &mut Notes, spot: &Spot<'_>) -> Option<SocketAddr> {
    let mut fields = spot.fields(notes, &["listen"])?;
    let spot = fields.optional("listen")?;
    let listen = spot.parse(notes, parse_socket)?;
    if !listen.ip().is_loopback() {
        spot.wrong(notes, "a loopback address, such as 127.0.0.1:9101").help =
            Some("the admin side has no authentication; reach it through a tunnel".into());
    }
    Some(listen)
}

fn read_limits(notes: &mut Notes, spot: &Spot<'_>) -> Limits {
    let default = Limits::default();
    let known = [
        "connections_max",
        "head_bytes_max",
        "headers_max",
        "body_bytes_max",
        "head_timeout",
        "body_idle_timeout",
        "body_rate_min",
        "idle_timeout",
        "tls_handshakes_max",
        "tls_handshake_timeout",
        "drain_timeout",
        "waiters_max",
        "keys_max",
        "tokens_cached_max",
        "http2",
        "mirrors_max",
    ];
    let Some(mut fields) = spot.fields(notes, &known) else { return default };
    let http2 =
        fields.optional("http2").map_or_else(Http2Limits::default, |spot| read_http2_limits(notes, &spot));
    let mut count = |key, default: u32, max: u32| {
        let count = fields.optional(key).and_then(|spot| spot.integer(notes, 1..=max.into()));
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(default)
    };
    let connections_max = count("connections_max", default.connections_max, 1_000_000);
    let headers_max = count("headers_max", u32::try_from(default.headers_max).unwrap_or(u32::MAX), 1_000);
    let tls_handshakes_max = count("tls_handshakes_max", default.tls_handshakes_max, 100_000);
    let waiters_max = count("waiters_max", default.waiters_max, 1_000_000);
    let keys_max = count("keys_max", default.keys_max, 100_000_000);
    let tokens_cached_max = count("tokens_cached_max", default.tokens_cached_max, 10_000_000);
    let mirrors_max = count("mirrors_max", default.mirrors_max, 100_000);
    let mut size = |key, default: u64, low: u64, high: u64| {
        fields.optional(key).and_then(|spot| spot.size(notes, low..=high)).unwrap_or(default)
    };
    let head_default = u64::try_from(default.head_bytes_max).unwrap_or(u64::MAX);
    let head_bytes_max = size("head_bytes_max", head_default, Limits::HEAD_BYTES_LEAST, 1 << 20);
    let body_bytes_max = size("body_bytes_max", default.body_bytes_max, 0, 1 << 40);
    let body_rate_min = size("body_rate_min", default.body_rate_min, 0, 1 << 20);
    let mut time = |key, default| {
        let range = Duration::from_millis(1)..=Duration::from_secs(3_600);
        fields.optional(key).and_then(|spot| spot.duration(notes, range)).unwrap_or(default)
    };
    Limits {
        connections_max,
        head_bytes_max: usize::try_from(head_bytes_max).unwrap_or(default.head_bytes_max),
        headers_max: usize::try_from(headers_max).unwrap_or(default.headers_max),
        body_bytes_max,
        head_timeout: time("head_timeout", default.head_timeout),
        body_idle_timeout: time("body_idle_timeout", default.body_idle_timeout),
        body_rate_min,
        idle_timeout: time("idle_timeout", default.idle_timeout),
        tls_handshakes_max,
        tls_handshake_timeout: time("tls_handshake_timeout", default.tls_handshake_timeout),
        drain_timeout: time("drain_timeout", default.drain_timeout),
        waiters_max,
        keys_max,
        tokens_cached_max,
        mirrors_max,
        http2,
    }
}

fn read_http2_limits(notes: &mut Notes, spot: &Spot<'_>) -> Http2Limits {
    let default = Http2Limits::default();
    let known = [
        "streams_max",
        "stream_window_bytes",
        "connection_window_bytes",
        "frame_bytes_max",
        "send_buffer_bytes_max",
        "resets_pending_max",
        "resets_local_max",
        "ping_interval",
        "ping_timeout",
    ];
    let Some(mut fields) = spot.fields(notes, &known) else { return default };
    let mut count = |key, default: u32, max: u64| {
        let count = fields.optional(key).and_then(|spot| spot.integer(notes, 1..=max));
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(default)
    };
    let streams_max = count("streams_max", default.streams_max, 10_000);
    let resets_pending_max = count("resets_pending_max", default.resets_pending_max, 10_000);
    let resets_local_max = count("resets_local_max", default.resets_local_max, 100_000);
    let mut size = |key, default: u32, low: u64, high: u64| {
        let size = fields.optional(key).and_then(|spot| spot.size(notes, low..=high));
        size.and_then(|size| u32::try_from(size).ok()).unwrap_or(default)
    };
    let window = Http2Limits::WINDOW_BYTES_MAX;
    let (frame_least, frame_most) = Http2Limits::FRAME_BYTES.into_inner();
    let stream_window_bytes = size("stream_window_bytes", default.stream_window_bytes, 1 << 10, window);
    let frame_bytes_max = size("frame_bytes_max", default.frame_bytes_max, frame_least, frame_most);
    let send_buffer_bytes_max = size("send_buffer_bytes_max", default.send_buffer_bytes_max, 1 << 10, window);
    let connection_window_bytes =
        read_connection_window(notes, &mut fields, u64::from(stream_window_bytes) * u64::from(streams_max));
    let mut time = |key, default| {
        let range = Duration::from_millis(1)..=Duration::from_secs(3_600);
        fields.optional(key).and_then(|spot| spot.duration(notes, range)).unwrap_or(default)
    };
    Http2Limits {
        streams_max,
        stream_window_bytes,
        connection_window_bytes,
        frame_bytes_max,
        send_buffer_bytes_max,
        resets_pending_max,
        resets_local_max,
        ping_interval: time("ping_interval", default.ping_interval),
        ping_timeout: time("ping_timeout", default.ping_timeout),
    }
}

/// - `all_bytes`: the windows of all streams together.
fn read_connection_window(notes: &mut Notes, fields: &mut Fields<'_>, all_bytes: u64) -> u32 {
    let most = Http2Limits::WINDOW_BYTES_MAX;
    if all_bytes > most {
        fields.spot.wrong_key(
            notes,
            format!("`stream_window_bytes` times `streams_max` of {all_bytes} bytes"),
            format!("at most {most} bytes: no connection has a larger window"),
        );
    }
    // The shortest that the protocol knows: a connection begins with almost as much.
    let least = all_bytes.clamp(64 << 10, most);
    let given = fields.optional("connection_window_bytes").and_then(|spot| {
        let bytes = spot.size(notes, (64 << 10)..=most)?;
        if bytes < least {
            spot.wrong(notes, format!("`stream_window_bytes` times `streams_max`, {least} bytes, or more"))
                .help = Some("else some streams whose bodies are not read stop all others".to_owned());
        }
        Some(bytes)
    });
    given.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(least.try_into().unwrap_or(u32::MAX))
}

fn read_log(notes: &mut Notes, spot: &Spot<'_>) -> Option<LogFile> {
    let default = LogFile::default();
    let mut fields = spot.fields(notes, &["filter", "format"])?;
    let filter = fields.or(notes, "filter", default.filter, |notes, spot| spot.parse(notes, text));
    let formats = [("text", false), ("json", true)];
    let json = fields.or(notes, "format", default.json, |notes, spot| spot.word(notes, &formats));
    Some(LogFile { filter, json })
}

pub(super) fn parse_socket(text: &str) -> Result<SocketAddr, Wanted> {
    text.parse().map_err(|_| {
        let help = text.starts_with("localhost:").then(|| "write 127.0.0.1 for localhost".to_owned());
        Wanted { help, ..Wanted::from("an address with a port, such as 127.0.0.1:8101 or [::1]:8101") }
    })
}

fn parse_host_port(text: &str) -> Result<String, Wanted> {
    match split_host_port(text) {
        Some((_, Some(_))) => Ok(text.to_owned()),
        _ => Err("host:port, such as node-2.internal:7101".into()),
    }
}

fn is_loopback(host_port: &str) -> bool {
    split_host_port(host_port).is_some_and(|(host, _)| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}
