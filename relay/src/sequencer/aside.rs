//! The state that a log amounts to, built beside whatever is being served: at the start, when the log came back without
//! what this relay has applied, and when it has gone on without this relay.

use dormouse_proto::{
    ids::Revision,
    record::{Frame, Reseed, SnapshotName},
};
use tracing::{info, warn};

use super::{
    Applied, StartError,
    start::{Reading, Told},
    trail::Trail,
};
use crate::{
    log::{Log, LogError, LogReader, Position, ReadError, RecordId, SnapshotId, StoredFrame},
    state::{Fold, Restore, RestoreError},
};

/// A state, and a reader behind the last frame in it.
pub(super) struct Aside {
    pub(super) applied: Applied,
    pub(super) trail: Trail,
    pub(super) reader: Box<dyn LogReader>,
}

impl Aside {
    /// Nothing but what the log says from its beginning on.
    pub(super) fn from_the_beginning(log: &dyn Log) -> Self {
        Self { applied: Applied::default(), trail: Trail::default(), reader: log.read(Position::FIRST) }
    }

    /// All that the log says now. Others may store a newer snapshot meanwhile and the log drop what the one that was loaded
    /// needs, so this goes on for as long as there is another one than was tried.
    pub(super) async fn of_all(log: &dyn Log, told: Told<'_>) -> Result<Self, StartError> {
        loop {
            let tried = newest(log).await?;
            match Self::try_all(log, told).await {
                Err(error) if error.is_of_an_older_snapshot() && newest(log).await? != tried => {
                    info!(%error, "a newer snapshot was stored meanwhile; beginning with that one");
                }
                done => return done,
            }
        }
    }

    async fn try_all(log: &dyn Log, told: Told<'_>) -> Result<Self, StartError> {
        let tail = log.info().await?.tail;
        let (mut aside, mut frames) = (Self::load_telling(log, told).await?, 0);
        aside
            .replay(log, |stored, _| {
                frames += 1;
                told(Reading::Log { frames, at: stored.position, tail });
            })
            .await?;
        Ok(aside)
    }

    /// The newest snapshot that the log still holds the last frame of.
    pub(super) async fn load(log: &dyn Log) -> Result<Self, StartError> {
        Self::load_telling(log, &mut |_| ()).await
    }

    /// As [`Self::load`]; `told` hears of how far it is.
    async fn load_telling(log: &dyn Log, told: Told<'_>) -> Result<Self, StartError> {
        let mut unread = None;
        for snapshot in log.newest_snapshots().await? {
            let id = snapshot.id;
            if !log.holds(id).await? {
                warn!(
                    position = id.position.0,
                    "a snapshot is of a tail that the log has lost; trying an older one"
                );
                continue;
            }
            let mut told = |bytes| told(Reading::Snapshot { bytes, of: snapshot.stored_bytes });
            match restore(log, id, &mut told).await {
                Ok(fold) => {
                    info!(position = id.position.0, revision = fold.revision().0, "snapshot loaded");
                    let mut trail = Trail::default();
                    trail.note(id, fold.revision());
                    let applied = Applied { fold, last: Some(id) };
                    return Ok(Self { applied, trail, reader: log.read(id.position.next()) });
                }
                Err(error) => {
                    warn!(position = id.position.0, %error, "a snapshot cannot be used; trying an older one");
                    if let Unusable::Log(error @ LogError::Failed(_)) = error {
                        unread = Some(error);
                    }
                }
            }
        }
        match log.info().await?.first {
            // One that could not be read now may be the next time.
            Some(first) if first > Position::FIRST => {
                Err(unread.map_or(StartError::NoSnapshot { first }, StartError::Log))
            }
            _ => Ok(Self::from_the_beginning(log)),
        }
    }

    /// Applies everything that is in the log now; `each` hears of every frame.
    pub(super) async fn replay(
        &mut self,
        log: &dyn Log,
        mut each: impl FnMut(&StoredFrame, &Frame),
    ) -> Result<(), StartError> {
        loop {
            let batch = self.reader.next_batch().await?;
            for stored in &batch.frames {
                let frame = self.apply(log, stored).await?;
                each(stored, &frame);
            }
            if batch.at_tail {
                return Ok(());
            }
        }
    }

    /// Applies one frame.
    pub(super) async fn apply(&mut self, log: &dyn Log, stored: &StoredFrame) -> Result<Frame, StartError> {
        let Self { applied: Applied { fold, last }, trail, .. } = self;
        let frame = Frame::decode(&stored.frame)
            .map_err(|error| StartError::Frame(format!("position {}: {error}", stored.position)))?;
        if let Some(reseed) = fold.wants(&frame) {
            let lost = fetch(log, reseed).await;
            fold.give(
                lost.map_err(|why| StartError::Seed { position: stored.position, why: why.to_string() })?,
            );
        }
        fold.apply_frame(&frame, |_, _, _, _| ());
        *last = Some(SnapshotId::of(stored));
        trail.note(SnapshotId::of(stored), fold.revision());
        while fold.tidy() {}
        Ok(frame)
    }

    /// The revision of the state.
    pub(super) fn revision(&self) -> Revision {
        self.applied.fold.revision()
    }
}

async fn newest(log: &dyn Log) -> Result<Option<SnapshotId>, LogError> {
    Ok(log.newest_snapshots().await?.first().map(|it| it.id))
}

impl StartError {
    /// Whether a newer snapshot may help.
    fn is_of_an_older_snapshot(&self) -> bool {
        matches!(self, Self::Read(ReadError::Truncated { .. }) | Self::NoSnapshot { .. } | Self::Seed { .. })
    }
}

/// Why a stored state cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("it has another hash than the record says")]
    Another,
}

async fn restore(
    log: &dyn Log,
    id: SnapshotId,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<Fold, Unusable> {
    let mut chunks = log.load_snapshot(id).await?;
    let (mut restore, mut bytes) = (Restore::new(), 0);
    while let Some(chunk) = chunks.next_chunk().await? {
        restore.take(&chunk)?;
        bytes += chunk.len() as u64;
        told(bytes);
    }
    Ok(restore.finish()?)
}

/// The state that a Reseed refers to.
pub(super) async fn fetch(log: &dyn Log, reseed: &Reseed) -> Result<Fold, Unusable> {
    let SnapshotName { position, session, counter, crc } = reseed.snapshot;
    let record_id = RecordId { session, counter };
    let id = SnapshotId { position: Position(position), record_id, crc };
    let fold = restore(log, id, &mut |_| ()).await?;
    if fold.hash().0 == reseed.hash { Ok(fold) } else { Err(Unusable::Another) }
}
