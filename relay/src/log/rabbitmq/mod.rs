//! The log on `RabbitMQ`: one stream, one record per frame, a record's offset as its position.
//!
//! | | where |
//! |---|---|
//! | the incarnation of the log | in the record at the offset 0, in the routing key of appends, and in every frame |
//! | frames | the stream `STREAM`: kept by size alone |
//! | snapshots | bodies in the stream `STREAM-snapshots`, the two that count in `STREAM-index` |
//!
//! **Positions.** The origin takes the offset 0, so the first frame is at 1. The broker takes an offset for itself at
//! the head of each segment, so positions have gaps there: the frame behind 310 may be 312. A reader passes over such a
//! gap; nothing else may rely on the next position being one more.
//!
//! **The tail.** An append is confirmed without a word of its place, and a stream cannot be asked for its end. A
//! consumer that starts at `last` gets the newest chunk, and a frame is in the newest chunk before it is confirmed, so
//! that is how the tail is found; nothing is written for it. On a cluster the chunk is that of the server that this relay is
//! connected to, which can be behind the others by what is on its way between them.
//!
//! **Durability.** A stream is never synced: [`Durability::PageCache`] on one server. On a cluster of three or more it is
//! [`Durability::Majority`], but the protocol does not tell how many servers keep a stream, so `replicas=3` in the address is
//! taken on trust.
//!
//! **Retention.** The broker drops whole segments by size and cannot be told to truncate. What it keeps is fixed when the
//! stream is made (`retention_mb`, at least four times `snapshot_every_bytes` and what the fleet writes while a snapshot
//! is stored). Appends are refused as on a full disk before the broker could drop what the second-newest snapshot needs.
//!
//! Every await has a bound, and after any error the connection and all that is on it are made anew. Works with servers
//! from 3.10 on.

mod address;
mod appender;
mod body;
mod chain;
mod envelope;
mod feed;
mod index;
mod link;
mod load;
mod reader;
mod room;
mod shared;
mod snapshots;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::sleep;

use super::line::{Appender, IN_LINE};
use super::{
    Appended, BoxFuture, Durability, Health, Log, LogError, LogId, LogInfo, LogReader, Position, ReadError,
    RecordId, SnapshotBody, SnapshotId, SnapshotInfo, SnapshotReader, StoredFrame,
};
use link::Link;
use reader::RabbitReader;
use room::Room;
use shared::{Opened, Shared, Tail};
use snapshots::Snapshots;
use stream::Names;

pub use address::Address;

/// Looks at a broker that is not ready, with pauses that grow by as much.
const LOOKS: u32 = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The bounds of a log on `RabbitMQ`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest frame, in bytes. Servers take messages of 16 MiB and more, unless their `max_message_size` says less.
    pub max_frame_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_frame_bytes: 2 << 20 }
    }
}

/// Why a log on `RabbitMQ` was not opened. None of them tells the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Nobody answers there, or not as `RabbitMQ` does.
    #[error("{address}: the broker cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The broker asks for other credentials.
    #[error(
        "{address}: the broker refuses the user or password in DORMOUSE_BROKER, or that user this virtual host"
    )]
    Credentials {
        /// Where.
        address: String,
    },
    /// A stream could not be made.
    #[error("{address}: the stream cannot be made: {detail}")]
    NotMade {
        /// Where.
        address: String,
        /// Why.
        detail: String,
    },
    /// The stream is somebody else's.
    #[error("{address}: this stream is not a Dormouse log; it was left untouched, name another one")]
    NotALog {
        /// Where.
        address: String,
    },
    /// A queue of that name is there, and was made with other settings.
    #[error("{address}: what has this name cannot carry the log as it was asked for: {setting}")]
    Unsuitable {
        /// Where.
        address: String,
        /// What the broker says of it.
        setting: String,
    },
    /// The kernel gave no random numbers for a new log's incarnation.
    #[error("no random numbers")]
    NoRandomness,
}

/// The log on `RabbitMQ`. Dropping it lets what is in line still go to the broker; await [`Log::close`] to know that it has.
pub struct RabbitMq {
    address: Address,
    options: Options,
    shared: Arc<Shared>,
    appender: Appender,
    snapshots: Arc<Snapshots>,
}

impl RabbitMq {
    /// Opens the log at `address`, or makes it when it does not exist.
    ///
    /// # Errors
    /// [`OpenError`]. A stream that is no log, or that has other settings, is left as it is.
    pub async fn open(address: Address, options: Options) -> Result<Self, OpenError> {
        let process = getrandom::u64().map_err(|_| OpenError::NoRandomness)?;
        let link = Link::open(address.clone()).await?;
        let (names, log_id, tail) = found(&link, &address).await?;
        let (counted, bytes) = match &tail.frame {
            Some((position, Some(framed))) => {
                (position.0, framed.log_bytes + room::size_of(framed.frame.len()))
            }
            _ => (tail.newest, 0),
        };
        let retention = address.retention_bytes;
        let shared = Arc::new(Shared::new(Opened {
            link,
            log_id,
            names,
            durability: if address.replicas >= 3 { Durability::Majority } else { Durability::PageCache },
            max_frame_bytes: options.max_frame_bytes,
            room: Room::new(retention, stream::segment_bytes(retention), bytes, counted),
            process,
        }));
        let snapshots = Arc::new(Snapshots::new(Arc::clone(&shared), retention));
        // Where the room is counted from; what is wrong with the snapshots is told there.
        if let Err(error) = snapshots.second_newest_held().await {
            let detail = error.to_string();
            return Err(OpenError::Unreachable { address: address.to_string(), detail });
        }
        Ok(Self { address, options, appender: appender::start(&snapshots), shared, snapshots })
    }
}

/// The log's streams. A server that has just started answers before its queues do, and two relays that make a stream at
/// the same moment can upset it; either passes.
async fn found(link: &Link, address: &Address) -> Result<(Names, LogId, Tail), OpenError> {
    let mut look = 1;
    loop {
        let unreachable = |detail| OpenError::Unreachable { address: address.to_string(), detail };
        let wire = link.ready().await.map_err(|error| unreachable(error.to_string()))?;
        let error = match stream::open(&wire, address).await {
            Ok((names, log_id)) => match shared::tail(&wire, &names.log).await {
                Ok(tail) => return Ok((names, log_id, tail)),
                Err(fault) => unreachable(fault.to_string()),
            },
            Err(error) => error,
        };
        if look == LOOKS || !matches!(error, OpenError::Unreachable { .. } | OpenError::NotMade { .. }) {
            return Err(error);
        }
        tracing::debug!(%error, look, "the log is looked for again");
        link.replace(&wire);
        sleep(look * BETWEEN_LOOKS).await;
        look += 1;
    }
}

impl Log for RabbitMq {
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        Box::pin(async move {
            let edges = self.shared.edges().await?;
            Ok(LogInfo {
                log_id: self.shared.log_id,
                first: edges.first,
                tail: edges.tail,
                durability: self.shared.durability,
                exact_truncate: false,
                kind: "rabbitmq",
                max_frame_bytes: self.shared.max_frame_bytes,
                appends_in_flight: IN_LINE,
                free_bytes: None,
            })
        })
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn append(&self, record_id: RecordId, frame: Bytes) -> BoxFuture<'static, Appended> {
        self.appender.append(None, record_id, frame)
    }

    fn connection(&self) -> u64 {
        self.shared.link.wire().number
    }

    fn append_over(
        &self,
        connection: u64,
        record_id: RecordId,
        frame: Bytes,
    ) -> BoxFuture<'static, Appended> {
        self.appender.append(Some(connection), record_id, frame)
    }

    fn reopen(&self) -> BoxFuture<'_, Result<Option<Arc<dyn Log>>, LogError>> {
        Box::pin(async move {
            let anew = Self::open(self.address.clone(), self.options.clone()).await;
            let anew = anew.map_err(|error| LogError::Failed(error.to_string()))?;
            Ok(Some(Arc::new(anew) as Arc<dyn Log>))
        })
    }

    fn read(&self, from: Position) -> Box<dyn LogReader> {
        Box::new(RabbitReader::new(Arc::clone(&self.shared), from))
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        Box::pin(self.shared.tail())
    }

    fn frame_at(&self, position: Position) -> BoxFuture<'_, Result<Option<StoredFrame>, LogError>> {
        Box::pin(self.shared.frame_at(position))
    }

    fn put_snapshot(&self, id: SnapshotId, body: SnapshotBody) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.snapshots.put(id, body))
    }

    fn newest_snapshots(&self) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, LogError>> {
        Box::pin(self.snapshots.list())
    }

    fn load_snapshot(&self, id: SnapshotId) -> BoxFuture<'_, Result<Box<dyn SnapshotReader>, LogError>> {
        Box::pin(async move {
            let stored = self.snapshots.load(id).await?;
            Ok(Box::new(stored) as Box<dyn SnapshotReader>)
        })
    }

    fn truncate(&self, upto: Position) -> BoxFuture<'_, Result<Position, LogError>> {
        Box::pin(async move {
            let limit = self.snapshots.second_newest_held().await?;
            if limit.is_none_or(|limit| upto > limit) {
                return Err(LogError::TruncateRefused { upto, limit });
            }
            // The broker drops by size, and there is room for more now.
            let edges = self.shared.edges().await?;
            Ok(edges.first.unwrap_or(upto))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.appender.close().await;
            self.shared.standing.end(ReadError::Closed);
            self.shared.link.close().await;
        })
    }
}
