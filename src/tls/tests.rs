//! Handshakes over byte pipes, with certificates of a CA of their own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::ids::NodeName;
use config::node::{CertificateFiles, ClientCertificate, HttpsFile, TlsVersion};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::files::Files;
use super::listening::{Failed, Listening};
use crate::command::pki::write_pki;

const HANDSHAKE: Duration = Duration::from_secs(5);

/// A folder with certificates for these names.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let names: Vec<NodeName> = names.iter().map(|name| NodeName::parse(name).expect("valid")).collect();
    write_pki(dir.path(), &names).expect("written");
    dir
}

fn file(dir: &Path, names: &[&str]) -> HttpsFile {
    let certificates = names.iter().map(|name| CertificateFiles {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    });
    HttpsFile {
        listen: ([127, 0, 0, 1], 0).into(),
        certificates: certificates.collect(),
        strict: false,
        client_ca: None,
        client_certificate: ClientCertificate::Required,
        min_version: TlsVersion::Tls12,
    }
}

fn listening(file: &HttpsFile) -> Listening {
    Files::read(&crate::world::real(), file).expect("good files").listening(2, HANDSHAKE)
}

fn client(dir: &Path, shows: Option<&str>) -> ClientConfig {
    let read = |name: String| std::fs::read(dir.join(name)).expect("written");
    let certificate =
        |name: &str| CertificateDer::from_pem_slice(&read(format!("{name}.pem"))).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca")).expect("a good CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("both versions").with_root_certificates(roots);
    match shows {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_slice(&read(format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(vec![certificate(name)], key).expect("they fit")
        }
    }
}

/// What the listener knows, and whether the client was content.
async fn shake(
    listening: &Listening,
    client: ClientConfig,
    name: &str,
) -> (Result<(bool, Option<String>), Failed>, Result<(), String>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connect = async {
        let mut stream =
            TlsConnector::from(Arc::new(client)).connect(name, ours).await.map_err(|e| e.to_string())?;
        // With TLS 1.3 a client learns only later that it was not let in.
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await.map(drop).map_err(|e| e.to_string())
    };
    let (listener, client) = tokio::join!(
        async {
            let secured = listening.shake(Box::new(theirs)).await?;
            let certificate = secured.certificate.map(|value| value.to_str().expect("text").to_owned());
            let mut stream = secured.stream;
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.map_err(Failed::Handshake)?;
            Ok((secured.is_http2, certificate))
        },
        connect
    );
    (listener, client)
}

#[tokio::test(start_paused = true)]
async fn the_name_that_is_asked_for_picks_the_certificate() {
    // given two certificates, and a client that trusts both but checks the name
    let dir = folder(&["a.test", "b.test"]);
    let dir = dir.path();
    let mut both = file(dir, &["a.test", "b.test"]);
    let lenient = listening(&both);
    both.strict = true;
    let strict = listening(&both);
    for name in ["a.test", "b.test", "B.TEST"] {
        assert_eq!(shake(&lenient, client(dir, None), name).await.1, Ok(()), "{name}");
        assert_eq!(shake(&strict, client(dir, None), name).await.1, Ok(()), "{name}");
    }
    // then others meet the first one, or are refused
    let told = shake(&lenient, client(dir, None), "c.test").await.1.expect_err("not its name");
    assert!(told.contains("not valid for name"), "{told}");
    let told = shake(&strict, client(dir, None), "c.test").await.1.expect_err("nobody's name");
    assert!(told.contains("AccessDenied") || told.contains("UnrecognisedName"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn http2_is_agreed_on_where_it_is_offered() {
    let dir = folder(&["a.test"]);
    let dir = dir.path();
    let listening = listening(&file(dir, &["a.test"]));
    for (offers, wanted) in [(vec!["h2", "http/1.1"], true), (vec!["http/1.1"], false), (vec![], false)] {
        let mut client = client(dir, None);
        client.alpn_protocols = offers.iter().map(|offer| offer.as_bytes().to_vec()).collect();
        let (is_http2, certificate) = shake(&listening, client, "a.test").await.0.expect("shaken");
        assert_eq!((is_http2, certificate), (wanted, None), "{offers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_shows_a_certificate_of_the_right_ca_or_is_refused() {
    // given a listener that wants one
    let (dir, foreign) = (folder(&["a.test", "caller"]), folder(&["a.test", "caller"]));
    let mut wanting = file(dir.path(), &["a.test"]);
    wanting.client_ca = Some(dir.path().join("ca.pem"));
    let required = listening(&wanting);
    wanting.client_certificate = ClientCertificate::Optional;
    let optional = listening(&wanting);
    let told = async |listening, shows| shake(listening, client(dir.path(), shows), "a.test").await.0;
    // then it is told who comes
    for listening in [&required, &optional] {
        let (_, certificate) = told(listening, Some("caller")).await.expect("let in");
        let certificate = certificate.expect("it was shown");
        assert!(
            certificate.starts_with("sha256=") && certificate.ends_with(";cn=caller;dns=caller"),
            "{certificate}"
        );
        assert_eq!(certificate.len(), "sha256=;cn=caller;dns=caller".len() + 64);
    }
    assert!(told(&required, None).await.is_err());
    assert_eq!(told(&optional, None).await.expect("it may come without").1, None);
    // and nobody comes with another CA's
    let mut stranger = client(dir.path(), None);
    stranger.client_auth_cert_resolver = client(foreign.path(), Some("caller")).client_auth_cert_resolver;
    for listening in [&required, &optional] {
        assert!(shake(listening, stranger.clone(), "a.test").await.0.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn silence_and_plaintext_are_no_handshake_and_places_are_bounded() {
    let dir = folder(&["a.test"]);
    let listening = listening(&file(dir.path(), &["a.test"]));
    // given two silent clients in both places, and a third one
    let begin = tokio::time::Instant::now();
    let pipes: Vec<_> = (0..3).map(|_| tokio::io::duplex(64)).collect();
    let (clients, streams): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    let shaken = streams.into_iter().map(|stream| listening.shake(Box::new(stream)));
    for late in futures_util::future::join_all(shaken).await {
        assert!(matches!(late, Err(Failed::Late)));
    }
    assert_eq!(begin.elapsed(), HANDSHAKE);
    drop(clients);
    let (mut client, stream) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\n").await.expect("open");
    assert!(matches!(listening.shake(Box::new(stream)).await, Err(Failed::Plaintext)));
    // and a hello does not go on for ever: records of a message of almost 64 KiB
    let (mut client, stream) = tokio::io::duplex(1 << 16);
    let records = [&[22, 3, 1, 16, 4, 1, 0, 255, 0][..], &[0; 4096]].concat();
    let more = [&[22, 3, 1, 16, 0][..], &[0; 4096]].concat().repeat(4);
    tokio::io::AsyncWriteExt::write_all(&mut client, &[records, more].concat()).await.expect("it fits");
    assert!(matches!(listening.shake(Box::new(stream)).await, Err(Failed::Handshake(_))));
}

#[tokio::test(start_paused = true)]
async fn clients_that_fall_silent_before_or_after_their_hello_shut_nobody_out() {
    let dir = folder(&["a.test"]);
    let listening = listening(&file(dir.path(), &["a.test"]));
    // given more clients than there are places: some say nothing, some nothing after their hello
    let name = ServerName::try_from("a.test").expect("a name");
    let hello = rustls::ClientConnection::new(Arc::new(client(dir.path(), None)), name);
    let mut bytes = Vec::new();
    hello.expect("a client").write_tls(&mut bytes).expect("a hello");
    let (mut clients, mut shaken) = (Vec::new(), Vec::new());
    for said in [&bytes[..], &bytes[..], &[], &[], &[], &bytes[..1], &bytes[..bytes.len() - 1]] {
        let (mut client, stream) = tokio::io::duplex(1 << 16);
        tokio::io::AsyncWriteExt::write_all(&mut client, said).await.expect("it fits");
        clients.push(client);
        let listening = listening.clone();
        shaken.push(tokio::spawn(async move { listening.shake(Box::new(stream)).await.err() }));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    // when others come, then they wait a second for the place of one that went silent, and no longer
    let begin = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(shake(&listening, client(dir.path(), None), "a.test").await.1, Ok(()));
    }
    assert!(begin.elapsed() <= Duration::from_secs(1), "{:?}", begin.elapsed());
    let mut slugs = Vec::new();
    for shaken in shaken {
        slugs.push(shaken.await.expect("no panic").expect("it failed").slug());
    }
    assert_eq!(slugs.iter().filter(|slug| **slug == "tls-handshake-displaced").count(), 1, "{slugs:?}");
    assert_eq!(slugs.iter().filter(|slug| **slug == "tls-handshake-late").count(), 6, "{slugs:?}");
}

#[test]
fn a_file_of_no_use_is_told_by_its_path() {
    let dir = folder(&["a.test", "b.test"]);
    let dir = dir.path();
    let told = |file: &HttpsFile| match Files::read(&crate::world::real(), file) {
        Ok(_) => panic!("no use"),
        Err(told) => told,
    };
    let mut mixed = file(dir, &["a.test"]);
    mixed.certificates[0].key = dir.join("b.test.key");
    assert!(
        told(&mixed).contains("b.test.key: ") && told(&mixed).contains("belong together"),
        "{}",
        told(&mixed)
    );
    mixed.certificates[0].key = dir.join("none.key");
    assert!(told(&mixed).ends_with("none.key: there is no such file"));
    let mut foreign = file(dir, &["a.test"]);
    foreign.client_ca = Some(dir.join("a.test.key"));
    assert!(told(&foreign).contains("a.test.key: found no certificate"), "{}", told(&foreign));
}
