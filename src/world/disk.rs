//! Files of the kernel.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::world::{Disk, Draft, Reading};
use parking_lot::Mutex;

/// The file in a data directory that its process holds.
const LOCK_FILE: &str = "lock";
/// What a data directory holds is its node's alone: it contains the cluster's secret.
const MODE_FILE: u32 = 0o600;
const MODE_DIR: u32 = 0o700;
/// Bytes of a draft that may wait for their way to the disk: a large file synced at once would hold up the log's syncs.
const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// Files; relative paths are under the directory that was locked last.
#[derive(Default)]
pub(super) struct Files {
    root: Mutex<PathBuf>,
    /// Drafts begun so far: each has a name of its own.
    drafts: AtomicU64,
}

/// A file that was opened.
struct Opened {
    file: File,
    size: u64,
}

impl Reading for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

/// A draft.
struct Begun {
    file: File,
    /// Where it is; none once it was kept.
    temporary: Option<PathBuf>,
    /// Where it will be.
    path: PathBuf,
    unsynced_bytes: usize,
}

impl Draft for Begun {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.unsynced_bytes += bytes.len();
        if self.unsynced_bytes >= UNSYNCED_BYTES_MAX {
            self.file.sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    fn keep(mut self: Box<Self>) -> io::Result<()> {
        self.file.sync_all()?;
        let temporary = self.temporary.take().expect("a draft is kept once: that consumes it");
        fs::rename(temporary, &self.path)?;
        sync_dir(parent(&self.path)?)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // What is left is removed when the directory is taken the next time.
            let _ = fs::remove_file(temporary);
        }
    }
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
        remove_drafts(&dir)?;
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
        let mut draft = self.draft(path)?;
        draft.append(bytes)?;
        draft.keep()
    }

    fn open(&self, path: &Path) -> io::Result<Option<Arc<dyn Reading>>> {
        match File::open(self.at(path)) {
            Ok(file) => Ok(Some(Arc::new(Opened { size: file.metadata()?.len(), file }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn draft(&self, path: &Path) -> io::Result<Box<dyn Draft>> {
        let path = self.at(path);
        make_dir(parent(&path)?)?;
        let temporary = temporary(&path, self.drafts.fetch_add(1, Ordering::Relaxed))?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE_FILE).open(&temporary)?;
        Ok(Box::new(Begun { file, temporary: Some(temporary), path, unsynced_bytes: 0 }))
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

/// `.NAME.NUMBER.tmp` beside the file: on the same file system.
fn temporary(path: &Path, number: u64) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no file name", path.display()))
    })?;
    Ok(path.with_file_name(format!(".{name}.{number}.tmp")))
}

/// Removes what a process left that ended in the middle of a write.
fn remove_drafts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && is_temporary(Path::new(&entry.file_name())) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
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
