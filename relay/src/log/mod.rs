//! The one totally ordered log of a deployment: everything the relays agree on, in the order they agree on it.
//!
//! The log stores *frames*, batches of records appended at once, and knows nothing of what is in them. It gives
//! each a [`Position`] and hands all of them back in that order. [`Log`] states what an implementation promises;
//! [`contract`] turns the promises into one suite that every implementation passes.
//!
//! Invariants: positions start at 1 and have no gap, except that a broker may use some itself
//! ([`rabbitmq`]), which nobody can tell from positions alone; a frame that was answered `Committed` is read back at the
//! same place, with the same bytes, for as long as the log's [`Durability`] holds and it was not truncated;
//! the adapter checks this itself, because both brokers silently start at the first record they still have.

mod address;
pub mod claims;
mod durations;
mod line;
mod standing;
mod types;

#[cfg(any(test, feature = "test-instruments"))]
pub mod contract;
pub mod embedded;
#[cfg(any(test, feature = "test-instruments"))]
pub mod faults;
#[cfg(any(test, feature = "test-instruments"))]
pub mod memory;
pub mod nats;
pub mod rabbitmq;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use durations::Durations;
pub use types::{
    Appended, Batch, Durability, Health, LogError, LogId, LogInfo, Position, ReadError, RecordId, Rejection,
    SnapshotId, SnapshotInfo, StoredFrame, frame_crc,
};

/// A future that can be stored and sent between threads; it keeps [`Log`] usable as `Arc<dyn Log>`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The chunks of a snapshot, in order. They are produced while they are stored, so a snapshot never exists a
/// second time in memory. An `Err` gives the snapshot up: nothing of it becomes visible.
pub type SnapshotBody = Box<dyn Iterator<Item = std::io::Result<Bytes>> + Send>;

/// A totally ordered, durable sequence of frames, with room for two snapshots of what they amount to.
pub trait Log: Send + Sync + 'static {
    /// What this log is and what it can honestly promise. `first` and `tail` are as of the answer; on a log that
    /// cannot be asked for its tail they are what this process has seen, and [`Log::barrier`] tells the truth.
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>>;

    /// Whether the log takes appends right now, and why not. Never waits, so that health checks can call it.
    fn health(&self) -> Health;

    /// Appends one frame behind all frames appended before it.
    ///
    /// The frame takes its place in line when this method is *called*, not when the future is first polled, so
    /// the order of calls is the order in the log. Up to `appends_in_flight` may be unanswered at once. Dropping
    /// the future abandons the answer, not the append.
    ///
    /// - `Committed`: the frame is in the log, with the durability that `info` names, and so is every frame
    ///   called for earlier that was not rejected.
    /// - `Rejected`: the frame is not in the log and never will be. Nothing to retry before the cause is gone.
    /// - `Unknown`: it may be in the log, now or a little later. Retry with the same id and the same bytes, in
    ///   the same order; the frame may then be there twice. The log does not deduplicate: every kind of record
    ///   is idempotent by its own rule.
    fn append(&self, record_id: RecordId, frame: Bytes) -> BoxFuture<'static, Appended>;

    /// Whether no other process can append to this log while it is open here.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// How many machines keep a copy of what was acknowledged, as far as the log knows.
    fn copies(&self) -> usize {
        1
    }

    /// Counts the connections to whatever keeps the log; a log that cannot lose its connection has but one.
    ///
    /// A connection that was lost may have taken acknowledged frames along. So a relay opens its session anew on each
    /// one, before anything else goes out on it.
    fn connection(&self) -> u64 {
        0
    }

    /// How long this process took to sync, each time; `None`: it is not this process that syncs.
    fn syncs(&self) -> Option<Durations> {
        None
    }

    /// Appends like [`Self::append`], but only over that connection: `Unknown`, and nothing sent, over any other.
    fn append_over(
        &self,
        connection: u64,
        record_id: RecordId,
        frame: Bytes,
    ) -> BoxFuture<'static, Appended> {
        let _ = connection;
        self.append(record_id, frame)
    }

    /// The log as it is now at its place, where this handle can never read on because it came back without its newest
    /// frames, was made anew or has to be; `None`: this handle can.
    fn reopen(&self) -> BoxFuture<'_, Result<Option<Arc<dyn Log>>, LogError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// A reader whose first frame is the one at `from`, or the next one to come if `from` is right behind the
    /// tail. To resume, read *at* the last applied frame and compare its record id: silence behind it would look
    /// the same on a log that has lost its tail.
    fn read(&self, from: Position) -> Box<dyn LogReader>;

    /// The tail, at least as new as every append that any process saw committed before this call; `None` if
    /// the log is empty. A reader that has delivered this position has seen all of them.
    fn barrier(&self) -> BoxFuture<'_, Result<Option<Position>, LogError>>;

    /// The frame at `position`, or `None` if the log does not hold it (any more).
    fn frame_at(&self, position: Position) -> BoxFuture<'_, Result<Option<StoredFrame>, LogError>>;

    /// Whether the log still holds the very frame that a snapshot names: same position, record id and checksum.
    /// A snapshot may be used only if it does, because one of a lost tail fits the position again as soon as
    /// the log has regrown.
    fn holds(&self, id: SnapshotId) -> BoxFuture<'_, Result<bool, LogError>> {
        Box::pin(async move {
            let frame = self.frame_at(id.position).await?;
            Ok(frame.is_some_and(|frame| SnapshotId::of(&frame) == id))
        })
    }

    /// Stores a snapshot. It becomes visible only when it is whole and as durable as the log; until then, and
    /// after an error, `newest_snapshots` does not show it. Of the older ones the newest that the log still
    /// holds the frame of is kept, so two remain. Storing the same id again is harmless.
    fn put_snapshot(&self, id: SnapshotId, body: SnapshotBody) -> BoxFuture<'_, Result<(), LogError>>;

    /// The stored snapshots, newest first. Their bodies are checked when they are loaded, not here.
    fn newest_snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, LogError>>;

    /// Opens a snapshot for reading. A damaged one ends in [`LogError::SnapshotDamaged`], here or at the chunk
    /// where the damage is; what was built from its chunks must then be thrown away and the older one used.
    fn load_snapshot(&self, id: SnapshotId) -> BoxFuture<'_, Result<Box<dyn SnapshotReader>, LogError>>;

    /// Permits the log to drop the frames strictly below `upto`, and answers with the first frame still held.
    ///
    /// Refused with [`LogError::TruncateRefused`], nothing dropped, unless `upto` is at most the position of the
    /// second-newest snapshot whose frame the log holds. That frame itself stays, so the log is never empty
    /// afterwards. A log without `exact_truncate` may keep more than it has to.
    fn truncate(&self, upto: Position) -> BoxFuture<'_, Result<Position, LogError>>;

    /// Answers what is waiting, then refuses appends and ends readers. Returns when a second process may open
    /// the log. Calling it again does nothing.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Hands back what a log holds, in order, and then waits for more.
pub trait LogReader: Send {
    /// The next frames: at least one, except for the single empty batch with `at_tail` that a reader returns
    /// when it starts right behind the tail. After a batch with `at_tail` the next call waits for new frames.
    ///
    /// Cancel-safe: a call that is dropped delivers nothing and loses nothing. After an error the reader stays
    /// at its place; whether reading on can help depends on the error.
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Batch, ReadError>>;
}

/// Hands back the chunks of one snapshot. Where they are split is up to the log.
pub trait SnapshotReader: Send {
    /// The next chunk, already checked; `None` only after the whole body was delivered and found complete.
    fn next_chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LogError>>;
}

impl<L: Log + ?Sized> Log for Arc<L> {
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        (**self).info()
    }

    fn health(&self) -> Health {
        (**self).health()
    }

    fn append(&self, record_id: RecordId, frame: Bytes) -> BoxFuture<'static, Appended> {
        (**self).append(record_id, frame)
    }

    fn is_exclusive(&self) -> bool {
        (**self).is_exclusive()
    }

    fn copies(&self) -> usize {
        (**self).copies()
    }

    fn connection(&self) -> u64 {
        (**self).connection()
    }

    fn syncs(&self) -> Option<Durations> {
        (**self).syncs()
    }

    fn append_over(
        &self,
        connection: u64,
        record_id: RecordId,
        frame: Bytes,
    ) -> BoxFuture<'static, Appended> {
        (**self).append_over(connection, record_id, frame)
    }

    fn reopen(&self) -> BoxFuture<'_, Result<Option<Arc<dyn Log>>, LogError>> {
        (**self).reopen()
    }

    fn read(&self, from: Position) -> Box<dyn LogReader> {
        (**self).read(from)
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        (**self).barrier()
    }

    fn frame_at(&self, position: Position) -> BoxFuture<'_, Result<Option<StoredFrame>, LogError>> {
        (**self).frame_at(position)
    }

    fn put_snapshot(&self, id: SnapshotId, body: SnapshotBody) -> BoxFuture<'_, Result<(), LogError>> {
        (**self).put_snapshot(id, body)
    }

    fn newest_snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, LogError>> {
        (**self).newest_snapshots()
    }

    fn load_snapshot(&self, id: SnapshotId) -> BoxFuture<'_, Result<Box<dyn SnapshotReader>, LogError>> {
        (**self).load_snapshot(id)
    }

    fn truncate(&self, upto: Position) -> BoxFuture<'_, Result<Position, LogError>> {
        (**self).truncate(upto)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        (**self).close()
    }
}
