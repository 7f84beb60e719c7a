//! TLS for clients: a raw stream in; a stream, the protocol that was agreed on, and the client's certificate out.
//!
//! The name that a client asks for (SNI) picks the certificate: the first that bears it exactly, then the first that bears
//! it by a wildcard for its first label, then the first of all. Sessions are resumed by tickets of this process, unless
//! clients show certificates: a resumed session shows none that could be judged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use cluster::world::{Clock, Stream, UnixMs};
use config::node::{ClientCertificate, HttpsFile, TlsVersion};
use http::HeaderValue;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{
    Accepted, Acceptor, ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{InvalidMessage, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
use x509_parser::extensions::GeneralName;

use super::places::Places;

const H2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// PEM texts of one listener.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    /// Certificate and key, in the order of the node file.
    pub(super) certificates: Vec<[Vec<u8>; 2]>,
    /// CAs of clients.
    pub(super) client_ca: Option<Vec<u8>>,
}

/// What is in force: for a listener, made anew when its files change.
#[derive(Debug)]
pub struct InForce {
    server: Arc<ServerConfig>,
    /// When the first of its certificates expires.
    pub expires: UnixMs,
}

/// The listener's side of TLS. Cheap to clone; connections that stand keep what they began with.
#[derive(Clone, Debug)]
pub struct Listening {
    in_force: watch::Receiver<Arc<InForce>>,
    places: Places,
    within: Duration,
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The hello, a place or the rest took too long.
    #[error("the handshake was not done in time")]
    Late,
    /// It did not go on, and others wanted to.
    #[error("the handshake did not go on, and another took its place")]
    Displaced,
    /// The client does not speak TLS.
    #[error("the client does not speak TLS")]
    Plaintext,
    /// Either side did not like what it saw.
    #[error("the handshake failed: {0}")]
    Handshake(io::Error),
}

impl Failed {
    /// For figures.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Late => "tls-handshake-late",
            Self::Displaced => "tls-handshake-displaced",
            Self::Plaintext => "plaintext-on-a-tls-port",
            Self::Handshake(_) => "tls-handshake",
        }
    }
}

/// A client's stream after its handshake.
pub struct Secured {
    /// The bytes.
    pub stream: Box<dyn Stream>,
    /// Whether HTTP/2 was agreed on (ALPN).
    pub is_http2: bool,
    /// What its certificate says, which was verified; none: it showed none.
    pub certificate: Option<HeaderValue>,
}

impl Listening {
    /// At most `handshakes_max` at once, of clients whose hello has come.
    pub fn new(in_force: watch::Receiver<Arc<InForce>>, handshakes_max: u32, within: Duration) -> Self {
        Self { in_force, places: Places::new(handshakes_max as usize), within }
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Why the client is not served.
    pub async fn shake(&self, mut stream: Box<dyn Stream>) -> Result<Secured, Failed> {
        let shaken = async {
            let hello = hear(&mut stream).await.map_err(failed)?;
            let mut place = self.places.take().await;
            let server = self.in_force.borrow().server.clone();
            tokio::select! {
                biased;
                shaken = StartHandshake::from_parts(hello, stream).into_stream(server) => shaken.map_err(failed),
                () = place.lost() => Err(Failed::Displaced),
            }
        };
        let stream = timeout(self.within, shaken).await.map_err(|_| Failed::Late)??;
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(H2);
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let certificate = leaf.and_then(description);
        Ok(Secured { stream: Box::new(stream), is_http2, certificate })
    }
}

/// Any client's hello fits, with keys of the largest kinds and a ticket: this is what a connection costs before it has a place.
const HELLO_BYTES_MAX: usize = 16 << 10;

/// Reads a whole hello.
async fn hear(stream: &mut Box<dyn Stream>) -> io::Result<Accepted> {
    let mut acceptor = Acceptor::default();
    let mut left = HELLO_BYTES_MAX;
    let mut buffer = [0; 1 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.checked_sub(count).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = &buffer[..count];
        while !bytes.is_empty() {
            acceptor.read_tls(&mut bytes)?;
        }
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                // Whether it is taken changes nothing.
                let _ = stream.write_all(&told).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

fn failed(error: io::Error) -> Failed {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Failed::Plaintext,
        _ => Failed::Handshake(error),
    }
}

/// A verified certificate as upstreams are told of it: `sha256=HEX;cn=NAME;dns=NAME,NAME`. Names that hold anything but
/// letters, digits, `.`, `-`, `_`, `*`, `@` and spaces are left out, so that no name can be read as another part.
fn description(certificate: &CertificateDer<'_>) -> Option<HeaderValue> {
    let plain = |name: &&str| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".-_*@ ".contains(&b);
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
    };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let common = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok()).filter(plain);
    let names = dns_names(&parsed);
    let digest = digest::digest(&digest::SHA256, certificate);
    let mut text = String::from("sha256=");
    // Writing to a String cannot fail.
    let _ = digest.as_ref().iter().try_for_each(|byte| write!(text, "{byte:02x}"));
    if let Some(name) = common {
        text += &format!(";cn={name}");
    }
    let names: Vec<&str> = names.into_iter().filter(plain).take(NAMES_MAX).collect();
    if !names.is_empty() {
        text += &format!(";dns={}", names.join(","));
    }
    HeaderValue::try_from(text).ok()
}

/// What is told of one certificate stays a field of moderate length.
const NAME_BYTES_MAX: usize = 253;
const NAMES_MAX: usize = 16;

fn dns_names<'a>(parsed: &'a x509_parser::certificate::X509Certificate<'_>) -> Vec<&'a str> {
    let extension = parsed.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| &extension.value.general_names);
    let dns = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    dns.collect()
}

/// Tickets that outlive a change of the files.
pub(super) fn tickets() -> Result<Arc<dyn ProducesTickets>, String> {
    provider::Ticketer::new().map_err(|error| error.to_string())
}

/// The wall clock, as certificates are checked against.
pub(super) struct Now(pub(super) Arc<dyn Clock>);

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let UnixMs(ms) = self.0.wall();
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// What comes into force.
///
/// # Errors
/// What is wrong, with the file's path.
pub(super) fn compile(
    file: &HttpsFile,
    pem: &Pem,
    clock: &Arc<dyn Clock>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<InForce, String> {
    let provider = Arc::new(provider::default_provider());
    let mut expires = UnixMs(u64::MAX);
    let mut keys = Vec::new();
    for (paths, [certificate, key]) in file.certificates.iter().zip(&pem.certificates) {
        let chain = certificates(&paths.certificate, certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| at(&paths.key, error))?;
        let (names, until) = read(&paths.certificate, &chain[0])?;
        expires = expires.min(until);
        let key = CertifiedKey::from_der(chain, key, &provider);
        let key =
            key.map_err(|error| at(&paths.key, format!("{error}: key and certificate belong together")))?;
        keys.push((names, Arc::new(key)));
    }
    let names = Names::new(keys, file.strict);
    let versions: &[_] = match file.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(Now(clock.clone())))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let mut server = match (&file.client_ca, &pem.client_ca) {
        (Some(path), Some(pem)) => {
            let verifier = verifier(path, pem, file.client_certificate, provider)?;
            let mut server = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(names));
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
            server
        }
        _ => {
            let mut server = builder.with_no_client_auth().with_cert_resolver(Arc::new(names));
            server.ticketer = tickets.clone();
            server
        }
    };
    server.alpn_protocols = vec![H2.to_vec(), HTTP11.to_vec()];
    Ok(InForce { server: Arc::new(server), expires })
}

fn verifier(
    path: &Path,
    pem: &[u8],
    wanted: ClientCertificate,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(path, pem)? {
        roots.add(ca).map_err(|error| at(path, error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match wanted {
        ClientCertificate::Required => builder,
        ClientCertificate::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| at(path, error))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| at(path, error))?;
    if found.is_empty() {
        return Err(at(path, "found no certificate, wanted a PEM CERTIFICATE"));
    }
    Ok(found)
}

/// The DNS names of a certificate, in lower case, and until when it is good.
fn read(path: &Path, certificate: &CertificateDer<'_>) -> Result<(Vec<String>, UnixMs), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| at(path, error))?;
    let names = dns_names(&parsed).into_iter().map(str::to_ascii_lowercase).collect();
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok((names, UnixMs(seconds.saturating_mul(1000))))
}

fn at(path: &Path, reason: impl std::fmt::Display) -> String {
    format!("{}: {reason}", path.display())
}

/// Which certificate answers to which name.
#[derive(Debug)]
struct Names {
    /// Exact names, and wildcards as they are written → their certificates, in the order of the node file.
    by_name: BTreeMap<String, Vec<Arc<CertifiedKey>>>,
    /// For whoever asks for none of them; empty: they are refused.
    others: Vec<Arc<CertifiedKey>>,
}

impl Names {
    fn new(keys: Vec<(Vec<String>, Arc<CertifiedKey>)>, strict: bool) -> Self {
        let others = keys.iter().filter(|_| !strict).map(|(_, key)| key.clone()).take(1).collect();
        let mut by_name: BTreeMap<String, Vec<Arc<CertifiedKey>>> = BTreeMap::new();
        for (names, key) in keys {
            for name in names {
                by_name.entry(name).or_default().push(key.clone());
            }
        }
        Self { by_name, others }
    }

    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.others };
        let wildcard = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let found = self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard()?));
        found.map_or(&self.others, |found| found)
    }
}

impl ResolvesServerCert for Names {
    /// Of several for one name, the first whose key the client can check.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.of(hello.server_name());
        let can = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.iter().find(can).or_else(|| keys.first()).cloned()
    }
}
