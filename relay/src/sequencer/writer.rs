//! Groups waiting records into frames and hands them to the log.
//!
//! There is no linger timer: while one frame is being written the next group gathers by itself, so a lone push is
//! written at once and a busy relay writes large frames.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dormouse_proto::record::{FrameBuilder, FrameHeader, Record};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tracing::{Instrument as _, Span, debug, debug_span, field::Empty, info, warn};

use super::{Applied, Gate, PendingFrame, Shared, Submission, Trouble, Unwritten, Waiting, start};
use crate::{
    clock::Clock,
    log::{Appended, Log, RecordId, Rejection},
};

/// Bytes at which a frame is full: with its key it then fits a page of 64 KiB, which the embedded log rounds up to.
const FRAME_BYTES: usize = 60 << 10;
/// Records at which a frame is full: applying a frame holds up readers for its length.
const FRAME_RECORDS: usize = 1024;
/// Frames on their way. A second one would be closed early only to wait for the first: the records in it would be
/// written no sooner, and those that come meanwhile would need a third.
const FRAMES_IN_FLIGHT: usize = 1;
/// Wait before an append whose outcome is unknown is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(50);
/// Wait for an Open to be read back before it is sent once more.
const READ_BACK: Duration = Duration::from_secs(10);
/// A relay that was heard within this may hold what the log has lost, ...
pub(super) const LATELY: Duration = Duration::from_secs(6);
/// ... and is waited for at most for so long over a new connection (rule G2).
pub(super) const OTHERS: Duration = Duration::from_secs(2);

/// The frames of one session: which number comes next, and on which connection it was opened.
#[derive(Debug)]
pub(super) struct Outgoing {
    counter: AtomicU64,
    opened_on: AtomicU64,
}

impl Outgoing {
    /// The Open of this session was read back over that connection.
    pub(super) fn is_opened_on(&self, connection: u64) {
        self.opened_on.store(connection, Ordering::Release);
    }

    /// Nothing was sent yet; the first frame is an Open, over that connection.
    pub(super) fn new(connection: u64) -> Self {
        Self { counter: AtomicU64::new(0), opened_on: AtomicU64::new(connection) }
    }

    /// The number of the next frame.
    pub(super) fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// Runs until the inbox is closed and empty, then waits for what is on its way.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Submission>, in_flight: usize) {
    // More frames at once would only be smaller ones.
    let in_flight = in_flight.min(FRAMES_IN_FLIGHT);
    let slots = Arc::new(Semaphore::new(in_flight));
    // The slot comes first, so that the group gathers while the frames before it are being written.
    while let Some(slot) = slot(&slots).await {
        let Some(first) = inbox.recv().await else { break };
        let counter = shared.outgoing.next();
        let span =
            debug_span!(parent: &first.asked, "append", frame = counter, records = Empty, bytes = Empty);
        let (frame, waiting) = gather(&shared, first, &mut inbox, counter, &span);
        span.record("records", waiting.len()).record("bytes", frame.len());
        append(&shared, counter, frame, waiting, slot, span);
    }
    let all = u32::try_from(in_flight).unwrap_or(u32::MAX);
    let _idle = slots.acquire_many(all).await;
}

async fn slot(slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(slots).acquire_owned().await.ok()
}

fn gather(
    shared: &Shared,
    first: Submission,
    inbox: &mut mpsc::Receiver<Submission>,
    counter: u64,
    span: &Span,
) -> (Bytes, Vec<Waiting>) {
    let mut frame = FrameBuilder::default();
    let mut waiting = Vec::new();
    let mut take = |Submission { record, touched, reply, room, asked: _ }: Submission,
                    frame: &mut FrameBuilder| {
        frame.push(record);
        waiting.push(Waiting { touched, reply, _room: room });
    };
    take(first, &mut frame);
    while frame.len() < FRAME_BYTES && frame.records() < FRAME_RECORDS {
        let Ok(next) = inbox.try_recv() else { break };
        // A frame is below the first call that is in it, and only linked to the others: a span has one parent.
        span.follows_from(&next.asked);
        take(next, &mut frame);
    }
    (frame.finish(shared.header(counter)).into(), waiting)
}

fn append(
    shared: &Arc<Shared>,
    counter: u64,
    frame: Bytes,
    waiting: Vec<Waiting>,
    slot: OwnedSemaphorePermit,
    span: Span,
) {
    let records = waiting.len();
    let id = RecordId { session: shared.session, counter };
    // Before the append, because the frame may be read back before its answer arrives.
    shared.pending.lock().insert(counter, PendingFrame { waiting, outcomes: None, committed: false });
    let shared = Arc::clone(shared);
    let started = Instant::now();
    let appending = async move {
        let appended = settle(&shared, id, frame).await;
        drop(slot);
        match appended {
            Ok(()) => {
                shared.metrics.appended(records, started.elapsed());
                committed(&shared, counter);
            }
            Err(unwritten) => refused(&shared, counter, unwritten),
        }
    };
    tokio::spawn(appending.instrument(span));
}

/// An unknown outcome is tried again with the same id and bytes until it is known: every kind of record is idempotent
/// by its own rule, so a frame that lands twice does no harm, and one that is given up would.
async fn settle(shared: &Shared, id: RecordId, frame: Bytes) -> Result<(), Unwritten> {
    loop {
        shared.until_nothing_is_held().await;
        if shared.is_over() {
            return Err(Unwritten::Unreachable);
        }
        let log = shared.log();
        let connection = log.connection();
        if connection != shared.outgoing.opened_on.load(Ordering::Acquire) {
            open_anew(shared, &log, connection).await?;
            continue;
        }
        match log.append_over(connection, id, frame.clone()).await {
            Appended::Committed { .. } => {
                shared.trouble.send_if_modified(Trouble::pass);
                return Ok(());
            }
            // The log has ended for this handle; the reader finds that out too, and has it opened anew.
            Appended::Rejected(Rejection::Failed) if !log.is_exclusive() => {
                shared.trouble.send_if_modified(|trouble| trouble.begin("the log has ended"));
                tokio::time::sleep(RETRY).await;
            }
            Appended::Rejected(rejection) => {
                debug!(%rejection, "a frame was not written");
                return Err(unwritten(rejection));
            }
            Appended::Unknown => {
                warn!(%id, "the log did not say whether it has a frame; trying again");
                shared.trouble.send_if_modified(|trouble| trouble.begin("an append was not answered"));
                tokio::time::sleep(RETRY).await;
                if shared.is_over() {
                    return Err(Unwritten::Unreachable);
                }
            }
        }
    }
}

/// Opens the session once more, over a new connection: what the old one had acknowledged may be gone, and its revisions
/// must not be given again (rule N3). Nothing else goes out before this relay has read the Open back (N4).
async fn open_anew(shared: &Shared, log: &Arc<dyn Log>, connection: u64) -> Result<(), Unwritten> {
    let counter = shared.outgoing.next();
    let id = RecordId { session: shared.session, counter };
    let mut frame = FrameBuilder::default();
    let base = start::next_base(shared.applied.read().fold.revision()).map_err(|_| Unwritten::Unreachable)?;
    frame.push(Record::Open { base });
    let frame = Bytes::from(frame.finish(shared.header(counter)));
    let mut applied = shared.revision.subscribe();
    while log.connection() == connection && shared.is_written_to(log) {
        match log.append_over(connection, id, frame.clone()).await {
            Appended::Committed { .. } => {
                let read_back = applied.wait_for(|at| *at >= base);
                if matches!(tokio::time::timeout(READ_BACK, read_back).await, Ok(Ok(_))) {
                    shared.until_others_are_heard().await;
                    if !shared.is_written_to(log) {
                        return Ok(());
                    }
                    info!(%base, "the session goes on over a new connection to the log");
                    shared.outgoing.is_opened_on(connection);
                    return Ok(());
                }
            }
            Appended::Rejected(rejection) if rejection != Rejection::Failed || log.is_exclusive() => {
                return Err(unwritten(rejection));
            }
            Appended::Rejected(_) | Appended::Unknown => tokio::time::sleep(RETRY).await,
        }
    }
    // Over another connection by now, or not at all: whoever called looks again.
    if shared.is_over() { Err(Unwritten::Unreachable) } else { Ok(()) }
}

fn unwritten(rejection: Rejection) -> Unwritten {
    match rejection {
        Rejection::StoreFull => Unwritten::StoreFull,
        Rejection::TooLarge { limit } => Unwritten::TooLarge(limit),
        Rejection::TooManyInFlight { .. } => Unwritten::Busy,
        Rejection::Failed => Unwritten::Unreachable,
        Rejection::Closed => Unwritten::Stopping,
    }
}

fn committed(shared: &Shared, counter: u64) {
    let mut pending = shared.pending.lock();
    let Some(frame) = pending.get_mut(&counter) else { return };
    frame.committed = true;
    if frame.outcomes.is_some()
        && let Some(frame) = pending.remove(&counter)
    {
        drop(pending);
        frame.answer();
    }
}

/// Answers whoever waits for the records of a frame that they were not written, or may have been.
pub(super) fn refused(shared: &Shared, counter: u64, unwritten: Unwritten) {
    let Some(frame) = shared.pending.lock().remove(&counter) else { return };
    for waiting in frame.waiting {
        let _ = waiting.reply.send(Err(unwritten));
    }
}

impl PendingFrame {
    /// Answers everybody who still waits.
    pub(super) fn answer(self) {
        for (waiting, outcome) in self.waiting.into_iter().zip(self.outcomes.into_iter().flatten()) {
            let _ = waiting.reply.send(Ok(outcome));
        }
    }
}

impl Shared {
    fn header(&self, counter: u64) -> FrameHeader {
        self.header_at(counter, &self.applied.read())
    }

    /// The header of a frame of this relay, which has applied so much.
    pub(super) fn header_at(&self, counter: u64, applied: &Applied) -> FrameHeader {
        FrameHeader {
            session: self.session,
            counter,
            applied_position: applied.last.map_or(0, |last| last.position.0),
            applied_revision: applied.fold.revision(),
            stamp_ms: Clock::wall_ms(),
        }
    }

    /// Whether frames go to that log now: not while it is healed, and not any more where it was opened anew meanwhile.
    fn is_written_to(&self, log: &Arc<dyn Log>) -> bool {
        !self.is_over() && !self.is_held() && Arc::ptr_eq(log, &self.log())
    }

    async fn until_nothing_is_held(&self) {
        let mut gate = self.gate.subscribe();
        // The other end lives as long as this does.
        let _ = gate.wait_for(|gate| *gate == Gate::Open || self.is_over()).await;
    }

    /// The relays that were heard lately.
    pub(super) fn others(&self) -> Vec<u64> {
        let heard = self.heard.lock();
        heard.iter().filter(|(_, at)| at.elapsed() < LATELY).map(|(session, _)| *session).collect()
    }

    /// A connection that was lost may have taken frames along that only others have applied. They can give them back as long
    /// as nothing has taken effect, so they are waited for (rule G2).
    async fn until_others_are_heard(&self) {
        let (since, others) = (Instant::now(), self.others());
        let all = || {
            let heard = self.heard.lock();
            others.iter().all(|session| heard.get(session).is_some_and(|at| *at >= since))
        };
        while !all() && since.elapsed() < OTHERS && !self.is_held() && !self.is_over() {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Whether the log can never be followed again.
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.trouble.borrow(), Trouble::Final(_))
    }

    /// Waits until nothing of this session is on its way any more.
    pub(super) async fn drained(&self) {
        const LOOK: Duration = Duration::from_millis(5);
        while !self.pending.lock().is_empty() && *self.trouble.borrow() == Trouble::None {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Trouble {
    /// The log answers again. Answers whether that is news.
    fn pass(&mut self) -> bool {
        let passes = matches!(self, Self::Passing(_));
        if passes {
            *self = Self::None;
        }
        passes
    }

    /// The log does not answer. Answers whether that is news.
    fn begin(&mut self, why: &str) -> bool {
        let begins = *self == Self::None;
        if begins {
            *self = Self::Passing(why.to_owned());
        }
        begins
    }
}
