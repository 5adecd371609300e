//! The log on NATS: the contract on both releases, and what its broker can do to it.
//!
//! A server that is killed loses nothing here, because the kernel keeps what the server has written: this shows that the
//! death of a process is survived, not the loss of power. Loss is made by putting an older copy of the folder back.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dormouse_relay::{
    config::Config,
    log::{
        Appended, Batch, Durability, Health, Log, LogError, LogReader, Position, ReadError, RecordId,
        Rejection, SnapshotId, StoredFrame, contract,
        nats::{Address, Nats, OpenError, Options},
    },
    relay::Relay,
};
use tokio::time::{sleep, timeout};

use super::nats_server::{NatsServer, Release, Settings};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SEED: &str = "DORMOUSE_NATS_KILL_SEED";
const KILLS: u64 = 5;
const FRAMES_PER_KILL: u64 = 150;

async fn open(address: Address) -> Nats {
    Nats::open(address, Options::default()).await.expect("the log opens")
}

async fn refusal(address: Address) -> OpenError {
    match Nats::open(address, Options::default()).await {
        Ok(_) => panic!("the log opened"),
        Err(error) => error,
    }
}

fn id(counter: u64) -> RecordId {
    RecordId { session: 7, counter }
}

fn frame(counter: u64) -> Bytes {
    let size = usize::try_from(counter * 7_919 % 9_000).unwrap_or_default();
    let mut frame = counter.to_le_bytes().to_vec();
    frame.resize(8 + size, u8::try_from(counter % 251).unwrap_or_default());
    frame.into()
}

/// Tries until the log knows, as the sequencer does.
async fn append(log: &dyn Log, counter: u64) -> Option<Position> {
    loop {
        match timeout(PATIENCE, log.append(id(counter), frame(counter))).await.expect("an append is answered")
        {
            Appended::Committed { position } => return position,
            Appended::Unknown => sleep(Duration::from_millis(50)).await,
            Appended::Rejected(rejection) => panic!("append {counter}: {rejection}"),
        }
    }
}

/// Tries until a frame is rejected, at most so often.
async fn rejection(log: &dyn Log, counters: std::ops::Range<u64>) -> Rejection {
    for counter in counters {
        match timeout(PATIENCE, log.append(id(counter), frame(counter))).await.expect("an append is answered")
        {
            Appended::Rejected(rejection) => return rejection,
            Appended::Unknown => sleep(Duration::from_millis(50)).await,
            Appended::Committed { .. } => {}
        }
    }
    panic!("nothing was rejected")
}

async fn next(reader: &mut dyn LogReader) -> Result<Batch, ReadError> {
    timeout(PATIENCE, reader.next_batch()).await.expect("a reader answers")
}

async fn read_to_tail(log: &dyn Log) -> Vec<StoredFrame> {
    let (mut reader, mut frames) = (log.read(Position::FIRST), Vec::new());
    loop {
        let batch = next(&mut *reader).await.expect("frames");
        frames.extend(batch.frames);
        if batch.at_tail {
            return frames;
        }
    }
}

async fn keeps_the_contract(release: Release) {
    let Some(server) = NatsServer::start(release, Settings::default()) else { return };
    let (server, streams) = (&server, &AtomicU64::new(0));
    contract::check_all(async || {
        let stream = format!("log-{}", streams.fetch_add(1, Ordering::Relaxed));
        Arc::new(open(server.address(&stream)).await) as Arc<dyn Log>
    })
    .await;
    contract::check_reopen(async || Arc::new(open(server.address("kept")).await) as Arc<dyn Log>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_on_a_current_nats_keeps_the_contract() {
    keeps_the_contract(Release::Current).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_on_debians_nats_keeps_the_contract() {
    keeps_the_contract(Release::Debian).await;
}

/// Appends without end, from `next` on; tells the highest counter that is committed.
async fn keep_appending(log: Arc<Nats>, committed: Arc<AtomicU64>) {
    for counter in 1.. {
        append(&*log, counter).await;
        committed.store(counter, Ordering::Release);
    }
}

/// Reads without end into `seen`; positions may have no gap, whatever the broker does.
async fn keep_reading(mut reader: Box<dyn LogReader>, seen: Arc<tokio::sync::Mutex<Vec<StoredFrame>>>) {
    loop {
        let batch = match reader.next_batch().await {
            Ok(batch) => batch,
            // The caller of a stalled reader makes a new one; this one goes on at its place, which is the same.
            Err(ReadError::Stalled) => continue,
            Err(error) => panic!("{error}"),
        };
        seen.lock().await.extend(batch.frames);
    }
}

async fn reached(committed: &AtomicU64, at_least: u64) {
    let grown = async {
        while committed.load(Ordering::Acquire) < at_least {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, grown).await.expect("appends go on");
}

async fn survives_kills(release: Release) {
    let Some(mut server) = NatsServer::start(release, Settings::default()) else { return };
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let log = Arc::new(open(server.address("killed")).await);
    let (committed, seen) = (Arc::new(AtomicU64::new(0)), Arc::default());
    let appending = tokio::spawn(keep_appending(Arc::clone(&log), Arc::clone(&committed)));
    let reading = tokio::spawn(keep_reading(log.read(Position::FIRST), Arc::clone(&seen)));
    for kill in 1..=KILLS {
        reached(&committed, kill * FRAMES_PER_KILL + random.u64(..FRAMES_PER_KILL)).await;
        server.kill();
        sleep(Duration::from_millis(random.u64(..300))).await;
        server.run();
    }
    reached(&committed, (KILLS + 1) * FRAMES_PER_KILL).await;
    appending.abort();
    let acknowledged = committed.load(Ordering::Acquire);

    let stored = read_to_tail(&*log).await;
    let mut applied = HashSet::new();
    let once: Vec<_> =
        stored.iter().filter(|it| applied.insert(it.record_id)).map(|it| it.record_id.counter).collect();
    assert!(once.len() as u64 >= acknowledged, "{acknowledged} were acknowledged, {} are there", once.len());
    assert_eq!(
        once,
        (1..=once.len() as u64).collect::<Vec<_>>(),
        "every frame is there, in the order of the calls"
    );
    assert!(stored.iter().all(|it| it.frame == frame(it.record_id.counter)), "and has its bytes");
    // The one that was read through all kills is the one that is there.
    let caught_up = async {
        while (seen.lock().await.len() as u64) < acknowledged {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, caught_up).await.expect("the reader follows");
    assert!(!reading.is_finished(), "the reader is well");
    reading.abort();
    let seen = seen.lock().await;
    let both = seen.len().min(stored.len());
    assert!(seen[..both] == stored[..both], "the reader saw the log as it is");
    println!(
        "{acknowledged} frames acknowledged over {KILLS} kills, {} stored twice",
        stored.len() - once.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_is_lost_or_moved_when_a_current_nats_is_killed() {
    survives_kills(Release::Current).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_is_lost_or_moved_when_debians_nats_is_killed() {
    survives_kills(Release::Debian).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_and_snapshots_live_through_a_restart() {
    let Some(mut server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let log = open(server.address("restarted")).await;
    append(&log, 1).await;
    let mut reader = log.read(Position(1));
    while !next(&mut *reader).await.expect("frames").at_tail {}
    let snapshot = SnapshotId::of(&log.frame_at(Position(1)).await.expect("readable").expect("held"));
    log.put_snapshot(snapshot, Box::new([Ok(Bytes::from_static(b"state"))].into_iter()))
        .await
        .expect("stored");
    server.stop();
    let unreachable = async {
        while log.health() == Health::Serving {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, unreachable).await.expect("an outage shows");
    assert!(matches!(log.health(), Health::Unreachable(_)), "{:?}", log.health());
    server.run();
    assert_eq!(append(&log, 2).await, Some(Position(2)));
    let batch = next(&mut *reader).await.expect("the reader goes on");
    assert_eq!(batch.frames.iter().map(|it| it.position.0).collect::<Vec<_>>(), [2]);
    assert_eq!(log.health(), Health::Serving);
    let mut stored = log.load_snapshot(snapshot).await.expect("the snapshot is there");
    assert_eq!(stored.next_chunk().await, Ok(Some(Bytes::from_static(b"state"))));
    assert_eq!(stored.next_chunk().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_broker_is_noticed_and_never_written_to() {
    let Some(mut server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let log = open(server.address("wiped")).await;
    append(&log, 1).await;
    let mut reader = log.read(Position(1));
    next(&mut *reader).await.expect("a frame");
    server.stop();
    server.wipe(None);
    server.run();
    // Another relay comes first and makes the log anew.
    let anew = open(server.address("wiped")).await;
    assert_eq!(next(&mut *reader).await, Err(ReadError::Regressed { tail: None }));
    assert_eq!(rejection(&log, 2..100).await, Rejection::Failed);
    assert!(matches!(log.health(), Health::Failed(_)), "{:?}", log.health());
    assert_eq!(log.barrier().await, Err(LogError::Read(ReadError::Regressed { tail: None })));
    let (before, after) = (log.info().await, anew.info().await.expect("it is there"));
    assert!(before.is_err() && after.tail.is_none(), "the new log is empty: {after:?}");
    append(&anew, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_gone_is_noticed() {
    let Some(mut server) = NatsServer::start(Release::Debian, Settings::default()) else { return };
    let log = open(server.address("gone")).await;
    append(&log, 1).await;
    server.stop();
    server.wipe(None);
    server.run();
    assert_eq!(rejection(&log, 2..100).await, Rejection::Failed);
    assert_eq!(next(&mut *log.read(Position(1))).await, Err(ReadError::Regressed { tail: None }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_noticed_even_when_the_log_has_grown_again() {
    let Some(mut server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let log = open(server.address("regressed")).await;
    for counter in 1..=3 {
        append(&log, counter).await;
    }
    server.stop();
    let saved = server.save();
    server.run();
    append(&log, 4).await;
    let mut reader = log.read(Position(1));
    while !next(&mut *reader).await.expect("frames").at_tail {}
    server.stop();
    server.wipe(Some(&saved));
    server.run();
    // Another relay, which has not seen the fourth frame, writes two of its own.
    let other = open(server.address("regressed")).await;
    for counter in 10..=11 {
        append(&other, counter).await;
    }
    assert_eq!(next(&mut *reader).await, Err(ReadError::Regressed { tail: Some(Position(3)) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_and_not_repeated() {
    let settings =
        Settings { server: "authorization { user: relay, password: right }", ..Settings::default() };
    let Some(server) = NatsServer::start(Release::Current, settings) else { return };
    for address in [server.address("log"), server.address_as("relay:wr0ng", "log")] {
        let error = refusal(address).await;
        assert!(matches!(error, OpenError::Credentials { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error}");
    }
    append(&open(server.address_as("relay:right", "log")).await, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_carry_a_log_is_refused() {
    let settings = Settings { server: "max_payload: 32KB", ..Settings::default() };
    let Some(server) = NatsServer::start(Release::Current, settings) else { return };
    let error = refusal(server.address("log")).await;
    assert!(matches!(error, OpenError::SmallMessages { max_payload: 32_768, .. }), "{error:?}");
    let address = server.address("log");
    drop(server);
    let error = refusal(address).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_is_what_the_server_says_it_is() {
    let durability = async |address| open(address).await.info().await.expect("info").durability;
    if let Some(server) = NatsServer::start(Release::Current, Settings::default()) {
        assert_eq!(durability(server.monitored_address("log")).await, Durability::PageCache);
    }
    let always = Settings { jetstream: "sync_interval: always", ..Settings::default() };
    if let Some(server) = NatsServer::start(Release::Current, always) {
        assert_eq!(durability(server.address("log")).await, Durability::PageCache, "nobody was asked");
        assert_eq!(durability(server.monitored_address("log")).await, Durability::Fsync);
    }
    if let Some(server) = NatsServer::start(Release::Debian, Settings::default()) {
        assert_eq!(durability(server.monitored_address("log")).await, Durability::PageCache);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_refuses_and_takes_frames_again_when_it_was_truncated() {
    let Some(server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let options = Options { max_bytes: Some(200_000), ..Options::default() };
    let log = Nats::open(server.address("full"), options).await.expect("the log opens");
    assert_eq!(rejection(&log, 1..1_000).await, Rejection::StoreFull);
    assert_eq!(log.health(), Health::StoreFull);
    let stored = read_to_tail(&log).await;
    let [.., older, newer] = stored.as_slice() else { panic!("two frames") };
    for covered in [older, newer] {
        log.put_snapshot(SnapshotId::of(covered), Box::new(std::iter::empty())).await.expect("stored");
    }
    assert_eq!(log.truncate(older.position).await, Ok(older.position));
    let counter = newer.record_id.counter + 1;
    assert_eq!(append(&log, counter).await, Some(newer.position.next()));
    assert_eq!(log.health(), Health::Serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_goes_on_from_what_it_left_on_nats() {
    let Some(mut server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let mut revisions = Vec::new();
    for _ in 0..2 {
        let log = Arc::new(open(server.address("relay")).await);
        let started = Relay::start(Config::default(), log).await.expect("the relay starts");
        revisions.push(started.relay.sequencer.read().fold.revision());
        started.stop().await;
        server.stop();
        server.run();
    }
    let log = open(server.address("relay")).await;
    assert!(revisions[0] < revisions[1], "the second session knows of the first: {revisions:?}");
    assert_eq!(log.barrier().await, Ok(Some(Position(2))), "each session has opened itself, once");
    assert_eq!(log.newest_snapshots().await.expect("snapshots").len(), 2, "and left a snapshot");
}
