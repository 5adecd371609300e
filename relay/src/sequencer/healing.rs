//! Gives a log back what it has lost, if this relay still holds it and nothing has taken effect since; or follows whoever did.
//!
//! Meanwhile what was applied is still shown, and nothing is written but what the healing takes: an Open, a snapshot beside
//! the log, and the Reseed that refers to it. What [`regression`](super::regression) decides is done here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dormouse_proto::{
    ids::Revision,
    record::{FrameBuilder, Record, Reseed, SnapshotName},
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{
    Gate, LogFacts, PendingFrame, Shared, StartError, Trouble, Unwritten,
    aside::Aside,
    copy::telling,
    reader::pieces,
    regression::{Behind, Cut, Decision, Waited},
    start,
    survey::{Survey, survey},
    writer::{self, OTHERS, RETRY},
};
use crate::{
    log::{Appended, Log, LogError, LogInfo, LogReader, Position, ReadError, RecordId, SnapshotId},
    metrics::Reseeding,
};

/// Wait before a log that could not be healed now is looked at anew.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the relay that holds the most has for storing its state, before the next one does it.
const FIRST: Duration = Duration::from_secs(15);
/// No connection has this number.
const NONE: u64 = u64::MAX;

/// Why it did not work out.
pub(super) enum Failure {
    /// It may the next time.
    Passing(String),
    /// What the log has lost is lost.
    Final(String),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Passing(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Log(_) | StartError::Read(_) | StartError::Seed { .. } => {
                Self::Passing(error.to_string())
            }
            _ => Self::Final(error.to_string()),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Passing(error.to_string())
    }
}

/// The log came back without what this relay has applied. Answers with a reader behind what is applied when that is over.
///
/// # Errors
/// A sentence, if the log has gone on without it, or it does not remember enough.
pub(super) async fn heal(shared: &Arc<Shared>, why: &str) -> Result<Box<dyn LogReader>, String> {
    warn!(
        why,
        "the log came back without frames that this relay holds; nothing is written until that is settled"
    );
    let others = shared.others();
    shared.hold(why);
    loop {
        match attempt(shared, &others).await {
            Ok(reader) => return Ok(reader),
            Err(Failure::Passing(error)) => {
                warn!(error, "the log cannot be healed yet; trying again");
                shared.progress(&format!("{why}; it cannot be healed yet: {error}"));
                sleep(PAUSE).await;
            }
            Err(Failure::Final(error)) => {
                shared.metrics.reseeded(Reseeding::LogWon);
                return Err(format!("{why}; {error}"));
            }
        }
    }
}

/// What comes next in the log is gone, because a newer snapshot took its place: begins with that one.
///
/// # Errors
/// A sentence, if no snapshot can be used.
pub(super) async fn begin_anew(shared: &Arc<Shared>, why: &str) -> Result<Box<dyn LogReader>, String> {
    warn!(why, "the log has gone on without this relay, which begins anew with the newest snapshot of it");
    shared.hold(why);
    loop {
        match load_anew(shared).await {
            Ok(reader) => return Ok(reader),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error)) => {
                warn!(error, "there is no snapshot to begin anew with yet; trying again");
                shared.progress(&format!("{why}; beginning anew with the newest snapshot: {error}"));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn load_anew(shared: &Arc<Shared>) -> Result<Box<dyn LogReader>, Failure> {
    let (log, info) = reopened(shared).await?;
    if info.log_id != shared.facts.read().id {
        return Err(Failure::Final(
            "it was made anew, so nothing of what this relay holds is in it".to_owned(),
        ));
    }
    let aside = Aside::of_all(&*log, &mut |_| ()).await?;
    let reader = shared.adopt(Adopted { log, info, aside });
    // What this relay wrote may be in the part that it has skipped, where nobody saw what became of it; and what was read back
    // before may have been of a tail that is lost.
    shared.answer_that_it_is_unknown(|_| true);
    shared.let_go(NONE);
    Ok(reader)
}

/// The log as it is now: a handle that has ended stays so.
async fn reopened(shared: &Shared) -> Result<(Arc<dyn Log>, LogInfo), Failure> {
    let log = shared.log().reopen().await?.unwrap_or_else(|| shared.log());
    let info = log.info().await?;
    if info.durability < shared.facts.read().durability {
        return Err(Failure::Final(format!("it promises less now: {:?}", info.durability)));
    }
    Ok((log, info))
}

async fn attempt(shared: &Arc<Shared>, others: &[u64]) -> Result<Box<dyn LogReader>, Failure> {
    let (log, info) = reopened(shared).await?;
    let Survey { cut, mut behind, upto } = survey(shared, &*log, &info).await?;
    let Some(cut) = cut else {
        return Err(Failure::Final("it has lost more than this relay remembers the places of".to_owned()));
    };
    if shared.applied.read().last.is_some_and(|last| last.position == cut.position) {
        info!("the log has lost nothing after all");
        sleep(PAUSE).await;
        return Ok(shared.resume(log));
    }
    let connection = log.connection();
    let mut aside = Aside::load(&*log).await?;
    aside
        .replay(&*log, |stored, frame| {
            if stored.position > upto {
                behind.note(frame);
            }
        })
        .await?;
    let mut attempt = Attempt { shared, log, connection, cut, aside, behind, opened: None, is_sent: false };
    let by = attempt.run(others).await?;
    let Attempt { log, aside, opened, .. } = attempt;
    let connection = if opened.is_some() { connection } else { NONE };
    let outcome = if by == shared.session { Reseeding::Healed } else { Reseeding::HealedByAnother };
    let reader = shared.adopt(Adopted { log, info, aside });
    // Frames that the log had acknowledged and that never came back were in its lost tail, and nobody has applied them.
    shared.answer_that_it_is_unknown(|frame| frame.committed && frame.outcomes.is_none());
    shared.metrics.reseeded(outcome);
    shared.let_go(connection);
    if outcome == Reseeding::Healed {
        // Whoever comes later need not look for the state that the record refers to, which no other snapshot keeps.
        tokio::spawn(Arc::clone(shared).snapshot());
    }
    Ok(reader)
}

/// One try over one connection.
struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    log: Arc<dyn Log>,
    connection: u64,
    cut: Cut,
    aside: Aside,
    behind: Behind,
    /// When the Open of this relay went out.
    opened: Option<Instant>,
    /// Whether its Reseed has.
    is_sent: bool,
}

impl Attempt<'_> {
    /// Waits until somebody has healed the log; answers which session.
    async fn run(&mut self, others: &[u64]) -> Result<u64, Failure> {
        let (me, holds) = (self.shared.session, self.shared.applied.read().fold.revision());
        loop {
            let waited = match self.opened.map(|at| at.elapsed()) {
                Some(it) if it >= FIRST => Waited::ForTheFirst,
                Some(it) if it >= OTHERS => Waited::ForAll,
                _ => Waited::Shortly,
            };
            match self.behind.decide(me, holds, others.iter().copied(), waited) {
                Decision::Follow(session) => return Ok(session),
                Decision::LogWins { by, kind } => {
                    return Err(Failure::Final(format!(
                        "relay {by:016x} has written a {kind} to it since, so the log counts as it is"
                    )));
                }
                Decision::Heal if !self.is_sent => self.heal().await?,
                Decision::Wait if self.opened.is_none() => self.open(holds).await?,
                Decision::Heal | Decision::Wait => self.read_on().await?,
            }
            if self.log.connection() != self.connection {
                return Err(Failure::Passing("the connection was lost meanwhile".to_owned()));
            }
        }
    }

    /// Tells the others that this relay is there, and how much it holds.
    async fn open(&mut self, holds: Revision) -> Result<(), Failure> {
        self.shared.progress("the log has lost frames that this relay holds: asking the others");
        let base = self.base(holds)?;
        let counter = self.shared.outgoing.next();
        let header = self.shared.header_at(counter, &self.shared.applied.read());
        let mut frame = FrameBuilder::default();
        frame.push(Record::Open { base });
        self.append(counter, frame.finish(header)).await?;
        self.opened = Some(Instant::now());
        Ok(())
    }

    fn base(&self, holds: Revision) -> Result<Revision, Failure> {
        let above = holds.max(self.aside.revision());
        start::next_base(above).map_err(|error| Failure::Passing(error.to_string()))
    }

    /// Stores what this relay holds, and appends the record that refers to it.
    async fn heal(&mut self) -> Result<(), Failure> {
        self.shared.progress("the log has lost frames that this relay holds: storing its state");
        let (id, hash, holds, body) = self.copy().await?;
        let bytes: usize = body.iter().map(Bytes::len).sum();
        info!(cut = self.cut.position.0, safe = %self.cut.safe, bytes, "giving the log back what it has lost");
        self.log.put_snapshot(id, telling(body)).await?;
        let Cut { position, record_id, safe } = self.cut;
        let RecordId { session, counter } = id.record_id;
        let reseed = Reseed {
            position: position.0,
            record_id: (record_id.session, record_id.counter),
            safe,
            snapshot: SnapshotName { position: id.position.0, session, counter, crc: id.crc },
            hash,
            base: self.base(holds)?,
        };
        let counter = self.shared.outgoing.next();
        let mut frame = FrameBuilder::default();
        frame.push(Record::Reseed(reseed));
        let header = self.shared.header_at(counter, &self.aside.applied);
        self.append(counter, frame.finish(header)).await?;
        self.is_sent = true;
        Ok(())
    }

    async fn copy(&mut self) -> Result<(SnapshotId, u128, Revision, Vec<Bytes>), Failure> {
        let shared = Arc::clone(self.shared);
        let copied = tokio::task::spawn_blocking(move || {
            let applied = shared.applied.read();
            let fold = &applied.fold;
            applied.last.map(|last| {
                let (hash, pieces) = pieces(fold);
                (last, hash.0, fold.revision(), pieces)
            })
        });
        let copied = copied.await.map_err(|error| Failure::Passing(error.to_string()))?;
        copied.ok_or_else(|| Failure::Final("this relay has applied nothing".to_owned()))
    }

    async fn append(&mut self, counter: u64, frame: Vec<u8>) -> Result<(), Failure> {
        let (id, frame) = (RecordId { session: self.shared.session, counter }, Bytes::from(frame));
        loop {
            match self.log.append_over(self.connection, id, frame.clone()).await {
                Appended::Committed { .. } => return Ok(()),
                Appended::Rejected(rejection) => return Err(Failure::Passing(rejection.to_string())),
                Appended::Unknown if self.log.connection() != self.connection => {
                    return Err(Failure::Passing("the connection was lost meanwhile".to_owned()));
                }
                Appended::Unknown => sleep(RETRY).await,
            }
        }
    }

    /// Reads what has come, or waits a little for it.
    async fn read_on(&mut self) -> Result<(), Failure> {
        let batch = tokio::select! {
            batch = self.aside.reader.next_batch() => batch?,
            () = sleep(RETRY) => return Ok(()),
        };
        for stored in &batch.frames {
            let frame = self.aside.apply(&*self.log, stored).await?;
            self.behind.note(&frame);
        }
        Ok(())
    }
}

/// What takes the place of what was applied and written to.
struct Adopted {
    log: Arc<dyn Log>,
    info: LogInfo,
    aside: Aside,
}

impl Shared {
    /// Nothing goes out from here on.
    fn hold(&self, why: &str) {
        self.gate.send_replace(Gate::Held);
        self.progress(why);
    }

    /// Tells how it goes.
    fn progress(&self, how: &str) {
        self.trouble.send_replace(Trouble::Passing(how.to_owned()));
    }

    /// What was applied is still what the log holds.
    fn resume(&self, log: Arc<dyn Log>) -> Box<dyn LogReader> {
        let next = self.applied.read().last.map_or(Position::FIRST, |last| last.position.next());
        let reader = log.read(next);
        *self.log.write() = log;
        self.let_go(NONE);
        reader
    }

    fn adopt(&self, adopted: Adopted) -> Box<dyn LogReader> {
        let Adopted { log, info, aside: Aside { applied, trail, reader } } = adopted;
        let revision = applied.fold.revision();
        *self.facts.write() = Arc::new(LogFacts::of(&*log, &info));
        *self.log.write() = log;
        *self.trail.lock() = trail;
        {
            let mut served = self.applied.write();
            *served = applied;
            self.witness.witness_anew(&served.fold, self.session);
        }
        self.revision.send_replace(revision);
        info!(%revision, "the log is followed again");
        reader
    }

    /// Answers whoever waits for such frames.
    fn answer_that_it_is_unknown(&self, which: impl Fn(&PendingFrame) -> bool) {
        let pending = self.pending.lock();
        let unknown = pending.iter().filter(|(_, frame)| which(frame));
        let unknown: Vec<u64> = unknown.map(|(counter, _)| *counter).collect();
        drop(pending);
        for counter in unknown {
            writer::refused(self, counter, Unwritten::Unreachable);
        }
    }

    /// Frames go out again. `connection`: over which the session was opened; [`NONE`]: over none yet.
    fn let_go(&self, connection: u64) {
        self.outgoing.is_opened_on(connection);
        self.trouble.send_replace(Trouble::None);
        self.gate.send_replace(Gate::Open);
    }
}
