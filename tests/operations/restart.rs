//! A relay that is stopped and started again while its nodes go on.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dormouse::{Freshness, Node, Relay, Slept, replica::message::Rows};
use dormouse_proto::wire::v1;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::{
    harness::{Served, reason},
    relay::{Outcome, RelayProcess},
};

const NODES: usize = 6;
const RESTARTS: u32 = 5;
/// What a node keeps trying with when the relay is there again.
const LAST_TRIES: u32 = 50;

/// What became of a node's invocations.
#[derive(Clone, Copy, Debug, Default)]
struct Lived {
    wakes: u64,
    /// Wakes that ended with an older view.
    old_views: u64,
    /// Times in which every wake ended with an older view.
    outages: u64,
    /// Wakes that ended with none, after there had been one.
    no_views: u64,
    writes: i64,
    /// Writes whose sleep said that they are saved.
    saved: i64,
    /// From one current view to the next.
    longest_gap: Duration,
    /// Of one wake.
    longest_wake: Duration,
}

/// Wakes, writes and sleeps until it is told to stop; then until all that it has written is saved.
async fn live(url: String, number: usize, stop: Arc<AtomicBool>) -> Outcome<Lived> {
    let node = Node::builder().url(url).group("load").follow("load").build()?;
    let (mut lived, mut last, mut left) = (Lived::default(), Instant::now(), LAST_TRIES);
    let mut is_out = false;
    loop {
        let stops = stop.load(Relaxed);
        let began = Instant::now();
        let awake = node.wake(Duration::from_secs(60)).await;
        lived.wakes += 1;
        lived.longest_wake = lived.longest_wake.max(began.elapsed());
        match awake.freshness() {
            Freshness::Current => {
                lived.longest_gap = lived.longest_gap.max(last.elapsed());
                last = Instant::now();
                is_out = false;
            }
            Freshness::Never { .. } if lived.wakes > 1 => lived.no_views += 1,
            _ => {
                lived.old_views += 1;
                lived.outages += u64::from(!is_out);
                is_out = true;
            }
        }
        if !stops {
            let id = format!("{number}-{}", lived.writes);
            awake.counter("load/total").add_once(&id, 1)?;
            awake.set("load/ids").add(&id)?;
            lived.writes += 1;
        }
        match awake.sleep().await {
            Slept::Unsaved { .. } if left == 0 => return Err("it cannot be saved".into()),
            Slept::Unsaved { .. } if stops => left -= 1,
            Slept::Unsaved { .. } => {}
            Slept::Saved { .. } | Slept::Nothing => {
                lived.saved = lived.writes;
                if stops {
                    return Ok(lived);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn read(url: String) -> Outcome<(i64, usize)> {
    let reading = Relay::builder().url(url).build()?.read(&["load/*"]).await?;
    let mut found = (0, 0);
    for key in reading.keys {
        match key.rows {
            Rows::Counter { value, .. } => found.0 = value,
            Rows::Set { present, .. } => found.1 = present.len(),
            _ => {}
        }
    }
    Ok(found)
}

#[test]
fn a_relay_that_is_restarted_under_load_loses_nothing_and_no_wake_fails() -> Outcome {
    let mut process = RelayProcess::start(&[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let nodes: Vec<_> = (0..NODES)
        .map(|number| {
            let (url, stop) = (process.url(), Arc::clone(&stop));
            runtime.spawn(async move { live(url, number, stop).await.map_err(|error| error.to_string()) })
        })
        .collect();
    let mut away = Duration::ZERO;
    for _ in 0..RESTARTS {
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        process.stop()?;
        process.restart()?;
        away = away.max(began.elapsed());
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Relaxed);
    let mut all = Lived::default();
    for node in nodes {
        let one = runtime.block_on(node)??;
        all.wakes += one.wakes;
        all.old_views += one.old_views;
        all.outages += one.outages;
        all.no_views += one.no_views;
        all.writes += one.writes;
        all.saved += one.saved;
        all.longest_gap = all.longest_gap.max(one.longest_gap);
        all.longest_wake = all.longest_wake.max(one.longest_wake);
    }
    println!("restart_restarts {RESTARTS} count");
    println!("restart_wakes {} count", all.wakes);
    println!("restart_wakes_with_an_old_view {} count", all.old_views);
    println!("restart_outages_seen_by_nodes {} count", all.outages);
    println!("restart_longest_away {} ms", away.as_millis());
    println!("restart_longest_gap_of_a_node {} ms", all.longest_gap.as_millis());
    println!("restart_longest_wake {} ms", all.longest_wake.as_millis());

    assert_eq!(all.saved, all.writes);
    let (total, ids) = runtime.block_on(read(process.url()))?;
    assert_eq!((total, i64::try_from(ids)?), (all.writes, all.writes), "everything, and once");
    assert_eq!(all.no_views, 0, "a view that was had is kept");
    // One for each restart; a machine that is busy otherwise may keep an answer for longer than a wake waits.
    let most = 2 * u64::from(RESTARTS) * NODES as u64;
    assert!(all.outages <= most, "{} outages, at most {most}", all.outages);
    assert_eq!(process.metric("dormouse_false_deaths_total")?, 0);
    Ok(())
}

/// Also whoever has a connection already, which is not just closed under him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_stops_says_when_to_come_back() -> Outcome {
    let served = Served::default().await?;
    let (mut mailbox, mut membership) = (served.mailbox().await, served.membership().await);
    let mut health = HealthClient::new(Channel::from_shared(served.url.clone())?.connect().await?);
    membership.get_relay(v1::GetRelayRequest {}).await?;
    served.started.as_ref().expect("it runs").announce();
    let read = v1::ReadRequest { keys: vec!["a/b".to_owned()], ..Default::default() };
    for refused in [
        membership.get_relay(v1::GetRelayRequest {}).await.expect_err("it stops"),
        mailbox.read(read).await.expect_err("it stops"),
    ] {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STARTING"));
        let retry = refused.get_details_retry_info().and_then(|it| it.retry_delay);
        assert!(retry.is_some_and(|it| !it.is_zero()), "{refused:?}");
    }
    for _ in 0..1_000 {
        let said = health.check(HealthCheckRequest::default()).await?.into_inner();
        if said.status() == ServingStatus::NotServing {
            served.stop().await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err("health does not say that it stops".into())
}
