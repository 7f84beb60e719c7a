//! Mutual TLS between nodes: a raw stream in, a stream and the names that its far end may bear out.
//!
//! TLS 1.3 only, one crypto provider named explicitly, certificates checked against the world's wall clock. The cluster's
//! own CA is the only root: a certificate from it is the credential to be a node, and its DNS names are the node
//! names that its holder may bear. Sessions are never resumed: a resumed one shows no certificate that could be judged.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::ids::NodeName;
use rustls::client::Resumption;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::{Clock, Stream, UnixMs};

/// PEM texts of one node.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The cluster's CA; several while it is being replaced.
    pub ca: Vec<u8>,
    /// This node's certificate, then intermediates.
    pub certificate: Vec<u8>,
    /// This node's private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem")
    }
}

/// Why there is no secured stream, or no configuration for one.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file has no use.
    #[error("{file}: {reason}")]
    File {
        /// `ca`, `certificate` or `key`.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Plaintext was asked for an address that others can reach.
    #[error(
        "plaintext between nodes is for loopback addresses alone, found {found}: give the node certificates"
    )]
    NotLoopback {
        /// The address.
        found: String,
    },
    /// The name cannot stand in a certificate.
    #[error("node name {0} is not a DNS name, so that no certificate can carry it")]
    NotDnsName(NodeName),
    /// The far end is not who it should be, or does not accept us.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
}

/// How this node secures its connections to others. Cheap to clone; made anew when the files change.
#[derive(Clone)]
pub struct Tls(Mode);

#[derive(Clone)]
enum Mode {
    Mutual(Arc<Mutual>),
    Plain { anywhere: bool },
}

struct Mutual {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// Judges both ends: every node calls and is called, so every certificate has to be good for both.
    verifier: Arc<dyn ClientCertVerifier>,
    now: Arc<dyn TimeProvider>,
    chain: Vec<CertificateDer<'static>>,
    expires: UnixMs,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Mode::Mutual(_) => "Tls::mutual",
            Mode::Plain { .. } => "Tls::plaintext",
        })
    }
}

/// The wall clock, as certificates are checked against.
struct Now(Arc<dyn Clock>);

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

impl Tls {
    /// Mutual TLS for node `me`.
    ///
    /// # Errors
    /// [`TlsError::File`] if a text is not what it should be, the key does not fit the certificate, or the certificate
    /// is not valid for `me`. Expiry and issuer are not checked here: the peers do, and [`Tls::judge_own`].
    pub fn mutual(clock: Arc<dyn Clock>, me: &NodeName, pem: &Pem) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let now: Arc<dyn TimeProvider> = Arc::new(Now(clock));
        let bad = |file: &'static str| move |reason: String| TlsError::File { file, reason };

        let mut roots = RootCertStore::empty();
        for ca in certificates(&pem.ca).map_err(bad("ca"))? {
            roots.add(ca).map_err(|e| bad("ca")(e.to_string()))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&pem.certificate).map_err(bad("certificate"))?;
        let expires = expires(&chain).map_err(bad("certificate"))?;
        let certified = Certified::Chain(chain.clone());
        certified.check(me).map_err(|reason| {
            bad("certificate")(format!(
                "{reason}: this node is {me}, and its certificate must carry that DNS name"
            ))
        })?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|e| bad("key")(e.to_string()))?;

        let misfit =
            |error| bad("key")(format!("{error}: key and certificate belong together, replace both"));
        let mut client = ClientConfig::builder_with_details(provider.clone(), now.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3 suites")
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(misfit)?;
        client.resumption = Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| bad("ca")(e.to_string()))?;
        let mut server = ServerConfig::builder_with_details(provider, now.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3 suites")
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain.clone(), key)
            .map_err(misfit)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let (client, server) = (Arc::new(client), Arc::new(server));
        Ok(Self(Mode::Mutual(Arc::new(Mutual { client, server, verifier, now, chain, expires }))))
    }

    /// When this node's certificate, or an intermediate of it, expires. None: plaintext.
    pub fn expires(&self) -> Option<UnixMs> {
        match &self.0 {
            Mode::Mutual(mutual) => Some(mutual.expires),
            Mode::Plain { .. } => None,
        }
    }

    /// Whether a far end that was let in once would be let in now, by these files and this hour.
    ///
    /// # Errors
    /// [`TlsError::Handshake`]: why not.
    pub fn judge(&self, certified: &Certified) -> Result<(), TlsError> {
        let (Mode::Mutual(mutual), Certified::Chain(chain)) = (&self.0, certified) else { return Ok(()) };
        mutual.judge(chain).map_err(|error| TlsError::Handshake(in_plain_words(&error)))
    }

    /// Whether this node's certificate would be let in by a peer that trusts the same CAs.
    ///
    /// # Errors
    /// [`TlsError::File`]: why not.
    pub fn judge_own(&self) -> Result<(), TlsError> {
        let Mode::Mutual(mutual) = &self.0 else { return Ok(()) };
        mutual.judge(&mutual.chain).map_err(|error| TlsError::File {
            file: "certificate",
            reason: match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => "no CA of the CA file has signed it".to_owned(),
                other => other.to_string(),
            },
        })
    }

    /// No TLS. Both ends are checked again at each connection.
    ///
    /// # Errors
    /// [`TlsError::NotLoopback`] if others can reach `listen`, or `advertise` (`host:port`) is not plainly this machine.
    pub fn plaintext(listen: SocketAddr, advertise: &str) -> Result<Self, TlsError> {
        if !listen.ip().is_loopback() {
            return Err(TlsError::NotLoopback { found: listen.to_string() });
        }
        let host = advertise.rsplit_once(':').map_or(advertise, |(host, _)| host);
        if !is_loopback(host) {
            return Err(TlsError::NotLoopback { found: advertise.to_owned() });
        }
        Ok(Self(Mode::Plain { anywhere: false }))
    }

    /// No TLS on a network that exists only in a simulation.
    #[doc(hidden)]
    pub fn plaintext_for_simulation() -> Self {
        Self(Mode::Plain { anywhere: true })
    }

    /// Secures a connection that was made to `host`, where `name` is expected. The deadline is the caller's.
    ///
    /// # Errors
    /// [`TlsError`], if the far end has no valid certificate of this cluster for `name`.
    pub async fn connect(
        &self,
        stream: Box<dyn Stream>,
        host: &str,
        name: &NodeName,
    ) -> Result<Secured, TlsError> {
        match &self.0 {
            Mode::Plain { anywhere } => {
                if !anywhere && !is_loopback(host) {
                    return Err(TlsError::NotLoopback { found: host.to_owned() });
                }
                Ok(Secured { stream, certified: Certified::Everyone })
            }
            Mode::Mutual(mutual) => {
                let server_name = ServerName::DnsName(dns_name(name)?).to_owned();
                let stream = TlsConnector::from(mutual.client.clone())
                    .connect(server_name, stream)
                    .await
                    .map_err(|e| TlsError::Handshake(reason(&e)))?;
                let certified = Certified::of(stream.get_ref().1.peer_certificates())?;
                Ok(Secured { stream: Box::new(stream), certified })
            }
        }
    }

    /// Secures a connection that came from `peer`. The deadline is the caller's.
    ///
    /// # Errors
    /// [`TlsError`], if the far end has no valid certificate of this cluster.
    pub async fn accept(&self, stream: Box<dyn Stream>, peer: SocketAddr) -> Result<Secured, TlsError> {
        match &self.0 {
            Mode::Plain { anywhere } => {
                if !anywhere && !peer.ip().is_loopback() {
                    return Err(TlsError::NotLoopback { found: peer.to_string() });
                }
                Ok(Secured { stream, certified: Certified::Everyone })
            }
            Mode::Mutual(mutual) => {
                let stream = TlsAcceptor::from(mutual.server.clone())
                    .accept(stream)
                    .await
                    .map_err(|e| TlsError::Handshake(reason(&e)))?;
                let certified = Certified::of(stream.get_ref().1.peer_certificates())?;
                Ok(Secured { stream: Box::new(stream), certified })
            }
        }
    }
}

impl Mutual {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let now = self.now.current_time().ok_or(rustls::Error::FailedToGetCurrentTime)?;
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(leaf, intermediates, now).map(drop)
    }
}

/// A stream whose far end is known.
pub struct Secured {
    /// The bytes.
    pub stream: Box<dyn Stream>,
    certified: Certified,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured").field("certified", &self.certified).finish_non_exhaustive()
    }
}

impl Secured {
    /// Whether the far end may call itself `name`.
    pub fn certified(&self, name: &NodeName) -> bool {
        self.certified.check(name).is_ok()
    }

    /// The stream, and the judge of names.
    pub fn into_parts(self) -> (Box<dyn Stream>, Certified) {
        (self.stream, self.certified)
    }
}

/// Which names a far end may bear.
#[derive(Clone, Debug)]
pub enum Certified {
    /// Plaintext: any.
    Everyone,
    /// Those of its certificate, which was verified: the first of this chain, which has at least one.
    Chain(Vec<CertificateDer<'static>>),
}

impl Certified {
    fn of(chain: Option<&[CertificateDer<'_>]>) -> Result<Self, TlsError> {
        let chain = chain.filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| TlsError::Handshake("the peer showed no certificate".into()))?;
        Ok(Self::Chain(chain.iter().map(|certificate| certificate.clone().into_owned()).collect()))
    }

    /// Whether it may bear `name`.
    ///
    /// # Errors
    /// Why not, for a log.
    pub fn check(&self, name: &NodeName) -> Result<(), String> {
        match self {
            Self::Everyone => Ok(()),
            Self::Chain(chain) => {
                let parsed = ParsedCertificate::try_from(&chain[0]).map_err(|e| e.to_string())?;
                let name = ServerName::DnsName(dns_name(name).map_err(|e| e.to_string())?);
                verify_server_name(&parsed, &name).map_err(|e| e.to_string())
            }
        }
    }
}

/// A handshake's failure in the operator's words where the library's are not plain.
fn reason(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(library) => in_plain_words(library),
        None => error.to_string(),
    }
}

fn in_plain_words(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        // Clusters' CAs bear one name, so that a foreign one is met as a signature that does not fit.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the peer's certificate is not signed by this cluster's CA".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!(
                "the peer does not accept this node's certificate, or closed: {alert:?}; its log says why"
            )
        }
        Error::InvalidMessage(_) => format!("the peer does not speak TLS: {error}"),
        other => other.to_string(),
    }
}

/// When the first of these certificates expires.
fn expires(chain: &[CertificateDer<'_>]) -> Result<UnixMs, String> {
    let mut first = UnixMs(u64::MAX);
    for certificate in chain {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
        let seconds = parsed.validity().not_after.timestamp();
        first = first.min(UnixMs(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)));
    }
    Ok(first)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if found.is_empty() { Err("found no certificate, wanted a PEM CERTIFICATE".into()) } else { Ok(found) }
}

fn dns_name(name: &NodeName) -> Result<DnsName<'_>, TlsError> {
    DnsName::try_from(name.as_str()).map_err(|_| TlsError::NotDnsName(name.clone()))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
