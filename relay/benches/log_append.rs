//! How fast the logs commit, on the disk of the temporary directory.
//!
//! Run with `TMPDIR=/where/the/disk/is cargo bench -p dormouse-relay --bench log_append`. Prints one `name value
//! unit` per line; takes less than 40 seconds. The lines of the brokers need the servers of `tests/brokers/install`; of
//! NATS `default` acknowledges from the page cache, `always` syncs each frame. `RabbitMQ` always acknowledges from there;
//! beside it stands what one publish for each delta gives, with as many on their way as serves it best.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "../../tests/brokers/nats.rs"]
#[expect(dead_code, reason = "a bench kills and wipes nothing")]
mod nats_server;
#[path = "../../tests/brokers/rabbitmq.rs"]
#[expect(dead_code, reason = "a bench kills and wipes nothing")]
mod rabbitmq_server;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_relay::log::embedded::{Embedded, Options};
use dormouse_relay::log::nats::{self, Nats};
use dormouse_relay::log::rabbitmq::{self, RabbitMq};
use dormouse_relay::log::{Appended, Log, Position, RecordId};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use nats_server::{NatsServer, Release, Settings};
use rabbitmq_server::RabbitServer;

/// A frame as a busy relay builds it, of deltas of that size.
const DELTAS_PER_FRAME: usize = 64;
const DELTA_BYTES: usize = 256;
/// Publishes on their way that serve one publish for each delta best.
const NAIVE_IN_FLIGHT: usize = 256;
const PERIOD: Duration = Duration::from_millis(1_500);

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    println!("fsync_us {:.0} us", fsync_us());
    for in_flight in [1, 16, 256] {
        let (per_s, p50, p99) = append(in_flight, 256).await;
        println!("log_append_{in_flight}_per_s {per_s:.0} 1/s");
        println!("log_append_{in_flight}_p50_us {p50} us");
        println!("log_append_{in_flight}_p99_us {p99} us");
    }
    // A frame of the full 64 KiB would no longer fit a page of that size.
    let frame_bytes = 65_536 - 256;
    let (per_s, ..) = append(16, frame_bytes).await;
    println!("log_append_64k_mb_per_s {:.0} MB/s", per_s * frame_bytes as f64 / 1e6);
    for (name, recent_bytes) in [("memory", 8 << 20), ("database", 0)] {
        println!("log_append_to_read_via_{name}_p50_us {} us", append_to_read(recent_bytes).await);
    }
    nats("default", Settings::default()).await;
    nats("always", Settings { jetstream: "sync_interval: always", ..Settings::default() }).await;
    rabbitmq().await;
}

/// One frame of 16 KiB after the other, as the sequencer appends them.
async fn nats(name: &str, settings: Settings) {
    let Some(server) = NatsServer::start(Release::Current, settings) else { return };
    let log = Nats::open(server.address("bench"), nats::Options::default()).await.expect("the log opens");
    let log = Arc::new(log);
    let started = Instant::now();
    let mut latencies = writer(Arc::clone(&log), 1, Bytes::from(vec![7; 16 << 10])).await;
    let per_s = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    println!("log_nats_{name}_frames_per_s {per_s:.0} 1/s");
    println!("log_nats_{name}_p50_us {} us", latencies[latencies.len() / 2]);
    println!("log_nats_{name}_p99_us {} us", latencies[latencies.len() * 99 / 100]);
    let (started, mut read) = (Instant::now(), 0);
    let mut reader = log.read(Position::FIRST);
    while read < latencies.len() {
        read += reader.next_batch().await.expect("frames").frames.len();
    }
    println!("log_nats_{name}_replay_frames_per_s {:.0} 1/s", read as f64 / started.elapsed().as_secs_f64());
}

/// One frame after the other, as the sequencer appends them; the same deltas one by one; and all frames read back.
async fn rabbitmq() {
    let Some(server) = RabbitServer::start() else { return };
    println!("log_rabbitmq_server {} version", server.version());
    let opened = RabbitMq::open(server.address("bench"), rabbitmq::Options::default()).await;
    let log = Arc::new(opened.expect("the log opens"));
    let started = Instant::now();
    let frame = Bytes::from(vec![7; DELTAS_PER_FRAME * DELTA_BYTES]);
    let mut latencies = writer(Arc::clone(&log), 1, frame).await;
    let deltas_per_s = (latencies.len() * DELTAS_PER_FRAME) as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    println!("log_rabbitmq_deltas_per_s {deltas_per_s:.0} 1/s");
    println!("log_rabbitmq_p50_us {} us", latencies[latencies.len() / 2]);
    println!("log_rabbitmq_p99_us {} us", latencies[latencies.len() * 99 / 100]);
    let naive_per_s = one_publish_per_delta(&server.url()).await;
    println!("log_rabbitmq_naive_per_s {naive_per_s:.0} 1/s");
    println!("log_rabbitmq_vs_naive {:.1} ratio", deltas_per_s / naive_per_s);
    let (started, mut read) = (Instant::now(), 0);
    let mut reader = log.read(Position::FIRST);
    while read < latencies.len() {
        read += reader.next_batch().await.expect("frames").frames.len();
    }
    let replayed_per_s = (read * DELTAS_PER_FRAME) as f64 / started.elapsed().as_secs_f64();
    println!("replay_rabbitmq_deltas_per_s {replayed_per_s:.0} 1/s");
}

/// What the client library gives a program that publishes each delta by itself, with confirms, into such a stream.
async fn one_publish_per_delta(url: &str) -> f64 {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let declared = channel.queue_declare("naive".into(), QueueDeclareOptions::durable(), arguments).await;
    declared.expect("a stream");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let (options, delta) = (BasicPublishOptions::default(), [7; DELTA_BYTES]);
    let (started, mut on_their_way, mut confirmed) = (Instant::now(), VecDeque::new(), 0_u32);
    while started.elapsed() < PERIOD || !on_their_way.is_empty() {
        if on_their_way.len() == NAIVE_IN_FLIGHT || started.elapsed() >= PERIOD {
            let Some(oldest) = on_their_way.pop_front() else { break };
            let oldest: lapin::PublisherConfirm = oldest;
            assert_eq!(oldest.await.expect("a confirm"), Confirmation::Ack(None));
            confirmed += 1;
            continue;
        }
        let properties = BasicProperties::default();
        let published = channel.basic_publish("".into(), "naive".into(), options, &delta, properties).await;
        on_their_way.push_back(published.expect("published"));
    }
    f64::from(confirmed) / started.elapsed().as_secs_f64()
}

/// The mean of appending 512 bytes to a file and syncing it: what the disk itself takes.
fn fsync_us() -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = File::create(dir.path().join("raw")).expect("a file");
    let (started, mut rounds) = (Instant::now(), 0);
    while started.elapsed() < PERIOD / 2 {
        file.write_all(&[7; 512]).expect("written");
        file.sync_data().expect("synced");
        rounds += 1;
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
}

/// Keeps `in_flight` appends going and returns appends per second, and the median and 99th percentile in us.
async fn append(in_flight: u64, frame_bytes: usize) -> (f64, u128, u128) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = Arc::new(Embedded::open(dir.path(), Options::default()).expect("the log opens"));
    let frame = Bytes::from(vec![7; frame_bytes]);
    let started = Instant::now();
    let writers: Vec<_> = (0..in_flight)
        .map(|session| tokio::spawn(writer(Arc::clone(&log), session, frame.clone())))
        .collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.expect("a writer"));
    }
    let per_s = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    (per_s, latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100])
}

async fn writer<L: Log>(log: Arc<L>, session: u64, frame: Bytes) -> Vec<u128> {
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < PERIOD {
        let called = Instant::now();
        let record_id = RecordId { session, counter: latencies.len() as u64 };
        let answer = log.append(record_id, frame.clone()).await;
        assert!(matches!(answer, Appended::Committed { .. }), "{answer:?}");
        latencies.push(called.elapsed().as_micros());
    }
    latencies
}

/// The median from the call of an append to its frame being read back, one at a time, in us.
async fn append_to_read(recent_bytes: usize) -> u128 {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { recent_bytes, ..Options::default() };
    let log = Embedded::open(dir.path(), options).expect("the log opens");
    let mut reader = log.read(Position::FIRST);
    reader.next_batch().await.expect("the tail of an empty log");
    let mut latencies = Vec::new();
    for counter in 0..2_000 {
        let called = Instant::now();
        let answer = log.append(RecordId { session: 1, counter }, Bytes::from_static(&[7; 256]));
        reader.next_batch().await.expect("the frame");
        latencies.push(called.elapsed().as_micros());
        answer.await;
    }
    latencies.sort_unstable();
    latencies[latencies.len() / 2]
}
