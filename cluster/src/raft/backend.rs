//! What keeps the log: a small trait, and redb behind it.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::world::World;

/// One change. Changes of a batch take effect in order and together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Writes a record at an index.
    Put(u64, Vec<u8>),
    /// Removes this index and all that follow.
    RemoveFrom(u64),
    /// Removes this index and all before.
    RemoveThrough(u64),
    /// Replaces a fact.
    Set(Fact, Vec<u8>),
}

/// A single record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The vote.
    Vote,
    /// The last log id that was purged.
    Purged,
    /// The last log id known to be committed.
    Committed,
}

impl Fact {
    fn key(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Purged => "purged",
            Self::Committed => "committed",
        }
    }
}

/// All that a backend holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Index and record, rising.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// See [`Fact::Vote`].
    pub vote: Option<Vec<u8>>,
    /// See [`Fact::Purged`].
    pub purged: Option<Vec<u8>>,
    /// See [`Fact::Committed`].
    pub committed: Option<Vec<u8>>,
}

/// Keeps records. Calls block and never overlap.
pub trait Backend: Debug + Send + Sync + 'static {
    /// Everything that was written, once at start.
    ///
    /// # Errors
    /// The process must not go on.
    fn load(&self) -> io::Result<Loaded>;

    /// Writes a batch; all of it is durable on return.
    ///
    /// # Errors
    /// What is on the disk is then unknown: the process must end, and never try again.
    fn write(&self, batch: &[Write]) -> io::Result<()>;
}

const ENTRIES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("entries");
const FACTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("facts");
/// The log is read once, at start; a large page cache would only duplicate the in-memory image.
const CACHE_BYTES: usize = 8 << 20;

/// The first bytes of a store. Source: redb's file format, design.md, "Super-header".
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// redb over the world's disk.
#[derive(Debug)]
pub struct Redb {
    database: Database,
}

impl Redb {
    /// Opens or creates the store at `path`. Blocks.
    ///
    /// # Errors
    /// The disk's, or redb's when the file is damaged.
    pub fn open(world: &World, path: &Path) -> io::Result<Self> {
        Self::over(world.disk.store(path)?)
    }

    /// Opens the store at `path`, which was made before: one made anew in its place would have forgotten the vote and the
    /// entries that this node has acknowledged. Blocks.
    ///
    /// # Errors
    /// As [`Redb::open`]; `InvalidData` if there is no store. An empty file is none, and may be left behind.
    pub fn kept(world: &World, path: &Path) -> io::Result<Self> {
        let storage = world.disk.store(path)?;
        if storage.len()? == 0 {
            let text = format!("{} is missing or empty: this node's vote and log are gone", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Self::over(storage)
    }

    /// Whether the store at `path` was made to its end: redb writes its first bytes last. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn is_whole(world: &World, path: &Path) -> io::Result<bool> {
        let Some(file) = world.disk.open(path)? else { return Ok(false) };
        let mut begin = [0; MAGIC.len()];
        if file.size() < begin.len() as u64 {
            return Ok(false);
        }
        file.read_at(0, &mut begin)?;
        Ok(begin == MAGIC)
    }

    /// Opens or creates a store over `storage`. Blocks.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub fn over(storage: Box<dyn StorageBackend>) -> io::Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create_with_backend(Boxed(storage)).map_err(other)?;
        Ok(Self { database })
    }
}

impl Backend for Redb {
    fn load(&self) -> io::Result<Loaded> {
        let transaction = self.database.begin_read().map_err(other)?;
        let mut loaded = Loaded::default();
        match transaction.open_table(ENTRIES) {
            Ok(table) => {
                for entry in table.iter().map_err(other)? {
                    let (index, record) = entry.map_err(other)?;
                    loaded.entries.push((index.value(), record.value().to_vec()));
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(loaded),
            Err(e) => return Err(other(e)),
        }
        let facts = transaction.open_table(FACTS).map_err(other)?;
        let fact = |fact: Fact| -> io::Result<Option<Vec<u8>>> {
            Ok(facts.get(fact.key()).map_err(other)?.map(|record| record.value().to_vec()))
        };
        loaded.vote = fact(Fact::Vote)?;
        loaded.purged = fact(Fact::Purged)?;
        loaded.committed = fact(Fact::Committed)?;
        Ok(loaded)
    }

    fn write(&self, batch: &[Write]) -> io::Result<()> {
        let mut transaction = self.database.begin_write().map_err(other)?;
        transaction.set_durability(Durability::Immediate).map_err(other)?;
        {
            let mut entries = transaction.open_table(ENTRIES).map_err(other)?;
            let mut facts = transaction.open_table(FACTS).map_err(other)?;
            for write in batch {
                match write {
                    Write::Put(index, record) => {
                        entries.insert(*index, record.as_slice()).map_err(other)?;
                    }
                    Write::RemoveFrom(first) => entries.retain_in(*first.., |_, _| false).map_err(other)?,
                    Write::RemoveThrough(last) => entries.retain_in(..=*last, |_, _| false).map_err(other)?,
                    Write::Set(fact, record) => {
                        facts.insert(fact.key(), record.as_slice()).map_err(other)?;
                    }
                }
            }
        }
        transaction.commit().map_err(other)
    }
}

/// redb's error with the disk's own words and kind, where it was the disk.
fn other(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::Corrupted(what) => io::Error::new(io::ErrorKind::InvalidData, what),
        error => io::Error::other(error),
    }
}

/// A boxed backend as a backend.
#[derive(Debug)]
struct Boxed(Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}
