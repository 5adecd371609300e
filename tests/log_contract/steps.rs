//! What the tests of every broker do with a log: append until it knows, read to the tail, and both without end.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dormouse_proto::{
    ids::Namespace,
    lattice::{Change, CounterDelta, Delta},
    record::{Record, Write},
};
use dormouse_relay::{
    config::Config,
    log::{Appended, Batch, Log, LogReader, Position, ReadError, RecordId, Rejection, StoredFrame},
    metrics::Gauges,
    relay::{Relay, Started},
    sequencer::Sequencer,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn id(counter: u64) -> RecordId {
    RecordId { session: 7, counter }
}

pub(crate) fn frame(counter: u64) -> Bytes {
    let size = usize::try_from(counter * 7_919 % 9_000).unwrap_or_default();
    let mut frame = counter.to_le_bytes().to_vec();
    frame.resize(8 + size, u8::try_from(counter % 251).unwrap_or_default());
    frame.into()
}

/// Tries until the log knows, as the sequencer does.
pub(crate) async fn append(log: &dyn Log, counter: u64) -> Option<Position> {
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
pub(crate) async fn rejection(log: &dyn Log, counters: std::ops::Range<u64>) -> Rejection {
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

pub(crate) async fn next(reader: &mut dyn LogReader) -> Result<Batch, ReadError> {
    timeout(PATIENCE, reader.next_batch()).await.expect("a reader answers")
}

pub(crate) async fn read_to_tail(log: &dyn Log) -> Vec<StoredFrame> {
    let (mut reader, mut frames) = (log.read(Position::FIRST), Vec::new());
    loop {
        let batch = next(&mut *reader).await.expect("frames");
        frames.extend(batch.frames);
        if batch.at_tail {
            return frames;
        }
    }
}

/// Appends and reads that go on whatever happens to the broker.
pub(crate) struct Load {
    log: Arc<dyn Log>,
    /// The highest counter that is committed.
    committed: Arc<AtomicU64>,
    seen: Arc<tokio::sync::Mutex<Vec<StoredFrame>>>,
    appending: JoinHandle<()>,
    reading: JoinHandle<()>,
}

impl Load {
    pub(crate) fn start(log: Arc<dyn Log>) -> Self {
        let (committed, seen) = (Arc::default(), Arc::default());
        let appending = tokio::spawn(keep_appending(Arc::clone(&log), Arc::clone(&committed)));
        let reading = tokio::spawn(keep_reading(log.read(Position::FIRST), Arc::clone(&seen)));
        Self { log, committed, seen, appending, reading }
    }

    pub(crate) async fn reached(&self, at_least: u64) {
        let grown = async {
            while self.committed.load(Ordering::Acquire) < at_least {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, grown).await.expect("appends go on");
    }

    /// How many are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Stops, checks that nothing that was committed is lost or moved, and that the reader has seen the log as it is.
    /// Answers how many were committed and how many of those are stored twice.
    pub(crate) async fn finish(self) -> (u64, usize) {
        self.appending.abort();
        let acknowledged = self.committed();
        let stored = read_to_tail(&*self.log).await;
        let mut applied = HashSet::new();
        let once: Vec<_> =
            stored.iter().filter(|it| applied.insert(it.record_id)).map(|it| it.record_id.counter).collect();
        assert!(
            once.len() as u64 >= acknowledged,
            "{acknowledged} were acknowledged, {} are there",
            once.len()
        );
        assert_eq!(
            once,
            (1..=once.len() as u64).collect::<Vec<_>>(),
            "every frame is there, in the order of the calls"
        );
        assert!(stored.iter().all(|it| it.frame == frame(it.record_id.counter)), "and has its bytes");
        // The one that was read all the time is the one that is there.
        let caught_up = async {
            while (self.seen.lock().await.len() as u64) < acknowledged {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, caught_up).await.expect("the reader follows");
        assert!(!self.reading.is_finished(), "the reader is well");
        self.reading.abort();
        let seen = self.seen.lock().await;
        let both = seen.len().min(stored.len());
        assert!(seen[..both] == stored[..both], "the reader saw the log as it is");
        (acknowledged, stored.len() - once.len())
    }
}

/// Appends without end; tells the highest counter that is committed.
async fn keep_appending(log: Arc<dyn Log>, committed: Arc<AtomicU64>) {
    for counter in 1.. {
        append(&*log, counter).await;
        committed.store(counter, Ordering::Release);
    }
}

/// Reads without end into `seen`; nothing may be missing between frames, whatever the broker does.
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

/// A relay writes to a log of which `lose` makes the broker lose what came behind the first half, or everything. Then it
/// gives back what it had been told is kept, and a relay that starts afterwards finds all of it. Answers whether it is still
/// the same log.
pub(crate) async fn gives_back_what_was_lost<L: Log>(
    open: impl AsyncFn() -> L,
    half_way: impl AsyncFnOnce(),
    lose: impl AsyncFnOnce(),
) -> bool {
    const WRITES: u64 = 20;
    let relay = Relay::start(Config::default(), Arc::new(open().await)).await.expect("the relay starts");
    let sequencer = relay.relay.sequencer.clone();
    for nth in 0..WRITES / 2 {
        write(&sequencer, nth).await;
    }
    half_way().await;
    for nth in WRITES / 2..WRITES {
        write(&sequencer, nth).await;
    }
    let (before, log_before) = (sequencer.read().fold.revision(), sequencer.log().id);
    lose().await;
    // A write that comes meanwhile waits, and is answered when it is really there.
    write(&sequencer, WRITES).await;
    assert!(sequencer.read().fold.revision() > before);
    let page = relay.relay.metrics.encode(&Gauges::default()).expect("a page");
    assert!(page.contains("dormouse_reseeds_total{outcome=\"healed\"} 1\n"), "{page}");

    let later = Relay::start(Config::default(), Arc::new(open().await)).await.expect("another relay starts");
    let rows = |relay: &Started| {
        let applied = relay.relay.sequencer.read();
        applied.fold.namespace(&Namespace::default()).map_or(0, |view| view.rows())
    };
    assert_eq!((rows(&relay), rows(&later)), (WRITES + 1, WRITES + 1), "what was acknowledged is there");
    let newest = later.relay.sequencer.read().fold.revision();
    assert!(sequencer.reached(newest, PATIENCE).await, "both follow the same log");
    let is_the_same = sequencer.log().id == log_before;
    drop(sequencer);
    later.stop().await;
    relay.stop().await;
    is_the_same
}

/// Counts something under a key of its own, and is told that the log has it.
async fn write(sequencer: &Sequencer, nth: u64) {
    let change = Change::Counter(CounterDelta { amount: 1, ..CounterDelta::default() });
    let (collection, key) = ("kept".parse().expect("a name"), format!("n{nth}").parse().expect("a name"));
    let record = Record::Write(Write {
        namespace: Namespace::default(),
        request_id: format!("write-{nth}").parse().expect("an id"),
        deltas: vec![Delta { collection, key, change }],
    });
    let outcome = sequencer.write(record, 256, None, PATIENCE).await;
    let outcome = outcome.unwrap_or_else(|error| panic!("{error}: {:?}", sequencer.trouble()));
    assert!(outcome.verdict.bound_at().is_some(), "{outcome:?}");
}
