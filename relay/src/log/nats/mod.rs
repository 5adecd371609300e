//! The log on NATS `JetStream`: one stream, one message per frame, a message's sequence number as its position.
//!
//! | | where |
//! |---|---|
//! | the incarnation of the log | in the stream's one subject, `dormouse.STREAM.INCARNATION`, and in every frame |
//! | frames | the stream `STREAM`: limits retention, nothing expires, a full one refuses |
//! | snapshots | objects in the bucket `STREAM-snapshots` |
//!
//! What the servers promise is found out, not assumed ([`super::Durability`]): a server acknowledges from its page cache unless
//! it says on its monitoring port that it syncs always. Client and server are watched, too: every await has a bound, a
//! frame is read only in its place, silence is looked into, and a stream that is gone, was made anew or has lost its
//! tail ends this log with [`ReadError::Regressed`].
//!
//! Works with servers from 2.9 on.

mod address;
mod appender;
mod body;
mod durability;
mod frame;
mod link;
mod load;
mod reader;
mod shared;
mod snapshots;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::timeout;

use super::line::{Appender, IN_LINE};
use super::{
    Appended, BoxFuture, Health, Log, LogError, LogInfo, LogReader, Position, ReadError, RecordId,
    SnapshotBody, SnapshotId, SnapshotInfo, SnapshotReader, StoredFrame,
};
use link::{Link, REQUEST};
use reader::NatsReader;
use shared::{Opened, Shared, failed};
use snapshots::Snapshots;

pub use address::Address;

/// What a message has beside the frame: our header, and the broker's with the record id and the stream's name in it.
const MESSAGE_OVERHEAD: usize = frame::HEADER_BYTES + 256;
/// A server that takes less than this cannot carry a log: the sequencer fills frames up to 60 KiB.
const FRAME_BYTES_MIN: usize = 64 << 10;

/// The bounds of a log on NATS.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest frame, in bytes, if the server's `max_payload` allows it; otherwise what that allows.
    pub max_frame_bytes: usize,
    /// What the stream may grow to if it has to be made, in bytes, with what NATS adds. `None`: what the account may.
    pub max_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_frame_bytes: 2 << 20, max_bytes: None }
    }
}

/// Why a log on NATS was not opened. None of them tells the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Nobody answers there, or not as NATS does.
    #[error("{address}: the broker cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The broker asks for other credentials.
    #[error("{address}: the broker refuses the user, password or token in DORMOUSE_BROKER")]
    Credentials {
        /// Where.
        address: String,
    },
    /// The server keeps nothing.
    #[error("{address}: the server runs without JetStream, or this user may not use it; start it with -js")]
    NoJetStream {
        /// Where.
        address: String,
    },
    /// The stream could not be made.
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
    /// The stream's settings would lose frames.
    #[error("{address}: the stream cannot carry a log: {setting}")]
    Unsuitable {
        /// Where.
        address: String,
        /// What is wrong with it.
        setting: &'static str,
    },
    /// The server takes small messages only.
    #[error("{address}: the server's max_payload is {max_payload} bytes, a log needs {needed}")]
    SmallMessages {
        /// Where.
        address: String,
        /// What the server takes.
        max_payload: usize,
        /// What it must take at least.
        needed: usize,
    },
    /// A monitoring port that was named does not answer.
    #[error("http://{monitor}/varz: {detail}")]
    Monitor {
        /// Its host and port.
        monitor: String,
        /// What happened.
        detail: String,
    },
    /// The kernel gave no random numbers for a new log's incarnation.
    #[error("no random numbers")]
    NoRandomness,
}

/// The log on NATS. Dropping it lets what is in line still go to the broker; await [`Log::close`] to know that it has.
pub struct Nats {
    address: Address,
    options: Options,
    shared: Arc<Shared>,
    appender: Appender,
    snapshots: Snapshots,
}

impl Nats {
    /// Opens the log at `address`, or makes it when it does not exist.
    ///
    /// # Errors
    /// [`OpenError`]. A stream that is no log, or whose settings would lose frames, is left as it is.
    pub async fn open(address: Address, options: Options) -> Result<Self, OpenError> {
        let link = Link::open(address.clone()).await?;
        let server = link.wire().client.server_info();
        let max_frame_bytes = max_frame_bytes(server.max_payload, &address, &options)?;
        let context = link.context();
        let opening = stream::open(&context, &address, &options);
        let unanswered = |_| OpenError::Unreachable {
            address: address.to_string(),
            detail: "JetStream does not answer".to_owned(),
        };
        let (info, log_id) = timeout(3 * REQUEST, opening).await.map_err(unanswered)??;
        let durability = durability::find_out(&info, &server.server_name, &address.monitors).await?;
        let (stream, replicas) = (address.stream.clone(), info.config.num_replicas);
        let opened = Opened { link, log_id, stream, durability, replicas, max_frame_bytes };
        let shared = Arc::new(Shared::new(opened));
        tokio::spawn(link::keep_up(Arc::downgrade(&shared), shared.link.watch()));
        let snapshots = Snapshots::new(Arc::clone(&shared));
        Ok(Self { address, options, appender: appender::start(&shared), shared, snapshots })
    }
}

fn max_frame_bytes(max_payload: usize, address: &Address, options: &Options) -> Result<usize, OpenError> {
    let needed = FRAME_BYTES_MIN + MESSAGE_OVERHEAD;
    if max_payload < needed {
        return Err(OpenError::SmallMessages { address: address.to_string(), max_payload, needed });
    }
    let fits = max_payload - MESSAGE_OVERHEAD;
    if fits < options.max_frame_bytes {
        tracing::warn!(%address, bytes = fits, "larger pushes are refused; the server's max_payload decides");
    }
    Ok(options.max_frame_bytes.min(fits))
}

impl Log for Nats {
    fn info(&self) -> BoxFuture<'_, Result<LogInfo, LogError>> {
        Box::pin(async move {
            let edges = self.shared.edges().await?;
            Ok(LogInfo {
                log_id: self.shared.log_id,
                first: edges.tail.map(|_| edges.first),
                tail: edges.tail,
                durability: self.shared.durability,
                exact_truncate: true,
                kind: "nats",
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

    fn copies(&self) -> usize {
        self.shared.replicas
    }

    fn connection(&self) -> u64 {
        self.shared.link.number()
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
        Box::new(NatsReader::new(Arc::clone(&self.shared), from))
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Option<Position>, LogError>> {
        Box::pin(async move { Ok(self.shared.edges().await?.tail) })
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
            let stream = self.shared.stream_in(&self.shared.link.context()).await?;
            // Drops what is below. A purge to 0 or 1 would mean "everything" to some servers, and drops nothing here.
            if upto > self.shared.edges().await?.first {
                stream.purge().sequence(upto.0).await.map_err(failed)?;
            }
            Ok(self.shared.edges().await?.first)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.appender.close().await;
            self.shared.standing.end(ReadError::Closed);
        })
    }
}
