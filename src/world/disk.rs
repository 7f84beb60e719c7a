//! Files of the kernel.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cluster::world::Disk;
use parking_lot::Mutex;

/// The file in a data directory that its process holds.
const LOCK_FILE: &str = "lock";
/// What a data directory holds is its node's alone: it contains the cluster's secret.
const MODE_FILE: u32 = 0o600;
const MODE_DIR: u32 = 0o700;

/// Files; relative paths are under the directory that was locked last.
#[derive(Default)]
pub(super) struct Files {
    root: Mutex<PathBuf>,
}

/// Keeps the kernel's lock until dropped.
struct Held {
    _file: File,
}

impl Files {
    fn at(&self, path: &Path) -> PathBuf {
        self.root.lock().join(path)
    }
}

impl Disk for Files {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let dir = std::path::absolute(dir)?;
        make_dir(&dir)?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE_FILE)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: the holder may be just now writing.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                let text = format!("{} is held by {holder}", dir.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        *self.root.lock() = dir;
        Ok(Box::new(Held { _file: file }))
    }

    fn store(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        let path = self.at(path);
        let dir = parent(&path)?;
        make_dir(dir)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE_FILE)
            .open(&path)?;
        sync_dir(dir)?;
        let backend = redb::backends::FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.at(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = self.at(path);
        let dir = parent(&path)?;
        make_dir(dir)?;
        let temporary = temporary(&path)?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE_FILE).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = self.at(path);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(parent(&path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.at(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = PathBuf::from(entry.file_name());
            // A crash may have left a half-written temporary file; it was never a file of ours.
            if entry.file_type()?.is_file() && !is_temporary(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} is in no folder", path.display()))
    })
}

/// `.NAME.tmp` beside the file: on the same file system, and overwritten by the next attempt.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no file name", path.display()))
    })?;
    Ok(path.with_file_name(format!(".{name}.tmp")))
}

fn is_temporary(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(MODE_DIR).create(dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
