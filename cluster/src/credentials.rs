//! This node's certificate files, and what is in force of them.
//!
//! The files are looked at every [`LOOK_EVERY`]. A new set that is whole and good comes into force: new connections are
//! made with it, and those that stand are made anew (`peer::link`). A set that is not is refused with its file and reason;
//! the one before stays in force, and the node's readiness says so until the files are good.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::ids::NodeName;
use config::node::TlsFiles;
use tokio::sync::watch;

use crate::raft::log::blocking;
use crate::tls::{Pem, Tls, TlsError};
use crate::world::{UnixMs, World};

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A certificate that expires sooner than this is warned of.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How often the log warns of it.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest PEM file that is read as one.
const PEM_BYTES_MAX: usize = 1 << 20;

/// What is in force, for readiness and figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStanding {
    /// When this node's certificate expires. None: plaintext.
    pub expires: Option<UnixMs>,
    /// Why the files on disk are not in force, and what to do. None: they are.
    pub refused: Option<String>,
}

impl CertificateStanding {
    /// How long the certificate is still valid, zero when it is not. None: plaintext.
    pub fn left(&self, now: UnixMs) -> Option<Duration> {
        self.expires.map(|expires| Duration::from_millis(expires.0.saturating_sub(now.0)))
    }

    /// What an operator has to do something about.
    pub fn problem(&self, now: UnixMs) -> Option<String> {
        self.refused.clone().or_else(|| {
            let left = self.left(now).filter(|left| *left < EXPIRES_SOON)?;
            let when = match left.as_secs() {
                0 => "has expired".to_owned(),
                seconds => format!("expires in {} days {} h", seconds / 86_400, seconds % 86_400 / 3_600),
            };
            Some(format!("this node's certificate {when}: renew it, the files are read while the node runs"))
        })
    }
}

/// The files of one node.
#[derive(Clone)]
pub(crate) struct Credentials {
    world: World,
    me: NodeName,
    files: TlsFiles,
    tls: watch::Sender<Tls>,
    standing: watch::Sender<CertificateStanding>,
    in_force: Arc<Pem>,
}

impl Credentials {
    /// Reads the files for the first time. Blocks.
    ///
    /// # Errors
    /// A text for the operator.
    pub(crate) fn read(
        world: &World,
        me: &NodeName,
        files: &TlsFiles,
        standing: watch::Sender<CertificateStanding>,
    ) -> Result<Self, String> {
        let pem = pem(world, files)?;
        let tls = Tls::mutual(world.clock.clone(), me, &pem).map_err(|error| named(files, error))?;
        standing.send_replace(CertificateStanding { expires: tls.expires(), refused: None });
        if let Err(error) = tls.judge_own().map_err(|error| named(files, error)) {
            // Not for us to decide at a start: peers may have other CA files.
            tracing::warn!(reason = %error, "peers with the same CA file will not accept this node's certificate");
        }
        let (world, me, files) = (world.clone(), me.clone(), files.clone());
        Ok(Self { world, me, files, tls: watch::Sender::new(tls), standing, in_force: Arc::new(pem) })
    }

    /// Yields the latest.
    pub(crate) fn tls(&self) -> watch::Receiver<Tls> {
        self.tls.subscribe()
    }

    /// Looks at the files for as long as it is polled. One look at a time, however long a disk takes for it.
    pub(crate) async fn keep(mut self) {
        let mut warned_at = None;
        loop {
            self.look().await;
            let (now, boot) = (self.world.clock.wall(), self.world.clock.boot());
            let standing = self.standing.borrow().clone();
            let due = warned_at.is_none_or(|at| boot.since(at) >= WARN_EVERY.as_nanos() as u64);
            if due
                && standing.refused.is_none()
                && let Some(problem) = standing.problem(now)
            {
                tracing::warn!(certificate = %self.files.certificate.display(), "{problem}");
                warned_at = Some(boot);
            }
            self.world.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) {
        let (world, me, files) = (self.world.clone(), self.me.clone(), self.files.clone());
        let in_force = self.in_force.clone();
        // Off the thread of the consensus core: disks hang, and certificates take their time.
        let looked = blocking(&self.world, move || Ok(compare(&world, &me, &files, &in_force))).await;
        match looked.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(None) => drop(self.standing.send_if_modified(|standing| standing.refused.take().is_some())),
            Ok(Some((pem, tls))) => {
                let left = CertificateStanding { expires: tls.expires(), refused: None };
                let days = left.left(self.world.clock.wall()).unwrap_or_default().as_secs() / 86_400;
                tracing::info!(expires_in_days = days, "new certificate files are in force");
                self.in_force = Arc::new(pem);
                self.standing.send_replace(left);
                self.tls.send_replace(tls);
            }
            Err(reason) => {
                let told = format!("{reason}; the files before stay in force until this is mended");
                let news = self.standing.send_if_modified(|standing| {
                    let news = standing.refused.as_ref() != Some(&told);
                    standing.refused = Some(told.clone());
                    news
                });
                if news {
                    tracing::warn!(%reason, "new certificate files are refused, those before stay in force");
                }
            }
        }
    }
}

/// What is to come into force; none: it is already.
fn compare(
    world: &World,
    me: &NodeName,
    files: &TlsFiles,
    in_force: &Pem,
) -> Result<Option<(Pem, Tls)>, String> {
    let found = pem(world, files)?;
    if found == *in_force {
        return Ok(None);
    }
    let tls = Tls::mutual(world.clock.clone(), me, &found).map_err(|error| named(files, error))?;
    // A node that began with such files only learns it from its peers; one that runs need not come to that.
    tls.judge_own().map_err(|error| named(files, error))?;
    Ok(Some((found, tls)))
}

fn pem(world: &World, TlsFiles { ca, certificate, key }: &TlsFiles) -> Result<Pem, String> {
    let read = |path: &Path| -> Result<Vec<u8>, String> {
        let bytes = world.disk.read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let bytes = bytes.ok_or_else(|| format!("{}: there is no such file", path.display()))?;
        if bytes.len() > PEM_BYTES_MAX {
            let (path, found) = (path.display(), bytes.len());
            return Err(format!("{path}: found {found} bytes, wanted a PEM file of at most {PEM_BYTES_MAX}"));
        }
        Ok(bytes)
    };
    Ok(Pem { ca: read(ca)?, certificate: read(certificate)?, key: read(key)? })
}

/// The error with the file's path in the place of its role.
fn named(files: &TlsFiles, error: TlsError) -> String {
    let TlsError::File { file, reason } = error else { return error.to_string() };
    let path = match file {
        "ca" => &files.ca,
        "key" => &files.key,
        _ => &files.certificate,
    };
    format!("{}: {reason}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_two_weeks_before_it_expires_and_a_refused_file_is_worse() {
        let day = 86_400_000;
        let mut standing = CertificateStanding { expires: Some(UnixMs(100 * day)), refused: None };
        // given a certificate that ends on day 100, when it is day 86 or earlier, then all is well
        assert_eq!(standing.problem(UnixMs(86 * day)), None);
        assert_eq!(standing.left(UnixMs(99 * day)), Some(Duration::from_secs(86_400)));
        // and a moment later it is not
        let told = standing.problem(UnixMs(86 * day + 1)).expect("less than 14 days");
        assert!(told.contains("expires in 13 days 23 h: renew it"), "{told}");
        let told = standing.problem(UnixMs(101 * day)).expect("it has expired");
        assert!(told.contains("has expired: renew it"), "{told}");
        assert_eq!(standing.left(UnixMs(101 * day)), Some(Duration::ZERO));
        // and files that are refused are told first
        standing.refused = Some("key.pem: nonsense".to_owned());
        assert_eq!(standing.problem(UnixMs(99 * day)), standing.refused);
        assert_eq!(CertificateStanding::default().problem(UnixMs(day)), None, "plaintext");
    }
}
