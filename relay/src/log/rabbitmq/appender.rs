//! Takes frames to the broker, one after the other: see [`line`](crate::log::line). An append whose outcome is unknown comes
//! again on another channel.
//!
//! With two on their way no hole in a writer's numbers could be told from a frame that the broker has lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::envelope::{self, Content, Framed, Message, Writer};
use super::feed::Fault;
use super::link::{REQUEST, Wire};
use super::snapshots::Snapshots;
use super::stream;
use crate::log::line::{Appender, Broker, Waiting};
use crate::log::{Appended, RecordId, Rejection};

/// A log that is full asks so often whether another relay has stored a snapshot.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Opens the line.
pub(super) fn start(snapshots: &Arc<Snapshots>) -> Appender {
    let to_broker = ToBroker { snapshots: Arc::clone(snapshots), asked: None, unresolved: None };
    Appender::start(to_broker, snapshots.shared.max_frame_bytes, &snapshots.shared.standing)
}

struct ToBroker {
    snapshots: Arc<Snapshots>,
    /// When the full log was last asked for a newer snapshot.
    asked: Option<Instant>,
    /// A frame that a broker without room has got and may still store. It alone is not rejected for lack of room.
    unresolved: Option<RecordId>,
}

impl Broker for ToBroker {
    async fn append(&mut self, waiting: &Waiting) -> Appended {
        let shared = Arc::clone(&self.snapshots.shared);
        if shared.standing.has_ended() {
            return Appended::Rejected(Rejection::Failed);
        }
        let is_new = self.unresolved != Some(waiting.record_id);
        if is_new && (shared.disk_is_full() || !self.has_room(waiting.frame.len()).await) {
            return Appended::Rejected(Rejection::StoreFull);
        }
        if !shared.link.unblocked().await {
            return Appended::Unknown;
        }
        let Ok(wire) = shared.link.ready().await else { return Appended::Unknown };
        if waiting.connection.is_some_and(|only| only != wire.number) {
            return Appended::Unknown;
        }
        let writer = Writer { process: shared.process, channel: wire.number };
        let number = wire.next_number();
        let framed = Framed {
            writer,
            number,
            log_bytes: shared.room.lock().bytes(),
            record_id: waiting.record_id,
            frame: waiting.frame.clone(),
        };
        let message = Message { log_id: shared.log_id, content: Content::Frame(framed) };
        match self.publish(&wire, &envelope::encode(&message)).await {
            Ok(()) => {
                self.unresolved = None;
                shared.acknowledge(writer, number, waiting.frame.len());
                Appended::Committed { position: None }
            }
            // Its publishing connection is not read any more, and goes on by itself when there is room.
            Err(_) if shared.link.blocked().is_some() => {
                self.unresolved = Some(waiting.record_id);
                Appended::Unknown
            }
            Err(fault) => {
                // The channel's numbers have a hole now, or will seem to.
                shared.link.replace(&wire);
                self.unpublished(fault).await
            }
        }
    }
}

impl ToBroker {
    /// Whether a frame leaves the broker room for all that the second-newest snapshot needs.
    async fn has_room(&mut self, len: usize) -> bool {
        let shared = &self.snapshots.shared;
        let mut fits = shared.room.lock().takes(len);
        if !fits && self.asked.is_none_or(|asked| asked.elapsed() > FULL_PAUSE) {
            self.asked = Some(Instant::now());
            if let Err(error) = self.snapshots.second_newest_held().await {
                tracing::warn!(%error, "the log is full, and its snapshots cannot be read");
            }
            fits = shared.room.lock().takes(len);
        }
        if !fits {
            tracing::warn!(
                "the log is full: the broker could drop frames that the second-newest snapshot needs"
            );
        }
        shared.standing.set_full(!fits);
        fits
    }

    /// Waits for the answer until the connection changes: then it will not come any more.
    async fn publish(&self, wire: &Wire, body: &[u8]) -> Result<(), Fault> {
        let shared = &self.snapshots.shared;
        let mut link = shared.link.watch();
        let published = stream::publish_frame(&wire.publisher, &shared.routing_key, body);
        tokio::select! {
            biased;
            answer = timeout(REQUEST, published) => answer.unwrap_or_else(|_| Err(Fault::silence())),
            _ = link.changed() => Err(Fault::Other("the connection was lost".to_owned())),
        }
    }

    async fn unpublished(&self, fault: Fault) -> Appended {
        let shared = &self.snapshots.shared;
        tracing::warn!(%fault, "the broker did not acknowledge an append");
        match fault {
            // What a broker of a smaller `max_message_size` says.
            Fault::Refused(text) if text.contains("larger than") => {
                Appended::Rejected(Rejection::TooLarge { limit: shared.max_frame_bytes })
            }
            Fault::Gone => {
                // True while a broker starts, and when the stream is gone: the look tells, and ends the log if so.
                let looked = shared.edges().await;
                tracing::debug!(?looked, "the broker says that nobody takes frames");
                Appended::Unknown
            }
            _ => Appended::Unknown,
        }
    }
}
