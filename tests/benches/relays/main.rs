//! Relays on a broker, end to end over gRPC: what is acknowledged in a second, and how far one relay is behind another.
//!
//! `tests/brokers/install` first; then `cargo bench -p dormouse-tests --bench relays` prints lines `name value unit`;
//! arguments select parts by the beginnings of their names: `embedded`, `nats_default`, `nats_always`, `lag`. Broker,
//! relays and load share all processors of the machine, so `load_average` and the disk's own sync belong to every figure.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "../service/load.rs"]
#[allow(dead_code, reason = "the bench of the service asks more of its load")]
mod load;
#[path = "../../brokers/nats.rs"]
#[allow(dead_code, reason = "the contract of the log asks more of a server")]
mod nats;
#[path = "../part.rs"]
mod part;
#[path = "../../processes/relay.rs"]
#[allow(dead_code, reason = "other tests ask more of a relay")]
mod relay;

use std::{
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient, sync_response::PushResult};

use load::{Work, drive, members};
use nats::{NatsServer, Release, Settings};
use part::part;
use relay::RelayProcess;

/// How long one round of a load lasts.
const PERIOD: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// Deltas of a push, and nodes that push at a time.
const DELTAS: usize = 64;
const NODES: usize = 64;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        report("fdatasync_us", fdatasync_us(), "us");
        part("embedded", embedded()).await;
        part("nats_default", on_nats("nats_default", "")).await;
        part("nats_always", on_nats("nats_always", "sync_interval: always")).await;
        part("lag", lag()).await;
    });
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

/// What the disk takes to have 4 KiB for good; the middle of many.
fn fdatasync_us() -> f64 {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = File::create(dir.path().join("probe")).expect("a file");
    let mut took: Vec<_> = (0..200)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[7; 4_096]).and_then(|()| file.sync_data()).expect("written");
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2].as_secs_f64() * 1e6
}

async fn embedded() {
    let relay = RelayProcess::start(&[]).expect("a relay");
    report("log_embedded_deltas_per_s", deltas_per_s(&relay).await, "1/s");
}

async fn on_nats(name: &str, jetstream: &'static str) {
    let settings = Settings { jetstream, ..Settings::default() };
    let Some(server) = NatsServer::start(Release::Current, settings) else { return };
    let url = server.monitored_address("bench").to_string();
    let relay = RelayProcess::start(&[("DORMOUSE_BROKER", &url)]).expect("a relay");
    report(&format!("log_{name}_deltas_per_s"), deltas_per_s(&relay).await, "1/s");
}

/// Acknowledged in the best of some rounds.
async fn deltas_per_s(relay: &RelayProcess) -> f64 {
    let mut nodes = members(&relay.url(), NODES).await;
    let mut best: f64 = 0.0;
    for _ in 0..ROUNDS {
        let (again, figures) = drive(nodes, PERIOD, &Work::Push(DELTAS)).await;
        nodes = again;
        best = best.max(figures.per_s * DELTAS as f64);
    }
    best
}

/// How long after its acknowledgement by one relay a push can be read at another, at a pace of 5,000 pushes in a second.
async fn lag() {
    const PACE: f64 = 5_000.0;
    const PUSHERS: usize = 100;
    const PROBES: usize = 500;
    let Some(server) = NatsServer::start(Release::Current, Settings::default()) else { return };
    let url = server.address("bench").to_string();
    let env = [("DORMOUSE_BROKER", url.as_str())];
    let relays: Vec<_> = (0..3).map(|_| RelayProcess::start(&env).expect("a relay")).collect();
    let pushers = members(&relays[0].url(), PUSHERS).await;
    let mut prober = members(&relays[0].url(), 1).await.pop().expect("one");
    let mut reader = MailboxClient::connect(relays[1].url()).await.expect("a connection");
    let load = tokio::spawn(paced(pushers, PACE, Duration::from_secs(15)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut took = Vec::new();
    for _ in 0..PROBES {
        let delta = v1::delta::Change::Counter(v1::CounterDelta { add: 1, ..v1::CounterDelta::default() });
        let delta = v1::Delta { collection: "probe".to_owned(), key: "lag".to_owned(), change: Some(delta) };
        let Some(PushResult::Pushed(ack)) = prober.push(vec![delta]).await.push_result else { continue };
        let acked = Instant::now();
        let request = v1::ReadRequest {
            keys: vec!["probe/lag".to_owned()],
            min_revision: ack.revision,
            ..v1::ReadRequest::default()
        };
        reader.read(request).await.expect("it comes there");
        took.push(acked.elapsed());
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let per_s = load.await.expect("the load ends");
    took.sort_unstable();
    report("relay_lag_pushes_per_s", per_s, "1/s");
    report("relay_lag_p50_ms", took[took.len() / 2].as_secs_f64() * 1e3, "ms");
    report("relay_lag_p99_ms", took[took.len() * 99 / 100].as_secs_f64() * 1e3, "ms");
}

/// Pushes of one delta at a pace, by nodes that take turns. Answers the pace that was kept.
async fn paced(nodes: Vec<load::Node>, per_s: f64, period: Duration) -> f64 {
    let (began, count) = (Instant::now(), nodes.len());
    let between = Duration::from_secs_f64(count as f64 / per_s);
    let tasks: Vec<_> = nodes
        .into_iter()
        .enumerate()
        .map(|(nth, node)| {
            let mut node = node;
            tokio::spawn(async move {
                let mut next = began + between.mul_f64(nth as f64 / count as f64);
                let mut calls = 0_u64;
                while began.elapsed() < period {
                    tokio::time::sleep_until(next.into()).await;
                    Work::Push(1).call(&mut node).await;
                    calls += 1;
                    next += between;
                }
                calls
            })
        })
        .collect();
    let mut calls = 0;
    for task in tasks {
        calls += task.await.expect("a node");
    }
    calls as f64 / began.elapsed().as_secs_f64()
}
