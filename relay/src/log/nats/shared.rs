//! What appends, readers and snapshots have in common: the way to the broker, and whether the log is still the one
//! that was opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use tokio::time::sleep;

use super::link::Link;
use super::stream::{self, Edges};
use crate::log::nats::frame;
use crate::log::standing::Standing;
use crate::log::{Durability, Health, LogError, LogId, Position, ReadError, StoredFrame};

/// A stream that a server does not find may be one that the server has not read in yet; after these looks it is gone.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) log_id: LogId,
    pub(super) stream: String,
    pub(super) subject: String,
    pub(super) durability: Durability,
    pub(super) replicas: usize,
    pub(super) max_frame_bytes: usize,
    pub(super) standing: Arc<Standing>,
    /// The highest position that the broker has acknowledged to this process.
    acknowledged: AtomicU64,
}

/// What [`Shared::new`] needs to know.
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) log_id: LogId,
    pub(super) stream: String,
    pub(super) durability: Durability,
    pub(super) replicas: usize,
    pub(super) max_frame_bytes: usize,
}

impl Shared {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened { link, log_id, stream, durability, replicas, max_frame_bytes } = opened;
        let subject = stream::subject(&stream, log_id);
        Self {
            standing: Arc::new(Standing::of(&stream)),
            link,
            log_id,
            stream,
            subject,
            durability,
            replicas,
            max_frame_bytes,
            acknowledged: AtomicU64::new(0),
        }
    }

    pub(super) fn health(&self) -> Health {
        let health = self.standing.health();
        if health == Health::Serving && !self.link.is_up() {
            return Health::Unreachable("there is no connection to the broker".to_owned());
        }
        health
    }

    /// Notes an acknowledged position. A place that was given already means that the broker has lost its tail and
    /// grown again; answers whether all is well.
    pub(super) fn acknowledge(&self, position: Position, duplicate: bool) -> bool {
        let before = self.acknowledged.fetch_max(position.0, Ordering::AcqRel);
        let well = duplicate || position.0 > before;
        if !well {
            self.standing.end(ReadError::Regressed { tail: Some(position) });
        }
        well
    }

    /// The highest position that is known to be in the log.
    pub(super) fn acknowledged(&self) -> Position {
        Position(self.acknowledged.load(Ordering::Acquire))
    }

    pub(super) async fn stream_in(&self, context: &Context) -> Result<Stream<()>, LogError> {
        context.get_stream_no_info(&self.stream).await.map_err(failed)
    }

    /// What the log holds now. A stream that is gone, or that was made anew, ends this log.
    pub(super) async fn edges(&self) -> Result<Edges, LogError> {
        self.standing.check_open()?;
        for look in 1..=LOOKS {
            match self.link.context().get_stream(&self.stream).await {
                Ok(stream) => {
                    let info = stream.cached_info();
                    if stream::incarnation(&info.config) == Some(self.log_id) {
                        return Ok(Edges::of(&info.state));
                    }
                    break;
                }
                Err(error) if !stream::is_not_found(&error) => return Err(failed(error)),
                Err(_) if look < LOOKS => sleep(BETWEEN_LOOKS).await,
                Err(_) => {}
            }
        }
        let gone = ReadError::Regressed { tail: None };
        self.standing.end(gone.clone());
        Err(LogError::Read(gone))
    }

    pub(super) async fn frame_at(&self, position: Position) -> Result<Option<StoredFrame>, LogError> {
        use async_nats::jetstream::stream::LastRawMessageErrorKind::{JetStream, NoMessageFound};

        self.standing.check_open()?;
        if position.0 == 0 {
            return Ok(None);
        }
        let stream = self.stream_in(&self.link.context()).await?;
        match stream.get_raw_message(position.0).await {
            Ok(message) => Ok(Some(frame::decode(self.log_id, position, &message.payload)?)),
            Err(error) => match error.kind() {
                NoMessageFound => Ok(None),
                JetStream(inner) if is_no_message(&inner) => Ok(None),
                _ => Err(failed(error)),
            },
        }
    }
}

fn is_no_message(error: &async_nats::jetstream::Error) -> bool {
    error.error_code() == async_nats::jetstream::ErrorCode::NO_MESSAGE_FOUND
}

pub(super) fn failed(error: impl std::error::Error) -> LogError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    LogError::Failed(text)
}
