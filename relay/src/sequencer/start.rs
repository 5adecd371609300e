//! The start of a session: newest usable snapshot, the log's tail, an Open record; then, and only then, serve.

use std::{sync::Arc, time::Duration};

use dormouse_proto::{ids::Revision, record::Record};
use parking_lot::RwLock;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

use super::{
    Bounds, Gate, LogFacts, Sequencer, Shared, Trouble, Unwritten, Witness, aside::Aside, reader, writer,
};
use crate::{
    log::{Log, LogError, Position, ReadError},
    metrics::Metrics,
};

/// How far an Open record jumps at the least: more numbers than any session gives.
const JUMP: u64 = 1 << 36;

/// A relay cannot start on this log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log could not be opened or asked.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A frame in it cannot be understood.
    #[error("{0}")]
    Frame(String),
    /// The log was healed with a state that is not stored any more, and no newer snapshot is there yet.
    #[error("position {position}: the state that the log was healed with: {why}")]
    Seed {
        /// Where the log says so.
        position: Position,
        /// What is wrong with that state.
        why: String,
    },
    /// No snapshot could be used, and the log no longer begins at its beginning.
    #[error("the log begins at {first} and no snapshot of it can be used; restore a backup")]
    NoSnapshot {
        /// The oldest frame that is left.
        first: Position,
    },
    /// The first record of the session was not accepted.
    #[error("the session could not be opened: {0}")]
    Open(#[from] Unwritten),
    /// The lease settings contradict each other.
    #[error(transparent)]
    Leases(#[from] crate::liveness::LeaseSettingsError),
    /// The thread that watches the clock could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The kernel gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// How far a start is in reading what it starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// In the newest snapshot.
    Snapshot {
        /// Bytes of it.
        bytes: u64,
        /// As many are stored.
        of: u64,
    },
    /// In the frames behind it.
    Log {
        /// Frames that were applied.
        frames: u64,
        /// The last one.
        at: Position,
        /// The newest one, as far as the log has said.
        tail: Option<Position>,
    },
}

/// Hears of how far a start is.
pub(super) type Told<'a> = &'a mut (dyn FnMut(Reading) + Send);

/// A started sequencer and how to stop it.
pub struct Running {
    /// The handle.
    pub sequencer: Sequencer,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    stop_reader: watch::Sender<bool>,
}

/// Replays the log into a state, opens a session on it, and starts the tasks that write and apply. `told` hears of how far
/// that is.
///
/// # Errors
/// [`StartError`]; nothing was written then, but for the session's Open.
pub async fn start(
    log: Arc<dyn Log>,
    bounds: Bounds,
    witness: Arc<dyn Witness>,
    metrics: Arc<Metrics>,
    told: Told<'_>,
) -> Result<Running, StartError> {
    let info = log.info().await?;
    let session = getrandom::u64()?;
    let Aside { applied, trail, reader } = Aside::of_all(&*log, told).await?;
    let revision = applied.fold.revision();
    let outgoing = writer::Outgoing::new(log.connection());
    let facts = LogFacts::of(&*log, &info);
    let shared = Arc::new(Shared {
        log: RwLock::new(log),
        facts: RwLock::new(Arc::new(facts)),
        session,
        applied: RwLock::new(applied),
        revision: watch::Sender::new(revision),
        pending: parking_lot::Mutex::default(),
        trouble: watch::Sender::new(Trouble::None),
        metrics,
        bounds,
        witness,
        outgoing,
        trail: parking_lot::Mutex::new(trail),
        heard: parking_lot::Mutex::default(),
        gate: watch::Sender::new(Gate::Open),
        snapshotting: tokio::sync::Mutex::default(),
        stored: parking_lot::Mutex::new(Position(0)),
    });
    let (inbox, submissions) = mpsc::channel(bounds.records);
    let (stop_reader, stopped) = watch::channel(false);
    let running = Running {
        writer: tokio::spawn(writer::run(Arc::clone(&shared), submissions, info.appends_in_flight)),
        reader: tokio::spawn(reader::run(Arc::clone(&shared), reader, stopped)),
        sequencer: Sequencer { shared, inbox, room: Arc::new(Semaphore::new(bounds.bytes / 1024 + 1)) },
        stop_reader,
    };
    open_session(&running.sequencer, revision).await?;
    Ok(running)
}

/// The jump is random, because an Open can itself be lost.
async fn open_session(sequencer: &Sequencer, revision: Revision) -> Result<(), StartError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let base = next_base(revision)?;
    sequencer.write(Record::Open { base }, 64, None, PATIENCE).await?;
    Ok(())
}

/// Where an Open behind this revision jumps to.
pub(super) fn next_base(revision: Revision) -> Result<Revision, getrandom::Error> {
    Ok(Revision(revision.0.saturating_add(JUMP).saturating_add(getrandom::u64()? % JUMP)))
}

impl Running {
    /// Takes nothing more, waits for what is on its way, stores a snapshot, and lets go of the log.
    pub async fn stop(self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let Self { sequencer, writer, reader, stop_reader } = self;
        let shared = Arc::clone(&sequencer.shared);
        drop(sequencer);
        // The writer ends when every handle is gone; handlers that still hold one are cut off after a while.
        let _ = tokio::time::timeout(PATIENCE, writer).await;
        let _ = tokio::time::timeout(PATIENCE, shared.drained()).await;
        stop_reader.send_replace(true);
        let _ = reader.await;
        Arc::clone(&shared).snapshot().await;
        let log = shared.log();
        log.close().await;
    }
}
