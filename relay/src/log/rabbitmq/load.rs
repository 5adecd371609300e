//! Reads a stored snapshot back, checking each piece before it is given out.

use std::sync::Arc;

use bytes::Bytes;

use super::body;
use super::feed::{Fault, Feed, Start};
use super::index::Entry;
use super::link::Wire;
use crate::log::{BoxFuture, LogError, SnapshotReader};

/// Pieces that the broker sends ahead: 4 MiB.
const PREFETCH: u16 = 16;

/// A snapshot that is being read.
pub(super) struct StoredSnapshot {
    entry: Entry,
    seed: u64,
    /// `None` for a body without a piece.
    feed: Option<Feed>,
    _wire: Arc<Wire>,
    pieces: u64,
    bytes: u64,
}

impl StoredSnapshot {
    pub(super) async fn open(wire: Arc<Wire>, stream: &str, entry: Entry, seed: u64) -> Result<Self, Fault> {
        let feed = if entry.pieces == 0 {
            None
        } else {
            Some(Feed::open(&wire, stream, Start::At(entry.offset), PREFETCH).await?)
        };
        Ok(Self { entry, seed, feed, _wire: wire, pieces: 0, bytes: 0 })
    }

    /// The next piece. Between two of them may lie those of another relay's put.
    async fn advance(&mut self) -> Result<Option<Bytes>, LogError> {
        let Some(feed) = self.feed.as_mut().filter(|_| self.pieces < self.entry.pieces) else {
            return self.end();
        };
        loop {
            let record = feed.next().await?;
            let damaged =
                |detail: &str| LogError::SnapshotDamaged { id: self.entry.id, detail: detail.to_owned() };
            let Some(piece) = body::decode(self.seed, self.entry.put, record.data) else { continue };
            let (number, piece) = piece.map_err(damaged)?;
            if number != self.pieces {
                return Err(damaged("a piece is missing"));
            }
            self.pieces += 1;
            self.bytes += piece.len() as u64;
            return Ok(Some(piece));
        }
    }

    fn end(&mut self) -> Result<Option<Bytes>, LogError> {
        self.feed = None;
        if self.bytes == self.entry.bytes {
            return Ok(None);
        }
        let detail = "it has another length than was stored".to_owned();
        Err(LogError::SnapshotDamaged { id: self.entry.id, detail })
    }
}

impl SnapshotReader for StoredSnapshot {
    fn next_chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(self.advance())
    }
}
