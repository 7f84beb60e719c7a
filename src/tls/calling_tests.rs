//! An endpoint with certificates of its own, at the far end of a pipe.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cluster::world::{BoxFuture, Disk, Domains};
use config::upstream::ClientFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::world::small::Small;

/// A CA, and what it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name` that is valid until the year `until`, and its key.
    fn signs(&self, name: &str, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// An endpoint that has `(certificate, key)` and agrees to `alpn`; with `asks`, it wants a certificate of that CA.
fn endpoint((certificate, key): (String, String), alpn: &[&str], asks: Option<&Authority>) -> TlsAcceptor {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match asks {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(ca.pem.as_bytes()));
            let provider = Arc::new(aws_lc_rs::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let chain = certificates(certificate.as_bytes()).collect();
    let mut config = builder.with_single_cert(chain, key).expect("they belong together");
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Calls the endpoint, and has it say a word.
async fn call(calling: &Calling, host: &str, endpoint: &TlsAcceptor) -> Result<String, String> {
    let (ours, theirs) = tokio::io::duplex(1 << 14);
    let endpoint = endpoint.clone();
    tokio::spawn(async move {
        let Ok(mut stream) = endpoint.accept(theirs).await else { return };
        // The other side may not believe us.
        let _ = stream.write_all(b"word").await;
        let _ = stream.shutdown().await;
    });
    let mut stream = calling.secure(Box::new(ours), host).await?;
    let mut word = String::new();
    stream.read_to_string(&mut word).await.map_err(|error| error.to_string())?;
    Ok(word)
}

fn tls(server_name: Option<&str>) -> UpstreamTls {
    UpstreamTls { ca: "ca.pem".into(), server_name: server_name.map(str::to_owned), client: None }
}

fn put(world: &Arc<Small>, file: &str, text: &str) {
    world.write(&Path::new("/keys").join(file), text.as_bytes()).expect("a file in memory");
}

fn calling(world: &Arc<Small>, tls: UpstreamTls, protocol: Protocol) -> Calling {
    Calling::new(world.world(), "/keys".into(), tls, protocol)
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_believed_if_the_ca_has_signed_its_name_and_it_is_valid() {
    // given a CA that is trusted, and one that is not
    let (ca, other) = (Authority::new(), Authority::new());
    let world = Small::new();
    put(&world, "ca.pem", &ca.pem);
    let by_host = calling(&world, tls(None), Protocol::Http1);
    let by_name = calling(&world, tls(Some("shop.test")), Protocol::Http1);
    let good = endpoint(ca.signs("shop.test", 2090), &[], None);
    // then an endpoint is believed under its name, an address under its own
    assert_eq!(call(&by_host, "shop.test", &good).await.as_deref(), Ok("word"));
    assert_eq!(call(&by_name, "10.0.0.1", &good).await.as_deref(), Ok("word"));
    let address = endpoint(ca.signs("10.0.0.1", 2090), &[], None);
    assert_eq!(call(&by_host, "10.0.0.1", &address).await.as_deref(), Ok("word"));
    // and not under another, not by another's word, and not after its time: the world's clock says 2027
    for (bad, words) in [
        (endpoint(ca.signs("other.test", 2090), &[], None), "not valid for name"),
        (endpoint(other.signs("shop.test", 2090), &[], None), "invalid peer certificate"),
        (endpoint(ca.signs("shop.test", 2026), &[], None), "expired"),
    ] {
        let why = call(&by_host, "shop.test", &bad).await.expect_err("it is not believed");
        assert!(why.contains(words), "{words}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn http2_is_spoken_only_where_the_endpoint_agrees() {
    let ca = Authority::new();
    let world = Small::new();
    put(&world, "ca.pem", &ca.pem);
    let calling = calling(&world, tls(None), Protocol::Http2);
    let both = endpoint(ca.signs("shop.test", 2090), &["http/1.1", "h2"], None);
    assert_eq!(call(&calling, "shop.test", &both).await.as_deref(), Ok("word"));
    for alpn in [&[][..], &["http/1.1"]] {
        let endpoint = endpoint(ca.signs("shop.test", 2090), alpn, None);
        assert!(call(&calling, "shop.test", &endpoint).await.is_err(), "{alpn:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_wants_a_certificate_gets_the_gateways() {
    let ca = Authority::new();
    let world = Small::new();
    put(&world, "ca.pem", &ca.pem);
    let (certificate, key) = ca.signs("gateway.test", 2090);
    put(&world, "gateway.pem", &certificate);
    put(&world, "gateway.key", &key);
    let client = ClientFiles { certificate: "gateway.pem".into(), key: "gateway.key".into() };
    let with = calling(&world, UpstreamTls { client: Some(client), ..tls(None) }, Protocol::Http1);
    let without = calling(&world, tls(None), Protocol::Http1);
    let endpoint = endpoint(ca.signs("shop.test", 2090), &[], Some(&ca));
    assert_eq!(call(&with, "shop.test", &endpoint).await.as_deref(), Ok("word"));
    assert!(call(&without, "shop.test", &endpoint).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn renewed_files_are_taken_up_and_lost_ones_change_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = Small::new();
    let calling = calling(&world, tls(None), Protocol::Http1);
    let endpoint = endpoint(new.signs("shop.test", 2090), &[], None);
    // given no file, then another CA's, each is told
    let why = call(&calling, "shop.test", &endpoint).await.expect_err("there is no file");
    assert!(why.contains("/keys/ca.pem: there is no such file"), "{why}");
    put(&world, "ca.pem", "no certificate");
    let why = call(&calling, "shop.test", &endpoint).await.expect_err("there is no certificate");
    assert!(why.contains("wanted PEM"), "{why}");
    put(&world, "ca.pem", &old.pem);
    assert!(call(&calling, "shop.test", &endpoint).await.is_err());
    // when the right one takes its place, then it is in force at the next look
    put(&world, "ca.pem", &new.pem);
    assert!(call(&calling, "shop.test", &endpoint).await.is_err());
    tokio::time::sleep(LOOK_EVERY).await;
    assert_eq!(call(&calling, "shop.test", &endpoint).await.as_deref(), Ok("word"));
    // and stays in force when the file is gone
    world.remove(Path::new("/keys/ca.pem")).expect("it is removed");
    tokio::time::sleep(LOOK_EVERY).await;
    assert_eq!(call(&calling, "shop.test", &endpoint).await.as_deref(), Ok("word"));
}

/// Blocking work that hangs once it is told to.
struct Hanging {
    rest: Arc<Small>,
    hangs: AtomicBool,
    hung: AtomicUsize,
}

impl Domains for Hanging {
    fn spawn(&self, name: &str, main: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> {
        self.rest.spawn(name, main)
    }
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        if !self.hangs.load(Ordering::Relaxed) {
            return self.rest.blocking(work);
        }
        self.hung.fetch_add(1, Ordering::Relaxed);
        // It does not end with the one who waits for it.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            work();
        });
        Box::pin(std::future::pending())
    }
    fn parallelism(&self) -> u16 {
        1
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_stops_no_connections_of_known_files() {
    // given files that were read
    let ca = Authority::new();
    let small = Small::new();
    put(&small, "ca.pem", &ca.pem);
    let domains =
        Arc::new(Hanging { rest: small.clone(), hangs: AtomicBool::new(false), hung: AtomicUsize::new(0) });
    let world = World { domains: domains.clone(), ..small.world() };
    let calling = Calling::new(world, "/keys".into(), tls(None), Protocol::Http1);
    let endpoint = endpoint(ca.signs("shop.test", 2090), &[], None);
    assert_eq!(call(&calling, "shop.test", &endpoint).await.as_deref(), Ok("word"));
    // when the disk hangs from then on
    domains.hangs.store(true, Ordering::Relaxed);
    for waits in [LOOK_WITHIN, Duration::ZERO, Duration::ZERO] {
        tokio::time::sleep(LOOK_EVERY).await;
        // then the first one waits for a moment, and nobody asks it twice
        for waits in [waits, Duration::ZERO] {
            let begin = Instant::now();
            assert_eq!(call(&calling, "shop.test", &endpoint).await.as_deref(), Ok("word"));
            assert!(begin.elapsed() >= waits && begin.elapsed() < waits + Duration::from_millis(50));
        }
    }
    assert_eq!(domains.hung.load(Ordering::Relaxed), 1);
}
