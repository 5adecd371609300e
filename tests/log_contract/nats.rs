//! The log on NATS: the contract on both releases, and what its broker can do to it.
//!
//! A server that is killed loses nothing here, because the kernel keeps what the server has written: this shows that the
//! death of a process is survived, not the loss of power. Loss is made by putting an older copy of the folder back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dormouse_relay::{
    config::Config,
    log::{
        Durability, Health, Log, LogError, Position, ReadError, Rejection, SnapshotId, contract,
        nats::{Address, Nats, OpenError, Options},
    },
    relay::Relay,
};
use tokio::time::{sleep, timeout};

use super::{
    nats_server::{NatsServer, Release, Settings},
    steps::{Load, PATIENCE, append, gives_back_what_was_lost, next, read_to_tail, rejection},
};

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

async fn survives_kills(release: Release) {
    let Some(mut server) = NatsServer::start(release, Settings::default()) else { return };
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let load = Load::start(Arc::new(open(server.address("killed")).await));
    for kill in 1..=KILLS {
        load.reached(kill * FRAMES_PER_KILL + random.u64(..FRAMES_PER_KILL)).await;
        server.kill();
        sleep(Duration::from_millis(random.u64(..300))).await;
        server.run();
    }
    load.reached((KILLS + 1) * FRAMES_PER_KILL).await;
    let (acknowledged, twice) = load.finish().await;
    println!("{acknowledged} frames acknowledged over {KILLS} kills, {twice} stored twice");
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
async fn a_wiped_nats_is_given_back_what_a_live_relay_holds() {
    let Some(server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let (address, server) = (server.address("given-back"), Mutex::new(server));
    let wipe = async || {
        let mut server = server.lock().expect("not poisoned");
        server.stop();
        server.wipe(None);
        server.run();
    };
    let is_the_same = gives_back_what_was_lost(async || open(address.clone()).await, async || (), wipe).await;
    assert!(!is_the_same, "the stream was made anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_that_was_restored_from_an_older_copy_is_given_back_what_a_live_relay_holds() {
    let Some(server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let (address, server, saved) = (server.address("restored"), Mutex::new(server), Mutex::new(None));
    let save = async || {
        let mut server = server.lock().expect("not poisoned");
        server.stop();
        *saved.lock().expect("not poisoned") = Some(server.save());
        server.run();
    };
    let restore = async || {
        let mut server = server.lock().expect("not poisoned");
        server.stop();
        server.wipe(saved.lock().expect("not poisoned").as_ref());
        server.run();
    };
    assert!(gives_back_what_was_lost(async || open(address.clone()).await, save, restore).await);
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

/// What a user may do here is what `deploy/nats.md` asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_these_permissions_can_use_a_log() {
    let server = r#"authorization { users: [{ user: relay, password: secret, permissions: {
        publish: ["$JS.API.>", "dormouse.fleet.>", "$O.fleet-snapshots.>"], subscribe: ["_INBOX.>"] } }] }"#;
    let settings = Settings { server, ..Settings::default() };
    let Some(server) = NatsServer::start(Release::Current, settings) else { return };
    let log = open(server.address_as("relay:secret", "fleet")).await;
    for counter in 1..=3 {
        append(&log, counter).await;
    }
    let stored = read_to_tail(&log).await;
    for covered in &stored[1..] {
        let body = [Ok(Bytes::from_static(b"state"))].into_iter();
        log.put_snapshot(SnapshotId::of(covered), Box::new(body)).await.expect("stored");
    }
    assert_eq!(log.newest_snapshots().await.expect("listed").len(), 2);
    let mut snapshot = log.load_snapshot(SnapshotId::of(&stored[2])).await.expect("loaded");
    assert_eq!(snapshot.next_chunk().await, Ok(Some(Bytes::from_static(b"state"))));
    assert_eq!(log.truncate(stored[1].position).await, Ok(stored[1].position));
    assert_eq!(read_to_tail_from(&log, stored[1].position).await, 2);
}

/// How many frames there are from that place on.
async fn read_to_tail_from(log: &Nats, from: Position) -> usize {
    let (mut reader, mut frames) = (log.read(from), 0);
    loop {
        let batch = next(&mut *reader).await.expect("frames");
        frames += batch.frames.len();
        if batch.at_tail {
            return frames;
        }
    }
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
