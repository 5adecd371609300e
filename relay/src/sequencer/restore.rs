//! Puts the state of a backup into a log that is empty.
//!
//! The backup is stored as a snapshot, and the first record of the log, a Reseed, puts that in the place of nothing. So every
//! relay that reads the log from its beginning comes to the same state, on whatever the log is kept. What was shown by the log
//! that the backup is of is valid here nowhere: whoever comes with it is told so and starts over.

use std::time::Duration;

use bytes::Bytes;
use dormouse_proto::{
    ids::Revision,
    record::{Frame, FrameBuilder, FrameHeader, Record, Reseed, SnapshotName},
};
use tokio::time::{Instant, sleep};

use super::{
    StartError,
    aside::Aside,
    copy::{Counts, telling},
    reader::pieces,
};
use crate::{
    clock::Clock,
    log::{Appended, Log, LogError, Position, ReadError, RecordId, Rejection, SnapshotBody, SnapshotId},
    state::StateHash,
};

/// How far the revision jumps at the least. The log that the backup is of may have been opened thousands of times since then,
/// each time with a jump of up to 2^37, and none of what it gave out may be given again.
const JUMP: u64 = 1 << 50;
/// How long the log may leave open whether it has the record.
const PATIENCE: Duration = Duration::from_secs(60);
/// Wait before it is asked again.
const RETRY: Duration = Duration::from_millis(50);

/// A log was not restored.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// There is something in it.
    #[error(
        "this log is not empty: it holds frames up to position {0}. A backup is restored into an empty log only, and \
         nothing was written: name another data_dir or another stream, or move the old one away"
    )]
    NotEmpty(Position),
    /// Another relay was faster.
    #[error(
        "another relay has written to this log meanwhile, so the backup was not restored: stop every relay, empty the log, and \
         restore again"
    )]
    Overtaken,
    /// The log could not be asked or written to.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was written could not be applied.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The record was refused.
    #[error("the log did not take the record: {0}")]
    Rejected(#[from] Rejection),
    /// Nobody can say whether the record is there.
    #[error("the log did not say whether it has the record: start a relay on it and look")]
    Unknown,
    /// The kernel gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// What a restored log amounts to.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// Where it goes on.
    pub revision: Revision,
    /// What is in it.
    pub counts: Counts,
}

/// Refuses a log that has something in it.
///
/// # Errors
/// [`NotRestored`].
pub async fn check_empty(log: &dyn Log) -> Result<(), NotRestored> {
    let info = log.info().await?;
    match log.barrier().await?.or(info.tail).or(info.first) {
        Some(tail) => Err(NotRestored::NotEmpty(tail)),
        None => Ok(()),
    }
}

/// Makes `body`, the snapshot of a state with that hash, the beginning of an empty log. `named`: the last frame that it
/// covers, in the log that it is of; `head`: its revision.
///
/// # Errors
/// [`NotRestored`]; unless it says otherwise, the log is as empty as it was.
pub async fn restore(
    log: &dyn Log,
    named: SnapshotId,
    hash: StateHash,
    head: Revision,
    body: SnapshotBody,
) -> Result<Restored, NotRestored> {
    check_empty(log).await?;
    log.put_snapshot(named, body).await?;
    let SnapshotId { position, record_id, crc } = named;
    let RecordId { session, counter } = record_id;
    let reseed = Reseed {
        position: 0,
        record_id: (0, 0),
        safe: Revision::ZERO,
        snapshot: SnapshotName { position: position.0, session, counter, crc },
        hash: hash.0,
        base: Revision(head.0.saturating_add(JUMP).saturating_add(getrandom::u64()? % JUMP)),
    };
    let id = RecordId { session: getrandom::u64()?, counter: 1 };
    append(log, id, reseed).await?;
    let mut aside = read_back(log, id).await?;
    // A start from here on needs not look for the state that the record refers to, which no later snapshot keeps.
    if let Some(last) = aside.applied.last {
        let (_, pieces) = pieces(&aside.applied.fold);
        log.put_snapshot(last, telling(pieces)).await?;
    }
    let fold = std::mem::take(&mut aside.applied.fold);
    Ok(Restored { revision: fold.revision(), counts: Counts::of(&fold) })
}

async fn append(log: &dyn Log, id: RecordId, reseed: Reseed) -> Result<(), NotRestored> {
    let mut frame = FrameBuilder::default();
    frame.push(Record::Reseed(reseed));
    let RecordId { session, counter } = id;
    let header = FrameHeader { session, counter, stamp_ms: Clock::wall_ms(), ..FrameHeader::default() };
    let frame = Bytes::from(frame.finish(header));
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        // Twice is harmless: the second one is void.
        match log.append(id, frame.clone()).await {
            Appended::Committed { .. } => return Ok(()),
            Appended::Rejected(rejection) => return Err(rejection.into()),
            Appended::Unknown => sleep(RETRY).await,
        }
    }
    Err(NotRestored::Unknown)
}

/// What the log amounts to once the record has come back from it and has taken effect.
async fn read_back(log: &dyn Log, id: RecordId) -> Result<Aside, NotRestored> {
    let mut aside = Aside::from_the_beginning(log);
    loop {
        for stored in aside.reader.next_batch().await?.frames {
            let is_ours = stored.record_id == id;
            let takes_effect =
                Frame::decode(&stored.frame).is_ok_and(|frame| aside.applied.fold.wants(&frame).is_some());
            aside.apply(log, &stored).await?;
            match (is_ours, takes_effect) {
                (true, true) => return Ok(aside),
                (true, false) => return Err(NotRestored::Overtaken),
                (false, _) => {}
            }
        }
    }
}
