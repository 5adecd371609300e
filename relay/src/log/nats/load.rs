//! Reads a stored snapshot back, checking each piece before it is given out.

use std::io;
use std::time::Duration;

use async_nats::jetstream::object_store::Object;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::body::{self, CLOSING_BYTES, PIECE_BYTES};
use crate::log::{BoxFuture, LogError, SnapshotId, SnapshotReader};

/// How long the broker may take for the next piece. An object whose chunks are gone never comes at all.
const PATIENCE: Duration = Duration::from_secs(15);

/// A snapshot that is being read.
pub(super) struct StoredSnapshot {
    object: Object,
    id: SnapshotId,
    seed: u64,
    pieces: u64,
    bytes: u64,
    complete: bool,
}

impl StoredSnapshot {
    pub(super) fn new(object: Object, id: SnapshotId, seed: u64) -> Self {
        Self { object, id, seed, pieces: 0, bytes: 0, complete: false }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, LogError> {
        if self.complete {
            return Ok(None);
        }
        let mut header = [0; 4 + 8];
        self.read(&mut header).await?;
        let (size, checksum) = split(header);
        let is_end = size == 0;
        if size > PIECE_BYTES {
            return Err(self.damaged("a piece is larger than pieces are"));
        }
        let mut piece = vec![0; if is_end { CLOSING_BYTES } else { size }];
        self.read(&mut piece).await?;
        if body::checksum(self.seed, self.pieces, &piece) != checksum {
            return Err(self.damaged("the checksum of a piece does not match"));
        }
        if is_end && piece != body::closing(self.pieces, self.bytes) {
            return Err(self.damaged("pieces are missing"));
        }
        self.complete = is_end;
        self.pieces += 1;
        self.bytes += size as u64;
        Ok((!is_end).then(|| piece.into()))
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<(), LogError> {
        match timeout(PATIENCE, self.object.read_exact(into)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.unreadable(&error)),
            Err(_) => Err(LogError::Failed("the broker does not deliver the snapshot".to_owned())),
        }
    }

    fn unreadable(&self, error: &io::Error) -> LogError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is cut short"),
            io::ErrorKind::InvalidData => self.damaged("the broker's own checksum does not match"),
            _ => LogError::Failed(error.to_string()),
        }
    }

    fn damaged(&self, detail: &str) -> LogError {
        LogError::SnapshotDamaged { id: self.id, detail: detail.to_owned() }
    }
}

/// The size of a piece and its checksum.
fn split(header: [u8; body::ENTRY_HEADER_BYTES]) -> (usize, u64) {
    let [s0, s1, s2, s3, checksum @ ..] = header;
    (u32::from_le_bytes([s0, s1, s2, s3]) as usize, u64::from_le_bytes(checksum))
}

impl SnapshotReader for StoredSnapshot {
    fn next_chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(self.advance())
    }
}
