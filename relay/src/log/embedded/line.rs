//! What callers, readers and the committing thread share: the line of waiting appends and what is known of the log.
//!
//! Invariant: whoever is in the line is answered exactly once, or its answer is dropped, which its caller reads as
//! `Unknown`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::Options;
use super::reader::{Edges, Recent};
use super::store::{Ends, Store};
use crate::log::{
    Appended, Durations, Health, LogError, Position, ReadError, RecordId, Rejection, StoredFrame,
};

/// A commit takes what waits up to this size, so that one fsync never has to write all that may be in flight.
const GROUP_BYTES: usize = 8 << 20;

/// How many commits there were, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Transactions that were committed with an fsync.
    pub commits: u64,
    /// Frames in them.
    pub frames: u64,
    /// Duration of the newest.
    pub last: Duration,
    /// Durations of all.
    pub took: Durations,
}

impl CommitStats {
    /// The mean duration of a commit, zero before the first.
    pub fn mean(&self) -> Duration {
        self.took.total().checked_div(u32::try_from(self.commits).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

/// An append that waits for its commit.
pub(super) struct Waiting {
    pub(super) record_id: RecordId,
    pub(super) frame: Bytes,
    pub(super) answer: oneshot::Sender<Appended>,
}

pub(super) struct Truncation {
    pub(super) upto: Position,
    pub(super) answer: oneshot::Sender<Result<Position, LogError>>,
}

/// What stands in line for the committing thread.
#[derive(Default)]
pub(super) struct Line {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) truncations: VecDeque<Truncation>,
    unanswered: usize,
    unanswered_bytes: usize,
    /// Once set, nothing may join the line.
    pub(super) refuse: Option<Rejection>,
    pub(super) closing: bool,
}

/// What the committing thread shares with the callers and the readers.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) options: Options,
    pub(super) line: Mutex<Line>,
    work: Condvar,
    pub(super) edges: watch::Sender<Edges>,
    pub(super) recent: RwLock<Recent>,
    pub(super) health: RwLock<Health>,
    pub(super) stats: Mutex<CommitStats>,
}

impl Shared {
    pub(super) fn new(store: Store, ends: Ends, options: Options) -> Self {
        let edges = Edges { first: ends.first, tail: ends.tail, ended: None };
        Self {
            store,
            line: Mutex::default(),
            work: Condvar::new(),
            edges: watch::Sender::new(edges),
            recent: RwLock::new(Recent::new(options.recent_bytes)),
            health: RwLock::new(Health::Serving),
            stats: Mutex::default(),
            options,
        }
    }

    pub(super) fn edges(&self) -> Edges {
        self.edges.borrow().clone()
    }

    pub(super) fn watch_edges(&self) -> watch::Receiver<Edges> {
        self.edges.subscribe()
    }

    pub(super) fn recent_from(&self, from: Position) -> Option<Vec<StoredFrame>> {
        self.recent.read().from(from)
    }

    pub(super) fn health(&self) -> Health {
        self.health.read().clone()
    }

    pub(super) fn stats(&self) -> CommitStats {
        *self.stats.lock()
    }

    /// Puts an append in line, or says why not. Never blocks longer than the line is being looked at.
    pub(super) fn enqueue(
        &self,
        record_id: RecordId,
        frame: Bytes,
    ) -> Result<oneshot::Receiver<Appended>, Rejection> {
        let limits = &self.options;
        if frame.len() > limits.max_frame_bytes {
            return Err(Rejection::TooLarge { limit: limits.max_frame_bytes });
        }
        let mut line = self.line.lock();
        if let Some(refusal) = line.refuse {
            return Err(refusal);
        }
        let bytes = line.unanswered_bytes + frame.len();
        if line.unanswered >= limits.appends_in_flight || bytes > limits.bytes_in_flight {
            let (frames, bytes) = (limits.appends_in_flight, limits.bytes_in_flight);
            return Err(Rejection::TooManyInFlight { frames, bytes });
        }
        let (answer, answered) = oneshot::channel();
        line.unanswered += 1;
        line.unanswered_bytes = bytes;
        line.waiting.push_back(Waiting { record_id, frame, answer });
        drop(line);
        self.work.notify_one();
        Ok(answered)
    }

    pub(super) fn enqueue_truncation(
        &self,
        upto: Position,
        answer: oneshot::Sender<Result<Position, LogError>>,
    ) -> Result<(), LogError> {
        let mut line = self.line.lock();
        match line.refuse {
            None => line.truncations.push_back(Truncation { upto, answer }),
            Some(Rejection::Closed) => return Err(LogError::Closed),
            Some(refusal) => return Err(LogError::Failed(refusal.to_string())),
        }
        drop(line);
        self.work.notify_one();
        Ok(())
    }

    /// Lets nothing more join the line; what is in it is still committed. Truncations are dropped: they lose
    /// nothing and can be asked for again.
    pub(super) fn begin_close(&self) {
        let mut line = self.line.lock();
        line.closing = true;
        line.refuse.get_or_insert(Rejection::Closed);
        line.truncations.clear();
        drop(line);
        self.work.notify_one();
    }

    /// Refuses appends from now on, because what the file holds is in doubt.
    pub(super) fn fail(&self, why: &str) {
        tracing::error!(why, "the log has failed; it takes no appends until it is opened again");
        self.line.lock().refuse = Some(Rejection::Failed);
        *self.health.write() = Health::Failed(why.to_owned());
        self.edges.send_modify(|edges| edges.ended = Some(ReadError::Failed(why.to_owned())));
    }

    /// The next things to do, or `None` when the log is closing and nothing is left.
    pub(super) fn next_work(&self) -> Option<(Vec<Waiting>, Option<Truncation>)> {
        let mut line = self.line.lock();
        while line.waiting.is_empty() && line.truncations.is_empty() {
            if line.closing {
                return None;
            }
            self.work.wait(&mut line);
        }
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            let fits = bytes < GROUP_BYTES;
            bytes += waiting.frame.len();
            fits
        };
        let group = line.waiting.iter().take_while(fits).count();
        Some((line.waiting.drain(..group).collect(), line.truncations.pop_front()))
    }

    /// Answers a group; the answer may depend on the place in it.
    pub(super) fn answer(&self, group: Vec<Waiting>, answer: impl Fn(u64) -> Appended) {
        {
            let mut line = self.line.lock();
            line.unanswered -= group.len();
            line.unanswered_bytes -= group.iter().map(|waiting| waiting.frame.len()).sum::<usize>();
        }
        for (place, waiting) in (0..).zip(group) {
            // A caller that went away does not want its answer.
            let _ = waiting.answer.send(answer(place));
        }
    }
}
