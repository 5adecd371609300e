//! The line of appends, and the task that takes them to the broker, one after the other.
//!
//! One frame is on its way at a time. A second one could be stored although the first was lost, and no hole in a
//! writer's numbers could be told from a frame that the broker has lost. What waits meanwhile makes the next frame
//! larger, which is what pays.
//!
//! Invariant: behind a frame whose outcome is unknown nothing is sent that was in the line already; all of it is
//! answered `Unknown`, so that it comes again in the same order, on another channel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::envelope::{self, Content, Framed, Message, Writer};
use super::feed::Fault;
use super::link::{REQUEST, Wire};
use super::snapshots::Snapshots;
use super::stream;
use crate::log::{Appended, BoxFuture, RecordId, Rejection};

/// Appends that may be unanswered; all but one of them wait here.
pub(super) const IN_LINE: usize = 64;
const BYTES_IN_LINE: usize = 16 << 20;
/// A log that is full asks so often whether another relay has stored a snapshot.
const FULL_PAUSE: Duration = Duration::from_secs(1);

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
    snapshots: Arc<Snapshots>,
    line: Arc<Mutex<Line>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Appender {
    pub(super) fn start(snapshots: &Arc<Snapshots>) -> Self {
        // Bounded by IN_LINE and BYTES_IN_LINE, which are counted where the line is entered.
        let (entrance, waiting) = mpsc::unbounded_channel();
        let line = Arc::new(Mutex::new(Line { entrance: Some(entrance), ..Line::default() }));
        let to_broker = ToBroker { snapshots: Arc::clone(snapshots), asked: None, unresolved: None };
        let task = tokio::spawn(serve(to_broker, Arc::clone(&line), waiting));
        Self { snapshots: Arc::clone(snapshots), line, task: tokio::sync::Mutex::new(Some(task)) }
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
        let shared = &self.snapshots.shared;
        if frame.len() > shared.max_frame_bytes {
            return Err(Rejection::TooLarge { limit: shared.max_frame_bytes });
        }
        let mut line = self.line.lock();
        let bytes = line.unanswered_bytes + frame.len();
        let entrance = line.entrance.clone().ok_or(Rejection::Closed)?;
        if shared.ended().is_some() {
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

async fn serve(
    mut to_broker: ToBroker,
    line: Arc<Mutex<Line>>,
    mut waiting: mpsc::UnboundedReceiver<Waiting>,
) {
    while let Some(next) = waiting.recv().await {
        let appended = to_broker.append(&next).await;
        answer(&line, next, appended);
        if appended == Appended::Unknown {
            while let Ok(behind) = waiting.try_recv() {
                answer(&line, behind, Appended::Unknown);
            }
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

struct ToBroker {
    snapshots: Arc<Snapshots>,
    /// When the full log was last asked for a newer snapshot.
    asked: Option<Instant>,
    /// A frame that a broker without room has got and may still store. It alone is not rejected for lack of room.
    unresolved: Option<RecordId>,
}

impl ToBroker {
    async fn append(&mut self, waiting: &Waiting) -> Appended {
        let shared = Arc::clone(&self.snapshots.shared);
        if shared.ended().is_some() {
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
        shared.set_full(!fits);
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
