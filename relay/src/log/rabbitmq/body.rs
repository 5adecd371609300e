//! The body of a snapshot as it is stored: pieces, one record each.
//!
//! ```text
//! "DMP1" | checksum, 8 | put, 8 | number, 8 | the piece
//! ```
//!
//! Little-endian. The checksum is over all behind it, and depends on the snapshot's name and the log, so that a piece
//! of another one is not taken for it.

use std::io;

use bytes::{Buf, BufMut, Bytes};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::log::{LogId, SnapshotBody, SnapshotId};

const MAGIC: &[u8; 4] = b"DMP1";
const CHECKED_FROM: usize = 4 + 8;
const HEADER_BYTES: usize = CHECKED_FROM + 8 + 8;
/// Larger chunks are split, so that a broker that takes small messages only takes them.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// What all checksums of a body depend on.
pub(super) fn seed(log_id: LogId, id: SnapshotId) -> u64 {
    let mut name = Vec::with_capacity(48);
    name.put_u128_le(log_id.0);
    for word in [id.position.0, id.record_id.session, id.record_id.counter, id.crc] {
        name.put_u64_le(word);
    }
    xxh3_64(&name)
}

pub(super) fn encode(seed: u64, put: u64, number: u64, piece: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + piece.len());
    record.put_slice(MAGIC);
    record.put_u64_le(0);
    record.put_u64_le(put);
    record.put_u64_le(number);
    record.put_slice(piece);
    let checksum = xxh3_64_with_seed(&record[CHECKED_FROM..], seed);
    record[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    record
}

/// A piece's number and bytes, or what is wrong with it; `None` for a record that is no piece of this put.
pub(super) fn decode(seed: u64, put: u64, mut record: Bytes) -> Option<Result<(u64, Bytes), &'static str>> {
    if record.len() < HEADER_BYTES || !record.starts_with(MAGIC) {
        return None;
    }
    let checksum = xxh3_64_with_seed(&record[CHECKED_FROM..], seed);
    record.advance(MAGIC.len());
    let matches = record.get_u64_le() == checksum;
    if record.get_u64_le() != put {
        return None;
    }
    Some(if matches {
        Ok((record.get_u64_le(), record))
    } else {
        Err("the checksum of a piece does not match")
    })
}

/// Splits the chunks of a snapshot into what is stored of each.
pub(super) struct Pieces {
    body: SnapshotBody,
    rest: Bytes,
}

impl Pieces {
    pub(super) fn of(body: SnapshotBody) -> Self {
        Self { body, rest: Bytes::new() }
    }
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        while self.rest.is_empty() {
            match self.body.next()? {
                Ok(chunk) => self.rest = chunk,
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(self.rest.split_to(self.rest.len().min(PIECE_BYTES))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_and_lose_nothing() {
        let body: Vec<u8> = (0..700_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let chunks = [Bytes::from(body[..600_000].to_vec()), Bytes::new(), body[600_000..].to_vec().into()];
        let pieces: Vec<_> = Pieces::of(Box::new(chunks.into_iter().map(Ok))).collect();
        let pieces: io::Result<Vec<_>> = pieces.into_iter().collect();
        let pieces = pieces.expect("nothing fails");
        assert!(pieces.iter().all(|it| (1..=PIECE_BYTES).contains(&it.len())));
        assert_eq!(pieces.concat(), body);
    }

    #[test]
    fn a_piece_comes_back_to_its_own_put_alone_and_cannot_change_unseen() {
        let record = encode(7, 8, 9, b"some state");
        let whole = Some(Ok((9, Bytes::from_static(b"some state"))));
        assert_eq!(decode(7, 8, record.clone().into()), whole);
        assert_eq!(decode(7, 1, record.clone().into()), None, "it is of another put");
        assert!(matches!(decode(6, 8, record.clone().into()), Some(Err(_))), "it is of another snapshot");
        for at in 0..record.len() {
            let mut flipped = record.clone();
            flipped[at] ^= 4;
            assert!(!matches!(decode(7, 8, flipped.into()), Some(Ok(_))), "byte {at}");
        }
    }
}
