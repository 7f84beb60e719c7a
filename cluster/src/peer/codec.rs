//! Bytes of our own: the only file that names bincode.
//!
//! Everything on the wire and on disk is a versioned struct (`…V1`), written by bincode 2 in its standard configuration
//! through serde, and read with a byte limit, so that a hostile length cannot make us allocate. Once released, a struct
//! is never edited: a change is a `…V2` beside it. The golden-byte tests of `peer::message` freeze the format, so that
//! a kept implementation can take bincode's place.
//!
//! Records on disk have a frame around them: `magic, format, kind, length, payload, crc32`.

use bincode::config::{self, Configuration};
use bincode::error::DecodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message that is read from a peer.
pub const WIRE_BYTES_MAX: usize = 16 << 20;
/// The largest record that is read from our own disk.
pub const DISK_BYTES_MAX: usize = 64 << 20;

const MAGIC: u8 = 0x51;
const FORMAT: u8 = 1;
const HEAD: usize = 8;
const CRC: usize = 4;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// They do not hold the value that was wanted.
    #[error("{len} bytes are not a {wanted}: {why}")]
    Unreadable {
        /// The type.
        wanted: &'static str,
        /// How many bytes were found.
        len: usize,
        /// The reader's words.
        why: String,
    },
    /// Bytes were left over.
    #[error("{rest} bytes follow a complete {wanted}: was it written by a newer version?")]
    Rest {
        /// The type.
        wanted: &'static str,
        /// How many are left over.
        rest: usize,
    },
    /// A record on disk has the wrong frame, or is too long for one.
    #[error("a bad record: found {found}, wanted {wanted}")]
    Frame {
        /// What was there.
        found: String,
        /// What should be.
        wanted: String,
    },
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// What a record on disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A log entry.
    Entry = 1,
    /// The vote.
    Vote = 2,
    /// A log id: committed, or purged up to.
    LogId = 3,
    /// A snapshot's head.
    Snapshot = 4,
    /// A node's identity.
    Identity = 5,
    /// What follows a snapshot's head.
    SnapshotPart = 6,
}

/// Writes a versioned struct.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain structs, enums, vectors with a length, strings: none of what bincode refuses (maps and sequences of
    // unknown length).
    bincode::serde::encode_to_vec(value, config::standard())
        .expect("versioned structs hold only what bincode writes")
}

/// Reads a versioned struct that a peer wrote.
///
/// # Errors
/// [`CodecError`] if the bytes are too many, too few or wrong.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    read(bytes, config::standard().with_limit::<WIRE_BYTES_MAX>())
}

/// Reads a versioned struct that this node wrote.
///
/// # Errors
/// As [`decode`].
pub fn decode_stored<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    read(bytes, config::standard().with_limit::<DISK_BYTES_MAX>())
}

fn read<T: DeserializeOwned, const MAX: usize>(
    bytes: &[u8],
    config: Configuration<config::LittleEndian, config::Varint, config::Limit<MAX>>,
) -> Result<T, CodecError> {
    let wanted = std::any::type_name::<T>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|e: DecodeError| CodecError::Unreadable { wanted, len: bytes.len(), why: e.to_string() })?;
    match bytes.len() - used {
        0 => Ok(value),
        rest => Err(CodecError::Rest { wanted, rest }),
    }
}

/// Puts the frame of a record on disk around `payload`.
///
/// # Errors
/// [`CodecError::Frame`] for one so long that it could not be read again.
pub fn seal(kind: Kind, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
    let len = fits(payload.len())?;
    let mut record = Vec::with_capacity(HEAD + payload.len() + CRC);
    record.extend_from_slice(&[MAGIC, FORMAT]);
    record.extend_from_slice(&(kind as u16).to_le_bytes());
    record.extend_from_slice(&len.to_le_bytes());
    record.extend_from_slice(payload);
    record.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
    Ok(record)
}

fn fits(len: usize) -> Result<u32, CodecError> {
    u32::try_from(len).ok().filter(|_| len <= DISK_BYTES_MAX).ok_or_else(|| CodecError::Frame {
        found: format!("a record of {len} bytes"),
        wanted: format!("at most {DISK_BYTES_MAX}"),
    })
}

/// Bytes of the record that begins here, with its frame; none: its length has not come yet.
///
/// # Errors
/// [`CodecError::Frame`] if no record of ours begins here, or none so long.
pub fn record_len(begin: &[u8]) -> Result<Option<usize>, CodecError> {
    let Some([magic, format, _, _, l0, l1, l2, l3]) = begin.first_chunk::<HEAD>() else { return Ok(None) };
    begins(*magic, *format)?;
    let len = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    fits(len)?;
    Ok(Some(HEAD + len + CRC))
}

fn begins(magic: u8, format: u8) -> Result<(), CodecError> {
    if (magic, format) == (MAGIC, FORMAT) {
        return Ok(());
    }
    let found = format!("magic {magic:#x} format {format}");
    Err(CodecError::Frame { found, wanted: format!("magic {MAGIC:#x} format {FORMAT}") })
}

/// Takes the frame off, after checking it.
///
/// # Errors
/// [`CodecError::Frame`].
pub fn open(kind: Kind, record: &[u8]) -> Result<&[u8], CodecError> {
    let frame = |found: String, wanted: String| Err(CodecError::Frame { found, wanted });
    let Some((body, crc)) = record.split_last_chunk::<CRC>().filter(|(body, _)| body.len() >= HEAD) else {
        return frame(format!("{} bytes", record.len()), format!("at least {}", HEAD + CRC));
    };
    let (head, payload) = body.split_at(HEAD);
    let [magic, format, k0, k1, l0, l1, l2, l3] = *head else {
        return frame(format!("a head of {} bytes", head.len()), HEAD.to_string());
    };
    begins(magic, format)?;
    let found = crc32fast::hash(body);
    let stored = u32::from_le_bytes(*crc);
    if found != stored {
        return frame(format!("checksum {found:#010x}"), format!("{stored:#010x}"));
    }
    if u16::from_le_bytes([k0, k1]) != kind as u16 {
        return frame(format!("kind {}", u16::from_le_bytes([k0, k1])), format!("{kind:?}"));
    }
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len != payload.len() {
        return frame(format!("{} bytes", payload.len()), len.to_string());
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_length_is_refused_without_allocating() {
        // given bytes that claim a string of 2^60 bytes
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        // when they are read, then the reader refuses
        assert!(matches!(decode::<String>(&bytes), Err(CodecError::Unreadable { .. })));
    }

    #[test]
    fn bytes_that_follow_a_complete_value_are_refused() {
        // given a value and one byte more
        let mut bytes = encode(&7u64);
        bytes.push(0);
        // when they are read, then nothing is silently cut off
        assert!(matches!(decode::<u64>(&bytes), Err(CodecError::Rest { rest: 1, .. })));
    }

    #[test]
    fn a_record_that_could_not_be_read_again_is_not_written() {
        let payload = vec![0; DISK_BYTES_MAX + 1];
        let longest = seal(Kind::Entry, &payload[1..]).expect("it fits");
        assert_eq!(record_len(&longest), Ok(Some(longest.len())));
        let error = seal(Kind::Entry, &payload).expect_err("one byte too many");
        assert!(error.to_string().contains("wanted at most"), "{error}");
    }

    #[test]
    fn a_record_with_one_flipped_bit_is_refused() {
        // given a record
        let record = seal(Kind::Entry, b"payload").expect("short");
        assert_eq!(open(Kind::Entry, &record), Ok(&b"payload"[..]));
        // when any one bit is flipped, then it does not open
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Kind::Entry, &damaged).is_err(), "bit {bit}");
        }
        // and it does not open as something else, or cut short
        assert!(open(Kind::Vote, &record).is_err());
        assert!(open(Kind::Entry, &record[..record.len() - 1]).is_err());
    }
}
