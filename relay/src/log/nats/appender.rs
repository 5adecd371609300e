//! The line of appends, and the task that takes them to the broker, one after the other.
//!
//! One frame is on its way at a time. A second one could be stored although the first was lost, and a broker that drops
//! copies would keep them in the wrong order for good; a server that syncs each message is slower with several, too.
//! What waits meanwhile makes the next frame larger, which is what pays.
//!
//! Invariant: behind a frame whose outcome is unknown nothing is sent that was in the line already; all of it is
//! answered `Unknown`, so that it comes again in the same order.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::frame;
use super::link::{REQUEST, Wire};
use super::shared::Shared;
use crate::log::{Appended, BoxFuture, Position, RecordId, Rejection};

/// Appends that may be unanswered; all but one of them wait here.
pub(super) const IN_LINE: usize = 64;
const BYTES_IN_LINE: usize = 16 << 20;
/// How long a look at the stream may hold up an append. A server that answers says within half of it that it is gone.
const LOOK: Duration = Duration::from_secs(2);

struct Waiting {
    /// The only connection that it may go over.
    connection: Option<u64>,
    record_id: RecordId,
    frame: Bytes,
    answer: oneshot::Sender<Appended>,
}

#[derive(Default)]
struct Line {
    unanswered: usize,
    unanswered_bytes: usize,
    /// `None` once the log is closed.
    entrance: Option<mpsc::UnboundedSender<Waiting>>,
}

pub(super) struct Appender {
    shared: Arc<Shared>,
    line: Arc<Mutex<Line>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Appender {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        // Bounded by IN_LINE and BYTES_IN_LINE, which are counted where the line is entered.
        let (entrance, waiting) = mpsc::unbounded_channel();
        let line = Line { entrance: Some(entrance), ..Line::default() };
        let line = Arc::new(Mutex::new(line));
        let task = tokio::spawn(serve(Arc::clone(shared), Arc::clone(&line), waiting));
        Self { shared: Arc::clone(shared), line, task: tokio::sync::Mutex::new(Some(task)) }
    }

    /// Puts an append in line; it may be for one connection only.
    pub(super) fn append(
        &self,
        connection: Option<u64>,
        record_id: RecordId,
        frame: Bytes,
    ) -> BoxFuture<'static, Appended> {
        match self.enqueue(connection, record_id, frame) {
            Ok(answer) => Box::pin(async move { answer.await.unwrap_or(Appended::Unknown) }),
            Err(rejection) => Box::pin(std::future::ready(Appended::Rejected(rejection))),
        }
    }

    fn enqueue(
        &self,
        connection: Option<u64>,
        record_id: RecordId,
        frame: Bytes,
    ) -> Result<oneshot::Receiver<Appended>, Rejection> {
        if frame.len() > self.shared.max_frame_bytes {
            return Err(Rejection::TooLarge { limit: self.shared.max_frame_bytes });
        }
        let mut line = self.line.lock();
        let bytes = line.unanswered_bytes + frame.len();
        let entrance = line.entrance.clone().ok_or(Rejection::Closed)?;
        if self.shared.ended().is_some() {
            return Err(Rejection::Failed);
        }
        if line.unanswered >= IN_LINE || bytes > BYTES_IN_LINE {
            return Err(Rejection::TooManyInFlight { frames: IN_LINE, bytes: BYTES_IN_LINE });
        }
        let (answer, answered) = oneshot::channel();
        entrance.send(Waiting { connection, record_id, frame, answer }).map_err(|_| Rejection::Closed)?;
        line.unanswered += 1;
        line.unanswered_bytes = bytes;
        Ok(answered)
    }

    /// Takes nothing more and returns when everything in line was answered.
    pub(super) async fn close(&self) {
        self.line.lock().entrance = None;
        // Held meanwhile, so that a second caller waits as well.
        let mut task = self.task.lock().await;
        if let Some(task) = task.take() {
            // It can only have been cancelled together with the runtime; there is nothing to add.
            let _ = task.await;
        }
    }
}

/// What waits is still taken to the broker; nobody can wait for it any more.
impl Drop for Appender {
    fn drop(&mut self) {
        self.line.lock().entrance = None;
    }
}

async fn serve(shared: Arc<Shared>, line: Arc<Mutex<Line>>, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    while let Some(next) = waiting.recv().await {
        let appended = append(&shared, &next).await;
        answer(&line, next, appended);
        if appended == Appended::Unknown {
            while let Ok(behind) = waiting.try_recv() {
                answer(&line, behind, Appended::Unknown);
            }
            shared.link.replace_if_worn().await;
        }
    }
}

fn answer(line: &Mutex<Line>, waiting: Waiting, appended: Appended) {
    {
        let mut line = line.lock();
        line.unanswered -= 1;
        line.unanswered_bytes -= waiting.frame.len();
    }
    // A caller that went away does not want its answer.
    let _ = waiting.answer.send(appended);
}

async fn append(shared: &Shared, waiting: &Waiting) -> Appended {
    if shared.ended().is_some() {
        return Appended::Rejected(Rejection::Failed);
    }
    if !shared.link.ready().await {
        return Appended::Unknown;
    }
    let wire = shared.link.wire();
    if waiting.connection.is_some_and(|only| only != wire.number()) {
        return Appended::Unknown;
    }
    match publish(shared, &wire, waiting).await {
        Ok(ack) => {
            shared.set_full(false);
            let position = Position(ack.sequence);
            if shared.acknowledge(position, ack.duplicate) {
                Appended::Committed { position: Some(position) }
            } else {
                // It is in the log, but on another tail than the frames before it.
                Appended::Unknown
            }
        }
        Err(error) => unpublished(shared, &error).await,
    }
}

/// Waits for the answer until the connection changes: then it will not come any more.
async fn publish(shared: &Shared, wire: &Wire, waiting: &Waiting) -> Result<PublishAck, PublishError> {
    let lost = || PublishError::new(PublishErrorKind::TimedOut);
    let mut link = shared.link.watch();
    link.mark_unchanged();
    let message = PublishMessage::build()
        .payload(frame::encode(shared.log_id, waiting.record_id, &waiting.frame))
        .message_id(waiting.record_id.to_string())
        .expected_stream(&shared.stream);
    let answer = async {
        let sent = wire.context.send_publish(shared.subject.clone(), message).await?;
        sent.await
    };
    tokio::select! {
        biased;
        answer = timeout(REQUEST, answer) => answer.unwrap_or_else(|_| Err(lost())),
        _ = link.changed() => Err(lost()),
    }
}

async fn unpublished(shared: &Shared, error: &PublishError) -> Appended {
    let cause = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), cause) {
        (PublishErrorKind::MaxPayloadExceeded, _) => too_large(shared),
        (_, Some(cause)) if cause.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            too_large(shared)
        }
        (_, Some(cause)) if is_full(cause) => {
            tracing::warn!(%cause, "the broker has no room; frames are rejected until it has");
            shared.set_full(true);
            Appended::Rejected(Rejection::StoreFull)
        }
        (PublishErrorKind::StreamNotFound, _) => {
            // True while a cluster elects, and when the stream is gone: the look tells, and ends the log if so.
            // Nobody answers it during an election, and the append has to be tried again as soon as that is over.
            let looked = timeout(LOOK, shared.edges()).await;
            if looked.is_err() {
                shared.link.lost_reply();
            }
            tracing::debug!(?looked, "the broker says that nobody takes frames");
            Appended::Unknown
        }
        _ => {
            tracing::warn!(%error, ?cause, "the broker did not answer an append");
            shared.link.lost_reply();
            Appended::Unknown
        }
    }
}

fn too_large(shared: &Shared) -> Appended {
    Appended::Rejected(Rejection::TooLarge { limit: shared.max_frame_bytes })
}

/// Whether the server says that there is no room. A store that failed for another reason may have written.
fn is_full(cause: &jetstream::Error) -> bool {
    let no_room = ["maximum bytes exceeded", "maximum messages exceeded", "no space left"];
    match cause.error_code() {
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED => true,
        ErrorCode::STREAM_STORE_FAILED => no_room.iter().any(|it| cause.to_string().contains(it)),
        _ => false,
    }
}
