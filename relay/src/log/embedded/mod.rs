//! The log that needs no broker: one redb file, one thread that commits, one fsync per commit.
//!
//! While one commit runs, the next group of appends gathers; nothing lingers on purpose, so a lone append costs
//! one fsync and a thousand concurrent ones share it. In the data directory:
//!
//! - `dormouse.redb`: the frames, each with the log's incarnation and a checksum;
//! - `snapshot-*.dormouse`: one file per snapshot. Not in the database, because redb has a single writer, which
//!   a gigabyte would keep from committing, and because redb walks its whole file when it is opened after a
//!   kill: the file that must be walked holds frames only;
//! - `dormouse.lock`: locked by the relay that runs on the directory.
//!
//! Measured with redb alone, on two cores and a virtual disk with an fsync of 0.13 ms: 300-byte frames, one commit
//! after the other, 6,371 commits/s as it is and 3,051 with redb's quick repair, which saves the walk (23 ms
//! instead of 3.3 s to open a killed file with 1 GB in it). Paying half of every commit for the rare opening of a
//! file that is truncated behind each snapshot is a bad trade, so only [`Options::quick_repair`] turns it on.

mod committer;
mod file;
#[cfg(test)]
mod kill_tests;
mod line;
mod open;
mod reader;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::{
    Appended, BoxFuture, Durability, Durations, Health, Log, LogError, LogInfo, LogReader, Position,
    ReadError, RecordId, SnapshotBody, SnapshotId, SnapshotInfo, SnapshotReader, StoredFrame,
};
use line::Shared;
use reader::EmbeddedReader;
use snapshots::Snapshots;
use store::Store;

pub use line::CommitStats;
pub use open::OpenError;

/// The bounds of an embedded log. The defaults suit a relay; all memory named here is used at worst, not at once.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest frame, in bytes. Must exceed the largest frame that the sequencer builds. redb stores a frame
    /// above 4 KiB in a page of the next power of two, 100 bytes of it lost, so 60 KiB costs half of 64 KiB.
    pub max_frame_bytes: usize,
    /// How many appends may be unanswered. More of them share one fsync.
    pub appends_in_flight: usize,
    /// How many bytes unanswered appends may hold. At least `max_frame_bytes`.
    pub bytes_in_flight: usize,
    /// The most recent committed frames are kept in memory up to this size, so that a reader at the tail needs no
    /// database read.
    pub recent_bytes: usize,
    /// What redb may keep in memory.
    pub cache_bytes: usize,
    /// The largest size of the database file; appends that would make it grow beyond this are rejected as if the
    /// disk were full. The file grows by doubling, up to 4 GiB, so choose a power of two. `None`: the disk decides.
    pub max_file_bytes: Option<u64>,
    /// How long appends are rejected without another try after the store was full. A try that fails costs a
    /// reopening of the file.
    pub full_pause: Duration,
    /// Whether each commit also stores what makes reopening after a kill instant. Halves the commits per second.
    pub quick_repair: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_frame_bytes: 1 << 20,
            appends_in_flight: 1_024,
            bytes_in_flight: 64 << 20,
            recent_bytes: 8 << 20,
            cache_bytes: 64 << 20,
            max_file_bytes: None,
            full_pause: Duration::from_secs(5),
            quick_repair: false,
        }
    }
}

/// The embedded log. Dropping it closes it and blocks until the running commit has ended; where that matters,
/// await [`Log::close`] first.
pub struct Embedded {
    shared: Arc<Shared>,
    snapshots: Arc<Snapshots>,
    committer: Arc<Mutex<Option<JoinHandle<()>>>>,
    path: PathBuf,
}

impl Embedded {
    /// Opens the log in `dir`, or makes both when they do not exist. Blocks: call it off the runtime's threads.
    ///
    /// # Errors
    /// A directory in use, and a file that is foreign, damaged or of a newer format, are refused and left as
    /// they are. So is an empty `dormouse.redb`: the log is created under another name and renamed when it is
    /// durable, so an empty file is not a crash at creation but a log that something else has destroyed.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let opened = open::open(dir.as_ref(), &options)?;
        let snapshots = Snapshots::open(dir.as_ref(), opened.log_id)
            .map_err(|source| OpenError::Io { path: dir.as_ref().to_owned(), source })?;
        let path = opened.path.clone();
        let (store, edges) = Store::new(opened, options.quick_repair)?;
        let shared = Arc::new(Shared::new(store, edges, options));
        let committer = committer::start(Arc::clone(&shared))
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let committer = Arc::new(Mutex::new(Some(committer)));
        Ok(Self { shared, snapshots: Arc::new(snapshots), committer, path })
    }

    /// The database file, for the line that a starting relay prints.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many commits there were and how long they took, fsync included.
    pub fn commit_stats(&self) -> CommitStats {
        self.shared.stats()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        close_and_join(&self.shared, &self.snapshots, &self.committer);
    }
}

fn close_and_join(shared: &Shared, snapshots: &Snapshots, committer: &Mutex<Option<JoinHandle<()>>>) {
    snapshots.close();
    shared.begin_close();
    // The lock is held while joining, so that a second caller returns only when the file is free, too.
    let mut committer = committer.lock();
    if let Some(thread) = committer.take() {
        // A panic of the thread was already turned into a failed log; there is nothing to add here.
        let _ = thread.join();
    }
}

/// Runs `work` where blocking is allowed. A panic in it is a bug, contained here as a failure of the log.
async fn off_the_runtime<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
    failed: impl FnOnce(String) -> E,
) -> Result<T, E> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error.to_string())))
}

impl Log for Embedded {
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        let edges = self.shared.edges();
        let info = LogInfo {
            log_id: self.shared.store.log_id(),
            first: edges.first,
            tail: edges.tail,
            durability: Durability::Fsync,
            exact_truncate: true,
            kind: "embedded",
            max_frame_bytes: self.shared.options.max_frame_bytes,
            appends_in_flight: self.shared.options.appends_in_flight,
            free_bytes: self.shared.store.free_bytes(),
        };
        Box::pin(async move { Ok(info) })
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn append(&self, record_id: RecordId, frame: Bytes) -> BoxFuture<'static, Appended> {
        match self.shared.enqueue(record_id, frame) {
            Ok(answer) => Box::pin(async move { answer.await.unwrap_or(Appended::Unknown) }),
            Err(rejection) => Box::pin(std::future::ready(Appended::Rejected(rejection))),
        }
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn syncs(&self) -> Option<Durations> {
        Some(self.shared.stats().took)
    }

    fn read(&self, from: Position) -> Box<dyn LogReader> {
        Box::new(EmbeddedReader::new(Arc::clone(&self.shared), from))
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        Box::pin(async move {
            match self.shared.health() {
                Health::Closed => Err(LogError::Closed),
                Health::Failed(why) | Health::Unreachable(why) => Err(LogError::Failed(why)),
                Health::Serving | Health::StoreFull => Ok(self.shared.edges().tail),
            }
        })
    }

    fn frame_at(&self, position: Position) -> BoxFuture<'_, Result<Option<StoredFrame>, LogError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(off_the_runtime(move || Ok(shared.store.frame_at(position)?), LogError::Failed))
    }

    fn put_snapshot(&self, id: SnapshotId, body: SnapshotBody) -> BoxFuture<'_, Result<(), LogError>> {
        let (shared, snapshots) = (Arc::clone(&self.shared), Arc::clone(&self.snapshots));
        let put = move || snapshots.put(id, body, |id| holds(&shared.store, id));
        Box::pin(off_the_runtime(put, LogError::Failed))
    }

    fn newest_snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, LogError>> {
        let snapshots = Arc::clone(&self.snapshots);
        Box::pin(off_the_runtime(move || snapshots.list(), LogError::Failed))
    }

    fn load_snapshot(&self, id: SnapshotId) -> BoxFuture<'_, Result<Box<dyn SnapshotReader>, LogError>> {
        let snapshots = Arc::clone(&self.snapshots);
        Box::pin(async move {
            let stored = off_the_runtime(move || snapshots.load(id), LogError::Failed).await?;
            Ok(Box::new(reader::EmbeddedSnapshotReader::new(stored)) as Box<dyn SnapshotReader>)
        })
    }

    fn truncate(&self, upto: Position) -> BoxFuture<'_, Result<Position, LogError>> {
        let (shared, snapshots) = (Arc::clone(&self.shared), Arc::clone(&self.snapshots));
        Box::pin(async move {
            let store = Arc::clone(&shared);
            let list = move || second_newest(&store.store, &snapshots);
            let limit = off_the_runtime(list, LogError::Failed).await?;
            if limit.is_none_or(|limit| upto > limit) {
                return Err(LogError::TruncateRefused { upto, limit });
            }
            let (answer, done) = oneshot::channel();
            shared.enqueue_truncation(upto, answer)?;
            done.await.unwrap_or(Err(LogError::Closed))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (shared, snapshots) = (Arc::clone(&self.shared), Arc::clone(&self.snapshots));
        let committer = Arc::clone(&self.committer);
        Box::pin(async move {
            // Nothing in here panics; a runtime that is shutting down may refuse to run it, and then dropping closes.
            let _ = spawn_blocking(move || close_and_join(&shared, &snapshots, &committer)).await;
        })
    }
}

fn holds(store: &Store, id: SnapshotId) -> Result<bool, ReadError> {
    Ok(store.frame_at(id.position)?.is_some_and(|frame| SnapshotId::of(&frame) == id))
}

/// The position of the second-newest snapshot whose frame is still here: how far truncation may go.
fn second_newest(store: &Store, snapshots: &Snapshots) -> Result<Option<Position>, LogError> {
    let mut held = 0;
    for snapshot in snapshots.list()? {
        held += u32::from(holds(store, snapshot.id)?);
        if held == 2 {
            return Ok(Some(snapshot.id.position));
        }
    }
    Ok(None)
}
