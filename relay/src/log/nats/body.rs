//! The body of a snapshot as it is stored: pieces that each carry a checksum, then a closing entry that counts them.
//!
//! The object store has a checksum over all of an object, known only at its end. A reader gives pieces out before that,
//! so each has one of its own, which also depends on the snapshot's name, the log and its place.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::log::{LogId, SnapshotBody, SnapshotId};

/// Larger chunks are split, so that a reader needs no more memory than this.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Length and checksum before each piece.
pub(super) const ENTRY_HEADER_BYTES: usize = 4 + 8;
/// The counts behind the last piece, whose entry has the length zero.
pub(super) const CLOSING_BYTES: usize = 16;

/// What all checksums of a body depend on.
pub(super) fn seed(log_id: LogId, id: SnapshotId) -> u64 {
    let mut name = Vec::with_capacity(48);
    name.put_u128_le(log_id.0);
    for word in [id.position.0, id.record_id.session, id.record_id.counter, id.crc] {
        name.put_u64_le(word);
    }
    xxh3_64(&name)
}

pub(super) fn checksum(seed: u64, place: u64, piece: &[u8]) -> u64 {
    xxh3_64_with_seed(piece, seed.wrapping_add(place))
}

pub(super) fn closing(pieces: u64, bytes: u64) -> [u8; CLOSING_BYTES] {
    ((u128::from(bytes) << 64) | u128::from(pieces)).to_le_bytes()
}

/// Turns the chunks of a snapshot into what is stored.
pub(super) struct Sealed {
    body: SnapshotBody,
    seed: u64,
    rest: Bytes,
    pieces: u64,
    bytes: u64,
    closed: bool,
}

impl Sealed {
    pub(super) fn new(body: SnapshotBody, seed: u64) -> Self {
        Self { body, seed, rest: Bytes::new(), pieces: 0, bytes: 0, closed: false }
    }

    fn entry(&self, size: usize, piece: &[u8]) -> Bytes {
        let mut entry = BytesMut::with_capacity(ENTRY_HEADER_BYTES + piece.len());
        entry.put_u32_le(u32::try_from(size).unwrap_or_default());
        entry.put_u64_le(checksum(self.seed, self.pieces, piece));
        entry.put_slice(piece);
        entry.freeze()
    }
}

impl Iterator for Sealed {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        while self.rest.is_empty() && !self.closed {
            match self.body.next() {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.closed = true;
                    return Some(Ok(self.entry(0, &closing(self.pieces, self.bytes))));
                }
            }
        }
        if self.rest.is_empty() {
            return None;
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        let entry = self.entry(piece.len(), &piece);
        self.pieces += 1;
        self.bytes += piece.len() as u64;
        Some(Ok(entry))
    }
}

/// Reads what another thread produces, up to an empty piece: a producer that just goes away has not finished. Its
/// error is kept, because the library makes its own of it.
pub(super) struct Produced {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    finished: bool,
    pub(super) abandoned: Option<String>,
}

impl Produced {
    pub(super) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, current: Bytes::new(), finished: false, abandoned: None }
    }
}

impl AsyncRead for Produced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() && !self.finished {
            let why = match ready!(self.pieces.poll_recv(cx)) {
                Some(Ok(piece)) => {
                    self.finished = piece.is_empty();
                    self.current = piece;
                    continue;
                }
                Some(Err(error)) => error.to_string(),
                None => "its producer went away".to_owned(),
            };
            self.abandoned = Some(why);
            return Poll::Ready(Err(io::Error::other("the producer gave it up")));
        }
        let length = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..length]);
        self.current.advance(length);
        Poll::Ready(Ok(()))
    }
}
