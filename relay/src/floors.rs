//! The shell around the floors: counts who is alive, and tells watchers, metrics, the log and the owner of each crossing.
//!
//! What a crossing is, is said purely by [`Floor`]. Counting costs a walk over the members of a floor, and only when
//! somebody came, went, fell silent or was heard again since the last one; the state's lock is held for those who came
//! and went alone.
//!
//! Invariants: whoever subscribes hears of each event once, be it in what it is handed first or later; an owner that does
//! not answer holds up nobody but itself.

mod census;
mod webhook;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dormouse_proto::ids::{Namespace, Revision};
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    clock::Clock,
    config::FloorSettings,
    keeper::Keeper,
    liveness::{Floor, FloorEvent, FloorRule, Timestamp, guard::HoldReason},
    metrics::{FloorGauge, Metrics},
    sequencer::Sequencer,
};

use census::{Census, Silenced};
use webhook::Owners;

/// How often the counts are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Events that a slow subscriber may be behind before it misses some.
const EVENTS: usize = 1_024;

/// An event, and whose it is.
#[derive(Clone, Debug)]
pub struct Crossed {
    /// Where the floor is.
    pub namespace: Namespace,
    /// What happened.
    pub event: FloorEvent,
}

/// One floor of a namespace.
#[derive(Debug)]
struct Watched {
    namespace: Namespace,
    floor: Floor,
    /// Whether it was said that there are more values than are looked at.
    surplus_told: bool,
}

/// The floors of this relay.
#[derive(Debug)]
pub struct Floors {
    watched: Mutex<Vec<Watched>>,
    /// Sent to only under the lock of `watched`, so that a subscriber finds each event in exactly one of the two.
    events: broadcast::Sender<Crossed>,
    settings: BTreeMap<String, FloorSettings>,
}

/// What the floors look at, and where they count what they say.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Who is a member.
    pub sequencer: Sequencer,
    /// Who is alive.
    pub keeper: Arc<Keeper>,
    /// Virtual time, and whether expiry is held.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The name of this relay: begins the name of every event that is posted.
    pub relay: Arc<str>,
}

/// What one look at a floor has found.
pub(crate) struct Found {
    crossed: Vec<FloorEvent>,
    /// Values that are not looked at; only the first time that there are any.
    surplus: Option<u64>,
}

impl Floors {
    /// Floors that have seen nothing yet.
    pub fn new(settings: &BTreeMap<String, FloorSettings>) -> Arc<Self> {
        let watched = settings.iter().map(|(name, settings)| Watched {
            namespace: settings.namespace.clone(),
            floor: Floor::new(rule(name, settings)),
            surplus_told: false,
        });
        let watched = Mutex::new(watched.collect());
        Arc::new(Self { watched, events: broadcast::Sender::new(EVENTS), settings: settings.clone() })
    }

    /// The floors of a namespace that are below their minimum now, and the events of all namespaces from here on.
    pub fn subscribe(&self, namespace: &Namespace) -> (Vec<FloorEvent>, broadcast::Receiver<Crossed>) {
        self.standing(namespace, |floor, out| out.extend(floor.below()))
    }

    /// As [`Self::subscribe`], for somebody who missed events: also those that were below once and are not any more.
    pub fn subscribe_again(&self, namespace: &Namespace) -> (Vec<FloorEvent>, broadcast::Receiver<Crossed>) {
        self.standing(namespace, |floor, out| out.extend(floor.told()))
    }

    fn standing(
        &self,
        namespace: &Namespace,
        told: impl Fn(&Floor, &mut Vec<FloorEvent>),
    ) -> (Vec<FloorEvent>, broadcast::Receiver<Crossed>) {
        let watched = self.watched.lock();
        let mut events = Vec::new();
        watched.iter().filter(|it| it.namespace == *namespace).for_each(|it| told(&it.floor, &mut events));
        (events, self.events.subscribe())
    }

    /// The counts as they were looked at last.
    pub fn gauges(&self) -> Vec<FloorGauge> {
        let gauge = |Watched { floor, .. }: &Watched| FloorGauge {
            floor: floor.rule().name.to_string(),
            minimum: floor.rule().minimum,
            live: floor.live().map(|(value, live)| (value.to_owned(), live)).collect(),
            passed_over: floor.passed_over(),
        };
        self.watched.lock().iter().map(gauge).collect()
    }

    /// Looks at the counts until it is told to stop; without any floor it ends at once.
    pub async fn run(self: Arc<Self>, around: Surroundings, mut stop: watch::Receiver<bool>) {
        if self.settings.is_empty() {
            return;
        }
        self.settings.keys().for_each(|floor| around.metrics.floor_known(floor));
        let mut owners = Owners::of(&self.settings, &around.metrics, &around.relay);
        let mut censuses: Vec<Census> = self.settings.values().cloned().map(Census::new).collect();
        let mut turns = around.keeper.turns();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let silenced = Silenced::since_last_time(&mut turns);
            for (place, census) in censuses.iter_mut().enumerate() {
                census.take(&around, &silenced).await;
                let now = around.clock.now();
                let found = self.look(place, now, around.clock.guard().expiry_held(now), census.counts());
                tell(&found, census, &around.metrics, &mut owners);
            }
        }
    }

    /// Has the floor at that place, in the order of their names, look at these counts; whoever has subscribed hears of what follows.
    pub(crate) fn look(
        &self,
        place: usize,
        now: Timestamp,
        hold: Option<HoldReason>,
        counts: &BTreeMap<String, u64>,
    ) -> Found {
        let mut watched = self.watched.lock();
        let Watched { namespace, floor, surplus_told } = &mut watched[place];
        let crossed = floor.observe(now, hold, counts);
        for event in &crossed {
            let _ = self.events.send(Crossed { namespace: namespace.clone(), event: event.clone() });
        }
        let surplus = Some(floor.passed_over()).filter(|surplus| *surplus > 0 && !*surplus_told);
        *surplus_told |= surplus.is_some();
        Found { crossed, surplus }
    }
}

/// What is asked of the floor of that name.
fn rule(name: &str, settings: &FloorSettings) -> FloorRule {
    // All that count together count under the empty value, which is there even if nobody is.
    let values = if settings.by.is_none() { [String::new()].into() } else { settings.values.clone() };
    FloorRule { name: name.into(), values, minimum: settings.minimum, settle: settings.settle }
}

fn tell(found: &Found, census: &Census, metrics: &Metrics, owners: &mut Owners) {
    let (namespace, revision): (&Namespace, Revision) = (census.namespace(), census.revision());
    for event in &found.crossed {
        let FloorEvent { floor, value, live, minimum, below } = event;
        if *below {
            warn!(%floor, %namespace, %value, live, minimum, "too few members are alive");
        } else {
            info!(%floor, %namespace, %value, live, minimum, "enough members are alive again");
        }
        metrics.floor_crossed(floor, *below);
        owners.post(event, namespace, revision);
    }
    if let Some(surplus) = found.surplus {
        let looked_at = FloorRule::VALUES;
        warn!(%namespace, surplus, looked_at, "a floor has more values than are looked at; list those that matter");
    }
}
