//! A stream to one reader: a few messages that wait for it, and a last word that always has room.
//!
//! A reader that takes nothing for the relay's whole patience is cut off. What waited for it is dropped then, because
//! the token that it goes on with is from before; only the last word waits on, in a place that was kept for it.
//!
//! Invariants: at most [`AHEAD`] messages wait; for a reader that was cut off only the last word does; a stream holds
//! its place among the open ones until it was cut off or has ended.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::Stream;
use tonic::Status;

use crate::{doors::Standing, error::RelayError, relay::Relay};

/// Messages that may wait for a reader.
const AHEAD: usize = 2;
/// The patience is waited for in so many steps. A pause of the relay itself, however long, is one of them: no reader is
/// cut off because nobody was there to hand it anything.
const STEPS: u32 = 8;

type Waiting<T> = mpsc::Receiver<Result<T, Status>>;

/// Why a stream ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// There is nobody left to tell, or the relay stops.
    Silently,
    /// The reader is to be told.
    Refused(RelayError),
}

impl From<RelayError> for Ended {
    fn from(error: RelayError) -> Self {
        Self::Refused(error)
    }
}

/// The relay's end.
pub(super) struct Outlet<T> {
    send: mpsc::Sender<Result<T, Status>>,
    last_word: mpsc::OwnedPermit<Result<T, Status>>,
    waiting: Arc<Mutex<Waiting<T>>>,
    stopping: watch::Receiver<bool>,
    standing: Standing,
    patience: Duration,
    _place: OwnedSemaphorePermit,
}

/// The reader's end.
pub(super) struct Messages<T>(Arc<Mutex<Waiting<T>>>);

/// Opens a stream, to go on for as long as the reader's token stands for what it stood for.
///
/// # Errors
/// As many as may be are open already.
pub(super) fn open<T>(relay: &Relay, standing: Standing) -> Result<(Outlet<T>, Messages<T>), RelayError> {
    let busy = || RelayError::Busy("watchers");
    let place = Arc::clone(&relay.watchers).try_acquire_owned().map_err(|_| busy())?;
    let (send, waiting) = mpsc::channel(AHEAD + 1);
    let last_word = send.clone().try_reserve_owned().map_err(|_| busy())?;
    let waiting = Arc::new(Mutex::new(waiting));
    let messages = Messages(Arc::clone(&waiting));
    let patience = Duration::from_millis(relay.config.watch_patience_ms);
    let stopping = relay.stopping.clone();
    Ok((Outlet { send, last_word, waiting, stopping, standing, patience, _place: place }, messages))
}

impl<T> Outlet<T> {
    /// Hands a message to the reader, once it has taken enough of those before.
    pub(super) async fn deliver(&mut self, message: T) -> Result<(), Ended> {
        let step = self.patience / STEPS;
        let patience = async move {
            for _ in 0..STEPS {
                tokio::time::sleep(step).await;
            }
        };
        tokio::select! {
            // A reader that came just in time has come in time, unless it may not read any more.
            biased;
            () = self.standing.lost() => Err(Ended::Refused(RelayError::TokenUnknown)),
            room = self.send.reserve() => {
                room.map_err(|_| Ended::Silently)?.send(Ok(message));
                Ok(())
            }
            () = stopped(&mut self.stopping) => Err(Ended::Silently),
            () = patience => Err(self.cut_off()),
        }
    }

    fn cut_off(&self) -> Ended {
        let mut waiting = self.waiting.lock();
        while waiting.try_recv().is_ok() {}
        let patience_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        Ended::Refused(RelayError::SlowReader { patience_ms })
    }

    /// The last word. It has its place although the reader takes nothing.
    pub(super) fn end(self, last_word: Status) {
        self.last_word.send(Err(last_word));
    }

    /// Returns when the reader has gone, its token is not good any more, or the relay stops.
    pub(super) async fn ended(&mut self) -> Ended {
        tokio::select! {
            () = stopped(&mut self.stopping) => Ended::Silently,
            () = self.standing.lost() => Ended::Refused(RelayError::TokenUnknown),
            () = self.send.closed() => Ended::Silently,
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().poll_recv(context)
    }
}

impl<T> Drop for Messages<T> {
    fn drop(&mut self) {
        // The relay's end holds the messages too, so it would not notice by itself that the reader has gone.
        self.0.lock().close();
    }
}
