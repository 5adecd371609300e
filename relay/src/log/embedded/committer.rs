//! The one thread that writes: it takes everything that waits, commits it with one fsync, answers, and looks again.
//!
//! Invariants: appends are committed in the order they were called; readers see a frame only after it is durable,
//! and those who appended it hear of it after the readers.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::line::{Shared, Truncation, Waiting};
use super::store::{Ends, StoreError};
use crate::{
    clock,
    log::{Appended, Health, LogError, Position, ReadError, Rejection, StoredFrame},
};

/// How many frames one step of a truncation drops; appends are committed between two steps.
const TRUNCATION_STEP: u64 = 4_096;

/// Starts the committing thread. It ends, and closes the store, after [`Shared::begin_close`].
pub(super) fn start(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("log-commit".to_owned()).spawn(move || {
        let ended = Ended(&shared);
        let mut committer = Committer { shared: &shared, full_until: None };
        while let Some((group, truncation)) = shared.next_work() {
            if !group.is_empty() {
                committer.commit(group);
            }
            if let Some(truncation) = truncation {
                committer.truncate(truncation);
            }
        }
        drop(ended);
    })
}

/// However the thread ends, by closing or by a panic in the database, nobody may wait for it afterwards.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        if thread::panicking() {
            shared.fail("the committing thread has panicked");
            shared.begin_close();
            let waiting = mem::take(&mut shared.line.lock().waiting);
            // The group in hand was dropped by the panic: its callers read Unknown. These were never tried.
            for waiting in waiting {
                let _ = waiting.answer.send(Appended::Rejected(Rejection::Failed));
            }
        } else {
            *shared.health.write() = Health::Closed;
            shared.line.lock().refuse = Some(Rejection::Closed);
            shared.edges.send_modify(|edges| edges.ended = Some(ReadError::Closed));
        }
        shared.store.close();
    }
}

struct Committer<'a> {
    shared: &'a Shared,
    /// Until then appends are rejected without a try, because a try that fails costs a reopening.
    full_until: Option<Instant>,
}

impl Committer<'_> {
    fn commit(&mut self, group: Vec<Waiting>) {
        if let Some(refusal) = self.refusal() {
            return self.shared.answer(group, |_| Appended::Rejected(refusal));
        }
        let before = self.shared.edges().tail;
        let first = before.map_or(Position::FIRST, Position::next);
        let started = clock::instant();
        match self.shared.store.write(first, &group) {
            Ok(()) => {
                self.count(started.elapsed(), group.len());
                self.committed(first, group);
            }
            Err(StoreError::Full) => match self.reopen_after_full() {
                // What the reopened file holds is the truth, whichever step it was that found no room.
                Some(ends) if ends.tail == before => {
                    self.shared.answer(group, |_| Appended::Rejected(Rejection::StoreFull));
                }
                Some(_) => self.committed(first, group),
                None => self.shared.answer(group, |_| Appended::Unknown),
            },
            Err(StoreError::Failed(why)) => {
                self.shared.fail(&why);
                self.shared.answer(group, |_| Appended::Unknown);
            }
        }
    }

    fn refusal(&mut self) -> Option<Rejection> {
        let refusal = self.shared.line.lock().refuse;
        if refusal == Some(Rejection::Failed) {
            return refusal;
        }
        if self.full_until.is_some_and(|until| clock::instant() < until) {
            return Some(Rejection::StoreFull);
        }
        self.full_until = None;
        None
    }

    fn count(&mut self, took: Duration, frames: usize) {
        let mut stats = self.shared.stats.lock();
        stats.commits += 1;
        stats.frames += frames as u64;
        stats.last = took;
        stats.took.note(took);
    }

    /// Shows a durable group to the readers, then to those who appended it: a push is answered when its frame
    /// was applied, so the reader is the one who is waited for.
    fn committed(&mut self, first: Position, group: Vec<Waiting>) {
        let shared = self.shared;
        let frames = (first.0..).zip(&group).map(|(position, waiting)| StoredFrame {
            position: Position(position),
            record_id: waiting.record_id,
            frame: waiting.frame.clone(),
        });
        shared.recent.write().extend(frames);
        let tail = Position(first.0 + group.len() as u64 - 1);
        shared.edges.send_modify(|edges| {
            edges.first.get_or_insert(first);
            edges.tail = Some(tail);
        });
        if *shared.health.read() == Health::StoreFull {
            *shared.health.write() = Health::Serving;
        }
        shared.answer(group, |place| Appended::Committed { position: Some(Position(first.0 + place)) });
    }

    /// Drops some frames, and gets back in line if there are more.
    fn truncate(&mut self, truncation: Truncation) {
        let Truncation { upto, answer } = truncation;
        if self.refusal() == Some(Rejection::Failed) {
            let _ = answer.send(Err(LogError::Failed(Rejection::Failed.to_string())));
            return;
        }
        let first = self.shared.edges().first.unwrap_or(Position::FIRST);
        if upto <= first {
            let _ = answer.send(Ok(first));
            return;
        }
        let step = upto.min(Position(first.0 + TRUNCATION_STEP));
        // Readers are told first: they must never find a frame missing that they believe is there.
        self.shared.edges.send_modify(|edges| edges.first = Some(step));
        if let Err(error) = self.shared.store.drop_below(step) {
            self.truncation_failed(&error);
            let _ = answer.send(Err(error.into()));
            return;
        }
        // When the log is closing the answer is dropped; what was dropped is still behind the snapshot.
        let mut line = self.shared.line.lock();
        if !line.closing {
            line.truncations.push_back(Truncation { upto, answer });
        }
    }

    fn truncation_failed(&mut self, error: &StoreError) {
        match error {
            StoreError::Full => {
                if let Some(ends) = self.reopen_after_full() {
                    self.shared.edges.send_modify(|edges| edges.first = ends.first);
                }
            }
            StoreError::Failed(why) => self.shared.fail(why),
        }
    }

    /// Gets the database back after a write that found no room, so that reading goes on.
    fn reopen_after_full(&mut self) -> Option<Ends> {
        tracing::warn!("the log's store is full; appends are rejected until there is room");
        *self.shared.health.write() = Health::StoreFull;
        self.full_until = Some(clock::instant() + self.shared.options.full_pause);
        match self.shared.store.reopen() {
            Ok(ends) => Some(ends),
            Err(error) => {
                let why = LogError::from(error).to_string();
                self.shared.fail(&format!("the store was full and cannot be reopened: {why}"));
                None
            }
        }
    }
}
