//! The clients' side of the node file: `http` and `https`.

use std::path::Path;

use super::matching::parse_source as parse_network;
use super::node::{parse_socket, read_path};
use crate::node::{CertificateFiles, ClientCertificate, HttpFile, HttpsFile, TlsVersion};
use crate::spot::{Fields, Notes, Spot};

/// As many networks as a list of them has.
const NETWORKS_MAX: usize = 256;
/// As many certificates as a listener chooses among.
const CERTIFICATES_MAX: usize = 1_000;

/// Reads both sections of which one has to say where clients connect.
pub(super) fn read(
    notes: &mut Notes,
    fields: &mut Fields<'_>,
    dir: &Path,
) -> Option<(HttpFile, Option<HttpsFile>)> {
    let https_spot = fields.optional("https");
    let http_spot = match &https_spot {
        Some(_) => fields.optional("http"),
        None => fields.required(notes, "http"),
    };
    let https = https_spot.as_ref().map(|spot| read_https(notes, spot, dir));
    let http = match &http_spot {
        Some(spot) => read_http(notes, spot, https.is_some()),
        None if https.is_some() => Some(HttpFile::default()),
        None => None,
    };
    let https = match https {
        Some(read) => Some(read?),
        None => None,
    };
    Some((http?, https))
}

fn read_http(notes: &mut Notes, spot: &Spot<'_>, is_https_there: bool) -> Option<HttpFile> {
    let mut fields = spot.fields(notes, &["listen", "workers", "trusted_proxies", "proxy_protocol"])?;
    let spot = if is_https_there { fields.optional("listen") } else { fields.required(notes, "listen") };
    let listen = spot.and_then(|spot| spot.parse(notes, parse_socket));
    let workers = fields.optional("workers").and_then(|spot| spot.integer(notes, 1..=1024));
    let networks = |notes: &mut Notes, spot: Spot<'_>| spot.texts(notes, NETWORKS_MAX, parse_network);
    let trusted_proxies = fields.optional("trusted_proxies").map(|spot| networks(notes, spot));
    let proxy_protocol_from = fields.optional("proxy_protocol").and_then(|spot| {
        let mut fields = spot.fields(notes, &["from"])?;
        fields.required(notes, "from").map(|spot| networks(notes, spot))
    });
    Some(HttpFile {
        listen,
        workers: workers.and_then(|workers| u16::try_from(workers).ok()),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        proxy_protocol_from: proxy_protocol_from.unwrap_or_default(),
    })
}

fn read_https(notes: &mut Notes, spot: &Spot<'_>, dir: &Path) -> Option<HttpsFile> {
    let known = ["listen", "certificates", "strict", "client_ca", "client_certificate", "min_version"];
    let mut fields = spot.fields(notes, &known)?;
    let listen = fields.required(notes, "listen").and_then(|spot| spot.parse(notes, parse_socket));
    let certificates = fields.required(notes, "certificates").map(|spot| {
        let items = spot.items(notes, CERTIFICATES_MAX);
        if items.is_empty() {
            spot.wrong(notes, "one certificate or more");
        }
        items.iter().filter_map(|spot| read_certificate(notes, spot, dir)).collect::<Vec<_>>()
    });
    let strict = fields.or(notes, "strict", false, |notes, spot| spot.boolean(notes));
    let client_ca = fields.optional("client_ca").map(|spot| read_path(notes, &spot, dir));
    let asked = fields.optional("client_certificate");
    if let (Some(spot), None) = (&asked, &client_ca) {
        let found = "`client_certificate` without `client_ca`".to_owned();
        spot.wrong_key(notes, found, "`client_ca`, the CAs by which it is judged");
    }
    let words = [("required", ClientCertificate::Required), ("optional", ClientCertificate::Optional)];
    let client_certificate = asked.and_then(|spot| spot.word(notes, &words));
    let versions = [("tls1.2", TlsVersion::Tls12), ("tls1.3", TlsVersion::Tls13)];
    let min_version =
        fields.or(notes, "min_version", TlsVersion::Tls12, |notes, spot| spot.word(notes, &versions));
    let client_ca = match client_ca {
        Some(read) => Some(read?),
        None => None,
    };
    Some(HttpsFile {
        listen: listen?,
        certificates: certificates?,
        strict,
        client_ca,
        client_certificate: client_certificate.unwrap_or(ClientCertificate::Required),
        min_version,
    })
}

fn read_certificate(notes: &mut Notes, spot: &Spot<'_>, dir: &Path) -> Option<CertificateFiles> {
    let mut fields = spot.fields(notes, &["certificate", "key"])?;
    let mut path = |key| fields.required(notes, key).and_then(|spot| read_path(notes, &spot, dir));
    let (certificate, key) = (path("certificate"), path("key"));
    Some(CertificateFiles { certificate: certificate?, key: key? })
}
