//! Snapshots: bodies in one stream, and in another a record that names the two that count.
//!
//! The broker drops old bodies by size alone. So a snapshot may take a [`SHARE`] of what the stream keeps at most: the
//! two that count, one that was given up and the next one fit beside each other. One whose body is no longer whole is
//! not shown.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use lapin::Channel;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::body::{self, Pieces};
use super::feed::{self, Fault, within};
use super::index::{self, Entry};
use super::link::{REQUEST, Wire};
use super::load::StoredSnapshot;
use super::shared::Shared;
use super::stream;
use crate::log::{LogError, Position, SnapshotBody, SnapshotId, SnapshotInfo};

/// Pieces that wait for the broker.
const PIECES_WAITING: usize = 4;
/// Pieces that were sent and not confirmed yet.
const PIECES_ON_THEIR_WAY: usize = 8;
/// One part in so many of the stream is what a snapshot may take.
const SHARE: u64 = 5;

type Confirmed = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

pub(super) struct Snapshots {
    pub(super) shared: Arc<Shared>,
    /// The largest body, in bytes.
    body_bytes_max: u64,
    /// One is put at a time: two would each keep one of the other's predecessors.
    putting: tokio::sync::Mutex<()>,
}

/// What has become of a body.
struct Put {
    pieces: u64,
    bytes: u64,
}

impl Snapshots {
    pub(super) fn new(shared: Arc<Shared>, retention: u64) -> Self {
        Self { shared, body_bytes_max: retention / SHARE, putting: tokio::sync::Mutex::default() }
    }

    pub(super) async fn put(&self, id: SnapshotId, body: SnapshotBody) -> Result<(), LogError> {
        let _one = self.putting.lock().await;
        self.shared.standing.check_open()?;
        let wire = self.shared.link.ready().await?;
        let put = getrandom::u64().map_err(|error| LogError::Failed(error.to_string()))?;
        // A channel of its own, so that a body does not hold up appends.
        let channel = self.noting(&wire, within(wire.confirming()).await)?;
        let before = self.noting(&wire, feed::last(&wire, &self.shared.names.bodies).await)?;
        let offset = before.last().map_or(0, |newest| newest.offset + 1);
        let Put { pieces, bytes } = self.store(&wire, &channel, id, put, body).await?;
        let entry = Entry { id, put, offset, pieces, bytes };
        let mut entries = vec![entry];
        entries.extend(self.fallback(id).await?);
        let record = index::encode(self.shared.log_id, &entries);
        self.noting(&wire, stream::publish_by_name(&channel, &self.shared.names.index, &record).await)?;
        self.second_newest_held().await.map(|_| ())
    }

    /// Publishes all pieces and waits until they are confirmed.
    async fn store(
        &self,
        wire: &Wire,
        channel: &Channel,
        id: SnapshotId,
        put: u64,
        body: SnapshotBody,
    ) -> Result<Put, LogError> {
        let seed = body::seed(self.shared.log_id, id);
        let mut produced = produce(body);
        let (mut done, mut on_their_way) = (Put { pieces: 0, bytes: 0 }, VecDeque::<Confirmed>::new());
        loop {
            let piece = match produced.recv().await {
                Some(Ok(piece)) if piece.is_empty() => break,
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Err(LogError::SnapshotAbandoned(error.to_string())),
                None => return Err(LogError::SnapshotAbandoned("its producer went away".to_owned())),
            };
            if done.bytes + piece.len() as u64 > self.body_bytes_max || self.shared.disk_is_full() {
                tracing::warn!(limit = self.body_bytes_max, "a snapshot has no room on the broker");
                return Err(LogError::StoreFull);
            }
            let record = body::encode(seed, put, done.pieces, &piece);
            let sent = stream::send_by_name(channel, &self.shared.names.bodies, &record);
            let sent = timeout(REQUEST, sent).await.unwrap_or_else(|_| Err(Fault::silence()));
            on_their_way.push_back(Box::pin(self.noting(wire, sent)?));
            done.pieces += 1;
            done.bytes += piece.len() as u64;
            if on_their_way.len() == PIECES_ON_THEIR_WAY {
                self.confirm(wire, on_their_way.pop_front()).await?;
            }
        }
        while !on_their_way.is_empty() {
            self.confirm(wire, on_their_way.pop_front()).await?;
        }
        Ok(done)
    }

    async fn confirm(&self, wire: &Wire, confirmed: Option<Confirmed>) -> Result<(), LogError> {
        let Some(confirmed) = confirmed else { return Ok(()) };
        let confirmed = timeout(REQUEST, confirmed).await.unwrap_or_else(|_| Err(Fault::silence()));
        self.noting(wire, confirmed)
    }

    /// The newest other one that the log still holds the frame of: one of a lost tail is no fallback.
    async fn fallback(&self, new: SnapshotId) -> Result<Option<Entry>, LogError> {
        for entry in self.entries().await? {
            if entry.id != new && self.holds(entry.id).await? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    pub(super) async fn list(&self) -> Result<Vec<SnapshotInfo>, LogError> {
        Ok(self.entries().await?.iter().map(Entry::info).collect())
    }

    /// The snapshots that count and are whole, newest first.
    async fn entries(&self) -> Result<Vec<Entry>, LogError> {
        self.shared.standing.check_open()?;
        let wire = self.shared.link.ready().await?;
        let newest = self.noting(&wire, feed::last(&wire, &self.shared.names.index).await)?.pop();
        let decoded = newest.map_or(Ok(Vec::new()), |newest| index::decode(self.shared.log_id, newest.data));
        let mut entries = decoded.map_err(|detail| LogError::Failed(detail.to_owned()))?;
        if entries.iter().any(|entry| entry.pieces > 0) {
            let oldest = self.noting(&wire, feed::first(&wire, &self.shared.names.bodies).await)?.offset;
            entries.retain(|entry| {
                let is_whole = entry.pieces == 0 || entry.offset >= oldest;
                if !is_whole {
                    tracing::error!(
                        position = entry.id.position.0,
                        "the broker has dropped the beginning of a snapshot; give the log a larger retention_mb"
                    );
                }
                is_whole
            });
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.id.position));
        Ok(entries)
    }

    pub(super) async fn load(&self, id: SnapshotId) -> Result<StoredSnapshot, LogError> {
        let entries = self.entries().await?;
        let entry = entries.into_iter().find(|entry| entry.id == id).ok_or(LogError::SnapshotNotFound(id))?;
        let wire = self.shared.link.ready().await?;
        let seed = body::seed(self.shared.log_id, id);
        let opened = StoredSnapshot::open(Arc::clone(&wire), &self.shared.names.bodies, entry, seed).await;
        self.noting(&wire, opened)
    }

    /// The position of the second-newest snapshot whose frame is still here: how far truncation may go. The room that
    /// is left is counted from there.
    pub(super) async fn second_newest_held(&self) -> Result<Option<Position>, LogError> {
        let mut held = 0;
        for entry in self.entries().await? {
            let framed = self.shared.framed_at(entry.id.position).await?;
            let Some(framed) = framed.filter(|framed| is_named_by(framed, entry.id)) else {
                tracing::warn!(
                    position = entry.id.position.0,
                    "the log does not hold the frame of a snapshot"
                );
                continue;
            };
            held += 1;
            if held == 2 {
                self.shared.room.lock().release(framed.log_bytes);
                return Ok(Some(entry.id.position));
            }
        }
        Ok(None)
    }

    async fn holds(&self, id: SnapshotId) -> Result<bool, LogError> {
        Ok(self.shared.framed_at(id.position).await?.is_some_and(|framed| is_named_by(&framed, id)))
    }

    /// After anything but a plain answer the connection is replaced.
    fn noting<T>(&self, wire: &Wire, answer: Result<T, Fault>) -> Result<T, LogError> {
        if answer.is_err() {
            self.shared.link.replace(wire);
        }
        Ok(answer?)
    }
}

fn is_named_by(framed: &super::envelope::Framed, id: SnapshotId) -> bool {
    framed.record_id == id.record_id && crate::log::frame_crc(&framed.frame) == id.crc
}

/// Runs the producer where blocking is allowed, a few pieces ahead of the broker. An empty piece is the end.
fn produce(body: SnapshotBody) -> mpsc::Receiver<io::Result<Bytes>> {
    let (pieces, produced) = mpsc::channel(PIECES_WAITING);
    spawn_blocking(move || {
        for piece in Pieces::of(body) {
            let is_last = piece.is_err();
            if pieces.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
        // Nobody waits for the end when the put has failed.
        let _ = pieces.blocking_send(Ok(Bytes::new()));
    });
    produced
}
