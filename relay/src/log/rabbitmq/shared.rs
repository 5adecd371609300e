//! What appends, readers and snapshots have in common: the way to the broker, and whether the log is still the one
//! that was opened.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::envelope::{self, Content, Framed, Message, Writer};
use super::feed::{self, Fault, Feed, Start, Stored};
use super::link::{Link, Wire};
use super::room::Room;
use super::stream::{self, Names};
use crate::log::standing::Standing;
use crate::log::{Durability, Health, LogError, LogId, Position, ReadError, StoredFrame};

/// A stream that a server does not find may be one that the server has not read in yet; after these looks it is gone.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);
/// Records that are read at once when the first frame is looked for: only origins lie before it.
const FEW: u16 = 16;

/// The ends of a log. Offsets count all records of the stream, positions are those of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edges {
    /// The offset of the oldest record that is left.
    pub(super) oldest: u64,
    /// The oldest frame that is left.
    pub(super) first: Option<Position>,
    /// The newest frame.
    pub(super) tail: Option<Position>,
    /// The offset of the newest record.
    pub(super) newest: u64,
}

pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) log_id: LogId,
    pub(super) names: Names,
    pub(super) routing_key: String,
    pub(super) durability: Durability,
    pub(super) max_frame_bytes: usize,
    pub(super) room: Mutex<Room>,
    /// Drawn for this log and process: what it writes is told from what others write.
    pub(super) process: u64,
    pub(super) standing: Arc<Standing>,
    /// The newest frame that the broker has acknowledged to this process.
    acknowledged: Mutex<Option<(Writer, u64)>>,
}

/// What [`Shared::new`] needs to know.
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) log_id: LogId,
    pub(super) names: Names,
    pub(super) durability: Durability,
    pub(super) max_frame_bytes: usize,
    pub(super) room: Room,
    pub(super) process: u64,
}

impl Shared {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened { link, log_id, names, durability, max_frame_bytes, room, process } = opened;
        Self {
            standing: Arc::new(Standing::of(&names.log)),
            routing_key: stream::routing_key(&names.log, log_id),
            link,
            log_id,
            names,
            durability,
            max_frame_bytes,
            room: Mutex::new(room),
            process,
            acknowledged: Mutex::default(),
        }
    }

    pub(super) fn health(&self) -> Health {
        let health = self.standing.health();
        if !matches!(health, Health::Serving | Health::StoreFull) {
            return health;
        }
        if let Some(why) = self.link.down() {
            return Health::Unreachable(format!("there is no connection to the broker: {why}"));
        }
        match self.link.blocked() {
            Some(reason) if is_disk(&reason) => Health::StoreFull,
            Some(reason) => Health::Unreachable(format!("the broker takes no messages: {reason}")),
            None => health,
        }
    }

    /// Whether the broker says that its disk is full.
    pub(super) fn disk_is_full(&self) -> bool {
        self.link.blocked().is_some_and(|reason| is_disk(&reason))
    }

    /// Notes an acknowledged frame.
    pub(super) fn acknowledge(&self, writer: Writer, number: u64, len: usize) {
        *self.acknowledged.lock() = Some((writer, number));
        self.room.lock().appended(len);
    }

    /// The newest frame that the broker has acknowledged to this process.
    pub(super) fn acknowledged(&self) -> Option<(Writer, u64)> {
        *self.acknowledged.lock()
    }

    /// Notes a frame that was read.
    pub(super) fn read(&self, position: Position, framed: &Framed) {
        let is_own = framed.writer.process == self.process;
        self.room.lock().read(position.0, framed.frame.len(), is_own);
    }

    /// What the log holds now. A stream that is gone, or that was made anew, ends this log.
    pub(super) async fn edges(&self) -> Result<Edges, LogError> {
        self.ask(|wire| async move { edges(&wire, &self.names.log).await }).await
    }

    /// The newest frame.
    pub(super) async fn tail(&self) -> Result<Option<Position>, LogError> {
        let tail = self
            .ask(|wire| async move {
                let tail = tail(&wire, &self.names.log).await?;
                let id = tail.log_id;
                Ok((tail, id))
            })
            .await?;
        Ok(tail.frame.map(|(position, _)| position))
    }

    /// A frame with what its writer said of it, or `None` if the log does not hold it.
    pub(super) async fn framed_at(&self, position: Position) -> Result<Option<Framed>, LogError> {
        self.standing.check_open()?;
        if position.0 == 0 {
            return Ok(None);
        }
        let stored = self
            .ask(|wire| async move {
                let tail = tail(&wire, &self.names.log).await?;
                let id = tail.log_id;
                if position.0 > tail.newest {
                    return Ok((None, id));
                }
                Ok((Some(feed::at(&wire, &self.names.log, position.0).await?), id))
            })
            .await?;
        let Some(stored) = stored.filter(|stored| stored.offset == position.0) else { return Ok(None) };
        match self.decode(stored)? {
            Content::Frame(framed) => Ok(Some(framed)),
            Content::Origin => Ok(None),
        }
    }

    pub(super) async fn frame_at(&self, position: Position) -> Result<Option<StoredFrame>, LogError> {
        let framed = self.framed_at(position).await?;
        Ok(framed.map(|Framed { record_id, frame, .. }| StoredFrame { position, record_id, frame }))
    }

    /// What a record of the log is. An origin may be of any log: the one that came second is of none.
    pub(super) fn decode(&self, stored: Stored) -> Result<Content, ReadError> {
        let damaged = |detail: &str| ReadError::Damaged {
            position: Position(stored.offset),
            detail: detail.to_owned(),
        };
        let Message { log_id, content } = envelope::decode(stored.data).map_err(damaged)?;
        if log_id != self.log_id && content != Content::Origin {
            return Err(damaged("it belongs to another incarnation of the log"));
        }
        Ok(content)
    }

    /// Puts a question to the broker. The answer comes with the incarnation that the log was found to have.
    async fn ask<T, F>(&self, question: impl Fn(Arc<Wire>) -> F) -> Result<T, LogError>
    where
        F: Future<Output = Result<(T, LogId), Fault>>,
    {
        self.standing.check_open()?;
        for look in 1..=LOOKS {
            let wire = self.link.ready().await?;
            match question(Arc::clone(&wire)).await {
                Ok((answer, id)) if id == self.log_id => return Ok(answer),
                Ok(_) => break,
                Err(Fault::Gone) if look < LOOKS => sleep(BETWEEN_LOOKS).await,
                Err(Fault::Gone) => {}
                Err(fault) => {
                    self.link.replace(&wire);
                    return Err(fault.into());
                }
            }
        }
        let gone = ReadError::Regressed { tail: None };
        self.standing.end(gone.clone());
        Err(LogError::Read(gone))
    }
}

fn is_disk(reason: &str) -> bool {
    reason.contains("disk")
}

/// The end of a log.
pub(super) struct Tail {
    /// The newest frame, if there is one, and what it holds, if that can be read.
    pub(super) frame: Option<(Position, Option<Framed>)>,
    /// The offset of the newest record.
    pub(super) newest: u64,
    /// The incarnation.
    pub(super) log_id: LogId,
}

/// Asks for the newest records, and for those before them while there are only origins.
pub(super) async fn tail(wire: &Wire, stream: &str) -> Result<Tail, Fault> {
    let mut records = feed::last(wire, stream).await?;
    let newest = records.last().map_or(0, |it| it.offset);
    let mut before = None;
    loop {
        let from = records.first().map_or(0, |it| it.offset);
        let mut origin = None;
        for Stored { offset, data } in records.into_iter().rev() {
            match envelope::decode(data) {
                Ok(Message { log_id, content: Content::Origin }) => origin = Some(log_id),
                Ok(Message { log_id, content: Content::Frame(framed) }) => {
                    return Ok(Tail { frame: Some((Position(offset), Some(framed))), newest, log_id });
                }
                // A damaged frame is the tail all the same; its reader says what it is.
                Err(_) => {
                    let log_id = incarnation(feed::first(wire, stream).await?)?;
                    return Ok(Tail { frame: Some((Position(offset), None)), newest, log_id });
                }
            }
        }
        match origin {
            Some(log_id) if from == 0 || before == Some(from) => {
                return Ok(Tail { frame: None, newest, log_id });
            }
            _ => records = feed::span(wire, stream, from.saturating_sub(u64::from(FEW)), from).await?,
        }
        before = Some(from);
    }
}

fn incarnation(first: Stored) -> Result<LogId, Fault> {
    let decoded = envelope::decode(first.data);
    decoded.map(|message| message.log_id).map_err(|detail| Fault::Other(detail.to_owned()))
}

pub(super) async fn edges(wire: &Wire, stream: &str) -> Result<(Edges, LogId), Fault> {
    let Tail { frame, newest, log_id } = tail(wire, stream).await?;
    let mut feed = Feed::open(wire, stream, Start::First, FEW).await?;
    let mut record = feed.next().await?;
    let oldest = record.offset;
    let tail = frame.map(|(position, _)| position);
    let mut first = None;
    while let Some(tail) = tail {
        let origin = matches!(envelope::decode(record.data), Ok(Message { content: Content::Origin, .. }));
        if !origin || record.offset >= tail.0 {
            first = Some(Position(record.offset));
            break;
        }
        record = feed.next().await?;
    }
    Ok((Edges { oldest, first, tail, newest }, log_id))
}
