//! The line in which appends to a broker wait, and the task that takes them there, one after the other.
//!
//! One frame is on its way at a time: a second one could be stored although the first was lost. What waits meanwhile
//! makes the next frame larger, which is what pays.
//!
//! Invariant: behind a frame whose outcome is unknown nothing is sent that was in the line already; all of it is
//! answered `Unknown`, so that it comes again in the same order.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::standing::Standing;
use super::{Appended, BoxFuture, RecordId, Rejection};

/// Appends that may be unanswered; all but one of them wait here.
pub(super) const IN_LINE: usize = 64;
const BYTES_IN_LINE: usize = 16 << 20;

/// Where a line leads.
pub(super) trait Broker: Send + 'static {
    /// Takes one frame there, and waits for what became of it.
    fn append(&mut self, next: &Waiting) -> impl Future<Output = Appended> + Send;

    /// What became of a frame is unknown, and nothing is in line any more.
    fn left_open(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A frame in line.
pub(super) struct Waiting {
    /// The only connection that it may go over.
    pub(super) connection: Option<u64>,
    pub(super) record_id: RecordId,
    pub(super) frame: Bytes,
    answer: oneshot::Sender<Appended>,
}

#[derive(Default)]
struct Line {
    unanswered: usize,
    unanswered_bytes: usize,
    /// `None` once the log is closed.
    entrance: Option<mpsc::UnboundedSender<Waiting>>,
}

/// The end of a line at which appends come in.
pub(super) struct Appender {
    max_frame_bytes: usize,
    standing: Arc<Standing>,
    line: Arc<Mutex<Line>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Appender {
    /// Opens the line to a broker.
    pub(super) fn start(broker: impl Broker, max_frame_bytes: usize, standing: &Arc<Standing>) -> Self {
        // Bounded by IN_LINE and BYTES_IN_LINE, which are counted where the line is entered.
        let (entrance, waiting) = mpsc::unbounded_channel();
        let line = Arc::new(Mutex::new(Line { entrance: Some(entrance), ..Line::default() }));
        let task = tokio::spawn(serve(broker, Arc::clone(&line), waiting));
        let task = tokio::sync::Mutex::new(Some(task));
        Self { max_frame_bytes, standing: Arc::clone(standing), line, task }
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
        if frame.len() > self.max_frame_bytes {
            return Err(Rejection::TooLarge { limit: self.max_frame_bytes });
        }
        let mut line = self.line.lock();
        let bytes = line.unanswered_bytes + frame.len();
        let entrance = line.entrance.clone().ok_or(Rejection::Closed)?;
        if self.standing.has_ended() {
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
    mut broker: impl Broker,
    line: Arc<Mutex<Line>>,
    mut waiting: mpsc::UnboundedReceiver<Waiting>,
) {
    while let Some(next) = waiting.recv().await {
        let appended = broker.append(&next).await;
        answer(&line, next, appended);
        if appended == Appended::Unknown {
            while let Ok(behind) = waiting.try_recv() {
                answer(&line, behind, Appended::Unknown);
            }
            broker.left_open().await;
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
