//! Snapshots in the `JetStream` object store, one object each, in a bucket beside the log.
//!
//! An object becomes visible by the message that describes it, which is published when all of its chunks are
//! acknowledged. Objects are listed by asking the bucket's stream for those messages one by one; the library's own
//! listing needs a push consumer, and those have been seen to hang.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::object_store::{Config, ObjectInfo, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, StorageType, Stream};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::StreamExt as _;

use super::body::{self, Produced, Sealed};
use super::load::StoredSnapshot;
use super::shared::{Shared, failed};
use crate::log::{LogError, LogId, Position, RecordId, SnapshotBody, SnapshotId, SnapshotInfo};

/// Pieces that wait for the broker; each has up to a mebibyte.
const PIECES_WAITING: usize = 2;
/// Chunks without an object are of a put that is under way, until they are this old.
const ORPHAN_AGE: Duration = Duration::from_secs(3_600);

/// What the metadata of an object says of how its body is laid out.
const FORMAT_KEY: &str = "dormouse-format";
/// The format that this build writes and reads.
const FORMAT: &str = "1";

/// An object of the bucket and the subject of the message that describes it.
struct Stored {
    subject: String,
    object: ObjectInfo,
    /// When it was put, by the broker's clock.
    put_at: async_nats::datetime::DateTime,
}

pub(super) struct Snapshots {
    shared: Arc<Shared>,
    bucket: String,
    /// One is put at a time: two would each keep one of the other's predecessors.
    putting: tokio::sync::Mutex<()>,
}

impl Snapshots {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let bucket = format!("{}-snapshots", shared.stream);
        Self { shared, bucket, putting: tokio::sync::Mutex::default() }
    }

    pub(super) async fn put(&self, id: SnapshotId, body: SnapshotBody) -> Result<(), LogError> {
        let _one = self.putting.lock().await;
        self.shared.standing.check_open()?;
        let context = self.shared.link.context();
        let store = self.store(&context).await?;
        let log_id = self.shared.log_id;
        let mut produced = produce(Sealed::new(body, body::seed(log_id, id)));
        let meta = ObjectMetadata {
            name: object_name(log_id, id),
            metadata: [(FORMAT_KEY.to_owned(), FORMAT.to_owned())].into(),
            ..ObjectMetadata::default()
        };
        let put = store.put(meta, &mut produced).await;
        match (put, produced.abandoned.take()) {
            (Ok(_), _) => {}
            (Err(_), Some(why)) => return Err(LogError::SnapshotAbandoned(why)),
            (Err(error), None) if says_full(&error) => return Err(LogError::StoreFull),
            (Err(error), None) => return Err(failed(error)),
        }
        self.keep_two(&context, id).await
    }

    pub(super) async fn list(&self) -> Result<Vec<SnapshotInfo>, LogError> {
        let Some(stream) = self.bucket_stream(&self.shared.link.context()).await? else {
            return Ok(Vec::new());
        };
        let stored = self.stored(&stream).await?;
        let infos = stored.iter().filter_map(|it| self.info_of(&it.object));
        Ok(newest_first(infos))
    }

    pub(super) async fn load(&self, id: SnapshotId) -> Result<StoredSnapshot, LogError> {
        if !self.list().await?.iter().any(|it| it.id == id) {
            return Err(LogError::SnapshotNotFound(id));
        }
        let store = self.store(&self.shared.link.context()).await?;
        let object = store.get(object_name(self.shared.log_id, id)).await.map_err(failed)?;
        // The first releases did not say it.
        if let Some(format) = object.info.metadata.get(FORMAT_KEY).filter(|it| *it != FORMAT) {
            let detail = format!(
                "it has format {format}, and this release reads format {FORMAT}: a newer relay wrote it"
            );
            return Err(LogError::SnapshotDamaged { id, detail });
        }
        let seed = body::seed(self.shared.log_id, id);
        Ok(StoredSnapshot::new(object, id, seed))
    }

    /// The position of the second-newest snapshot whose frame is still here: how far truncation may go.
    pub(super) async fn second_newest_held(&self) -> Result<Option<Position>, LogError> {
        let mut held = 0;
        for snapshot in self.list().await? {
            held += u32::from(self.holds(snapshot.id).await?);
            if held == 2 {
                return Ok(Some(snapshot.id.position));
            }
        }
        Ok(None)
    }

    async fn holds(&self, id: SnapshotId) -> Result<bool, LogError> {
        Ok(self.shared.frame_at(id.position).await?.is_some_and(|frame| SnapshotId::of(&frame) == id))
    }

    /// Of the others the newest whose frame the log still holds stays: one of a lost tail is no fallback.
    async fn keep_two(&self, context: &Context, new: SnapshotId) -> Result<(), LogError> {
        let Some(stream) = self.bucket_stream(context).await? else { return Ok(()) };
        let mut stored = self.stored(&stream).await?;
        stored.sort_by_key(|it| std::cmp::Reverse(self.info_of(&it.object).map(|info| info.id.position)));
        let (mut kept, mut now) = (1, None);
        let mut keep = Vec::new();
        for it in stored {
            let id = self.info_of(&it.object).map(|info| info.id);
            let is_new = id == Some(new);
            now = if is_new { Some(it.put_at) } else { now };
            let fallback = match id {
                Some(id) if !is_new && kept < 2 => self.holds(id).await?,
                _ => false,
            };
            kept += u32::from(fallback);
            if is_new || fallback {
                keep.push(it.object.nuid);
            } else {
                // First what shows it, then what it holds: it is never visible in part.
                stream.purge().filter(it.subject).await.map_err(failed)?;
                stream.purge().filter(self.chunks_of(&it.object.nuid)).await.map_err(failed)?;
            }
        }
        match now {
            Some(now) => self.drop_orphans(&stream, &keep, now).await,
            None => Ok(()),
        }
    }

    /// A put that died has left chunks that no object names. They are known by their age, because another relay may be
    /// putting right now.
    async fn drop_orphans(
        &self,
        stream: &Stream,
        keep: &[String],
        now: async_nats::datetime::DateTime,
    ) -> Result<(), LogError> {
        for subject in self.subjects(stream, "C").await? {
            if keep.iter().any(|nuid| self.chunks_of(nuid) == subject) {
                continue;
            }
            let newest = last_message(stream, &subject).await?;
            if newest.is_some_and(|newest| now - newest.time > ORPHAN_AGE) {
                stream.purge().filter(subject).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    fn chunks_of(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }

    async fn stored(&self, stream: &Stream) -> Result<Vec<Stored>, LogError> {
        let mut stored = Vec::new();
        for subject in self.subjects(stream, "M").await? {
            // It may have been removed since the subjects were listed.
            if let Some(message) = last_message(stream, &subject).await?
                && let Ok(object) = serde_json::from_slice::<ObjectInfo>(&message.payload)
                && !object.deleted
            {
                stored.push(Stored { subject, object, put_at: message.time });
            }
        }
        Ok(stored)
    }

    async fn subjects(&self, stream: &Stream, of: &str) -> Result<Vec<String>, LogError> {
        let filter = format!("$O.{}.{of}.>", self.bucket);
        let mut listed = stream.info_with_subjects(filter).await.map_err(failed)?;
        let mut subjects = Vec::new();
        while let Some((subject, _)) = listed.try_next().await.map_err(failed)? {
            subjects.push(subject);
        }
        Ok(subjects)
    }

    /// `None` for an object of another incarnation of the log, or of something else.
    fn info_of(&self, object: &ObjectInfo) -> Option<SnapshotInfo> {
        let id = parse_name(self.shared.log_id, &object.name)?;
        Some(SnapshotInfo { id, stored_bytes: object.size as u64 })
    }

    /// The bucket's stream, if there is one: a log without snapshots needs none.
    async fn bucket_stream(&self, context: &Context) -> Result<Option<Stream>, LogError> {
        match context.get_stream(format!("OBJ_{}", self.bucket)).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if super::stream::is_not_found(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn store(&self, context: &Context) -> Result<ObjectStore, LogError> {
        if self.bucket_stream(context).await?.is_none() {
            let config = Config {
                bucket: self.bucket.clone(),
                description: Some("snapshots of a Dormouse log".to_owned()),
                max_bytes: -1,
                storage: StorageType::File,
                num_replicas: self.shared.replicas,
                ..Config::default()
            };
            // Another relay may make it at the same moment; then it is there at the look below.
            if let Err(error) = context.create_object_store(config).await {
                tracing::debug!(%error, bucket = self.bucket, "the bucket was not made");
            }
        }
        context.get_object_store(&self.bucket).await.map_err(failed)
    }
}

async fn last_message(stream: &Stream, subject: &str) -> Result<Option<StreamMessage>, LogError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn newest_first(infos: impl Iterator<Item = SnapshotInfo>) -> Vec<SnapshotInfo> {
    let mut infos: Vec<_> = infos.collect();
    infos.sort_by_key(|info| std::cmp::Reverse(info.id.position));
    infos
}

/// Runs the producer where blocking is allowed, a few pieces ahead of the broker.
fn produce(sealed: Sealed) -> Produced {
    let (pieces, produced) = mpsc::channel(PIECES_WAITING);
    spawn_blocking(move || {
        for piece in sealed {
            let last = piece.is_err();
            if pieces.blocking_send(piece).is_err() || last {
                return;
            }
        }
        // Nobody waits for the end when the put has failed.
        let _ = pieces.blocking_send(Ok(Bytes::new()));
    });
    Produced::new(produced)
}

fn says_full(error: &dyn std::error::Error) -> bool {
    let text = failed(error).to_string();
    ["maximum bytes exceeded", "resources exceeded", "insufficient", "no space left"]
        .iter()
        .any(|it| text.contains(it))
}

fn object_name(log_id: LogId, id: SnapshotId) -> String {
    let SnapshotId { position, record_id: RecordId { session, counter }, crc } = id;
    format!("{log_id}-{:020}-{session:016x}-{counter:016x}-{crc:016x}", position.0)
}

fn parse_name(log_id: LogId, name: &str) -> Option<SnapshotId> {
    let mut parts = name.strip_prefix(&format!("{log_id}-"))?.split('-');
    let position = Position(parts.next()?.parse().ok()?);
    let mut hex = || u64::from_str_radix(parts.next()?, 16).ok();
    let record_id = RecordId { session: hex()?, counter: hex()? };
    let id = SnapshotId { position, record_id, crc: hex()? };
    // A name that is not exactly ours is none of ours.
    (object_name(log_id, id) == name).then_some(id)
}
