//! Groups waiting records into frames and hands them to the log.
//!
//! There is no linger timer: while one frame is being written the next group gathers by itself, so a lone push is
//! written at once and a busy relay writes large frames.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dormouse_proto::record::{FrameBuilder, FrameHeader};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tracing::{debug, warn};

use super::{PendingFrame, Shared, Submission, Trouble, Unwritten, Waiting};
use crate::{
    clock::Clock,
    log::{Appended, RecordId, Rejection},
};

/// Bytes at which a frame is full: with its key it then fits a page of 64 KiB, which the embedded log rounds up to.
const FRAME_BYTES: usize = 60 << 10;
/// Records at which a frame is full: applying a frame holds up readers for its length.
const FRAME_RECORDS: usize = 1024;
/// Frames on their way. A second one would be closed early only to wait for the first: the records in it would be
/// written no sooner, and those that come meanwhile would need a third.
const FRAMES_IN_FLIGHT: usize = 1;
/// Wait before an append whose outcome is unknown is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Runs until the inbox is closed and empty, then waits for what is on its way.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Submission>, in_flight: usize) {
    // More frames at once would only be smaller ones.
    let in_flight = in_flight.min(FRAMES_IN_FLIGHT);
    let slots = Arc::new(Semaphore::new(in_flight));
    let mut counter = 0;
    // The slot comes first, so that the group gathers while the frames before it are being written.
    while let Some(slot) = slot(&slots).await {
        let Some(first) = inbox.recv().await else { break };
        counter += 1;
        let (frame, waiting) = gather(&shared, first, &mut inbox, counter);
        append(&shared, counter, frame, waiting, slot);
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
) -> (Bytes, Vec<Waiting>) {
    let mut frame = FrameBuilder::default();
    let mut waiting = Vec::new();
    let mut take = |Submission { record, touched, reply, room }: Submission, frame: &mut FrameBuilder| {
        frame.push(record);
        waiting.push(Waiting { touched, reply, _room: room });
    };
    take(first, &mut frame);
    while frame.len() < FRAME_BYTES && frame.records() < FRAME_RECORDS {
        let Ok(next) = inbox.try_recv() else { break };
        take(next, &mut frame);
    }
    let (applied_position, applied_revision) = {
        let applied = shared.applied.read();
        (applied.last.map_or(0, |last| last.position.0), applied.fold.revision())
    };
    let header = FrameHeader {
        session: shared.session,
        counter,
        applied_position,
        applied_revision,
        stamp_ms: Clock::wall_ms(),
    };
    (frame.finish(header).into(), waiting)
}

fn append(
    shared: &Arc<Shared>,
    counter: u64,
    frame: Bytes,
    waiting: Vec<Waiting>,
    slot: OwnedSemaphorePermit,
) {
    let records = waiting.len();
    let id = RecordId { session: shared.session, counter };
    // Before the append, because the frame may be read back before its answer arrives.
    shared.pending.lock().insert(counter, PendingFrame { waiting, outcomes: None, committed: false });
    let answer = shared.log.append(id, frame.clone());
    let shared = Arc::clone(shared);
    let started = Instant::now();
    tokio::spawn(async move {
        let appended = settle(&shared, id, frame, answer.await).await;
        drop(slot);
        match appended {
            Ok(()) => {
                shared.metrics.appended(records, started.elapsed());
                committed(&shared, counter);
            }
            Err(unwritten) => refused(&shared, counter, unwritten),
        }
    });
}

/// An unknown outcome is tried again with the same id and bytes until it is known: every kind of record is idempotent
/// by its own rule, so a frame that lands twice does no harm, and one that is given up would.
async fn settle(shared: &Shared, id: RecordId, frame: Bytes, first: Appended) -> Result<(), Unwritten> {
    let mut appended = first;
    loop {
        match appended {
            Appended::Committed { .. } => {
                shared.trouble.send_if_modified(Trouble::pass);
                return Ok(());
            }
            Appended::Rejected(rejection) => {
                debug!(%rejection, "a frame was not written");
                return Err(unwritten(rejection));
            }
            Appended::Unknown => {
                warn!(%id, "the log did not say whether it has a frame; trying again");
                shared.trouble.send_if_modified(|trouble| trouble.begin("an append was not answered"));
                tokio::time::sleep(RETRY).await;
                appended = shared.log.append(id, frame.clone()).await;
            }
        }
    }
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

fn refused(shared: &Shared, counter: u64, unwritten: Unwritten) {
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
