//! The cluster's own certificate authority, and a certificate for each node.
//!
//! A certificate of this CA is the credential to be the node that it names, so `ca.key` belongs on no node. A node gets a
//! new key with each certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use config::ids::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A CA's life.
pub const CA_DAYS: u32 = 3652;
/// A node certificate's life.
pub const NODE_DAYS: u32 = 730;
/// Validity begins this much earlier, for nodes whose clocks are behind.
const BACKDATED: Duration = DAY;

const MODE_PUBLIC: u32 = 0o644;
const MODE_SECRET: u32 = 0o600;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The new files; `ca.pem` and `ca.key` only if they were not there before.
    pub files: Vec<PathBuf>,
}

/// Writes `NAME.pem` and `NAME.key` for each node into `dir`, under the CA in `ca.pem` and `ca.key`, which are made
/// when both are missing. All or nothing is checked before anything is written.
///
/// # Errors
/// `AlreadyExists` if a node's file is there: nothing is overwritten. `InvalidInput` if one half of the CA is missing,
/// or a node is called `ca` or has a name that cannot be a DNS name. Otherwise what the file system says.
pub fn write_pki(dir: &Path, nodes: &[NodeName]) -> io::Result<Written> {
    check(nodes)?;
    if let Some(path) = nodes.iter().flat_map(|node| paths(dir, node)).find(|path| path.exists()) {
        let text = format!(
            "{} exists and is not overwritten: `--renew` replaces what a node has, or remove it first",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut files = Vec::new();
    let ca = match read_ca(dir)? {
        Some(ca) => ca,
        None => {
            let (certificate, key) = make_ca().map_err(made)?;
            write_new(&dir.join("ca.key"), key.as_bytes(), MODE_SECRET)?;
            write_new(&dir.join("ca.pem"), certificate.as_bytes(), MODE_PUBLIC)?;
            files.extend([dir.join("ca.pem"), dir.join("ca.key")]);
            issuer(&certificate, &key)?
        }
    };
    for node in nodes {
        let (certificate, key) = make_node(node, &ca).map_err(made)?;
        let [certificate_path, key_path] = paths(dir, node);
        write_new(&key_path, key.as_bytes(), MODE_SECRET)?;
        write_new(&certificate_path, certificate.as_bytes(), MODE_PUBLIC)?;
        files.extend([certificate_path, key_path]);
    }
    Ok(Written { files })
}

/// Replaces `NAME.pem` and `NAME.key` of each node in `dir`, under the CA that is there. Each file is replaced whole;
/// between a node's two files it has a key that does not fit, which a running node refuses until both are there.
///
/// # Errors
/// `NotFound` if there is no CA, or a node has no certificate: nothing is written then. Otherwise as [`write_pki`].
pub fn renew(dir: &Path, nodes: &[NodeName]) -> io::Result<Written> {
    check(nodes)?;
    let lacking = |text: String| io::Error::new(io::ErrorKind::NotFound, text);
    let ca = read_ca(dir)?;
    let ca = ca.ok_or_else(|| lacking(format!("{} has no ca.pem and ca.key to sign with", dir.display())))?;
    if let Some(node) = nodes.iter().find(|node| !paths(dir, node)[0].exists()) {
        let text = format!("{} has no {node}.pem to renew: without `--renew` it gets one", dir.display());
        return Err(lacking(text));
    }
    let mut files = Vec::new();
    for node in nodes {
        let (certificate, key) = make_node(node, &ca).map_err(made)?;
        let [certificate_path, key_path] = paths(dir, node);
        replace(&key_path, key.as_bytes(), MODE_SECRET)?;
        replace(&certificate_path, certificate.as_bytes(), MODE_PUBLIC)?;
        files.extend([certificate_path, key_path]);
    }
    Ok(Written { files })
}

fn check(nodes: &[NodeName]) -> io::Result<()> {
    let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    for (at, node) in nodes.iter().enumerate() {
        if node.as_str() == "ca" {
            return invalid("a node called \"ca\" would overwrite the CA: choose another name".into());
        }
        if nodes[..at].contains(node) {
            return invalid(format!("node {node} is named twice"));
        }
        // As the nodes themselves will judge it: labels of letters, digits, '-' and '_', the last not a number.
        let last = node.as_str().rsplit('.').next().unwrap_or_default();
        let labels_are_good = node
            .as_str()
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-'));
        if !labels_are_good || last.bytes().all(|b| b.is_ascii_digit()) {
            return invalid(format!(
                "node name {node} is not a DNS name (labels between dots, none empty, none beginning or ending with \
                 '-', the last not a number), so that no certificate can carry it: choose another name"
            ));
        }
    }
    Ok(())
}

fn paths(dir: &Path, node: &NodeName) -> [PathBuf; 2] {
    [dir.join(format!("{node}.pem")), dir.join(format!("{node}.key"))]
}

fn read_ca(dir: &Path) -> io::Result<Option<Issuer<'static, KeyPair>>> {
    let read = |name: &str| match fs::read_to_string(dir.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", dir.join(name).display()))),
    };
    match (read("ca.pem")?, read("ca.key")?) {
        (Some(certificate), Some(key)) => issuer(&certificate, &key).map(Some),
        (None, None) => Ok(None),
        (certificate, _) => {
            let (has, lacks) =
                if certificate.is_some() { ("ca.pem", "ca.key") } else { ("ca.key", "ca.pem") };
            let text =
                format!("{} has {has} but no {lacks}: bring it, or begin in an empty folder", dir.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

fn issuer(certificate: &str, key: &str) -> io::Result<Issuer<'static, KeyPair>> {
    let unusable = |file: &str, error: rcgen::Error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{file} cannot be used: {error}"))
    };
    let key = KeyPair::from_pem(key).map_err(|e| unusable("ca.key", e))?;
    Issuer::from_ca_cert_pem(certificate, key).map_err(|e| unusable("ca.pem", e))
}

fn made(error: rcgen::Error) -> io::Error {
    io::Error::other(format!("making a certificate: {error}"))
}

/// Certificate and key as PEM.
fn make_ca() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "quorumgate cluster CA");
    // Signs nodes, no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    live(&mut params, CA_DAYS);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn make_node(node: &NodeName, ca: &Issuer<'_, KeyPair>) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([node.as_str().to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, node.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Every node calls and is called.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    live(&mut params, NODE_DAYS);
    Ok((params.signed_by(&key, ca)?.pem(), key.serialize_pem()))
}

fn live(params: &mut CertificateParams, days: u32) {
    #[expect(clippy::disallowed_methods, reason = "a command of the operator's, outside of any node's world")]
    let begin = SystemTime::now() - BACKDATED;
    params.not_before = begin.into();
    params.not_after = (begin + BACKDATED + DAY * days).into();
}

/// Writes a file that must not exist, and makes it durable.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(named)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(named)
}

/// Writes a file beside the old one and puts it in its place.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    // Left behind by a renewal that was cut off.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(&beside, bytes, mode)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use cluster::tls::{Pem, Tls};

    use super::*;

    fn names(texts: &[&str]) -> Vec<NodeName> {
        texts.iter().map(|text| NodeName::parse(text).expect("valid")).collect()
    }

    fn usable(dir: &Path, name: &str) -> Result<Tls, cluster::tls::TlsError> {
        let read = |file: &str| fs::read(dir.join(file)).expect("written");
        let (certificate, key) = (read(&format!("{name}.pem")), read(&format!("{name}.key")));
        let pem = Pem { ca: read("ca.pem"), certificate, key };
        Tls::mutual(crate::world::real().clock, &names(&[name])[0], &pem)
    }

    #[test]
    fn a_cluster_gets_its_certificates_and_a_later_node_gets_its_own_from_the_same_ca() {
        // given an empty folder
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path().join("pki");
        // when two nodes, and later a third, get their certificates
        let first = write_pki(&dir, &names(&["node-1", "node-2"])).expect("written");
        let ca = fs::read(dir.join("ca.pem")).expect("written");
        let later = write_pki(&dir, &names(&["node-3"])).expect("written");
        // then all can be used, the CA is the same, and secrets are the owner's alone
        for name in ["node-1", "node-2", "node-3"] {
            usable(&dir, name).expect("usable");
        }
        assert_eq!((first.files.len(), later.files.len()), (6, 2));
        assert_eq!(fs::read(dir.join("ca.pem")).expect("still there"), ca);
        let modes: BTreeMap<&str, u32> = ["ca.pem", "ca.key", "node-3.pem", "node-3.key"]
            .map(|file| (file, fs::metadata(dir.join(file)).expect("written").permissions().mode() & 0o777))
            .into();
        assert_eq!(modes["ca.key"], MODE_SECRET);
        assert_eq!(modes["node-3.key"], MODE_SECRET);
        // and nothing is overwritten
        let again = write_pki(&dir, &names(&["node-4", "node-3"])).expect_err("it exists");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(again.to_string().contains("node-3.pem exists"), "{again}");
        assert!(!dir.join("node-4.pem").exists(), "checked before anything is written");
    }

    #[test]
    fn a_renewed_node_has_a_new_certificate_and_key_of_the_same_ca() {
        // given two nodes with certificates
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        write_pki(dir, &names(&["node-1", "node-2"])).expect("written");
        let read = |file: &str| fs::read(dir.join(file)).expect("it is there");
        let before = ["ca.pem", "node-1.pem", "node-1.key", "node-2.pem"].map(read);
        fs::write(dir.join("node-1.key.new"), "of a renewal that was cut off").expect("written");
        // when one is renewed
        let written = renew(dir, &names(&["node-1"])).expect("renewed");
        // then its files are new and can be used, and nothing else was touched
        let after = ["ca.pem", "node-1.pem", "node-1.key", "node-2.pem"].map(read);
        let same: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
        assert_eq!(same, [true, false, false, true]);
        assert_eq!(written.files, [dir.join("node-1.pem"), dir.join("node-1.key")]);
        let tls = usable(dir, "node-1").expect("usable");
        tls.judge_own().expect("signed by the CA that is there");
        let mode = fs::metadata(dir.join("node-1.key")).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, MODE_SECRET);
        assert!(!dir.join("node-1.key.new").exists());
        // and a node that never was has nothing to renew
        let told = renew(dir, &names(&["node-2", "node-3"])).expect_err("no node-3").to_string();
        assert!(told.contains("has no node-3.pem to renew"), "{told}");
        assert_eq!(read("node-2.pem"), before[3], "checked before anything is written");
    }

    #[test]
    fn half_a_ca_and_impossible_names_are_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let told = |texts: &[&str]| write_pki(dir.path(), &names(texts)).expect_err("impossible").to_string();
        assert!(told(&["ca"]).contains("would overwrite the CA"));
        assert!(told(&["a", "a"]).contains("node a is named twice"));
        assert!(told(&["10.0.0.1"]).contains("not a DNS name"));
        assert!(told(&["a..b"]).contains("not a DNS name"));
        fs::write(dir.path().join("ca.pem"), "x").expect("written");
        assert!(told(&["a"]).contains("has ca.pem but no ca.key"));
    }
}
