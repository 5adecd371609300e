//! A log that misbehaves on request, in the ways that logs do. A test instrument: it wraps any log and is one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Appended, Batch, BoxFuture, Health, Log, LogError, LogInfo, LogReader, Position, ReadError, RecordId,
    SnapshotBody, SnapshotId, SnapshotInfo, SnapshotReader, StoredFrame,
};

/// What goes wrong with one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// The frame is stored, the answer is `Unknown`.
    LoseAnswer,
    /// The frame is not stored, the answer is `Unknown`.
    Drop,
    /// The frame is stored in its turn, the answer comes later.
    DelayAnswer(Duration),
    /// The frame is stored twice, as a client library does that retries on its own.
    Duplicate,
}

type Decide = Box<dyn FnMut(RecordId) -> Option<AppendFault> + Send>;

/// The wrapper. A fault asked for by [`Faulty::fail_next`] comes first; otherwise the decision, which a simulation
/// draws from its seed, is asked once per append.
#[derive(Clone)]
pub struct Faulty<L> {
    inner: L,
    script: Arc<Mutex<Script>>,
    link: watch::Sender<Link>,
}

/// The way to the log behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    connection: u64,
    is_cut: bool,
}

struct Script {
    next: VecDeque<AppendFault>,
    decide: Decide,
}

impl<L: Log> Faulty<L> {
    /// Wraps `inner`; `decide` says what goes wrong with each append, `None` being nothing.
    pub fn new(inner: L, decide: impl FnMut(RecordId) -> Option<AppendFault> + Send + 'static) -> Self {
        let script = Script { next: VecDeque::new(), decide: Box::new(decide) };
        Self { inner, script: Arc::new(Mutex::new(script)), link: watch::Sender::new(Link::default()) }
    }

    /// Cuts this handle off from the log: what is appended is not stored, nothing is read. Clones are cut off with it.
    pub fn cut(&self) {
        self.link.send_modify(|link| link.is_cut = true);
    }

    /// Connects it again.
    pub fn mend(&self) {
        self.link.send_modify(|link| *link = Link { connection: link.connection + 1, is_cut: false });
    }

    /// Wraps `inner` so that nothing goes wrong until [`Faulty::fail_next`] asks for it.
    pub fn by_hand(inner: L) -> Self {
        Self::new(inner, |_| None)
    }

    /// Lets the next append that has no fault yet fail in this way.
    pub fn fail_next(&self, fault: AppendFault) {
        self.script.lock().next.push_back(fault);
    }

    /// The log behind the faults.
    pub fn inner(&self) -> &L {
        &self.inner
    }
}

/// Delivers nothing while it is cut off.
struct CutReader {
    inner: Box<dyn LogReader>,
    link: watch::Receiver<Link>,
}

impl LogReader for CutReader {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Batch, ReadError>> {
        Box::pin(async move {
            loop {
                // The other end lives as long as the log does.
                let _ = self.link.wait_for(|link| !link.is_cut).await;
                let mut link = self.link.clone();
                tokio::select! {
                    batch = self.inner.next_batch() => return batch,
                    _ = link.wait_for(|link| link.is_cut) => {}
                }
            }
        })
    }
}

impl<L: Log> Log for Faulty<L> {
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        self.inner.info()
    }

    fn health(&self) -> Health {
        if self.link.borrow().is_cut {
            return Health::Unreachable("cut off".to_owned());
        }
        self.inner.health()
    }

    fn is_exclusive(&self) -> bool {
        self.inner.is_exclusive()
    }

    fn connection(&self) -> u64 {
        self.link.borrow().connection
    }

    fn append_over(
        &self,
        connection: u64,
        record_id: RecordId,
        frame: Bytes,
    ) -> BoxFuture<'static, Appended> {
        let link = *self.link.borrow();
        if link.is_cut || link.connection != connection {
            return Box::pin(std::future::ready(Appended::Unknown));
        }
        self.append(record_id, frame)
    }

    fn append(&self, record_id: RecordId, frame: Bytes) -> BoxFuture<'static, Appended> {
        let fault = {
            let mut script = self.script.lock();
            script.next.pop_front().or_else(|| (script.decide)(record_id))
        };
        if fault == Some(AppendFault::Drop) {
            return Box::pin(std::future::ready(Appended::Unknown));
        }
        let answer = self.inner.append(record_id, frame.clone());
        match fault {
            Some(AppendFault::LoseAnswer) => Box::pin(async move {
                answer.await;
                Appended::Unknown
            }),
            Some(AppendFault::DelayAnswer(delay)) => Box::pin(async move {
                let answer = answer.await;
                tokio::time::sleep(delay).await;
                answer
            }),
            Some(AppendFault::Duplicate) => {
                let second = self.inner.append(record_id, frame);
                Box::pin(async move {
                    let answer = answer.await;
                    second.await;
                    answer
                })
            }
            Some(AppendFault::Drop) | None => answer,
        }
    }

    fn read(&self, from: Position) -> Box<dyn LogReader> {
        Box::new(CutReader { inner: self.inner.read(from), link: self.link.subscribe() })
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        self.inner.barrier()
    }

    fn frame_at(&self, position: Position) -> BoxFuture<'_, Result<Option<StoredFrame>, LogError>> {
        self.inner.frame_at(position)
    }

    fn put_snapshot(&self, id: SnapshotId, body: SnapshotBody) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.put_snapshot(id, body)
    }

    fn newest_snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, LogError>> {
        self.inner.newest_snapshots()
    }

    fn load_snapshot(&self, id: SnapshotId) -> BoxFuture<'_, Result<Box<dyn SnapshotReader>, LogError>> {
        self.inner.load_snapshot(id)
    }

    fn truncate(&self, upto: Position) -> BoxFuture<'_, Result<Position, LogError>> {
        self.inner.truncate(upto)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
