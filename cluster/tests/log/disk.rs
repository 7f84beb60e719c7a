//! A disk that loses power: what was not synced is lost, or torn at 512 bytes.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

const SECTOR: usize = 512;

/// Chance from a seed.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// The disk. Clones are one disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    durable: Vec<u8>,
    view: Vec<u8>,
    pending: Vec<Pending>,
    /// Changes until power fails.
    left: Option<u64>,
    /// Handles of earlier lives can do nothing: redb writes when it is dropped.
    life: u64,
}

#[derive(Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl SimDisk {
    /// A handle of the present life.
    pub fn handle(&self) -> Box<dyn redb::StorageBackend> {
        Box::new(Handle { disk: self.clone(), life: self.0.lock().life })
    }

    /// Lets power fail after so many changes.
    pub fn cut_after(&self, changes: u64) {
        self.0.lock().left = Some(changes);
    }

    /// Power fails now: each sector that was not synced survives by chance.
    pub fn crash(&self, dice: &mut Dice) {
        let mut platter = self.0.lock();
        platter.life += 1;
        platter.left = None;
        let pending = std::mem::take(&mut platter.pending);
        for change in pending {
            match change {
                Pending::Len(len) if dice.below(2) == 0 => platter.durable.resize(len, 0),
                Pending::Len(_) => {}
                Pending::Write(offset, bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.below(2) == 0 {
                            put(&mut platter.durable, offset + n * SECTOR, sector);
                        }
                    }
                }
            }
        }
        platter.view = platter.durable.clone();
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    life: u64,
}

impl Handle {
    fn change<T>(&self, change: impl FnOnce(&mut Platter) -> T) -> io::Result<T> {
        let mut platter = self.disk.0.lock();
        if platter.life != self.life || platter.left == Some(0) {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut platter.left {
            *left -= 1;
        }
        Ok(change(&mut platter))
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("a small disk")
}

impl redb::StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().view.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.disk.0.lock();
        let found = platter.view.get(at(offset)..at(offset) + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|platter| {
            platter.view.resize(at(len), 0);
            platter.pending.push(Pending::Len(at(len)));
        })
    }
    fn sync_data(&self) -> io::Result<()> {
        self.change(|platter| {
            platter.durable = platter.view.clone();
            platter.pending.clear();
        })
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|platter| {
            put(&mut platter.view, at(offset), data);
            platter.pending.push(Pending::Write(at(offset), data.to_vec()));
        })
    }
}
