//! Events: browsers and services post them, a consumer takes them in batches.
//!
//! Twelve million events an hour are 3,334 a second. They are posted at that pace, in posts of 100 as a service gathers
//! them and one by one as browsers send them, while a consumer follows; then as fast as the relay takes them.

use std::time::{Duration, Instant};

use dormouse::{NewEvent, Relay, Value};

use super::{process::Process, report};

const LOG: &str = "orders/clicks";
/// Events in a second: twelve million in an hour.
const PACE: u128 = 3_334;
/// How long the pace is kept.
const PERIOD: Duration = Duration::from_secs(12);

pub(crate) async fn events() {
    let process = Process::relay_for_events();
    paced(&process, "", 100).await;
    paced(&process, "_single", 1).await;
    let relay = connect(&process);
    let started = Instant::now();
    let posted = as_fast_as_it_goes(&process).await;
    report("events_max_per_s", posted as f64 / started.elapsed().as_secs_f64(), "1/s");
    let taken = consume(&relay, "late", Instant::now()).await;
    report("events_late_consumer_batches", taken.batches as f64, "batches");
}

fn connect(process: &Process) -> Relay {
    Relay::builder().url(&process.url).build().expect("valid settings")
}

/// A click of 120 bytes.
fn click(n: usize) -> NewEvent {
    NewEvent { payload: Value::Text(format!("{{\"click\":{n:0>100}}}")), id: None }
}

#[derive(Default)]
struct Taken {
    events: usize,
    batches: usize,
}

/// The relay's share of a core and its memory, at the pace.
async fn paced(process: &Process, suffix: &str, per_post: usize) {
    // By then what is bounded is full: the log, and the idempotency ids.
    let warm_up = PERIOD;
    let poster = tokio::spawn(post(connect(process), per_post, warm_up + PERIOD));
    let relay = connect(process);
    let until = Instant::now() + warm_up + PERIOD;
    let consumer = tokio::spawn(async move { consume(&relay, "steady", until).await });
    tokio::time::sleep(warm_up).await;
    let (cpu, memory, started) = (process.cpu_us(), process.resident_bytes(), Instant::now());
    let posted = poster.await.expect("it posts");
    let seconds = started.elapsed().as_secs_f64();
    let share = (process.cpu_us() - cpu) / 1e6 / seconds;
    let taken = consumer.await.expect("it takes");
    report(&format!("events{suffix}_core_share_at_3334"), share, "cores");
    report(&format!("events{suffix}_per_s"), posted as f64 / (warm_up + PERIOD).as_secs_f64(), "1/s");
    report(&format!("events{suffix}_memory_growth_ratio"), process.resident_bytes() / memory, "ratio");
    report(
        &format!("events{suffix}_consumed_per_s"),
        taken.events as f64 / (warm_up + PERIOD).as_secs_f64(),
        "1/s",
    );
}

/// Posts at the pace, whatever the answers take.
async fn post(relay: Relay, per_post: usize, period: Duration) -> usize {
    let (relay, started) = (std::sync::Arc::new(relay), Instant::now());
    let (mut posted, mut posts) = (0, tokio::task::JoinSet::new());
    while started.elapsed() < period {
        let due = usize::try_from(started.elapsed().as_millis() * PACE / 1_000).expect("a few seconds");
        while posted + per_post <= due {
            let (relay, events) = (relay.clone(), (posted..posted + per_post).map(click).collect());
            posts.spawn(async move { relay.append(LOG, events).await.expect("it is taken") });
            posted += per_post;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        while posts.try_join_next().is_some() {}
    }
    posts.join_all().await;
    posted
}

/// Takes batches until then, and then what is left.
async fn consume(relay: &Relay, name: &str, until: Instant) -> Taken {
    let (mut consumer, mut taken) = (relay.consumer(LOG, name), Taken::default());
    loop {
        match consumer.next_batch().await.expect("it reads") {
            Some(batch) => {
                taken.events += batch.events.len();
                taken.batches += 1;
                batch.done().await.expect("it is noted");
            }
            None if Instant::now() >= until => return taken,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Many posts of 100 at once.
async fn as_fast_as_it_goes(process: &Process) -> usize {
    const POSTERS: usize = 32;
    let mut posters = tokio::task::JoinSet::new();
    for _ in 0..POSTERS {
        let relay = connect(process);
        posters.spawn(async move {
            let (started, mut posted) = (Instant::now(), 0);
            while started.elapsed() < PERIOD / 2 {
                relay.append(LOG, (posted..posted + 100).map(click).collect()).await.expect("it is taken");
                posted += 100;
            }
            posted
        });
    }
    posters.join_all().await.into_iter().sum()
}
