//! Readers: pull consumers that are made anew whenever there is a doubt about them.
//!
//! A broker starts silently at the first message it still has, waits silently behind its tail, and its consumers have
//! been seen to fall silent after a restart. So a reader believes nothing: it compares the first message with the frame
//! that it delivered last, checks that positions have no gap, and looks at the stream whenever it has heard nothing for
//! [`SILENCE`]. If the log is not at its end then, it makes a new consumer, after [`CONSUMERS`] of them a new client,
//! and after [`ATTEMPTS`] failures it says that it is stalled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::{Batch as Pull, Config};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream as _, StreamExt as _};

use super::frame;
use super::link::{LinkState, REQUEST, Wire};
use super::shared::{Shared, failed};
use super::stream::Edges;
use crate::log::{Batch, BoxFuture, LogError, LogReader, Position, ReadError, SnapshotId, StoredFrame};

/// Without a message for so long, the stream is asked whether there should have been one.
const SILENCE: Duration = Duration::from_secs(2);
/// Failures after which not the consumer but the client is replaced.
const CONSUMERS: u32 = 3;
/// Failures after which the caller is told.
const ATTEMPTS: u32 = 6;
/// Pause behind a failure, multiplied by how many there were.
const PAUSE: Duration = Duration::from_millis(100);
/// Frames of one pull, and so of one batch. With frames of 60 KiB that is 7.5 MiB.
const PULL_FRAMES: usize = 128;
/// How long the server keeps a pull that finds no frames.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How long the server keeps a consumer that nobody pulls from.
const CONSUMER_EXPIRES: Duration = Duration::from_secs(300);

/// A consumer and the pull that is open on it.
struct Feed {
    wire: Arc<Wire>,
    consumer: Consumer<Config>,
    pull: Pull,
    /// Where the next message must be from.
    expects: Position,
}

/// What was heard of a feed.
enum Heard {
    Message(Box<Message>),
    PullEnded,
    /// The consumer is gone.
    Refused(String),
    /// The connection has changed: messages may have been lost on the way.
    Broken,
    Silence,
}

/// Why a feed gives no frames.
enum Trouble {
    /// The caller has to know.
    Told(ReadError),
    /// It may pass; the text says what it is.
    Passing(String),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Read(told) => Self::Told(told),
            LogError::Closed => Self::Told(ReadError::Closed),
            other => Self::Passing(other.to_string()),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Told(error)
    }
}

pub(super) struct NatsReader {
    shared: Arc<Shared>,
    link: watch::Receiver<LinkState>,
    end: watch::Receiver<Option<ReadError>>,
    next: Position,
    /// The frame before `next`, if this reader has delivered it.
    last: Option<SnapshotId>,
    told_at_tail: bool,
    feed: Option<Feed>,
    failures: u32,
}

impl NatsReader {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Self {
        let (link, end) = (shared.link.watch(), shared.standing.watch_end());
        let next = from.max(Position::FIRST);
        Self { shared, link, end, next, last: None, told_at_tail: false, feed: None, failures: 0 }
    }

    async fn advance(&mut self) -> Result<Batch, ReadError> {
        loop {
            if let Some(ended) = self.shared.standing.ended() {
                return Err(ended);
            }
            match self.step().await {
                Ok(Some(batch)) => {
                    self.failures = 0;
                    return Ok(batch);
                }
                Ok(None) => {}
                Err(Trouble::Told(error)) => {
                    self.feed = None;
                    return Err(error);
                }
                Err(Trouble::Passing(why)) => self.recover(&why).await?,
            }
        }
    }

    /// One thing after the other, until there is something to deliver.
    async fn step(&mut self) -> Result<Option<Batch>, Trouble> {
        let Some(feed) = &mut self.feed else { return self.start().await };
        let heard = tokio::select! {
            biased;
            _ = self.end.changed() => return Ok(None),
            heard = hear(&mut feed.pull) => heard,
            _ = self.link.changed() => Heard::Broken,
        };
        match heard {
            Heard::Message(first) => self.take(*first),
            Heard::PullEnded => {
                feed.pull = pull(&feed.consumer).await?;
                Ok(None)
            }
            Heard::Broken => {
                self.feed = None;
                Ok(None)
            }
            Heard::Refused(why) => Err(Trouble::Passing(why)),
            Heard::Silence => self.judge_silence().await,
        }
    }

    /// Makes a consumer at the frame that was delivered last, so that it can be compared.
    async fn start(&mut self) -> Result<Option<Batch>, Trouble> {
        self.link.mark_unchanged();
        if !self.shared.link.ready().await {
            return Err(Trouble::Passing("there is no connection".to_owned()));
        }
        let wire = self.shared.link.wire();
        let edges = self.shared.edges().await?;
        self.check(&edges)?;
        let expects = match self.last {
            Some(last) if last.position >= edges.first => last.position,
            _ => self.next,
        };
        let stream = self.shared.stream_in(&wire.context).await?;
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: expects.0 },
            ack_policy: AckPolicy::None,
            inactive_threshold: CONSUMER_EXPIRES,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(failed)?;
        let pull = pull(&consumer).await?;
        self.feed = Some(Feed { wire, consumer, pull, expects });
        if self.next == edges.end() && !self.told_at_tail {
            self.told_at_tail = true;
            return Ok(Some(Batch { frames: Vec::new(), at_tail: true }));
        }
        Ok(None)
    }

    fn check(&self, edges: &Edges) -> Result<(), ReadError> {
        if self.next < edges.first {
            Err(ReadError::Truncated { first: edges.first })
        } else if self.next > edges.end() {
            Err(ReadError::Regressed { tail: edges.tail })
        } else {
            Ok(())
        }
    }

    /// Delivers a message and those that have arrived behind it. Nothing is awaited here, so that a call that is
    /// dropped loses nothing.
    fn take(&mut self, first: Message) -> Result<Option<Batch>, Trouble> {
        let (mut frames, mut at_tail) = (Vec::new(), false);
        let mut message = Some(first);
        while let Some(next) = message.take() {
            let Some(feed) = &mut self.feed else { break };
            let info = next.info().map_err(|error| Trouble::Passing(error.to_string()))?;
            let position = Position(info.stream_sequence);
            if position != feed.expects {
                return self.out_of_order(frames);
            }
            let stored = match frame::decode(self.shared.log_id, position, &next.payload) {
                Ok(stored) => stored,
                // What lies before the damage is delivered first.
                Err(_) if !frames.is_empty() => {
                    self.feed = None;
                    break;
                }
                Err(damage) => return Err(damage.into()),
            };
            feed.expects = position.next();
            at_tail = info.pending == 0;
            message = arrived(&mut feed.pull);
            if position >= self.next {
                frames.push(stored);
            } else {
                self.compare(&stored)?;
            }
        }
        Ok(self.deliver(frames, at_tail))
    }

    fn deliver(&mut self, frames: Vec<StoredFrame>, at_tail: bool) -> Option<Batch> {
        let last = frames.last()?;
        self.next = last.position.next();
        self.last = Some(SnapshotId::of(last));
        self.told_at_tail = at_tail;
        Some(Batch { frames, at_tail })
    }

    /// What this reader has delivered must still be there: a tail that was lost and has grown again fits by number.
    fn compare(&self, stored: &StoredFrame) -> Result<(), ReadError> {
        if self.last == Some(SnapshotId::of(stored)) {
            Ok(())
        } else {
            let tail = stored.position.0.checked_sub(1).filter(|it| *it > 0).map(Position);
            Err(ReadError::Regressed { tail })
        }
    }

    /// A gap is looked into with a new consumer: if the log was truncated meanwhile, that says so.
    fn out_of_order(&mut self, frames: Vec<StoredFrame>) -> Result<Option<Batch>, Trouble> {
        self.feed = None;
        if frames.is_empty() {
            return Err(Trouble::Passing("messages came out of order".to_owned()));
        }
        Ok(self.deliver(frames, false))
    }

    async fn judge_silence(&mut self) -> Result<Option<Batch>, Trouble> {
        let edges = self.shared.edges().await?;
        self.check(&edges)?;
        if self.next == edges.end() && self.shared.acknowledged() < self.next {
            self.failures = 0;
            return Ok(None);
        }
        Err(Trouble::Passing(format!("nothing comes although the log ends at {}", edges.end().0 - 1)))
    }

    async fn recover(&mut self, why: &str) -> Result<(), ReadError> {
        let wire = self.feed.take().map_or_else(|| self.shared.link.wire(), |feed| feed.wire);
        self.failures += 1;
        tracing::warn!(why, failures = self.failures, next = self.next.0, "the log is read anew");
        if self.failures >= ATTEMPTS {
            self.failures = 0;
            return Err(self.missing().await);
        }
        if self.failures == CONSUMERS {
            self.shared.link.replace(&wire).await;
        }
        sleep(PAUSE * self.failures).await;
        Ok(())
    }

    /// Why nothing can be delivered: the stream has lost a message in its middle, or does not deliver at all.
    async fn missing(&self) -> ReadError {
        match self.shared.frame_at(self.next).await {
            Ok(None) if self.shared.edges().await.is_ok_and(|edges| self.next < edges.end()) => {
                ReadError::Damaged { position: self.next, detail: "the broker has lost it".to_owned() }
            }
            _ => ReadError::Stalled,
        }
    }
}

async fn pull(consumer: &Consumer<Config>) -> Result<Pull, LogError> {
    let pull = consumer.batch().max_messages(PULL_FRAMES).expires(PULL_EXPIRES).messages();
    let timed_out = |_| LogError::Failed("a pull could not be sent".to_owned());
    timeout(REQUEST, pull).await.map_err(timed_out)?.map_err(failed)
}

async fn hear(pull: &mut Pull) -> Heard {
    match timeout(SILENCE, pull.next()).await {
        Ok(Some(Ok(message))) => Heard::Message(Box::new(message)),
        Ok(Some(Err(error))) => Heard::Refused(error.to_string()),
        Ok(None) => Heard::PullEnded,
        Err(_) => Heard::Silence,
    }
}

/// A message that is here already. What else the pull has to say, it says when it is asked the next time.
fn arrived(pull: &mut Pull) -> Option<Message> {
    match Pin::new(pull).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(message))) => Some(message),
        _ => None,
    }
}

impl LogReader for NatsReader {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Batch, ReadError>> {
        Box::pin(self.advance())
    }
}
