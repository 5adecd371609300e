//! The only writer to the log, and the only writer to the state.
//!
//! Waiting records are grouped into one frame while the frame before is being written, so a busy relay pays one fsync
//! for many pushes. What comes back from the log is applied, and only then answered: an acknowledgement means that the
//! log has it *and* that this relay shows it. All queues are bounded; what finds no room is told so at once.

mod aside;
mod copy;
mod healing;
mod reader;
mod regression;
mod restore;
mod start;
mod survey;
mod trail;
mod writer;

use std::{collections::HashMap, sync::Arc, time::Duration};

use dormouse_proto::{ids::Revision, lattice::Delta, record::Record};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{Instrument as _, Span, debug_span};

pub use copy::{Copied, Counts};
pub use restore::{NotRestored, Restored, check_empty, restore};
pub use start::{Reading, Running, StartError, start};

use trail::Trail;

use crate::{
    log::{
        Durability, Durations, Log, LogId, LogInfo, Position, SnapshotId,
        claims::{self, Claims},
    },
    metrics::Metrics,
    state::{Fold, Verdict},
};

/// Bounds of the queue before the log.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records that may wait.
    pub records: usize,
    /// Bytes that they may have.
    pub bytes: usize,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_every: u64,
}

/// What the log's answer to a record was, once this relay had applied it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What became of it.
    pub verdict: Verdict,
    /// The revision that it took, which is also what `touched` is as of.
    pub revision: Revision,
    /// The rows that it touched, as the encoded field of the answer that was asked for.
    pub touched: Vec<u8>,
    /// `touched` has all of them. Others may have put large values there: what no answer can carry is left out whole.
    pub is_whole: bool,
    /// The deltas of a push whose node was no member, for another try; nothing is remembered of it.
    pub unheard: Vec<Delta>,
}

/// A record was not written, or nobody can say yet whether it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// Too many records wait; nothing was written.
    #[error("too many writes are waiting")]
    Busy,
    /// The store has no room; nothing was written.
    #[error("the log's store is full")]
    StoreFull,
    /// The record is larger than the log takes; nothing was written.
    #[error("the record is larger than the {0} bytes that the log takes")]
    TooLarge(usize),
    /// The log cannot be reached or is too slow; it may have been written.
    #[error("the log cannot be reached, or did not answer in time")]
    Unreachable,
    /// The relay is stopping; nothing was written.
    #[error("this relay is stopping")]
    Stopping,
}

/// Hears of every record that was applied, in order, while the state is as it was right after it.
pub trait Witness: Send + Sync + 'static {
    /// `session` wrote the record.
    fn witness(&self, fold: &Fold, session: u64, record: &Record, verdict: &Verdict);

    /// A whole frame of `session` was applied, at `position`.
    fn witness_frame(&self, session: u64, position: Position);

    /// Another state took the place of the one that was known: that of a log which had lost what was applied here, healed, or
    /// the newest one of a log that has gone on without this relay.
    /// Positions may be smaller from here on. `me` is the session of this relay.
    fn witness_anew(&self, fold: &Fold, me: u64);
}

/// What is applied, and the last frame that it covers.
#[derive(Debug, Default)]
pub struct Applied {
    /// The state.
    pub fold: Fold,
    /// The last frame applied.
    pub last: Option<SnapshotId>,
}

/// What is known about the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// The incarnation of the log.
    pub id: LogId,
    /// Which implementation it is.
    pub kind: &'static str,
    /// What its `Committed` survives.
    pub durability: Durability,
    /// How many machines keep a copy of it.
    pub copies: usize,
}

impl LogFacts {
    fn of(log: &dyn Log, info: &LogInfo) -> Self {
        Self { id: info.log_id, kind: info.kind, durability: info.durability, copies: log.copies() }
    }

    /// What an acknowledgement means here, and what it survives.
    pub fn claims(&self) -> &'static Claims {
        claims::of(self.kind, self.durability, self.copies)
    }
}

struct Submission {
    record: Record,
    /// Field number under which the touched rows are to be encoded.
    touched: Option<u32>,
    reply: Reply,
    /// The room that the record takes up in the queue until it is answered.
    room: OwnedSemaphorePermit,
    /// Who asked for it.
    asked: Span,
}

type Reply = oneshot::Sender<Result<Outcome, Unwritten>>;

/// A record of a frame that is on its way.
struct Waiting {
    touched: Option<u32>,
    reply: Reply,
    _room: OwnedSemaphorePermit,
}

/// Whether the log can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// It does not answer; that may pass.
    Passing(String),
    /// It cannot be followed any more: what it acknowledges from here on is never applied here.
    Final(String),
}

/// Whether frames go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The log came back without what this relay has applied, or has gone on without it, and nothing may take effect until that
    /// is settled.
    Held,
}

/// A frame that is on its way. Answered when the log has it and this relay has applied it, whichever comes last.
struct PendingFrame {
    waiting: Vec<Waiting>,
    outcomes: Option<Vec<Outcome>>,
    committed: bool,
}

/// What writer, reader and handle share.
struct Shared {
    /// Opened anew when it came back without what was applied.
    log: RwLock<Arc<dyn Log>>,
    facts: RwLock<Arc<LogFacts>>,
    session: u64,
    applied: RwLock<Applied>,
    /// The newest applied revision, to be waited for.
    revision: watch::Sender<Revision>,
    pending: Mutex<HashMap<u64, PendingFrame>>,
    /// Whether the log can be used.
    trouble: watch::Sender<Trouble>,
    metrics: Arc<Metrics>,
    bounds: Bounds,
    witness: Arc<dyn Witness>,
    outgoing: writer::Outgoing,
    /// The newest frames.
    trail: Mutex<Trail>,
    /// When a frame of each other relay was last applied.
    heard: Mutex<HashMap<u64, Instant>>,
    gate: watch::Sender<Gate>,
    /// Held while a snapshot is made: each copies the whole state.
    snapshotting: tokio::sync::Mutex<()>,
    /// What the newest snapshot of this relay's own covers.
    stored: Mutex<Position>,
}

impl Shared {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log.read())
    }

    fn is_held(&self) -> bool {
        *self.gate.borrow() == Gate::Held
    }
}

/// Handle to the one task that writes and the one that applies.
#[derive(Clone)]
pub struct Sequencer {
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequencer").field("facts", &self.log()).finish_non_exhaustive()
    }
}

impl Sequencer {
    /// Writes a record and waits until it is applied, or for `patience`.
    ///
    /// `bytes` is about how large it is. With `touched` the outcome carries the rows that it touched, encoded as that
    /// field of the answer.
    ///
    /// # Errors
    /// [`Unwritten`]; only [`Unwritten::Unreachable`] leaves open whether the record was or will be written.
    pub async fn write(
        &self,
        record: Record,
        bytes: usize,
        touched: Option<u32>,
        patience: Duration,
    ) -> Result<Outcome, Unwritten> {
        let span = debug_span!("write");
        let answer = span.in_scope(|| self.submit(record, bytes, touched))?;
        match tokio::time::timeout(patience, answer).instrument(span).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Unwritten::Stopping),
            Err(_) => Err(Unwritten::Unreachable),
        }
    }

    /// Puts a record in line. Dropping the receiver abandons the answer, not the record.
    ///
    /// # Errors
    /// [`Unwritten::Busy`] when there is no room, [`Unwritten::Stopping`] when nothing more is taken.
    pub fn submit(
        &self,
        record: Record,
        bytes: usize,
        touched: Option<u32>,
    ) -> Result<oneshot::Receiver<Result<Outcome, Unwritten>>, Unwritten> {
        if matches!(*self.shared.trouble.borrow(), Trouble::Final(_)) {
            return Err(Unwritten::Unreachable);
        }
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| Unwritten::Busy)?;
        let (reply, answer) = oneshot::channel();
        self.inbox.try_send(Submission { record, touched, reply, room, asked: Span::current() }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => Unwritten::Busy,
                mpsc::error::TrySendError::Closed(_) => Unwritten::Stopping,
            },
        )?;
        Ok(answer)
    }

    /// The state, to be read. Not to be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Applied> {
        self.shared.applied.read()
    }

    /// Waits until this revision is applied, at most for `patience`. Answers whether it is.
    pub async fn reached(&self, revision: Revision, patience: Duration) -> bool {
        let mut applied = self.shared.revision.subscribe();
        let reached = applied.wait_for(|at| *at >= revision);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }

    /// Hears of every newly applied revision.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.shared.revision.subscribe()
    }

    /// What the log says of itself at this moment; `None`: nothing, because it cannot be reached.
    pub async fn log_now(&self) -> Option<LogInfo> {
        self.shared.log().info().await.ok()
    }

    /// What is known about the log.
    pub fn log(&self) -> Arc<LogFacts> {
        Arc::clone(&self.shared.facts.read())
    }

    /// Tells this log from others, in tokens.
    #[expect(clippy::cast_possible_truncation, reason = "a fingerprint is what is left")]
    pub fn log_fingerprint(&self) -> u64 {
        let id = self.shared.facts.read().id.0;
        (id ^ (id >> 64)) as u64
    }

    /// The session of this relay.
    pub fn session(&self) -> u64 {
        self.shared.session
    }

    /// Why the log cannot be used, if so.
    pub fn trouble(&self) -> Option<String> {
        let known = match &*self.shared.trouble.borrow() {
            Trouble::None => None,
            Trouble::Passing(why) | Trouble::Final(why) => Some(why.clone()),
        };
        match self.shared.log().health() {
            crate::log::Health::Serving => known,
            // How the healing goes says more than that the log which is being healed has ended.
            _ if self.shared.is_held() && known.is_some() => known,
            other => Some(format!("{other:?}")),
        }
    }

    /// Whether an append waits for an answer that is overdue; whatever is written now waits behind it.
    pub fn is_stalled(&self) -> bool {
        matches!(*self.shared.trouble.borrow(), Trouble::Passing(_))
    }

    /// How long this process took to sync the log, each time; `None`: it is not this process that syncs.
    pub fn syncs(&self) -> Option<Durations> {
        self.shared.log().syncs()
    }

    /// Counts the connections to whatever keeps the log.
    pub fn connection(&self) -> u64 {
        self.shared.log().connection()
    }

    /// Waits until the log can never be followed again by this process; answers why.
    pub async fn lost(&self) -> String {
        let mut trouble = self.shared.trouble.subscribe();
        let lost = trouble.wait_for(|trouble| matches!(trouble, Trouble::Final(_))).await;
        match lost.as_deref() {
            Ok(Trouble::Final(why)) => why.clone(),
            _ => "the log is no longer followed".to_owned(),
        }
    }

    /// Whether the store has no room for more.
    pub fn store_full(&self) -> bool {
        self.shared.log().health() == crate::log::Health::StoreFull
    }

    /// Records that may wait for their frame.
    pub fn capacity(&self) -> usize {
        self.inbox.max_capacity()
    }

    /// Records that wait for their frame.
    pub fn waiting(&self) -> usize {
        self.inbox.max_capacity() - self.inbox.capacity()
    }
}
