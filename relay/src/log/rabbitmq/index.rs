//! The record that says which snapshots there are: the newest two that count, and where their bodies lie.
//!
//! ```text
//! "DMI1" | checksum of all that follows, 8 | incarnation, 16 | then for each snapshot
//!     position, 8 | session, 8 | counter, 8 | crc, 8 | put, 8 | offset, 8 | pieces, 8 | bytes, 8
//! ```
//!
//! Little-endian. A snapshot is visible by this record alone, which is published when all of its body is confirmed; the
//! newest record of the index holds, so that nothing but it needs to be read or kept.

use bytes::{Buf, BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use crate::log::{LogId, Position, RecordId, SnapshotId, SnapshotInfo};

const MAGIC: &[u8; 4] = b"DMI1";
/// What every format of it begins with; the format follows.
const NAME: &[u8] = b"DMI";
const CHECKED_FROM: usize = 4 + 8;
const ENTRY_BYTES: usize = 8 * 8;

/// A stored snapshot and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: SnapshotId,
    /// Drawn for each put; each of its pieces carries it.
    pub(super) put: u64,
    /// Where in the stream of bodies the first piece is, or a little before it.
    pub(super) offset: u64,
    pub(super) pieces: u64,
    pub(super) bytes: u64,
}

impl Entry {
    pub(super) fn info(&self) -> SnapshotInfo {
        SnapshotInfo { id: self.id, stored_bytes: self.bytes }
    }
}

pub(super) fn encode(log_id: LogId, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHECKED_FROM + 16 + entries.len() * ENTRY_BYTES);
    bytes.put_slice(MAGIC);
    bytes.put_u64_le(0);
    bytes.put_u128_le(log_id.0);
    for Entry { id, put, offset, pieces, bytes: size } in entries {
        let SnapshotId { position, record_id: RecordId { session, counter }, crc } = id;
        for word in [position.0, *session, *counter, *crc, *put, *offset, *pieces, *size] {
            bytes.put_u64_le(word);
        }
    }
    let checksum = xxh3_64(&bytes[CHECKED_FROM..]);
    bytes[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The snapshots of this log that a record of the index names; none if it is of another incarnation.
pub(super) fn decode(log_id: LogId, mut bytes: Bytes) -> Result<Vec<Entry>, &'static str> {
    if bytes.starts_with(NAME) && !bytes.starts_with(MAGIC) {
        return Err(
            "the index of the snapshots has another format than 1, which this release reads: a newer relay wrote it",
        );
    }
    if bytes.len() < CHECKED_FROM + 16 || !bytes.starts_with(MAGIC) {
        return Err("the index of the snapshots holds something else");
    }
    let checksum = xxh3_64(&bytes[CHECKED_FROM..]);
    bytes.advance(MAGIC.len());
    if bytes.get_u64_le() != checksum || !(bytes.len() - 16).is_multiple_of(ENTRY_BYTES) {
        return Err("the index of the snapshots is damaged");
    }
    let mut entries = Vec::new();
    if bytes.get_u128_le() == log_id.0 {
        while bytes.has_remaining() {
            entries.push(take(&mut bytes));
        }
    }
    Ok(entries)
}

fn take(bytes: &mut Bytes) -> Entry {
    let position = Position(bytes.get_u64_le());
    let record_id = RecordId { session: bytes.get_u64_le(), counter: bytes.get_u64_le() };
    Entry {
        id: SnapshotId { position, record_id, crc: bytes.get_u64_le() },
        put: bytes.get_u64_le(),
        offset: bytes.get_u64_le(),
        pieces: bytes.get_u64_le(),
        bytes: bytes.get_u64_le(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u64) -> Entry {
        let id = SnapshotId {
            position: Position(position),
            record_id: RecordId { session: 2, counter: 3 },
            crc: 4,
        };
        Entry { id, put: 5, offset: 6, pieces: 7, bytes: 8 }
    }

    #[test]
    fn a_newer_format_is_refused_by_its_name() {
        let mut bytes = encode(LogId(1), &[entry(9)]);
        bytes[3] = b'2';
        let wrong = decode(LogId(1), bytes.into()).expect_err("it is newer");
        assert!(wrong.contains("another format than 1"), "{wrong}");
    }

    #[test]
    fn an_index_comes_back_and_no_byte_of_it_can_change_unseen() {
        for entries in [vec![], vec![entry(9)], vec![entry(9), entry(7)]] {
            let bytes = encode(LogId(1), &entries);
            assert_eq!(decode(LogId(1), bytes.clone().into()), Ok(entries));
            assert_eq!(decode(LogId(2), bytes.clone().into()), Ok(Vec::new()), "another log has none");
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 4;
                assert!(decode(LogId(1), flipped.into()).is_err(), "byte {at}");
            }
        }
    }
}
