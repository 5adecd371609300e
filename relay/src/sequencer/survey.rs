//! How much of what was applied a log still holds, and what it holds instead.

use dormouse_proto::record::Frame;

use super::{
    Shared,
    healing::Failure,
    regression::{Behind, Cut},
    trail::{Step, Trail},
};
use crate::log::{Log, LogError, LogInfo, Position, ReadError};

/// What a log holds, held against what this relay remembers of it.
pub(super) struct Survey {
    /// The last place at which they agree; `None`: it is not remembered any more.
    pub(super) cut: Option<Cut>,
    /// What lies behind that.
    pub(super) behind: Behind,
    /// Up to where the log was read.
    pub(super) upto: Position,
}

/// Whether the log still holds every frame that was applied, as far as they are remembered.
pub(super) async fn holds_all(shared: &Shared, log: &dyn Log) -> Result<bool, LogError> {
    let info = log.info().await?;
    let survey = survey(shared, log, &info).await;
    let last = shared.applied.read().last.map_or(Cut::NOTHING.position, |last| last.position);
    match survey {
        Ok(survey) => Ok(survey.cut.is_some_and(|cut| cut.position == last)),
        Err(Failure::Passing(error)) => Err(LogError::Failed(error)),
        Err(Failure::Final(_)) => Ok(false),
    }
}

/// Reads a log from the oldest place that is remembered on: a tail that was lost and grew again agrees here and there behind the cut,
/// where frames of before were sent once more.
pub(super) async fn survey(shared: &Shared, log: &dyn Log, info: &LogInfo) -> Result<Survey, Failure> {
    let is_another = info.log_id != shared.facts.read().id;
    let remembered = if is_another { Trail::default() } else { shared.trail.lock().clone() };
    let first = info.first.unwrap_or(Position::FIRST);
    let oldest = remembered.first().map_or(Position::FIRST, |step| step.position);
    let from = first.max(oldest);
    let mut steps = remembered.within(from, Position(u64::MAX - 1)).peekable();
    // Nothing that was applied is older than the first frame of all.
    let nothing = is_another || (oldest == Position::FIRST && from == Position::FIRST);
    let mut survey =
        Survey { cut: nothing.then_some(Cut::NOTHING), behind: Behind::default(), upto: Position(0) };
    let (mut reader, mut agree) = (log.read(from), true);
    loop {
        let batch = match reader.next_batch().await {
            // It ends before the oldest place that is remembered.
            Err(ReadError::Regressed { .. }) => return Ok(survey),
            batch => batch?,
        };
        for stored in &batch.frames {
            let same = |step: &Step| step.position == stored.position && step.record_id == stored.record_id;
            agree &= steps.peek().is_some_and(same);
            if agree {
                survey.cut = steps.next().map(Cut::from);
            } else {
                let frame =
                    Frame::decode(&stored.frame).map_err(|error| Failure::Final(error.to_string()))?;
                survey.behind.note(&frame);
            }
            survey.upto = stored.position;
        }
        if batch.at_tail {
            return Ok(survey);
        }
    }
}
