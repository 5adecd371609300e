//! Takes frames to the broker, one after the other: see [`line`](crate::log::line).
//!
//! A broker that drops copies would keep two frames in the wrong order for good if the first of them was lost; and a server
//! that syncs each message is slower with several on their way.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use tokio::time::timeout;

use super::frame;
use super::link::{REQUEST, Wire};
use super::shared::Shared;
use crate::log::line::{Appender, Broker, Waiting};
use crate::log::{Appended, Position, Rejection};

/// How long a look at the stream may hold up an append. A server that answers says within half of it that it is gone.
const LOOK: Duration = Duration::from_secs(2);

/// Opens the line.
pub(super) fn start(shared: &Arc<Shared>) -> Appender {
    Appender::start(ToBroker(Arc::clone(shared)), shared.max_frame_bytes, &shared.standing)
}

struct ToBroker(Arc<Shared>);

impl Broker for ToBroker {
    async fn append(&mut self, next: &Waiting) -> Appended {
        append(&self.0, next).await
    }

    async fn left_open(&mut self) {
        self.0.link.replace_if_worn().await;
    }
}

async fn append(shared: &Shared, waiting: &Waiting) -> Appended {
    if shared.standing.has_ended() {
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
            shared.standing.set_full(false);
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
            shared.standing.set_full(true);
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
