//! Clients of both kinds of port, with both kinds of HTTP: certificates are swapped under their load, and tools that others
//! wrote get the same answers.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use support::{AtEnd, Cluster, PATIENCE, port, quorumgate};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

const OPEN: &str = "
upstreams:
  echo: {endpoints: [\"http://@UPSTREAM@\"]}
routes:
  - {name: open, match: {path: /open}, upstream: echo, access: public}
  - {name: moved, match: {path: /moved}, redirect: {status: 308, host: other.test}, access: public}
";

/// One node with a plain port and one for TLS, whose certificate is the node's own.
fn start() -> (Cluster, SocketAddr) {
    let secure = SocketAddr::from(([127, 0, 0, 1], port()));
    let settings = format!(
        "https: {{listen: \"{secure}\", certificates: [{{certificate: pki/node-1.pem, key: pki/node-1.key}}], \
         client_ca: pki/ca.pem, client_certificate: optional}}\nlog: {{filter: \"info,quorumgate=debug\"}}\n"
    );
    (Cluster::start_with(1, OPEN, &settings), secure)
}

fn pem(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join("pki").join(name)).expect("it was written")
}

/// `alpn`: what the client offers; `with_certificate`: shows the node's own.
fn tls(folder: &Path, alpn: &str, with_certificate: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(folder, "ca.pem")).expect("a CA")).expect("a good CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("it has both versions").with_root_certificates(roots);
    let mut config = if with_certificate {
        let chain = vec![CertificateDer::from_pem_slice(&pem(folder, "node-1.pem")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(&pem(folder, "node-1.key")).expect("a key");
        builder.with_client_auth_cert(chain, key).expect("they fit")
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

/// A connection of either HTTP.
enum Client {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// How a client connects: where, by which HTTP, and over TLS or not.
#[derive(Clone)]
struct Way {
    name: &'static str,
    to: SocketAddr,
    is_http2: bool,
    tls: Option<Arc<ClientConfig>>,
}

impl Way {
    /// A connection, and the certificate that it saw.
    async fn connect(&self) -> Result<(Client, Option<Vec<u8>>), String> {
        let stream = tokio::net::TcpStream::connect(self.to).await.map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else { return Ok((self.shake(stream).await?, None)) };
        let name = ServerName::try_from("node-1").expect("a name");
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| format!("handshake: {error}"))?;
        let seen = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
        Ok((self.shake(stream).await?, seen))
    }

    async fn shake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Client, String> {
        let told = |error: hyper::Error| format!("{error:?}");
        if self.is_http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(told)?;
            tokio::spawn(connection);
            return Ok(Client::Two(sender));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        tokio::spawn(connection);
        Ok(Client::One(sender))
    }

    async fn ask(&self, client: &mut Client) -> Result<String, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let target = if self.is_http2 { format!("{scheme}://node-1/open") } else { "/open".to_owned() };
        let mut request = http::Request::get(target);
        if !self.is_http2 {
            request = request.header("host", "node-1");
        }
        let request = request.body(Empty::new()).expect("well-formed");
        let response = match client {
            Client::One(sender) => sender.send_request(request).await,
            Client::Two(sender) => sender.send_request(request).await,
        };
        let response = response.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if status == 200 { Ok(body) } else { Err(format!("{status} {body}")) }
    }
}

/// Asks until told to stop: over one connection that stays, and over new ones. How many requests, what failed, and each
/// certificate that was seen, once. `begun`: counts the ways of which a new connection was served.
fn load(way: &Way, begun: &AtomicUsize, stop: &AtomicBool) -> (usize, Vec<String>, Vec<Vec<u8>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut count, mut failed, mut seen) = (0, Vec::new(), Vec::new());
    runtime.block_on(async {
        let (mut old, _) = way.connect().await.expect("the node listens");
        while !stop.load(Ordering::SeqCst) {
            let fresh = async {
                let (mut client, certificate) = way.connect().await?;
                way.ask(&mut client).await.map(|_| certificate)
            };
            for (what, result) in [("old", way.ask(&mut old).await.map(|_| None)), ("new", fresh.await)] {
                count += 1;
                match result {
                    Ok(Some(certificate)) if !seen.contains(&certificate) => seen.push(certificate),
                    Ok(_) => {}
                    Err(error) => failed.push(format!("{what} connection of {}: {error}", way.name)),
                }
            }
            if count == 2 {
                begun.fetch_add(1, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    (count, failed, seen)
}

#[test]
fn certificates_are_swapped_under_load_and_nobody_notices() {
    // given clients of every kind
    let (cluster, secure) = start();
    let folder = cluster.folder.path();
    let plain = cluster.nodes[0].http;
    let ways = [
        Way { name: "http/1.1", to: plain, is_http2: false, tls: None },
        Way { name: "h2", to: plain, is_http2: true, tls: None },
        Way {
            name: "http/1.1 over TLS",
            to: secure,
            is_http2: false,
            tls: Some(tls(folder, "http/1.1", false)),
        },
        Way { name: "h2 over TLS", to: secure, is_http2: true, tls: Some(tls(folder, "h2", false)) },
    ];
    let (begun, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let swaps = 3;
    let loads = std::thread::scope(|scope| {
        let _end = AtEnd(|| stop.store(true, Ordering::SeqCst));
        let threads: Vec<_> = ways.iter().map(|way| scope.spawn(|| load(way, &begun, &stop))).collect();
        // All have seen the first certificate: the node may look at its files at any moment.
        let until = Instant::now() + PATIENCE;
        while begun.load(Ordering::SeqCst) < ways.len() {
            assert!(Instant::now() < until, "not every way is served\n{}", cluster.log(0));
            std::thread::sleep(Duration::from_millis(20));
        }
        for swap in 1..=swaps {
            // when the certificate is renewed, again and again
            let done = quorumgate(folder, &["pki", "--out", "pki", "--renew", "node-1"]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let until = Instant::now() + PATIENCE;
            let said = "new certificate files for clients are in force";
            while cluster.log(0).matches(said).count() < swap {
                assert!(Instant::now() < until, "swap {swap}\n{}", cluster.log(0));
                std::thread::sleep(Duration::from_millis(50));
            }
            // and between two renewals there is a file of no use
            let certificate = pem(folder, "node-1.pem");
            std::fs::write(folder.join("pki/node-1.pem"), "half a certif").expect("written");
            let refused = "new certificate files for clients are refused";
            while cluster.log(0).matches(refused).count() < swap {
                assert!(Instant::now() < until, "swap {swap}\n{}", cluster.log(0));
                std::thread::sleep(Duration::from_millis(50));
            }
            std::fs::write(folder.join("pki/node-1.pem"), certificate).expect("written");
        }
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::SeqCst);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    // then nothing failed, and new connections saw each certificate
    for (way, (count, failed, seen)) in ways.iter().zip(&loads) {
        println!("{}: {count} requests, {} failed, {} certificates", way.name, failed.len(), seen.len());
        assert!(failed.is_empty() && *count > 20, "{failed:?}\n{}", cluster.log(0));
        assert_eq!(seen.len(), if way.tls.is_some() { swaps + 1 } else { 0 }, "{}", way.name);
    }
    // Two files are renewed one after the other: who looks between them refuses the key.
    let log = cluster.log(0);
    let mut refused = log.lines().filter(|line| line.contains("for clients are refused"));
    assert!(refused.any(|line| line.contains("pki/node-1.pem: ")), "{log}");
}

#[test]
fn upstreams_are_told_by_what_and_by_whom_they_are_asked() {
    // given a client that shows a certificate, and one that does not, and claims to
    let (cluster, secure) = start();
    let folder = cluster.folder.path();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = |with_certificate| {
        let tls = Some(tls(folder, "h2", with_certificate));
        let way = Way { name: "h2 over TLS", to: secure, is_http2: true, tls };
        runtime.block_on(async {
            let (mut client, _) = way.connect().await.expect("it is let in");
            way.ask(&mut client).await.expect("it is answered")
        })
    };
    let (known, unknown) = (ask(true), ask(false));
    // then its upstream is told, and what a client says of itself does not pass
    assert!(known.contains("x-forwarded-proto: https"), "{known}");
    assert!(known.contains("quorumgate-client-certificate: sha256="), "{known}");
    assert!(known.contains(";cn=node-1;dns=node-1"), "{known}");
    assert!(!unknown.contains("quorumgate-client-certificate"), "{unknown}");
    let claims = [("quorumgate-client-certificate", "sha256=00")];
    let plain = support::request(cluster.nodes[0].http, "GET", "/open", &claims, "").expect("it is answered");
    assert!(!plain.body.contains("quorumgate-client-certificate"), "{}", plain.body);
    // and whoever comes to the wrong port is let go, and counted
    let mut lost = TcpStream::connect(secure).expect("it listens");
    lost.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("open");
    let _ = lost.read_to_end(&mut Vec::new());
    let mut lost = TcpStream::connect(cluster.nodes[0].http).expect("it listens");
    lost.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").expect("open");
    let _ = lost.read_to_end(&mut Vec::new());
    for reason in ["plaintext-on-a-tls-port", "tls-on-a-plain-port"] {
        let line = format!("quorumgate_connections_failed_total{{reason=\"{reason}\"}} 1");
        cluster.wait(0, "/metrics", &line, |answer| answer.body.contains(&line));
    }
}

/// What a tool says, or none if this machine does not have it, which is said.
fn tool(folder: &Path, name: &str, args: &[&str]) -> Option<String> {
    let done = Command::new(name).args(args).current_dir(folder).stdin(Stdio::null()).output();
    let Ok(done) = done else {
        println!("SKIPPED: this machine has no {name}");
        return None;
    };
    Some(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
}

#[test]
fn tools_of_others_are_served_by_every_way() {
    let (cluster, secure) = start();
    let folder = cluster.folder.path();
    let to = format!("node-1:{}:127.0.0.1", secure.port());
    let (at, plain) =
        (format!("https://node-1:{}", secure.port()), format!("http://{}", cluster.nodes[0].http));
    let curl = |args: &[&str]| {
        let basic = ["-sS", "-i", "--max-time", "20", "--cacert", "pki/ca.pem", "--resolve", &to];
        tool(folder, "curl", &[&basic[..], args].concat())
    };
    let open = |base: &str| format!("{base}/open");
    let cases: [(&[&str], &str, &str); 6] = [
        (&["--http2"], &at, "HTTP/2 200"),
        (&["--http1.1"], &at, "HTTP/1.1 200"),
        (&["--http1.1", "--tls-max", "1.2"], &at, "HTTP/1.1 200"),
        (&["--http2-prior-knowledge"], &plain, "HTTP/2 200"),
        (&["--http1.1"], &plain, "HTTP/1.1 200"),
        // It offers to upgrade, which need not be taken.
        (&["--http2", "--data", "x=1"], &at, "HTTP/2 200"),
    ];
    for (args, base, wanted) in cases {
        let url = open(base);
        let Some(said) = curl(&[args, &[url.as_str()]].concat()) else { return };
        assert!(said.starts_with(wanted), "{args:?} {base}: {said}");
        let scheme = base.split(':').next().expect("a scheme");
        assert!(said.contains(&format!("x-forwarded-proto: {scheme}")), "{said}");
    }
    // and a redirect that names no scheme keeps the client's
    let moved = curl(&[&format!("{at}/moved")]).unwrap_or_default();
    assert!(moved.contains("location: https://other.test/moved"), "{moved}");
    let connect = format!("127.0.0.1:{}", secure.port());
    let args =
        ["s_client", "-connect", &connect, "-servername", "node-1", "-CAfile", "pki/ca.pem", "-alpn", "h2"];
    if let Some(said) = tool(folder, "openssl", &args) {
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains("ALPN protocol: h2"), "{said}");
    }
    if let Some(said) = tool(folder, "h2load", &["-n", "500", "-c", "5", "-m", "20", &open(&plain)]) {
        println!(
            "{}",
            said.lines()
                .filter(|line| line.contains("requests:") || line.contains("finished"))
                .collect::<Vec<_>>()
                .join("\n")
        );
        assert!(said.contains("500 succeeded"), "{said}");
    }
}
