//! Readers: from memory when they are close behind the tail, from the database when they are not.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::line::Shared;
use super::off_the_runtime;
use super::snapshots::SnapshotFile;
use crate::log::{Batch, BoxFuture, LogError, LogReader, Position, ReadError, SnapshotReader, StoredFrame};

/// A batch from memory has at most this many frames, as one from the database.
const BATCH_FRAMES: usize = 1_024;

/// What a reader must know of the log before it reads: durable frames only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edges {
    pub(super) first: Option<Position>,
    pub(super) tail: Option<Position>,
    /// Set when nothing will ever come behind `tail`.
    pub(super) ended: Option<ReadError>,
}

impl Edges {
    /// The tail if `from` is at or before it, `None` if it is right behind it.
    fn tail_if_behind(&self, from: Position) -> Result<Option<Position>, ReadError> {
        let first = self.first.unwrap_or(Position::FIRST);
        if self.ended == Some(ReadError::Closed) {
            Err(ReadError::Closed)
        } else if from < first {
            Err(ReadError::Truncated { first })
        } else if from > self.tail.map_or(Position::FIRST, Position::next) {
            Err(ReadError::Regressed { tail: self.tail })
        } else {
            Ok(self.tail.filter(|tail| from <= *tail))
        }
    }
}

/// The most recent frames. They share their bytes with whoever appended them.
pub(super) struct Recent {
    frames: VecDeque<StoredFrame>,
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, max_bytes }
    }

    pub(super) fn extend(&mut self, frames: impl Iterator<Item = StoredFrame>) {
        for frame in frames {
            self.bytes += size_of::<StoredFrame>() + frame.frame.len();
            self.frames.push_back(frame);
        }
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.frames.pop_front() else {
                break;
            };
            self.bytes -= size_of::<StoredFrame>() + oldest.frame.len();
        }
    }

    /// The frames at and behind `from`, or `None` if it is not among them.
    pub(super) fn from(&self, from: Position) -> Option<Vec<StoredFrame>> {
        let oldest = self.frames.front()?.position;
        let skip = usize::try_from(from.0.checked_sub(oldest.0)?).ok()?;
        let frames: Vec<_> = self.frames.iter().skip(skip).take(BATCH_FRAMES).cloned().collect();
        (!frames.is_empty()).then_some(frames)
    }
}

pub(super) struct EmbeddedReader {
    shared: Arc<Shared>,
    edges: watch::Receiver<Edges>,
    next: Position,
    /// Whether the last batch said that it reached the tail.
    told_at_tail: bool,
}

impl EmbeddedReader {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Self {
        let edges = shared.watch_edges();
        Self { shared, edges, next: from, told_at_tail: false }
    }

    async fn advance(&mut self) -> Result<Batch, ReadError> {
        loop {
            let edges = self.edges.borrow_and_update().clone();
            if let Some(tail) = edges.tail_if_behind(self.next)? {
                return self.deliver(tail).await;
            }
            if !self.told_at_tail {
                self.told_at_tail = true;
                return Ok(Batch { frames: Vec::new(), at_tail: true });
            }
            if let Some(error) = edges.ended {
                return Err(error);
            }
            self.edges.changed().await.map_err(|_| ReadError::Closed)?;
        }
    }

    /// Nothing is awaited after the place has moved, which makes dropping the call harmless.
    async fn deliver(&mut self, tail: Position) -> Result<Batch, ReadError> {
        let frames = match self.shared.recent_from(self.next) {
            Some(frames) => frames,
            None => self.read_stored(tail).await?,
        };
        if let Some(last) = frames.last() {
            self.next = last.position.next();
        }
        self.told_at_tail = self.next > tail;
        Ok(Batch { frames, at_tail: self.told_at_tail })
    }

    async fn read_stored(&self, tail: Position) -> Result<Vec<StoredFrame>, ReadError> {
        let (shared, from) = (Arc::clone(&self.shared), self.next);
        let read = off_the_runtime(move || shared.store.read(from, tail), ReadError::Failed).await;
        // A truncation may have overtaken the reading; then a missing frame is no damage.
        match self.shared.edges().tail_if_behind(from) {
            Err(overtaken) if read.is_err() => Err(overtaken),
            _ => read,
        }
    }
}

impl LogReader for EmbeddedReader {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Batch, ReadError>> {
        Box::pin(self.advance())
    }
}

/// Reads a snapshot file piece by piece, off the runtime.
pub(super) struct EmbeddedSnapshotReader {
    file: Arc<parking_lot::Mutex<SnapshotFile>>,
}

impl EmbeddedSnapshotReader {
    pub(super) fn new(file: SnapshotFile) -> Self {
        Self { file: Arc::new(parking_lot::Mutex::new(file)) }
    }
}

impl SnapshotReader for EmbeddedSnapshotReader {
    fn next_chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        let file = Arc::clone(&self.file);
        Box::pin(off_the_runtime(move || file.lock().next_chunk(), LogError::Failed))
    }
}
