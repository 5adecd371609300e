//! One relay, put together: what every call needs, and how it starts and stops.

mod shown;

use std::{sync::Arc, time::Duration};

use dormouse_proto::record::Record;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tracing::info;

use crate::{
    chronicle::Chronicle,
    clock::{Clock, Ticking},
    config::Config,
    floors::{Floors, Surroundings},
    history::History,
    keeper::Keeper,
    log::{Log, Position},
    metrics::Metrics,
    sequencer::{self, Bounds, Reading, Running, Sequencer, StartError, Witness},
    state::{Fold, Verdict},
};

/// What every call needs.
#[derive(Clone, Debug)]
pub struct Relay {
    /// The way to the log and to the state.
    pub sequencer: Sequencer,
    /// The leases.
    pub keeper: Arc<Keeper>,
    /// The time of nodes and connections, in which this relay's own pauses do not exist.
    pub clock: Clock,
    /// Who came and went lately, where somebody watches.
    pub chronicle: Arc<Chronicle>,
    /// How many must be alive, and whether they are.
    pub floors: Arc<Floors>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Its last minutes, for people.
    pub history: Arc<History>,
    /// The bounds and settings in force.
    pub config: Arc<Config>,
    /// Joins that may wait at once: renewals are served before them.
    pub joins: Arc<Semaphore>,
    /// Streams that may be open at once.
    pub watchers: Arc<Semaphore>,
    /// Turns true when this relay stops; streams end then.
    pub stopping: watch::Receiver<bool>,
    /// The name of this relay, of its session.
    pub id: Arc<str>,
}

/// A started relay and how to stop it.
pub struct Started {
    /// What every call needs.
    pub relay: Relay,
    running: Running,
    keeper: JoinHandle<()>,
    floors: JoinHandle<()>,
    remembering: JoinHandle<()>,
    stop: watch::Sender<bool>,
    _ticking: Ticking,
}

impl Relay {
    /// Starts on a log: reads it to its end, opens a session, and begins to keep leases.
    ///
    /// # Errors
    /// [`StartError`], with nothing written but the session's first record.
    pub async fn start(config: Config, log: Arc<dyn Log>) -> Result<Started, StartError> {
        Self::start_telling(config, log, &mut |_| ()).await
    }

    /// As [`Self::start`]; `told` hears of how far it has read.
    ///
    /// # Errors
    /// As there.
    pub async fn start_telling(
        config: Config,
        log: Arc<dyn Log>,
        told: &mut (dyn FnMut(Reading) + Send),
    ) -> Result<Started, StartError> {
        let leases = config.lease_policy().map_err(StartError::Leases)?;
        let clock = Clock::starting(leases.longest_awake());
        let metrics = Arc::new(Metrics::default());
        // Before the log is read: how long that takes is no pause of this relay.
        let paused = Arc::clone(&metrics);
        let ticking = clock.start_ticking(move |pause| paused.paused(pause)).map_err(StartError::Thread)?;
        let keeper = Keeper::new(leases, clock.clone(), Arc::clone(&metrics), !log.is_exclusive());
        let chronicle = Arc::new(Chronicle::default());
        let witnesses =
            Arc::new(Witnesses { keeper: Arc::clone(&keeper), chronicle: Arc::clone(&chronicle) });
        let bounds = Bounds {
            records: config.queue_max,
            bytes: usize::try_from(config.queue_bytes_max).unwrap_or(usize::MAX),
            snapshot_every: config.snapshot_every_bytes,
        };
        let running = sequencer::start(log, bounds, witnesses, Arc::clone(&metrics), told).await?;
        put_in_force(&running.sequencer, &config).await?;
        keeper.restore(&running.sequencer.read().fold, running.sequencer.session());
        let (stop, stopping) = watch::channel(false);
        let relay = Self {
            id: format!("{:016x}", running.sequencer.session()).into(),
            sequencer: running.sequencer.clone(),
            keeper: Arc::clone(&keeper),
            clock,
            chronicle,
            floors: Floors::new(&config.floors),
            metrics,
            history: Arc::default(),
            joins: Arc::new(Semaphore::new(config.joins_max)),
            watchers: Arc::new(Semaphore::new(config.watchers_max)),
            config: Arc::new(config),
            stopping: stopping.clone(),
        };
        let floors = tokio::spawn(Arc::clone(&relay.floors).run(relay.surroundings(), stopping.clone()));
        let keeper = tokio::spawn(keeper.run(running.sequencer.clone(), stopping.clone()));
        let remembering = tokio::spawn(relay.clone().remember(stopping));
        Ok(Started { relay, running, keeper, floors, remembering, stop, _ticking: ticking })
    }
}

/// Whoever hears of every record that was applied.
struct Witnesses {
    keeper: Arc<Keeper>,
    chronicle: Arc<Chronicle>,
}

impl Witness for Witnesses {
    fn witness(&self, fold: &Fold, session: u64, record: &Record, verdict: &Verdict) {
        self.keeper.witness(fold, session, record, verdict);
        self.chronicle.witness(fold, record, verdict);
    }

    fn witness_frame(&self, session: u64, position: Position) {
        self.keeper.witness_frame(session, position);
    }

    fn witness_anew(&self, fold: &Fold, me: u64) {
        self.keeper.witness_anew(fold, me);
        self.chronicle.witness_anew();
    }
}

impl Relay {
    /// What the floors look at.
    fn surroundings(&self) -> Surroundings {
        Surroundings {
            sequencer: self.sequencer.clone(),
            keeper: Arc::clone(&self.keeper),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
            relay: Arc::clone(&self.id),
        }
    }
}

/// The limits that the settings name and the log does not have yet become records, because every relay must refuse alike.
async fn put_in_force(sequencer: &Sequencer, config: &Config) -> Result<(), StartError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    for wanted in [&config.limits].into_iter().chain(config.namespaces.values()) {
        let holds = {
            let applied = sequencer.read();
            match &wanted.namespace {
                None => applied.fold.limits().satisfy(wanted),
                Some(name) => applied.fold.namespace(name).is_some_and(|view| view.has_own(wanted)),
            }
        };
        if !holds {
            info!(limits = ?wanted, "limits put in force");
            sequencer.write(Record::Policy(wanted.clone()), 256, None, PATIENCE).await?;
        }
    }
    Ok(())
}

impl Started {
    /// Tells streams to end; to be called before the server is asked to finish its calls.
    pub fn announce(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for what is on its way, stores a snapshot, and lets go of the log.
    pub async fn stop(self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.announce();
        let _ = tokio::time::timeout(PATIENCE, self.keeper).await;
        let _ = tokio::time::timeout(PATIENCE, self.floors).await;
        let _ = tokio::time::timeout(PATIENCE, self.remembering).await;
        drop(self.relay);
        self.running.stop().await;
    }
}
