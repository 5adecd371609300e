//! A log in memory, for tests and simulations: it answers at once and forgets everything with its last handle.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Appended, Batch, BoxFuture, Durability, Health, Log, LogError, LogId, LogInfo, LogReader, Position,
    ReadError, RecordId, Rejection, SnapshotBody, SnapshotId, SnapshotInfo, SnapshotReader, StoredFrame,
};

const MAX_FRAME_BYTES: usize = 1 << 20;
const APPENDS_IN_FLIGHT: usize = 1_024;
const BATCH_FRAMES: usize = 1_024;

#[derive(Default)]
struct State {
    /// Truncated frames before the first one held.
    dropped: u64,
    frames: Vec<StoredFrame>,
    snapshots: Vec<(SnapshotId, Vec<Bytes>)>,
    closed: bool,
}

impl State {
    fn first(&self) -> Option<Position> {
        self.frames.first().map(|frame| frame.position)
    }

    fn tail(&self) -> Option<Position> {
        self.frames.last().map(|frame| frame.position)
    }

    fn frame_at(&self, position: Position) -> Option<&StoredFrame> {
        self.frames.get(usize::try_from(position.0.checked_sub(self.dropped + 1)?).ok()?)
    }

    fn holds(&self, id: SnapshotId) -> bool {
        self.frame_at(id.position).is_some_and(|frame| SnapshotId::of(frame) == id)
    }

    fn read(&self, from: Position) -> Result<Vec<StoredFrame>, ReadError> {
        let first = Position(self.dropped + 1);
        if self.closed {
            Err(ReadError::Closed)
        } else if from < first {
            Err(ReadError::Truncated { first })
        } else if from > self.tail().map_or(Position::FIRST, Position::next) {
            Err(ReadError::Regressed { tail: self.tail() })
        } else {
            let skip = usize::try_from(from.0 - first.0).unwrap_or(usize::MAX);
            Ok(self.frames.iter().skip(skip).take(BATCH_FRAMES).cloned().collect())
        }
    }
}

/// The log. Clones are handles of the same log, as several relays would have.
#[derive(Clone)]
pub struct Memory {
    log_id: LogId,
    is_shared: bool,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Memory {
    /// An empty log. The caller names it: a simulation draws the id from its seed.
    pub fn new(log_id: LogId) -> Self {
        Self { log_id, is_shared: false, state: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// The same log, as one to which several relays append.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Loses every frame behind `tail`, as a broker does that has acknowledged from its page cache.
    pub fn lose_tail(&self, tail: Position) {
        self.state.lock().frames.retain(|frame| frame.position <= tail);
        self.changed.send_replace(());
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Log for Memory {
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        let state = self.state.lock();
        ready(Ok(LogInfo {
            log_id: self.log_id,
            first: state.first(),
            tail: state.tail(),
            durability: Durability::PageCache,
            exact_truncate: true,
            kind: "memory",
            max_frame_bytes: MAX_FRAME_BYTES,
            appends_in_flight: APPENDS_IN_FLIGHT,
            free_bytes: None,
        }))
    }

    fn health(&self) -> Health {
        if self.state.lock().closed { Health::Closed } else { Health::Serving }
    }

    fn append(&self, record_id: RecordId, frame: Bytes) -> BoxFuture<'static, Appended> {
        if frame.len() > MAX_FRAME_BYTES {
            return ready(Appended::Rejected(Rejection::TooLarge { limit: MAX_FRAME_BYTES }));
        }
        let mut state = self.state.lock();
        if state.closed {
            return ready(Appended::Rejected(Rejection::Closed));
        }
        let position = Position(state.dropped + state.frames.len() as u64 + 1);
        state.frames.push(StoredFrame { position, record_id, frame });
        drop(state);
        self.changed.send_replace(());
        ready(Appended::Committed { position: Some(position) })
    }

    fn is_exclusive(&self) -> bool {
        !self.is_shared
    }

    fn read(&self, from: Position) -> Box<dyn LogReader> {
        let changed = self.changed.subscribe();
        Box::new(MemoryReader { state: Arc::clone(&self.state), changed, next: from, told_at_tail: false })
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        let state = self.state.lock();
        ready(if state.closed { Err(LogError::Closed) } else { Ok(state.tail()) })
    }

    fn frame_at(&self, position: Position) -> BoxFuture<'_, Result<Option<StoredFrame>, LogError>> {
        ready(Ok(self.state.lock().frame_at(position).cloned()))
    }

    fn put_snapshot(&self, id: SnapshotId, body: SnapshotBody) -> BoxFuture<'_, Result<(), LogError>> {
        let body: std::io::Result<Vec<Bytes>> = body.collect();
        let body = match body {
            Ok(body) => body,
            Err(error) => return ready(Err(LogError::SnapshotAbandoned(error.to_string()))),
        };
        let mut state = self.state.lock();
        let older = std::mem::take(&mut state.snapshots).into_iter();
        let keep = older.filter(|(older, _)| *older != id && state.holds(*older)).take(1).collect::<Vec<_>>();
        state.snapshots.push((id, body));
        state.snapshots.extend(keep);
        state.snapshots.sort_by_key(|(id, _)| std::cmp::Reverse(id.position));
        ready(Ok(()))
    }

    fn newest_snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, LogError>> {
        let state = self.state.lock();
        let infos = state.snapshots.iter().map(|(id, body)| SnapshotInfo {
            id: *id,
            stored_bytes: body.iter().map(|chunk| chunk.len() as u64).sum(),
        });
        ready(Ok(infos.collect()))
    }

    fn load_snapshot(&self, id: SnapshotId) -> BoxFuture<'_, Result<Box<dyn SnapshotReader>, LogError>> {
        let state = self.state.lock();
        let Some((_, body)) = state.snapshots.iter().find(|(stored, _)| *stored == id) else {
            return ready(Err(LogError::SnapshotNotFound(id)));
        };
        ready(Ok(Box::new(MemorySnapshotReader(body.clone().into_iter())) as Box<dyn SnapshotReader>))
    }

    fn truncate(&self, upto: Position) -> BoxFuture<'_, Result<Position, LogError>> {
        let mut state = self.state.lock();
        let held = state.snapshots.iter().map(|(id, _)| *id).filter(|id| state.holds(*id));
        let limit = held.map(|id| id.position).nth(1);
        if limit.is_none_or(|limit| upto > limit) {
            return ready(Err(LogError::TruncateRefused { upto, limit }));
        }
        state.frames.retain(|frame| frame.position >= upto);
        state.dropped = state.dropped.max(upto.0.saturating_sub(1));
        ready(Ok(Position(state.dropped + 1)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.state.lock().closed = true;
        self.changed.send_replace(());
        ready(())
    }
}

struct MemoryReader {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
    next: Position,
    told_at_tail: bool,
}

impl MemoryReader {
    async fn advance(&mut self) -> Result<Batch, ReadError> {
        loop {
            self.changed.mark_unchanged();
            let (frames, tail) = {
                let state = self.state.lock();
                (state.read(self.next)?, state.tail())
            };
            if let Some(last) = frames.last() {
                self.next = last.position.next();
            } else if self.told_at_tail {
                self.changed.changed().await.map_err(|_| ReadError::Closed)?;
                continue;
            }
            self.told_at_tail = tail.is_none_or(|tail| self.next > tail);
            return Ok(Batch { frames, at_tail: self.told_at_tail });
        }
    }
}

impl LogReader for MemoryReader {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Batch, ReadError>> {
        Box::pin(self.advance())
    }
}

struct MemorySnapshotReader(std::vec::IntoIter<Bytes>);

impl SnapshotReader for MemorySnapshotReader {
    fn next_chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        ready(Ok(self.0.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::contract;
    use crate::log::faults::{AppendFault, Faulty};

    #[tokio::test]
    async fn the_log_in_memory_keeps_the_contract() {
        contract::check_all(async || Arc::new(Memory::new(LogId(1))) as Arc<dyn Log>).await;
    }

    #[tokio::test]
    async fn a_faulty_log_without_faults_keeps_the_contract() {
        contract::check_all(async || Arc::new(Faulty::by_hand(Memory::new(LogId(1)))) as Arc<dyn Log>).await;
    }

    #[tokio::test]
    async fn a_duplicated_append_is_stored_twice_and_answered_once() {
        let log = Faulty::by_hand(Memory::new(LogId(1)));
        log.fail_next(AppendFault::Duplicate);
        let record_id = RecordId { session: 1, counter: 1 };
        let answer = log.append(record_id, Bytes::from_static(b"twice")).await;
        assert_eq!(answer, Appended::Committed { position: Some(Position(1)) });
        assert_eq!(log.barrier().await, Ok(Some(Position(2))));
    }

    #[tokio::test]
    async fn a_lost_tail_is_a_regression_for_who_had_read_it() {
        let log = Memory::new(LogId(1));
        for counter in 1..=5 {
            log.append(RecordId { session: 1, counter }, Bytes::new()).await;
        }
        let mut reader = log.read(Position(1));
        reader.next_batch().await.expect("five frames");
        log.lose_tail(Position(2));
        assert_eq!(reader.next_batch().await, Err(ReadError::Regressed { tail: Some(Position(2)) }));
    }
}
