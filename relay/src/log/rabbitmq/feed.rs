//! Consumers of a stream: what the broker delivers, with the offset that it says it is from.
//!
//! A consumer that starts at an offset which is gone starts silently at the first that is left; one that starts behind
//! the tail waits silently. Whoever makes one compares offsets, and starts at a record that is known to be there.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer, ErrorKind};
use tokio::time::timeout;
use tokio_stream::{Stream as _, StreamExt as _};

use super::link::{REQUEST, Wire};
use crate::log::LogError;

/// Records of one query. More than one chunk of the broker can hold of ours: each relay has one on its way at a time.
const QUERY_RECORDS: u16 = 4_096;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// Why a stream gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no such stream.
    Gone,
    /// The broker says that it cannot be as it was asked for.
    Refused(String),
    /// Anything else; the text says what.
    Other(String),
}

impl Fault {
    pub(super) fn silence() -> Self {
        Self::Other("the broker does not answer".to_owned())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("there is no such stream"),
            Self::Refused(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<Fault> for LogError {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.to_string())
    }
}

impl From<lapin::Error> for Fault {
    /// A stream whose server is down is not found either, in other words.
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(inner)
                if inner.get_id() == NOT_FOUND && inner.get_message().as_str().contains("no queue") =>
            {
                Self::Gone
            }
            ErrorKind::ProtocolError(inner) if inner.get_id() == PRECONDITION_FAILED => {
                Self::Refused(inner.get_message().to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Bounds an exchange with the broker.
pub(super) async fn within<T>(exchange: impl Future<Output = lapin::Result<T>>) -> Result<T, Fault> {
    match timeout(REQUEST, exchange).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Fault::silence()),
    }
}

/// Where a consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At the oldest record.
    First,
    /// At the newest chunk: some records, the last of which is the newest.
    Last,
    /// At this offset, which must be there.
    At(u64),
}

impl From<Start> for AMQPValue {
    fn from(start: Start) -> Self {
        match start {
            Start::First => Self::LongString("first".into()),
            Start::Last => Self::LongString("last".into()),
            Start::At(offset) => Self::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
        }
    }
}

/// A record as it was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) offset: u64,
    pub(super) data: Bytes,
}

/// A consumer on a channel of its own. Dropping it closes both.
pub(super) struct Feed {
    channel: Channel,
    consumer: Consumer,
    /// What was delivered since the broker was last told.
    owed: u16,
    tag: u64,
    prefetch: u16,
}

impl Feed {
    pub(super) async fn open(wire: &Wire, stream: &str, start: Start, prefetch: u16) -> Result<Self, Fault> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), start.into());
        let opening = async {
            let channel = wire.connection.create_channel().await?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(stream.into(), "".into(), options, arguments).await?;
            Ok((channel, consumer))
        };
        let (channel, consumer) = within(opening).await?;
        Ok(Self { channel, consumer, owed: 0, tag: 0, prefetch })
    }

    /// The next record; waits for it without a bound. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Result<Stored, Fault> {
        match self.consumer.next().await {
            Some(delivery) => self.take(delivery?),
            None => Err(Fault::Other("the broker has ended a consumer".to_owned())),
        }
    }

    /// The next record, which must be there already.
    pub(super) async fn next(&mut self) -> Result<Stored, Fault> {
        self.acknowledge().await?;
        timeout(REQUEST, self.wait()).await.unwrap_or_else(|_| Err(Fault::silence()))
    }

    /// A record that has arrived already. What else the consumer has to say, it says when it is asked the next time.
    pub(super) fn arrived(&mut self) -> Option<Stored> {
        match Pin::new(&mut self.consumer).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(delivery))) => self.take(delivery).ok(),
            _ => None,
        }
    }

    fn take(&mut self, delivery: Delivery) -> Result<Stored, Fault> {
        self.owed += 1;
        self.tag = delivery.delivery_tag;
        let headers = delivery.properties.headers().as_ref();
        let offset = headers.and_then(|headers| headers.inner().get("x-stream-offset"));
        let offset = offset.and_then(AMQPValue::as_long_long_int).and_then(|it| u64::try_from(it).ok());
        let offset = offset.ok_or_else(|| Fault::Other("a delivery names no offset".to_owned()))?;
        Ok(Stored { offset, data: delivery.data.into() })
    }

    /// Has the broker send more, when enough of what it may send has arrived.
    pub(super) async fn acknowledge(&mut self) -> Result<(), Fault> {
        // Not when nothing is owed: the tag 0 would acknowledge, and drop, what waits in the library.
        if self.owed < (self.prefetch / 4).max(1) {
            return Ok(());
        }
        // Before the await: one that is dropped has handed the acknowledgement to the library.
        self.owed = 0;
        within(self.channel.basic_ack(self.tag, BasicAckOptions { multiple: true })).await
    }

    /// Ends the consumer; what has come until then.
    async fn rest(mut self) -> Result<Vec<Stored>, Fault> {
        within(self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default())).await?;
        let mut rest = Vec::new();
        while let Some(delivery) =
            timeout(REQUEST, self.consumer.next()).await.map_err(|_| Fault::silence())?
        {
            rest.push(self.take(delivery?)?);
        }
        Ok(rest)
    }
}

/// The oldest record of a stream that is not empty.
pub(super) async fn first(wire: &Wire, stream: &str) -> Result<Stored, Fault> {
    Feed::open(wire, stream, Start::First, 1).await?.next().await
}

/// The record at an offset that is not behind the tail, or the next one that there is.
pub(super) async fn at(wire: &Wire, stream: &str, offset: u64) -> Result<Stored, Fault> {
    Feed::open(wire, stream, Start::At(offset), 1).await?.next().await
}

/// The newest records of a stream that is not empty: at least one, and the newest at the end.
///
/// The broker reads a chunk and delivers all of it at one go, before it looks at what the channel is asked next. So the
/// answer to the end of the consumer comes behind every record that came together with the first one.
pub(super) async fn last(wire: &Wire, stream: &str) -> Result<Vec<Stored>, Fault> {
    let mut feed = Feed::open(wire, stream, Start::Last, QUERY_RECORDS).await?;
    let mut records = vec![feed.next().await?];
    records.extend(feed.rest().await?);
    Ok(records)
}

/// The records from `from` to `to`, both of which are there. At most [`QUERY_RECORDS`], the oldest ones.
pub(super) async fn span(wire: &Wire, stream: &str, from: u64, to: u64) -> Result<Vec<Stored>, Fault> {
    let mut feed = Feed::open(wire, stream, Start::At(from), QUERY_RECORDS).await?;
    let mut records: Vec<Stored> = Vec::new();
    while records.last().is_none_or(|it| it.offset < to) && records.len() < usize::from(QUERY_RECORDS) {
        records.push(feed.next().await?);
    }
    Ok(records)
}
