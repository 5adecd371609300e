//! Whether a log on a broker can be used, and why not.

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Health, LogError, ReadError};

/// What is known of it in this process. Once it has ended it stays so: it has to be opened again.
pub(super) struct Standing {
    /// The stream, for people.
    stream: String,
    health: RwLock<Health>,
    /// Set when this log can never be read on.
    ended: watch::Sender<Option<ReadError>>,
}

impl Standing {
    /// Nothing is known against it.
    pub(super) fn of(stream: &str) -> Self {
        let health = RwLock::new(Health::Serving);
        Self { stream: stream.to_owned(), health, ended: watch::Sender::new(None) }
    }

    /// Without what the connection says.
    pub(super) fn health(&self) -> Health {
        self.health.read().clone()
    }

    /// Notes whether there is room.
    pub(super) fn set_full(&self, full: bool) {
        let health = if full { Health::StoreFull } else { Health::Serving };
        let mut current = self.health.write();
        if matches!(*current, Health::Serving | Health::StoreFull) {
            *current = health;
        }
    }

    pub(super) fn ended(&self) -> Option<ReadError> {
        self.ended.borrow().clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    pub(super) fn watch_end(&self) -> watch::Receiver<Option<ReadError>> {
        self.ended.subscribe()
    }

    /// Ends the log for good, for this process.
    pub(super) fn end(&self, why: ReadError) {
        let first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(why.clone());
            }
            first
        });
        if why == ReadError::Closed {
            *self.health.write() = Health::Closed;
            self.ended.send_replace(Some(why));
        } else if first {
            tracing::error!(%why, stream = self.stream, "the log has ended; it takes no appends until it is opened again");
            *self.health.write() = Health::Failed(why.to_string());
        }
    }

    pub(super) fn check_open(&self) -> Result<(), LogError> {
        match self.ended() {
            None => Ok(()),
            Some(ReadError::Closed) => Err(LogError::Closed),
            Some(other) => Err(LogError::Read(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: ReadError = ReadError::Regressed { tail: None };

    #[test]
    fn the_first_reason_counts_and_a_close_above_all() {
        let standing = Standing::of("log");
        standing.set_full(true);
        assert_eq!((standing.health(), standing.check_open()), (Health::StoreFull, Ok(())));
        standing.end(LOST);
        standing.end(ReadError::Stalled);
        standing.set_full(false);
        assert_eq!(standing.ended(), Some(LOST));
        assert!(matches!(standing.health(), Health::Failed(_)));
        assert_eq!(standing.check_open(), Err(LogError::Read(LOST)));
        standing.end(ReadError::Closed);
        assert_eq!((standing.health(), standing.check_open()), (Health::Closed, Err(LogError::Closed)));
    }
}
