//! TLS to an upstream: a raw stream out to an endpoint in, a stream whose far end has proven its name out.
//!
//! Certificates are always verified: against the CA file that the document names, and the world's wall clock. The files are
//! looked at again when a connection is made and the last look was a while ago, so that renewed ones are taken up; those
//! that have become unreadable leave what was read before in force, and so does a disk that hangs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::world::{Disk, Stream, World};
use config::upstream::{Protocol, UpstreamTls};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::listening::Now;

/// How long files are believed to be what they were.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a connection waits for the disk, if what the files said before is known.
const LOOK_WITHIN: Duration = Duration::from_millis(200);

/// How connections to one upstream are secured.
pub struct Calling {
    world: World,
    folder: PathBuf,
    tls: UpstreamTls,
    protocol: Protocol,
    made: Mutex<Option<Made>>,
    /// Held by the one who reads the files, for as long as the disk takes.
    reading: Arc<tokio::sync::Mutex<()>>,
}

struct Made {
    files: Files,
    config: Arc<ClientConfig>,
    looked: Instant,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Files {
    ca: Vec<u8>,
    /// The gateway's certificate and its key.
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Calling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calling")
    }
}

impl Calling {
    /// - `folder`: of relative files.
    /// - `protocol`: what the far end must agree to speak.
    pub fn new(world: World, folder: PathBuf, tls: UpstreamTls, protocol: Protocol) -> Self {
        Self { world, folder, tls, protocol, made: Mutex::new(None), reading: Arc::default() }
    }

    /// Secures a connection that was made to `host`. The deadline is the caller's.
    ///
    /// # Errors
    /// For the log: why it is not secured.
    pub async fn secure(&self, stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>, String> {
        let config = self.config().await?;
        let name = self.tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("found {name}, wanted a name that a certificate can bear"))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS handshake: {error}"))?;
        if self.protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("TLS handshake: the endpoint does not agree to speak HTTP/2".to_owned());
        }
        Ok(Box::new(stream))
    }

    /// What the files say now; or said, if the disk does not tell in time.
    async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = self.believed() {
            return Ok(config);
        }
        let old = self.made.lock().as_ref().map(|made| made.config.clone());
        let Some(old) = old else {
            let reading = self.reading.clone().lock_owned().await;
            // Somebody else may have read them meanwhile.
            return match self.believed() {
                Some(config) => Ok(config),
                None => self.look(reading).await,
            };
        };
        let Ok(reading) = self.reading.clone().try_lock_owned() else { return Ok(old) };
        let looked = timeout(LOOK_WITHIN, self.look(reading)).await;
        let looked = looked.unwrap_or_else(|_| Err("the disk is silent".to_owned()));
        looked.or_else(|why| {
            warn!(%why, "files of an upstream's TLS are of no use, those of before stay");
            Ok(old)
        })
    }

    /// What was read a short while ago. To one caller after that it is not given: the one who looks again.
    fn believed(&self) -> Option<Arc<ClientConfig>> {
        let mut made = self.made.lock();
        let made = made.as_mut()?;
        if made.looked.elapsed() < LOOK_EVERY {
            return Some(made.config.clone());
        }
        made.looked = Instant::now();
        None
    }

    async fn look(&self, reading: OwnedMutexGuard<()>) -> Result<Arc<ClientConfig>, String> {
        let looked = Instant::now();
        let files = self.read(reading).await?;
        let same =
            self.made.lock().as_ref().filter(|made| made.files == files).map(|made| made.config.clone());
        if let Some(config) = same {
            return Ok(config);
        }
        let config = self.compile(&files)?;
        *self.made.lock() = Some(Made { files, config: config.clone(), looked });
        Ok(config)
    }

    async fn read(&self, reading: OwnedMutexGuard<()>) -> Result<Files, String> {
        let (told, read) = oneshot::channel();
        let (disk, folder, tls) = (self.world.disk.clone(), self.folder.clone(), self.tls.clone());
        let work = move || {
            // A caller whose deadline has passed asks no more.
            let _ = told.send(Files::read(disk.as_ref(), &folder, &tls));
            drop(reading);
        };
        self.world.domains.blocking(Box::new(work)).await;
        read.await.map_err(|_| "the TLS files were not read to their end".to_owned())?
    }

    fn compile(&self, files: &Files) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        // Bundles of many CAs hold some that no verifier understands.
        let (good, _) = roots.add_parsable_certificates(certificates(&files.ca));
        if good == 0 {
            return Err(format!("ca {}: found no certificate in it, wanted PEM", self.tls.ca));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let now = Arc::new(Now(self.world.clock.clone()));
        let builder = ClientConfig::builder_with_details(provider, now)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match &files.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("key: {error}"))?;
                let chain = certificates(certificate).collect();
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("{error}: certificate and key belong together"))?
            }
        };
        config.alpn_protocols = vec![match self.protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        Ok(Arc::new(config))
    }
}

impl Files {
    /// Blocks on the disk.
    fn read(disk: &dyn Disk, folder: &Path, tls: &UpstreamTls) -> Result<Self, String> {
        let read = |file: &String| match disk.read(&folder.join(file)) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(format!(
                "TLS file {}: there is no such file; put it on every node",
                folder.join(file).display()
            )),
            Err(error) => Err(format!("TLS file {file}: {error}")),
        };
        let client = match &tls.client {
            Some(files) => Some((read(&files.certificate)?, read(&files.key)?)),
            None => None,
        };
        Ok(Self { ca: read(&tls.ca)?, client })
    }
}

/// Those of a PEM text that are some.
fn certificates(pem: &[u8]) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok)
}

#[cfg(test)]
#[path = "calling_tests.rs"]
mod tests;
