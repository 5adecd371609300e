//! Readers: stream consumers that are made anew whenever there is a doubt about them.
//!
//! A broker starts silently at the first record it still has, and waits silently behind its tail. So a reader believes
//! nothing. It starts at a record that is known to be there, compares the frame that it delivered last, and looks at
//! the stream whenever it has heard nothing for [`SILENCE`]. If the log is not at its end then, it makes a new
//! connection, and after [`ATTEMPTS`] failures it says that it is stalled.
//!
//! The broker writes a record of its own at the head of each segment, which takes an offset and is never delivered. So
//! a gap is passed over, but only when a second consumer finds the same gap in a stretch that was not truncated; that
//! no frame was lost in it, [`Chain`] tells.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::chain::Chain;
use super::envelope::{Content, Framed};
use super::feed::{Fault, Feed, Start, Stored};
use super::link::{LinkState, Wire};
use super::shared::{Edges, Shared};
use crate::log::{Batch, BoxFuture, LogError, LogReader, Position, ReadError, SnapshotId, StoredFrame};

/// Without a record for so long, the stream is asked whether there should have been one.
const SILENCE: Duration = Duration::from_secs(2);
/// Failures after which the caller is told.
const ATTEMPTS: u32 = 6;
/// Pause behind a failure, multiplied by how many there were.
const PAUSE: Duration = Duration::from_millis(100);
/// Records that the broker sends ahead. With frames of 60 KiB that is 12 MiB.
const PREFETCH: u16 = 200;
/// Frames of one batch.
const BATCH_FRAMES: usize = 128;

/// A consumer, and where its next record must be from.
struct Following {
    wire: Arc<Wire>,
    feed: Feed,
    expects: u64,
}

/// A gap between offsets: the one that was expected, and the one that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    expected: u64,
    came: u64,
}

/// What was heard of a consumer.
enum Heard {
    Record(Stored),
    Fault(Fault),
    /// The connection has changed.
    Broken,
    Silence,
}

/// Why there are no frames.
enum Trouble {
    /// The caller has to know.
    Told(ReadError),
    /// It may pass; the text says what it is.
    Passing(String),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Read(told) => Self::Told(told),
            LogError::Closed => Self::Told(ReadError::Closed),
            other => Self::Passing(other.to_string()),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Told(error)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Passing(fault.to_string())
    }
}

pub(super) struct RabbitReader {
    shared: Arc<Shared>,
    link: watch::Receiver<LinkState>,
    end: watch::Receiver<Option<ReadError>>,
    next: Position,
    /// The newest frame that this reader has delivered.
    last: Option<SnapshotId>,
    /// The tail that the log had when the consumer was made.
    tail: Option<Position>,
    told_at_tail: bool,
    chain: Chain,
    /// A gap that one consumer has found.
    gap: Option<Gap>,
    following: Option<Following>,
    failures: u32,
}

impl RabbitReader {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Self {
        let (link, end) = (shared.link.watch(), shared.standing.watch_end());
        Self {
            shared,
            link,
            end,
            next: from.max(Position::FIRST),
            last: None,
            tail: None,
            told_at_tail: false,
            chain: Chain::default(),
            gap: None,
            following: None,
            failures: 0,
        }
    }

    async fn advance(&mut self) -> Result<Batch, ReadError> {
        loop {
            if let Some(ended) = self.shared.standing.ended() {
                return Err(ended);
            }
            match self.step().await {
                Ok(Some(batch)) => {
                    self.failures = 0;
                    return Ok(batch);
                }
                Ok(None) => {}
                Err(Trouble::Told(error)) => {
                    self.following = None;
                    return Err(error);
                }
                Err(Trouble::Passing(why)) => self.recover(&why).await?,
            }
        }
    }

    /// One thing after the other, until there is something to deliver.
    async fn step(&mut self) -> Result<Option<Batch>, Trouble> {
        let Some(following) = &mut self.following else { return self.start().await };
        following.feed.acknowledge().await?;
        let heard = tokio::select! {
            biased;
            _ = self.end.changed() => return Ok(None),
            heard = timeout(SILENCE, following.feed.wait()) => match heard {
                Ok(Ok(record)) => Heard::Record(record),
                Ok(Err(fault)) => Heard::Fault(fault),
                Err(_) => Heard::Silence,
            },
            _ = self.link.changed() => Heard::Broken,
        };
        match heard {
            Heard::Record(first) => self.take(first),
            Heard::Fault(fault) => Err(fault.into()),
            Heard::Broken => {
                self.following = None;
                Ok(None)
            }
            Heard::Silence => self.judge_silence().await,
        }
    }

    /// Makes a consumer at the frame that was delivered last, so that it can be compared.
    async fn start(&mut self) -> Result<Option<Batch>, Trouble> {
        self.link.mark_unchanged();
        let wire = self.shared.link.ready().await?;
        let edges = self.shared.edges().await?;
        self.check(&edges)?;
        let from = match self.last {
            Some(last) if last.position.0 >= edges.oldest => last.position.0,
            _ => self.next.0,
        };
        // Right behind the tail nothing is there yet. What lies before `next` is passed over.
        let expects = from.min(edges.newest);
        let feed = Feed::open(&wire, &self.shared.names.log, Start::At(expects), PREFETCH).await?;
        self.following = Some(Following { wire, feed, expects });
        self.tail = edges.tail;
        if edges.tail.is_none_or(|tail| tail < self.next) && !self.told_at_tail {
            self.told_at_tail = true;
            return Ok(Some(Batch { frames: Vec::new(), at_tail: true }));
        }
        Ok(None)
    }

    fn check(&self, edges: &Edges) -> Result<(), ReadError> {
        if self.next.0 < edges.oldest {
            Err(ReadError::Truncated { first: edges.first.unwrap_or(Position(edges.oldest)) })
        } else if self.next.0 > edges.newest + 1 {
            Err(ReadError::Regressed { tail: edges.tail })
        } else {
            Ok(())
        }
    }

    /// Delivers a record and those that have arrived behind it. Nothing is awaited here, so that a call that is dropped
    /// loses nothing.
    fn take(&mut self, first: Stored) -> Result<Option<Batch>, Trouble> {
        let mut frames = Vec::new();
        let mut record = Some(first);
        while let Some(stored) = record.take() {
            let position = Position(stored.offset);
            let Some(following) = &mut self.following else { break };
            if stored.offset != following.expects && !self.passes_over(stored.offset)? {
                return Ok(self.deliver(frames));
            }
            match self.examine(stored) {
                Ok(frame) => frames.extend(frame),
                // What lies before the damage is delivered first.
                Err(_) if !frames.is_empty() => {
                    self.following = None;
                    break;
                }
                Err(damage) => return Err(damage.into()),
            }
            if let Some(following) = &mut self.following {
                following.expects = position.next().0;
                record = if frames.len() < BATCH_FRAMES { following.feed.arrived() } else { None };
            }
        }
        Ok(self.deliver(frames))
    }

    /// The frame in a record, if it is one that was not delivered yet.
    fn examine(&mut self, stored: Stored) -> Result<Option<StoredFrame>, ReadError> {
        let position = Position(stored.offset);
        let Content::Frame(framed) = self.shared.decode(stored)? else { return Ok(None) };
        let is_new = position >= self.next;
        if is_new {
            self.chain.follow(framed.writer, framed.number).map_err(|missed| ReadError::Damaged {
                position,
                detail: format!("frame {missed} of its writer should have come before it"),
            })?;
            self.shared.read(position, &framed);
        }
        let Framed { record_id, frame, .. } = framed;
        let stored = StoredFrame { position, record_id, frame };
        if is_new {
            return Ok(Some(stored));
        }
        self.compare(&stored).map(|()| None)
    }

    /// What this reader has delivered must still be there: a tail that was lost and has grown again fits by number.
    fn compare(&self, stored: &StoredFrame) -> Result<(), ReadError> {
        match self.last {
            Some(last) if last.position == stored.position && last != SnapshotId::of(stored) => {
                let tail = stored.position.0.checked_sub(1).filter(|it| *it > 0).map(Position);
                Err(ReadError::Regressed { tail })
            }
            _ => Ok(()),
        }
    }

    /// Whether a gap was found before by another consumer. One that is new is looked into with another consumer; if the
    /// log was truncated meanwhile, that says so.
    fn passes_over(&mut self, came: u64) -> Result<bool, Trouble> {
        let Some(following) = &mut self.following else { return Ok(false) };
        let gap = Gap { expected: following.expects, came };
        if came < gap.expected {
            return Err(Trouble::Passing("records came out of order".to_owned()));
        }
        let known = self.gap == Some(gap);
        if known {
            tracing::debug!(?gap, "offsets that the broker uses itself");
        } else {
            self.gap = Some(gap);
            self.following = None;
        }
        Ok(known)
    }

    fn deliver(&mut self, frames: Vec<StoredFrame>) -> Option<Batch> {
        let last = frames.last()?;
        self.next = last.position.next();
        self.last = Some(SnapshotId::of(last));
        let at_tail = self.following.is_some() && self.tail.is_none_or(|tail| tail < self.next);
        self.told_at_tail = at_tail;
        Some(Batch { frames, at_tail })
    }

    async fn judge_silence(&mut self) -> Result<Option<Batch>, Trouble> {
        let edges = self.shared.edges().await?;
        self.check(&edges)?;
        if edges.tail.is_some_and(|tail| tail >= self.next) {
            return Err(Trouble::Passing(format!("nothing comes although the log ends at {}", edges.newest)));
        }
        if let Some(last) = self.last
            && last.position.0 >= edges.oldest
        {
            let stored = self.shared.frame_at(last.position).await?;
            let same = stored.is_some_and(|stored| SnapshotId::of(&stored) == last);
            if !same {
                return Err(ReadError::Regressed { tail: edges.tail }.into());
            }
        }
        if let Some((writer, number)) = self.shared.acknowledged()
            && self.chain.newest_of(writer).is_some_and(|newest| newest < number)
        {
            return Err(Trouble::Passing(
                "a frame that the broker has acknowledged does not come".to_owned(),
            ));
        }
        self.failures = 0;
        Ok(None)
    }

    async fn recover(&mut self, why: &str) -> Result<(), ReadError> {
        let wire = self.following.take().map_or_else(|| self.shared.link.wire(), |it| it.wire);
        self.failures += 1;
        tracing::warn!(why, failures = self.failures, next = self.next.0, "the log is read anew");
        if self.failures >= ATTEMPTS {
            self.failures = 0;
            return Err(self.missing().await);
        }
        self.shared.link.replace(&wire);
        sleep(PAUSE * self.failures).await;
        Ok(())
    }

    /// Why nothing can be delivered: what the broker has acknowledged is not there, or it does not deliver at all.
    async fn missing(&self) -> ReadError {
        let acknowledged = self.shared.acknowledged();
        let owed = acknowledged
            .is_some_and(|(writer, number)| self.chain.newest_of(writer).is_some_and(|it| it < number));
        match self.shared.tail().await {
            Ok(tail) if owed && tail.is_none_or(|tail| tail < self.next) => ReadError::Regressed { tail },
            _ => ReadError::Stalled,
        }
    }
}

impl LogReader for RabbitReader {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Batch, ReadError>> {
        Box::pin(self.advance())
    }
}
