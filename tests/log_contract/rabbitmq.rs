//! The log on `RabbitMQ`: the contract, and what its broker and other clients can do to it.
//!
//! A server that is killed loses nothing here, because the kernel keeps what the server has written: this shows that the
//! death of a process is survived, not the loss of power. Loss is made by putting an older copy of the folder back.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dormouse_relay::{
    config::Config,
    log::{
        Appended, Durability, Health, Log, LogError, Position, ReadError, Rejection, SnapshotId, contract,
        rabbitmq::{Address, OpenError, Options, RabbitMq},
    },
    relay::Relay,
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use tempfile::TempDir;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    rabbitmq_server::RabbitServer,
    steps::{Load, PATIENCE, append, frame, gives_back_what_was_lost, id, next, read_to_tail, rejection},
};

const SEED: &str = "DORMOUSE_RABBITMQ_KILL_SEED";
const FRAMES_PER_KILL: u64 = 150;
/// What a log may keep in the tests that fill it; its segments have 1 MiB.
const SMALL: &str = "retention_mb=16";
const LARGE_FRAME: usize = 250_000;

/// The server of the tests that leave it as it is. It goes with the last of them.
async fn shared_server() -> Option<Arc<RabbitServer>> {
    static SHARED: Mutex<Weak<RabbitServer>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = tokio::task::spawn_blocking(RabbitServer::start).await.expect("it starts")?;
    let server = Arc::new(server);
    *shared = Arc::downgrade(&server);
    Some(server)
}

async fn open(address: Address) -> RabbitMq {
    RabbitMq::open(address, Options::default()).await.expect("the log opens")
}

async fn refusal(address: Address) -> OpenError {
    match RabbitMq::open(address, Options::default()).await {
        Ok(_) => panic!("the log opened"),
        Err(error) => error,
    }
}

/// Another client of the same server.
async fn other_client(server: &RabbitServer) -> (Connection, Channel) {
    let connection = Connection::connect(&server.url(), ConnectionProperties::default()).await;
    let connection = connection.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// Appends a large frame and answers what the log says.
async fn append_large(log: &RabbitMq, counter: u64) -> Appended {
    let answer = log.append(id(counter), vec![7; LARGE_FRAME].into());
    timeout(PATIENCE, answer).await.expect("an append is answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_on_rabbitmq_keeps_the_contract() {
    let Some(server) = shared_server().await else { return };
    let (server, streams) = (&server, &AtomicU64::new(0));
    contract::check_all(async || {
        let stream = format!("log-{}", streams.fetch_add(1, Ordering::Relaxed));
        Arc::new(open(server.address(&stream)).await) as Arc<dyn Log>
    })
    .await;
    contract::check_reopen(async || Arc::new(open(server.address("kept")).await) as Arc<dyn Log>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_the_broker_uses_itself_are_passed_over() {
    let Some(server) = shared_server().await else { return };
    let log = open(server.address_with("gaps", SMALL)).await;
    for counter in 1..=24 {
        assert_eq!(append_large(&log, counter).await, Appended::Committed { position: None });
    }
    let stored = read_to_tail(&log).await;
    let counters: Vec<_> = stored.iter().map(|it| it.record_id.counter).collect();
    assert_eq!(counters, (1..=24).collect::<Vec<_>>());
    let gaps: Vec<_> = stored.windows(2).filter(|two| two[1].position != two[0].position.next()).collect();
    assert!(!gaps.is_empty(), "each segment begins with a record of the broker's");
    for gap in gaps {
        let unused = gap[0].position.next();
        assert_eq!(log.frame_at(unused).await, Ok(None));
        let batch = next(&mut *log.read(unused)).await.expect("frames");
        assert_eq!(batch.frames.first(), Some(&gap[1]), "who goes on there gets the next frame");
    }
    assert_eq!(log.barrier().await, Ok(stored.last().map(|it| it.position)));
}

/// The broker drops by size alone: the log refuses before that could hurt, and says what is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_and_takes_frames_again_behind_two_snapshots() {
    let Some(server) = shared_server().await else { return };
    let log = open(server.address_with("full", SMALL)).await;
    let mut counter = 0;
    for round in 1..=3 {
        let mut taken = 0;
        while append_large(&log, counter + 1).await != Appended::Rejected(Rejection::StoreFull) {
            (counter, taken) = (counter + 1, taken + 1);
            assert!(taken < 100, "the log takes more than it keeps");
        }
        assert!(taken * LARGE_FRAME > 8 << 20, "most of it can be used: {taken} frames in round {round}");
        assert_eq!(log.health(), Health::StoreFull);
        let tail = log.barrier().await.expect("a barrier").expect("frames");
        let newest = SnapshotId::of(&log.frame_at(tail).await.expect("readable").expect("held"));
        let mut before = log.read(Position(tail.0 - 2));
        let older = SnapshotId::of(&next(&mut *before).await.expect("frames").frames[0]);
        for covered in [older, newest] {
            log.put_snapshot(covered, Box::new(std::iter::empty())).await.expect("stored");
        }
        let first = log.truncate(older.position).await.expect("it is permitted");
        assert!(first <= older.position && log.holds(older).await == Ok(true));
        counter += 1;
        assert_eq!(append_large(&log, counter).await, Appended::Committed { position: None });
        assert_eq!(log.health(), Health::Serving);
    }
    let first = log.info().await.expect("info").first.expect("frames");
    assert!(first > Position(1), "the broker has dropped the oldest segments");
    assert_eq!(next(&mut *log.read(Position(1))).await, Err(ReadError::Truncated { first }));
    assert_eq!(log.frame_at(Position(1)).await, Ok(None));
    let (id, again) =
        (log.info().await.expect("info").log_id, open(server.address_with("full", SMALL)).await);
    assert_eq!(again.info().await.expect("info").log_id, id, "it is known without its origin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_make_one_log_and_read_what_the_other_writes() {
    let Some(server) = shared_server().await else { return };
    let address = || server.address("both");
    let (one, other) = tokio::join!(open(address()), open(address()));
    let ids = (one.info().await.expect("info").log_id, other.info().await.expect("info").log_id);
    assert_eq!(ids.0, ids.1, "whoever came first has made it");
    let write = async |log: &RabbitMq, counters: std::ops::RangeInclusive<u64>| {
        for counter in counters {
            append(log, counter).await;
        }
    };
    tokio::join!(write(&one, 1..=60), write(&other, 101..=160));
    let (seen, too) = (read_to_tail(&one).await, read_to_tail(&other).await);
    assert_eq!(seen, too);
    let mut counters: Vec<_> = seen.iter().map(|it| it.record_id.counter).collect();
    for of_one in [1..=60, 101..=160] {
        let in_order = counters.iter().copied().filter(|it| of_one.contains(it));
        assert!(in_order.eq(of_one.clone()), "the frames of each are in its order");
    }
    counters.sort_unstable();
    assert!(counters.into_iter().eq((1..=60).chain(101..=160)));
}

/// The newest chunk is asked for, and nothing is written: an append that was confirmed before must be in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_covers_what_was_committed_before_it_was_asked_for() {
    let Some(server) = shared_server().await else { return };
    let asking = open(server.address("tail")).await;
    let load = Load::start(Arc::new(open(server.address("tail")).await));
    let mut moved = 0;
    let mut newest = None;
    for _ in 0..300 {
        let committed = load.committed();
        let tail = asking.barrier().await.expect("a barrier");
        assert!(
            tail.map_or(0, |tail| tail.0) >= committed,
            "{committed} were committed, the tail is {tail:?}"
        );
        assert!(tail >= newest, "a tail does not go back");
        moved += u32::from(tail > newest);
        newest = tail;
    }
    assert!(moved > 100, "frames were written meanwhile: {moved}");
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_gone_is_noticed_and_one_made_anew_is_never_written_to() {
    let Some(server) = shared_server().await else { return };
    let log = open(server.address("deleted")).await;
    append(&log, 1).await;
    let mut reader = log.read(Position(1));
    next(&mut *reader).await.expect("a frame");
    let (_connection, channel) = other_client(&server).await;
    channel.queue_delete("deleted".into(), QueueDeleteOptions::default()).await.expect("deleted");
    // Another relay comes first and makes the log anew.
    let anew = open(server.address("deleted")).await;
    assert_eq!(rejection(&log, 2..100).await, Rejection::Failed);
    assert_eq!(next(&mut *reader).await, Err(ReadError::Regressed { tail: None }));
    assert!(matches!(log.health(), Health::Failed(_)), "{:?}", log.health());
    assert_eq!(log.barrier().await, Err(LogError::Read(ReadError::Regressed { tail: None })));
    assert_eq!(anew.info().await.expect("it is there").tail, None, "the new log is empty");
    append(&anew, 1).await;
    channel.queue_delete("deleted".into(), QueueDeleteOptions::default()).await.expect("deleted");
    assert_eq!(rejection(&anew, 2..100).await, Rejection::Failed);
    assert_eq!(next(&mut *anew.read(Position(1))).await, Err(ReadError::Regressed { tail: None }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_given_back_what_a_live_relay_holds() {
    let Some(server) = shared_server().await else { return };
    let address = server.address("given-back");
    let wipe = async || {
        let (_connection, channel) = other_client(&server).await;
        for stream in ["given-back", "given-back-index", "given-back-snapshots"] {
            channel.queue_delete(stream.into(), QueueDeleteOptions::default()).await.expect("deleted");
        }
    };
    let is_the_same = gives_back_what_was_lost(async || open(address.clone()).await, async || (), wipe).await;
    assert!(!is_the_same, "the stream was made anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_log_is_refused_and_a_record_of_others_is_told() {
    let Some(server) = shared_server().await else { return };
    let log = open(server.address("told")).await;
    append(&log, 1).await;
    let (_connection, channel) = other_client(&server).await;
    let (durable, nothing) = (QueueDeclareOptions::durable(), FieldTable::default());
    channel.queue_declare("orders".into(), durable, nothing).await.expect("declared");
    for (name, more) in [("orders", "replicas=1"), ("told-index", "replicas=1"), ("told", SMALL)] {
        let error = refusal(server.address_with(name, more)).await;
        assert!(matches!(error, OpenError::Unsuitable { .. }), "{name}: {error:?}");
    }
    let error = refusal(server.address("told-snapshots")).await;
    assert!(matches!(error, OpenError::NotALog { .. }), "{error:?}");
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel
        .basic_publish("".into(), "told".into(), options, b"an order", properties)
        .await
        .expect("published");
    let mut reader = log.read(Position(1));
    assert_eq!(next(&mut *reader).await.expect("what lies before").frames.len(), 1);
    let damaged = next(&mut *reader).await;
    assert!(matches!(damaged, Err(ReadError::Damaged { position: Position(2), .. })), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_come_in_is_refused_without_the_password() {
    let Some(server) = shared_server().await else { return };
    let error = refusal(server.address_as("guest:wr0ng", "log")).await;
    assert!(matches!(error, OpenError::Credentials { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error}");
    append(&open(server.address_as("guest:guest", "log")).await, 1).await;
    let nobody: Address = "amqp://127.0.0.1:9".parse().expect("an address");
    let error = refusal(nobody).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_is_the_page_cache_unless_somebody_says_that_there_are_three() {
    let Some(server) = shared_server().await else { return };
    let durability = async |address| open(address).await.info().await.expect("info").durability;
    assert_eq!(durability(server.address("one")).await, Durability::PageCache);
    assert_eq!(durability(server.address_with("three", "replicas=3")).await, Durability::Majority);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_goes_on_from_what_it_left_on_rabbitmq() {
    let Some(server) = shared_server().await else { return };
    let mut revisions = Vec::new();
    for _ in 0..2 {
        let log = Arc::new(open(server.address("relay")).await);
        let started = Relay::start(Config::default(), log).await.expect("the relay starts");
        revisions.push(started.relay.sequencer.read().fold.revision());
        started.stop().await;
    }
    let log = open(server.address("relay")).await;
    assert!(revisions[0] < revisions[1], "the second session knows of the first: {revisions:?}");
    assert_eq!(log.barrier().await, Ok(Some(Position(2))), "each session has opened itself, once");
    assert_eq!(log.newest_snapshots().await.expect("snapshots").len(), 2, "and left a snapshot");
}

/// Killed, stopped and frozen under load; then with a disk that has no room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_is_lost_or_moved_whatever_ends_the_server() {
    let Some(mut server) = RabbitServer::start() else { return };
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let log = Arc::new(open(server.address("killed")).await);
    let load = Load::start(Arc::clone(&log) as Arc<dyn Log>);
    // Stopped first: this release never finds a stream again that was made within the seconds before a SIGKILL.
    let ends: [fn(&mut RabbitServer); 3] = [
        RabbitServer::stop,
        RabbitServer::kill,
        // Longer than an answer may take: what was on its way is unknown, and comes back late.
        |server| {
            server.freeze();
            std::thread::sleep(Duration::from_secs(6));
            server.thaw();
        },
    ];
    for end in ends {
        load.reached(load.committed() + FRAMES_PER_KILL + random.u64(..FRAMES_PER_KILL)).await;
        server = tokio::task::spawn_blocking(move || {
            end(&mut server);
            server.run_if_ended();
            server
        })
        .await
        .expect("it runs again");
    }
    load.reached(load.committed() + FRAMES_PER_KILL).await;
    let (acknowledged, twice) = load.finish().await;
    println!("RabbitMQ {}: {acknowledged} frames acknowledged, {twice} stored twice", server.version());

    server.stop();
    server.run_with("disk_free_limit.absolute = 1000000GB");
    says_that_the_disk_is_full(&log).await;
    assert!(read_to_tail(&*log).await.len() as u64 >= acknowledged, "reading goes on");
}

async fn says_that_the_disk_is_full(log: &RabbitMq) {
    let full = async {
        // The broker says so when it has got a message; what becomes of that one is unknown.
        for counter in 1_000_000.. {
            match log.append(id(counter), frame(1)).await {
                Appended::Rejected(rejection) => return rejection,
                other => assert_eq!(other, Appended::Unknown, "nothing is stored"),
            }
        }
        unreachable!("there are more numbers")
    };
    assert_eq!(timeout(PATIENCE, full).await.expect("a full disk is told"), Rejection::StoreFull);
    assert_eq!(log.health(), Health::StoreFull);
}

/// What three ends of a server show: it was away, it has lost its tail, it has lost everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_survived_and_lost_frames_are_noticed() {
    let Some(mut server) = RabbitServer::start() else { return };
    let (log, regressed) = (open(server.address("restarted")).await, open(server.address("regressed")).await);
    append(&log, 1).await;
    for counter in 1..=3 {
        append(&regressed, counter).await;
    }
    let saved = goes_on_after_a_restart(&log, &mut server).await;

    append(&regressed, 4).await;
    let mut reader = regressed.read(Position(1));
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

    server.stop();
    server.wipe(None);
    server.run();
    assert_eq!(rejection(&other, 12..100).await, Rejection::Failed);
    let anew = open(server.address("restarted")).await;
    assert_eq!(next(&mut *log.read(Position(1))).await, Err(ReadError::Regressed { tail: None }));
    assert_eq!(rejection(&log, 3..100).await, Rejection::Failed);
    assert_eq!(anew.info().await.expect("it is there").tail, None, "the new log is empty");
}

/// Of a log with one frame. Answers what the server kept in between.
async fn goes_on_after_a_restart(log: &RabbitMq, server: &mut RabbitServer) -> TempDir {
    let mut reader = log.read(Position(1));
    while !next(&mut *reader).await.expect("frames").at_tail {}
    let snapshot = SnapshotId::of(&log.frame_at(Position(1)).await.expect("readable").expect("held"));
    let body = [Ok(Bytes::from_static(b"state"))];
    log.put_snapshot(snapshot, Box::new(body.into_iter())).await.expect("stored");
    server.stop();
    let unreachable = async {
        while log.health() == Health::Serving {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, unreachable).await.expect("an outage shows");
    assert!(matches!(log.health(), Health::Unreachable(_)), "{:?}", log.health());
    let saved = server.save();
    // A server that takes smaller messages than we may send.
    server.run_with("max_message_size = 1000000");
    append(log, 2).await;
    let batch = next(&mut *reader).await.expect("the reader goes on");
    assert_eq!(batch.frames.iter().map(|it| it.position.0).collect::<Vec<_>>(), [2]);
    assert_eq!(log.health(), Health::Serving);
    let mut stored = log.load_snapshot(snapshot).await.expect("the snapshot is there");
    assert_eq!(stored.next_chunk().await, Ok(Some(Bytes::from_static(b"state"))));
    assert_eq!(stored.next_chunk().await, Ok(None));
    let too_large = timeout(PATIENCE, log.append(id(3), vec![7; 1_500_000].into())).await.expect("an answer");
    assert!(matches!(too_large, Appended::Rejected(Rejection::TooLarge { .. })), "{too_large:?}");
    saved
}
