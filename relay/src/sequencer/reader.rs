//! Applies what comes back from the log, and answers who waits for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dormouse_proto::{
    convert::bounds,
    record::{Frame, Record},
    rows::RowWriter,
};
use tokio::{sync::watch, time::Instant};
use tracing::{error, info, warn};

use super::{Applied, Gate, Outcome, Shared, Trouble, aside, healing, survey, writer};
use crate::{
    log::{LogReader, Position, ReadError, SnapshotId, StoredFrame},
    metrics::Reseeding,
    state::{Fold, PushVerdict, Seeded, StateHash, Touched, Verdict},
};

/// Wait before a log that does not deliver is read anew.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of one piece of a snapshot.
const PIECE: usize = 1 << 20;
/// Records after which one more step of tidying is owed.
const RECORDS_PER_TIDY: usize = 256;

/// Why the log cannot be read on as it was.
pub(super) enum Setback {
    /// It does not hold any more what this relay has applied.
    Lost(String),
    /// What has to be applied next is not stored any more: a newer snapshot took its place.
    Overtaken(String),
    /// It can never be followed again.
    Final(String),
}

/// Applies frames from `reader` on until it is told to stop.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut reader: Box<dyn LogReader>,
    mut stop: watch::Receiver<bool>,
) {
    let mut due = Due::new(&shared);
    let _end = EndGuard(Arc::clone(&shared));
    loop {
        let next = async {
            match step(&shared, &mut *reader, &mut due).await {
                Ok(Step::Next) => Ok(None),
                Ok(Step::ReadAnew) => Ok(Some(shared.log().read(shared.next_position()))),
                Ok(Step::End) => Err(None),
                Err(Setback::Final(why)) => Err(Some(why)),
                // Nobody else can have written to it, so there is nobody to agree with.
                Err(Setback::Lost(why)) if shared.log().is_exclusive() => Err(Some(why)),
                Err(Setback::Lost(why)) => healing::heal(&shared, &why).await.map(Some).map_err(Some),
                Err(Setback::Overtaken(why)) => {
                    healing::begin_anew(&shared, &why).await.map(Some).map_err(Some)
                }
            }
        };
        let next = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match next {
            Ok(anew) => reader = anew.unwrap_or(reader),
            Err(Some(why)) => return shared.give_up(&why),
            Err(None) => return,
        }
    }
}

enum Step {
    Next,
    ReadAnew,
    End,
}

/// Applies the next batch, and stores a snapshot when one is due.
async fn step(shared: &Arc<Shared>, reader: &mut dyn LogReader, due: &mut Due) -> Result<Step, Setback> {
    match reader.next_batch().await {
        Ok(batch) => {
            for stored in &batch.frames {
                shared.take(stored).await?;
                due.bytes += stored.frame.len() as u64;
            }
            if due.bytes >= due.at && shared.snapshotting.try_lock().is_ok() {
                let since = std::mem::replace(due, Due::new(shared)).since;
                tokio::spawn(Arc::clone(shared).snapshot_if_none_since(since));
            }
            Ok(Step::Next)
        }
        Err(ReadError::Stalled) => {
            warn!("the log does not deliver; reading it anew");
            tokio::time::sleep(RETRY).await;
            Ok(Step::ReadAnew)
        }
        Err(ReadError::Closed) => Ok(Step::End),
        Err(error @ ReadError::Regressed { .. }) => Err(Setback::Lost(error.to_string())),
        // This relay was frozen or cut off while others stored snapshots.
        Err(error @ ReadError::Truncated { .. }) => Err(Setback::Overtaken(error.to_string())),
        Err(error) => Err(Setback::Final(error.to_string())),
    }
}

/// When the next snapshot is due.
struct Due {
    /// Bytes of frames that were applied since the last one was.
    bytes: u64,
    /// So many make it due.
    at: u64,
    /// What had been applied then.
    since: Position,
}

impl Due {
    /// Relays on one log come to it one after the other, so that those behind the first find one that is new enough.
    fn new(shared: &Shared) -> Self {
        let every = shared.bounds.snapshot_every;
        let later = if shared.log().is_exclusive() { 0 } else { every / 1_024 * (shared.session % 256) };
        let since = shared.applied.read().last.map_or(Position(0), |last| last.position);
        Self { bytes: 0, at: every + later, since }
    }
}

/// However the reader ends, nothing is applied any more: a write would be acknowledged by the log and never be seen.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.trouble.send_if_modified(|trouble| {
            let begins = !matches!(trouble, Trouble::Final(_));
            if begins {
                *trouble = Trouble::Final("the log is no longer followed".to_owned());
            }
            begins
        });
    }
}

impl Shared {
    fn next_position(&self) -> Position {
        self.applied.read().last.map_or(Position::FIRST, |last| last.position.next())
    }

    /// Nothing more can be applied: writes are refused from here on, reads are still answered.
    fn give_up(&self, why: &str) {
        error!(why, "the log can no longer be followed; writes are refused from here on");
        self.trouble.send_replace(Trouble::Final(why.to_owned()));
        self.gate.send_replace(Gate::Open);
    }

    /// Applies the next frame of the log, if it is the log that was applied so far.
    async fn take(&self, stored: &StoredFrame) -> Result<(), Setback> {
        let frame = Frame::decode(&stored.frame)
            .map_err(|error| Setback::Final(format!("position {}: {error}", stored.position)))?;
        let forked = self.trail.lock().check(&frame.header, stored.position);
        if let Err(why) = forked
            && (self.log().is_exclusive() || !self.is_what_was_applied().await)
        {
            return Err(Setback::Lost(why));
        }
        let reseed = self.applied.read().fold.wants(&frame).cloned();
        if let Some(reseed) = &reseed {
            let lost = aside::fetch(&*self.log(), reseed).await;
            self.applied.write().fold.give(lost.map_err(|why| {
                self.metrics.reseeded(Reseeding::HealedByAnother);
                Setback::Overtaken(format!("the state that the log was healed with: {why}"))
            })?);
        }
        self.apply(stored, &frame);
        if reseed.is_some() {
            info!(position = stored.position.0, "another relay gave the log back what it had lost");
            self.metrics.reseeded(Reseeding::HealedByAnother);
        }
        Ok(())
    }

    /// Whether the log still holds what was applied: if the writer of another frame says that it had read something else, it
    /// is then the writer who has to find out (rule A3).
    async fn is_what_was_applied(&self) -> bool {
        let log = self.log();
        loop {
            match survey::holds_all(self, &*log).await {
                Ok(holds) => return holds,
                Err(error) => {
                    warn!(%error, "another relay has read another log, and this one cannot be asked");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Applies one frame, then answers who waits for it.
    pub(super) fn apply(&self, stored: &StoredFrame, frame: &Frame) {
        let own = frame.header.session == self.session;
        let wanted = if own { self.wanted(frame.header.counter) } else { Vec::new() };
        let mut outcomes = Vec::with_capacity(wanted.len());
        let revision = {
            let mut applied = self.applied.write();
            let Applied { fold, last } = &mut *applied;
            let mut is_another = false;
            fold.apply_frame(frame, |fold, nth, record, verdict| {
                is_another |= verdict == Verdict::Reseed(Seeded::Healed);
                self.witness.witness(fold, frame.header.session, record, &verdict);
                if let Some(touched) = wanted.get(nth) {
                    outcomes.push(outcome(fold, record, verdict, *touched));
                }
            });
            *last = Some(SnapshotId::of(stored));
            if is_another {
                self.witness.witness_anew(fold, self.session);
            }
            self.witness.witness_frame(frame.header.session, stored.position);
            fold.revision()
        };
        self.trail.lock().note(SnapshotId::of(stored), revision);
        self.hear(frame.header.session);
        self.revision.send_replace(revision);
        if own {
            self.read_back(frame.header.counter, outcomes);
        }
        self.tidy(1 + frame.records.len() / RECORDS_PER_TIDY);
    }

    /// Another relay is there.
    fn hear(&self, session: u64) {
        /// Relays that are gone leave an entry each, until there are so many.
        const RELAYS: usize = 256;
        if session == self.session {
            return;
        }
        let mut heard = self.heard.lock();
        if heard.len() >= RELAYS {
            heard.retain(|_, at| at.elapsed() < writer::LATELY);
        }
        heard.insert(session, Instant::now());
    }

    /// Which records of an own frame somebody waits for, and how their rows are to be encoded.
    fn wanted(&self, counter: u64) -> Vec<Option<u32>> {
        let pending = self.pending.lock();
        pending
            .get(&counter)
            .map_or_else(Vec::new, |frame| frame.waiting.iter().map(|it| it.touched).collect())
    }

    fn read_back(&self, counter: u64, outcomes: Vec<Outcome>) {
        let mut pending = self.pending.lock();
        let Some(frame) = pending.get_mut(&counter).filter(|frame| frame.outcomes.is_none()) else { return };
        frame.outcomes = Some(outcomes);
        if frame.committed
            && let Some(frame) = pending.remove(&counter)
        {
            drop(pending);
            frame.answer();
        }
    }

    /// Some steps of index tidying, each with the lock of its own, so that readers come in between.
    fn tidy(&self, steps: usize) {
        for _ in 0..steps {
            if !self.applied.write().fold.tidy() {
                return;
            }
        }
    }

    /// Stores a snapshot, unless another relay has stored one behind that position and behind this relay's own: each that is
    /// stored lets the log drop frames, which a relay that starts just then or was cut off for a moment may still need.
    async fn snapshot_if_none_since(self: Arc<Self>, since: Position) {
        let (log, since) = (self.log(), since.max(*self.stored.lock()));
        let newest = log.newest_snapshots().await.ok().and_then(|stored| stored.first().map(|it| it.id));
        // One of a tail that was lost may have any position, and is of no use.
        let is_there = match newest.filter(|it| it.position > since) {
            Some(newer) => log.holds(newer).await.unwrap_or(false),
            None => false,
        };
        if !is_there {
            self.snapshot().await;
        }
    }

    /// Stores a snapshot of what is applied, and lets the log drop what only older ones need.
    pub(super) async fn snapshot(self: Arc<Self>) {
        let _one = self.snapshotting.lock().await;
        if self.is_held() {
            return; // nobody knows yet whether this is a state of the log
        }
        let log = self.log();
        let shared = Arc::clone(&self);
        let copied = tokio::task::spawn_blocking(move || {
            let applied = shared.applied.read();
            applied.last.map(|last| (last, pieces(&applied.fold).1))
        });
        let Ok(Some((id, pieces))) = copied.await else { return };
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        if let Err(error) = log.put_snapshot(id, Box::new(pieces.into_iter().map(Ok))).await {
            warn!(%error, "a snapshot was not stored; the log keeps what it would have dropped");
            return;
        }
        *self.stored.lock() = id.position;
        self.metrics.snapshot_stored();
        info!(position = id.position.0, bytes, "snapshot stored");
        let Ok(snapshots) = log.newest_snapshots().await else { return };
        if let Some(second) = snapshots.get(1)
            && let Err(error) = log.truncate(second.id.position).await
        {
            warn!(%error, "the log was not truncated");
        }
    }
}

/// The rows are copied under the lock and stored after it, so that a slow disk does not hold up the log.
pub(super) fn pieces(fold: &Fold) -> (StateHash, Vec<Bytes>) {
    let (mut pieces, mut piece) = (Vec::new(), Vec::with_capacity(PIECE));
    let hash = fold.write_snapshot(|bytes| {
        if piece.len() + bytes.len() > PIECE && !piece.is_empty() {
            pieces.push(Bytes::from(std::mem::replace(&mut piece, Vec::with_capacity(PIECE))));
        }
        piece.extend_from_slice(bytes);
    });
    pieces.push(piece.into());
    (hash, pieces)
}

fn outcome(fold: &Fold, record: &Record, verdict: Verdict, touched: Option<u32>) -> Outcome {
    let (mut rows, mut is_whole) = (Vec::new(), true);
    let changed = match record {
        Record::Push(push) => Some((&push.namespace, &push.deltas, Some(push.node))),
        Record::Write(write) => Some((&write.namespace, &write.deltas, None)),
        _ => None,
    };
    if let Some(field) = touched
        && let Some(bound_at) = verdict.bound_at()
        && let Some((namespace, deltas, author)) = changed
        && let Some(view) = fold.namespace(namespace)
    {
        let mut writer = RowWriter::new(&mut rows, field);
        let touched = Touched { deltas, bound_at, author };
        is_whole = view.write_touched(&touched, bounds::CHUNK_MAX as usize, &mut writer);
        writer.finish();
        if !is_whole {
            rows = Vec::new();
        }
    }
    let unheard = match changed {
        Some((_, deltas, _)) if verdict == Verdict::Push(PushVerdict::Unknown) => deltas.clone(),
        _ => Vec::new(),
    };
    Outcome { verdict, revision: fold.revision(), touched: rows, is_whole, unheard }
}
