//! The bytes under one store: what is on the platter, and what lies in the cache before it.

use std::io;
use std::ops::Range;

use super::Seen;
use crate::chance::Chance;
use crate::weather::Unsynced;

const SECTOR_BYTES: usize = 512;

/// One store.
#[derive(Default)]
pub struct Store {
    /// As the process reads it.
    view: Vec<u8>,
    /// As the next life finds it, if the power is cut now and the cache is lost.
    durable: Vec<u8>,
    cache: Vec<Op>,
}

enum Op {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Store {
    pub fn len(&self) -> u64 {
        self.view.len() as u64
    }

    /// As the process reads it.
    pub fn bytes(&self) -> &[u8] {
        &self.view
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.view[range(offset, out.len(), self.view.len())?]);
        Ok(())
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let range = range(offset, bytes.len(), self.view.len())?;
        self.cache.push(Op::Write { offset: range.start, bytes: bytes.to_owned() });
        self.view[range].copy_from_slice(bytes);
        Ok(())
    }

    pub fn set_len(&mut self, len: usize) {
        self.cache.push(Op::Length(len));
        self.view.resize(len, 0);
    }

    pub fn has_unsynced(&self) -> bool {
        !self.cache.is_empty()
    }

    pub fn sync(&mut self) {
        for op in self.cache.drain(..) {
            match op {
                Op::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Op::Length(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// The power is cut.
    pub fn cut(&mut self, unsynced: Unsynced, chance: &mut Chance, seen: &mut Seen) {
        match unsynced {
            Unsynced::Kept => self.sync(),
            Unsynced::Lost => {
                seen.lost_writes += self.cache.len() as u64;
                self.cache.clear();
            }
            Unsynced::Torn => {
                for op in self.cache.drain(..) {
                    match op {
                        Op::Length(len) if chance.one_in(2) => self.durable.resize(len, 0),
                        Op::Length(_) => {}
                        Op::Write { offset, bytes } => tear(&mut self.durable, offset, &bytes, chance, seen),
                    }
                }
            }
        }
        self.view.clone_from(&self.durable);
    }
}

fn tear(durable: &mut Vec<u8>, offset: usize, bytes: &[u8], chance: &mut Chance, seen: &mut Seen) {
    let (mut kept, mut lost) = (0, 0);
    for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        if chance.one_in(2) {
            put(durable, offset + number * SECTOR_BYTES, sector);
            kept += 1;
        } else {
            lost += 1;
        }
    }
    seen.lost_writes += u64::from(lost > 0);
    seen.torn_writes += u64::from(lost > 0 && kept > 0);
}

/// A length that was lost does not lose what was written beyond it: the file grows as far as is needed.
fn put(durable: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if durable.len() < end {
        durable.resize(end, 0);
    }
    durable[offset..end].copy_from_slice(bytes);
}

/// The place of `len` bytes at `offset` in a file of `end` bytes.
pub fn range(offset: u64, len: usize, end: usize) -> io::Result<Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    match start.checked_add(len) {
        Some(stop) if stop <= end => Ok(start..stop),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
