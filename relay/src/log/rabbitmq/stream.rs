//! The streams of a log: how they are made, how one knows that they are ours, and how they are written to.
//!
//! Three queues of the type `stream`: the log itself, the bodies of its snapshots, and an index whose newest record
//! names the snapshots that count. None is ever empty: whoever makes one writes an origin, and the origin at the offset
//! 0 says which log it is. Frames go through the exchange `amq.direct`, with the log's incarnation in the routing key:
//! the binding goes when the stream goes, so a relay that has not noticed yet cannot write into a log that was made anew.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::timeout;

use super::address::Address;
use super::envelope::{self, Content, Message};
use super::feed::{Fault, Feed, Start, Stored, within};
use super::link::{REQUEST, Wire};
use super::{OpenError, index};
use crate::log::LogId;

/// Every broker has it, and it is durable.
const EXCHANGE: &str = "amq.direct";
/// The exchange that knows every queue by its name.
const BY_NAME: &str = "";
/// A stream is dropped from in whole segments, so many of them make up what is kept.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// The index needs its newest record only.
const INDEX_BYTES: u64 = 1 << 20;
/// Who made a stream a moment ago writes its origin within this time, or has died in between.
const ORIGIN_PATIENCE: Duration = Duration::from_secs(2);
const PERSISTENT: u8 = 2;

/// What the streams of a log are called.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) log: String,
    pub(super) bodies: String,
    pub(super) index: String,
}

impl Names {
    fn of(address: &Address) -> Self {
        let log = address.stream.clone();
        Self { bodies: format!("{log}-snapshots"), index: format!("{log}-index"), log }
    }
}

/// The bytes of a segment of a stream that keeps `retention` bytes.
pub(super) fn segment_bytes(retention: u64) -> u64 {
    (retention / SEGMENTS).min(SEGMENT_BYTES_MAX)
}

pub(super) fn routing_key(stream: &str, log_id: LogId) -> String {
    format!("dormouse.{stream}.{log_id}")
}

/// The streams, found or made, and the incarnation of the log.
pub(super) async fn open(wire: &Wire, address: &Address) -> Result<(Names, LogId), OpenError> {
    let names = Names::of(address);
    let words = [getrandom::u64(), getrandom::u64()];
    let [Ok(low), Ok(high)] = words else {
        return Err(OpenError::NoRandomness);
    };
    let drawn = LogId((u128::from(high) << 64) | u128::from(low));
    let origin = envelope::encode(&Message { log_id: drawn, content: Content::Origin });
    let first = found_or_made(wire, address, &names.log, address.retention_bytes, &origin).await?;
    let Ok(Message { log_id, .. }) = envelope::decode(first.data) else {
        return Err(OpenError::NotALog { address: address.to_string() });
    };
    if log_id == drawn {
        tracing::info!(%address, %log_id, "a new log");
    }
    let nothing = index::encode(log_id, &[]);
    found_or_made(wire, address, &names.bodies, address.retention_bytes, &nothing).await?;
    found_or_made(wire, address, &names.index, INDEX_BYTES, &nothing).await?;
    let key = routing_key(&names.log, log_id);
    let options = QueueBindOptions::default();
    let (queue, arguments) = (names.log.as_str().into(), FieldTable::default());
    within(wire.publisher.queue_bind(queue, EXCHANGE.into(), key.into(), options, arguments))
        .await
        .map_err(|fault| unavailable(address, fault))?;
    Ok((names, log_id))
}

/// The oldest record of a stream, which is made and given its origin if there is none.
async fn found_or_made(
    wire: &Wire,
    address: &Address,
    name: &str,
    retention: u64,
    origin: &[u8],
) -> Result<Stored, OpenError> {
    let unavailable = |fault| unavailable(address, fault);
    let is_new = match declare(wire, name, None).await {
        Ok(()) => false,
        Err(Fault::Gone) => true,
        Err(fault) => return Err(unavailable(fault)),
    };
    // Also for one that is there already: the broker then compares the arguments.
    match declare(wire, name, Some(arguments(address, retention))).await {
        Ok(()) => {}
        Err(Fault::Refused(setting)) => {
            return Err(OpenError::Unsuitable { address: address.to_string(), setting });
        }
        Err(fault) => {
            let detail = fault.to_string();
            return Err(OpenError::NotMade { address: address.to_string(), detail });
        }
    }
    if is_new {
        publish_by_name(&wire.publisher, name, origin).await.map_err(unavailable)?;
    }
    let mut feed = Feed::open(wire, name, Start::First, 1).await.map_err(unavailable)?;
    let patience = if is_new { REQUEST } else { ORIGIN_PATIENCE };
    if let Ok(first) = timeout(patience, feed.wait()).await {
        return first.map_err(unavailable);
    }
    publish_by_name(&wire.publisher, name, origin).await.map_err(unavailable)?;
    feed.next().await.map_err(unavailable)
}

fn arguments(address: &Address, retention: u64) -> FieldTable {
    let long = |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    // By size alone: an age would drop frames while every relay is down.
    arguments.insert("x-max-length-bytes".into(), long(retention));
    arguments.insert("x-stream-max-segment-size-bytes".into(), long(segment_bytes(retention)));
    if address.replicas > 1 {
        arguments.insert("x-initial-cluster-size".into(), long(address.replicas as u64));
    }
    arguments
}

/// Declares a stream with `arguments`, or only asks for it. On a channel of its own, because a refusal closes it.
async fn declare(wire: &Wire, name: &str, arguments: Option<FieldTable>) -> Result<(), Fault> {
    let options =
        QueueDeclareOptions { passive: arguments.is_none(), durable: true, ..QueueDeclareOptions::default() };
    let declaring = async {
        let channel = wire.connection.create_channel().await?;
        channel.queue_declare(name.into(), options, arguments.unwrap_or_default()).await
    };
    within(declaring).await.map(|_| ())
}

fn unavailable(address: &Address, fault: Fault) -> OpenError {
    OpenError::Unreachable { address: address.to_string(), detail: fault.to_string() }
}

/// Publishes a frame and waits for its confirmation, without a bound. [`Fault::Gone`] says that no stream of this log
/// has taken it.
pub(super) async fn publish_frame(channel: &Channel, key: &str, body: &[u8]) -> Result<(), Fault> {
    publish(channel, EXCHANGE, key, body).await?.await
}

/// Publishes a record into a stream and waits for its confirmation.
pub(super) async fn publish_by_name(channel: &Channel, stream: &str, body: &[u8]) -> Result<(), Fault> {
    let published = async { publish(channel, BY_NAME, stream, body).await?.await };
    timeout(REQUEST, published).await.unwrap_or_else(|_| Err(Fault::silence()))
}

/// Hands a record to the library; what comes back waits for the confirmation.
pub(super) async fn send_by_name(
    channel: &Channel,
    stream: &str,
    body: &[u8],
) -> Result<impl Future<Output = Result<(), Fault>> + use<>, Fault> {
    publish(channel, BY_NAME, stream, body).await
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
) -> Result<impl Future<Output = Result<(), Fault>> + use<>, Fault> {
    // Without `mandatory` a record that no queue takes is acknowledged all the same.
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?;
    Ok(async move {
        match confirm.await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(Fault::Gone),
            Confirmation::Nack(_) => Err(Fault::Other("the broker has not taken it".to_owned())),
            Confirmation::NotRequested => Err(Fault::Other("the channel has no confirms".to_owned())),
        }
    })
}
