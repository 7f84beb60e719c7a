//! The certificate files of the clients' listener, and what is in force of them.
//!
//! The files are looked at every `LOOK_EVERY`. A set that is whole and good comes into force for new connections; those
//! that stand are not touched. A set that is not is refused with its file and reason, and the one before stays in force.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::world::{UnixMs, World};
use config::node::HttpsFile;
use rustls::server::ProducesTickets;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::listening::{InForce, Listening, Pem, compile, tickets};

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A certificate that expires sooner than this is warned of.
const EXPIRES_SOON_MS: u64 = 14 * 24 * 60 * 60 * 1000;
/// How often the log warns of it.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest PEM file that is read as one.
const PEM_BYTES_MAX: usize = 1 << 20;

/// The files of one listener.
pub struct Files {
    look: Arc<Look>,
    read: Arc<Pem>,
    in_force: watch::Sender<Arc<InForce>>,
}

/// What a look needs.
struct Look {
    world: World,
    file: HttpsFile,
    tickets: Arc<dyn ProducesTickets>,
}

impl Files {
    /// Reads the files for the first time. Blocks.
    ///
    /// # Errors
    /// A text for the operator, with the file's path.
    pub fn read(world: &World, file: &HttpsFile) -> Result<Self, String> {
        let look = Look { world: world.clone(), file: file.clone(), tickets: tickets()? };
        let pem = look.pem()?;
        let in_force = compile(file, &pem, &world.clock, &look.tickets)?;
        Ok(Self {
            look: Arc::new(look),
            read: Arc::new(pem),
            in_force: watch::Sender::new(Arc::new(in_force)),
        })
    }

    /// The listener's side, which sees what comes into force.
    pub fn listening(&self, handshakes_max: u32, within: Duration) -> Listening {
        Listening::new(self.in_force.subscribe(), handshakes_max, within)
    }

    /// Looks at the files for as long as it is polled. One look at a time, however long a disk takes for it.
    pub async fn keep(mut self) {
        let clock = self.look.world.clock.clone();
        let (mut refused, mut warned_at) = (None, None);
        loop {
            let (now, boot) = (clock.wall(), clock.boot());
            let is_due = warned_at.is_none_or(|at| boot.since(at) >= WARN_EVERY.as_nanos() as u64);
            let left_ms = self.in_force.borrow().expires.0.saturating_sub(now.0);
            if is_due && left_ms < EXPIRES_SOON_MS {
                let hours = left_ms / (60 * 60 * 1000);
                warn!(
                    hours,
                    "a certificate for clients expires soon, or has: renew it, the files are read while the node runs"
                );
                warned_at = Some(boot);
            }
            clock.sleep(LOOK_EVERY).await;
            let looked = self.look().await;
            if let Err(reason) = &looked
                && refused.as_ref() != Some(reason)
            {
                warn!(%reason, "new certificate files for clients are refused, those before stay in force");
            }
            refused = looked.err();
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let (look, read) = (self.look.clone(), self.read.clone());
        let (tell, told) = oneshot::channel();
        // Off the data plane and its neighbours: disks hang, and certificates take their time.
        let work = Box::new(move || {
            // Nobody waits any more only when the node is ending.
            let _ = tell.send(look.compare(&read));
        });
        self.look.world.domains.blocking(work).await;
        let looked = told.await.unwrap_or_else(|_| Err("looking at the files panicked".to_owned()))?;
        if let Some((pem, in_force)) = looked {
            let left_ms = in_force.expires.0.saturating_sub(self.look.world.clock.wall().0);
            let expires_in_days = left_ms / (24 * 60 * 60 * 1000);
            info!(expires_in_days, "new certificate files for clients are in force");
            self.read = Arc::new(pem);
            self.in_force.send_replace(Arc::new(in_force));
        }
        Ok(())
    }
}

impl Look {
    /// What is to come into force; none: it is already.
    fn compare(&self, read: &Pem) -> Result<Option<(Pem, InForce)>, String> {
        let pem = self.pem()?;
        if pem == *read {
            return Ok(None);
        }
        let in_force = compile(&self.file, &pem, &self.world.clock, &self.tickets)?;
        let UnixMs(now) = self.world.clock.wall();
        if in_force.expires.0 <= now {
            return Err("one of the new certificates has expired".to_owned());
        }
        Ok(Some((pem, in_force)))
    }

    fn pem(&self) -> Result<Pem, String> {
        let files = self.file.certificates.iter();
        let certificates = files
            .map(|files| Ok([self.bytes(&files.certificate)?, self.bytes(&files.key)?]))
            .collect::<Result<_, String>>()?;
        let client_ca = self.file.client_ca.as_deref().map(|path| self.bytes(path)).transpose()?;
        Ok(Pem { certificates, client_ca })
    }

    fn bytes(&self, path: &Path) -> Result<Vec<u8>, String> {
        let bytes = self.world.disk.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let bytes = bytes.ok_or_else(|| format!("{}: there is no such file", path.display()))?;
        if bytes.len() > PEM_BYTES_MAX {
            let (path, found) = (path.display(), bytes.len());
            return Err(format!("{path}: found {found} bytes, wanted a PEM file of at most {PEM_BYTES_MAX}"));
        }
        Ok(bytes)
    }
}
