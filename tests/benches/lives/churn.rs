//! Functions that come by the thousand and die without a word, for minutes: what the relay's memory does, and how old the
//! view of a watcher is.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dormouse_proto::wire::v1::{self, member_event::Kind};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tonic::{Streaming, transport::Channel};

use crate::{
    is_long,
    load::{Node, Says, Settings, changes, channel, channels, watch_members},
    p99,
    relay::RelayProcess,
    report, usage,
};

const JOINS_PER_S: u32 = 1_000;
/// Joins under way; a relay lets 256 wait.
const AT_ONCE: usize = 200;
const LEASES: &Settings = &[("DORMOUSE_AWAKE_LEASE_MS", "3000"), ("DORMOUSE_SUSPECT_GRACE_MS", "500")];
/// By then the relay has all the 262,144 tombstones that it keeps, and the cache of its log is full; memory grows until
/// both are so.
const WARM_UP: Duration = Duration::from_secs(300);

/// Joins: when each was answered, and when the watcher was told of it, whichever comes first.
#[derive(Debug, Default)]
struct Ages {
    half: HashMap<String, Instant>,
    whole: Vec<Duration>,
}

/// One of the two moments of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Answered,
    Told,
}

impl Ages {
    fn note(&mut self, node_id: String, moment: Moment) {
        let now = Instant::now();
        match (self.half.remove(&node_id), moment) {
            (None, _) => drop(self.half.insert(node_id, now)),
            (Some(answered), Moment::Told) => self.whole.push(now - answered),
            // The watcher knew before the node did.
            (Some(_), Moment::Answered) => self.whole.push(Duration::ZERO),
        }
    }
}

type Shared = Arc<Mutex<Ages>>;

fn locked(ages: &Shared) -> std::sync::MutexGuard<'_, Ages> {
    ages.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(mut stream: Streaming<v1::WatchMembersResponse>, ages: Shared) {
    while let Ok(Some(message)) = stream.message().await {
        let mut ages = locked(&ages);
        for (_, node_id) in changes(message).filter(|(kind, _)| *kind == Kind::Joined) {
            ages.note(node_id, Moment::Told);
        }
    }
}

/// Lets new nodes join at a steady rate, as far as the relay keeps up.
fn come(channels: Vec<Channel>, ages: Shared, joined: Arc<AtomicU64>) -> JoinHandle<()> {
    const TICKS_PER_S: u32 = 100;
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut ticks = interval(Duration::from_secs(1) / TICKS_PER_S);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for nth in 0.. {
            ticks.tick().await;
            for _ in 0..JOINS_PER_S / TICKS_PER_S {
                let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
                let (ages, joined) = (Arc::clone(&ages), Arc::clone(&joined));
                let mut node = Node::new(channels[nth % channels.len()].clone());
                tokio::spawn(async move {
                    if node.beat(Says::Awake).await.is_ok() {
                        joined.fetch_add(1, Relaxed);
                        locked(&ages).note(node.id, Moment::Answered);
                    }
                    drop(place);
                });
            }
        }
    })
}

pub(crate) async fn churn() {
    let period = Duration::from_secs(if is_long() { 600 } else { 120 });
    let relay = RelayProcess::start(LEASES).expect("a relay");
    let pid = relay.pid().expect("it runs");
    let (ages, joined) = (Shared::default(), Arc::new(AtomicU64::new(0)));
    tokio::spawn(watch(watch_members(channel(&relay.url()).await).await, Arc::clone(&ages)));
    let coming = come(channels(&relay.url()).await, Arc::clone(&ages), Arc::clone(&joined));
    tokio::time::sleep(WARM_UP).await;

    let ends = || relay.metric("dormouse_ends_total{cause=\"expired\"}").expect("a metric");
    let (began, ended_before, joined_before) = (Instant::now(), ends(), joined.load(Relaxed));
    locked(&ages).whole.clear();
    let cpu_us = usage::cpu_us(pid);
    let mut sizes = Vec::new();
    while began.elapsed() < period {
        sizes.push((began.elapsed().as_secs_f64() / 60.0, usage::resident_bytes(pid) / f64::from(1 << 20)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let took = began.elapsed().as_secs_f64();
    report("churn_joins_per_s", (joined.load(Relaxed) - joined_before) as f64 / took, "1/s");
    report("churn_ends_per_s", (ends() - ended_before) as f64 / took, "1/s");
    report("churn_mib_per_min", slope(&sizes), "MiB/min");
    report("churn_first_mib", sizes.first().map_or(0.0, |it| it.1), "MiB");
    report("churn_last_mib", sizes.last().map_or(0.0, |it| it.1), "MiB");
    let whole = std::mem::take(&mut locked(&ages).whole);
    report("churn_views", whole.len() as f64, "count");
    report("churn_view_age_s", p99(whole).as_secs_f64(), "s");
    report("churn_relay_cores", (usage::cpu_us(pid) - cpu_us) / 1e6 / took, "cores");
    let false_deaths = relay.metric("dormouse_false_deaths_total").expect("a metric");
    report("churn_false_deaths", false_deaths as f64, "count");
    coming.abort();
}

/// Of the line with the least squares through these points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|it| it.0), mean(|it| it.1));
    let covariance: f64 = points.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    covariance / points.iter().map(|it| (it.0 - x).powi(2)).sum::<f64>()
}
