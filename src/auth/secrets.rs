//! Secrets and key files: where text of a document becomes bytes of this node.
//!
//! A secret is never part of a document; its fingerprint is, so that nodes with different secrets notice
//! (decisions.md 23).

use std::fmt;
use std::io;
use std::path::Path;

use cluster::world::{Disk, World};
use config::gateway::GatewayDocument;
use config::identity::{Key, KeyMaterial, SecretSource};

/// A shared secret. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// As long as the hash of HS256 (RFC 7518 section 3.2).
    pub const LEN_BYTES_MIN: usize = 32;

    /// From a file's or a variable's bytes; one newline at the end belongs to the editor, not to the secret.
    ///
    /// # Errors
    /// If it is too short.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.len() < Self::LEN_BYTES_MIN {
            return Err(format!(
                "found {} bytes, wanted {} or more (`openssl rand -hex 32` makes good ones)",
                bytes.len(),
                Self::LEN_BYTES_MIN
            ));
        }
        Ok(Self(bytes))
    }

    /// The bytes, for a key.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// First 16 bytes of SHA-256 in lower-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0);
        digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Reads a secret. Blocks on the disk.
///
/// # Errors
/// What was found, what was wanted, what to do.
pub fn load(source: &SecretSource, folder: &Path, disk: &dyn Disk) -> Result<Secret, String> {
    let bytes = match source {
        SecretSource::File(file) => match disk.read(&folder.join(file)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                return Err(format!(
                    "secret file {}: there is no such file; put it on every node",
                    folder.join(file).display()
                ));
            }
            Err(error) => return Err(format!("secret file {file}: {error}")),
        },
        SecretSource::Env(name) => environment(name).ok_or_else(|| {
            format!("secret variable {name}: not set; set it for the process of every node")
        })?,
    };
    Secret::from_bytes(bytes).map_err(|why| match source {
        SecretSource::File(file) => format!("secret file {file}: {why}"),
        SecretSource::Env(name) => format!("secret variable {name}: {why}"),
    })
}

/// The one place where the environment is read.
fn environment(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes)
}

/// Writes the fingerprints of this node's secrets into a document that it is about to propose; old ones are replaced.
///
/// # Errors
/// All secrets that cannot be read, a line each.
pub fn fill_fingerprints(document: &mut GatewayDocument, folder: &Path, world: &World) -> Result<(), String> {
    each_key(document, |key| {
        if let KeyMaterial::Secret { source, fingerprint } = &mut key.material {
            *fingerprint = Some(load(source, folder, world.disk.as_ref())?.fingerprint());
        }
        Ok(())
    })
}

/// Replaces references to public key files by the files' text.
///
/// # Errors
/// All files that cannot be read as text, a line each.
pub fn resolve_public_files(
    document: &mut GatewayDocument,
    read: impl Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<(), String> {
    each_key(document, |key| {
        if let KeyMaterial::PublicFile(file) = &key.material {
            let bytes = read(file).map_err(|error| format!("public key file {file}: {error}"))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| format!("public key file {file}: found bytes that are no text, wanted PEM"))?;
            key.material = KeyMaterial::PublicPem(text);
        }
        Ok(())
    })
}

fn each_key(
    document: &mut GatewayDocument,
    mut visit: impl FnMut(&mut Key) -> Result<(), String>,
) -> Result<(), String> {
    let mut mistakes = Vec::new();
    for issuer in &mut document.issuers {
        for key in &mut issuer.keys {
            if let Err(why) = visit(key) {
                let kid = key.kid.as_deref().unwrap_or("without kid");
                mistakes.push(format!("issuer {}, key {kid}: {why}", issuer.name));
            }
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_secret() {
        let with = |tail: &str| {
            Secret::from_bytes(format!("{}{tail}", "s".repeat(32)).into_bytes()).expect("long enough")
        };
        assert_eq!(with("\n"), with(""));
        assert_ne!(with("\n\n"), with("\n"));
    }

    #[test]
    fn a_secret_shorter_than_its_hash_is_refused() {
        assert!(Secret::from_bytes(vec![1; 31]).is_err());
        assert!(Secret::from_bytes([vec![1; 31], vec![b'\n']].concat()).is_err());
        assert!(Secret::from_bytes(vec![1; 32]).is_ok());
    }

    #[test]
    fn a_fingerprint_is_the_first_half_of_sha_256_and_debug_shows_nothing() {
        let secret = Secret::from_bytes(vec![b'a'; 64]).expect("long enough");
        // SHA-256 of 64 times "a", computed by sha256sum.
        assert_eq!(secret.fingerprint(), "ffe054fe7ae0cb6dc65c3af9b61d5209");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
