//! Relays that are so far behind that the log has dropped what they would have to read next.

use std::{sync::Arc, time::Duration};

use dormouse_proto::wire::v1::{self, sync_response::PushResult};
use dormouse_relay::{
    config::Config,
    liveness::Millis,
    log::{Log, Position},
    metrics::Gauges,
    relay::Relay,
    sequencer::Reading,
};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;

use crate::{
    fleet::Fleet,
    harness::{Caller, Outcome, Served, add, awake, chunk, counter, pushed, register},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Whose members stay while they are silent, and that take a snapshot every few frames.
fn config() -> Config {
    let mut config = Config { snapshot_every_bytes: 4_000, ..Config::default() };
    config.leases.awake = Millis(60_000);
    config
}

/// Pushes until the log has dropped the frame behind `upto`; answers how many pushes that took.
async fn push_until_dropped(fleet: &Fleet, caller: &mut Caller, upto: Position) -> Outcome<i64> {
    for pushes in 1..5_000 {
        pushed(&caller.sync(vec![add("shown", 1)]).await?);
        if fleet.log.info().await?.first.is_some_and(|first| first > upto.next()) {
            return Ok(pushes);
        }
    }
    panic!("the log drops nothing")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_cut_off_for_too_long_begins_anew_and_tells_what_it_has_skipped() -> Outcome {
    let fleet = Fleet::with(2, config()).await?;
    let mut caller = Caller::new(&fleet.relays[0], 1).await;
    pushed(&caller.sync(vec![add("shown", 1)]).await?);
    fleet.agrees().await;
    let mut membership = fleet.relays[1].membership().await;
    let mut members = membership.watch_members(v1::WatchMembersRequest::default()).await?.into_inner();
    members.next().await.expect("who is there")?;

    fleet.ways[1].cut();
    let tail = fleet.log.barrier().await?.expect("not empty");
    // What this relay takes meanwhile waits until it has begun anew.
    let mut stranded = Caller::new(&fleet.relays[1], 2).await;
    let under_way = tokio::spawn(async move {
        let mut push = stranded.push(vec![add("stranded", 1)]);
        loop {
            let mut request = stranded.request(awake(5_000));
            request.push = Some(push.clone());
            match stranded.send(request).await.map(|answer| answer.push_result) {
                Ok(Some(PushResult::Pushed(_))) => return,
                _ => push.retried = true,
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut newcomer = Caller::new(&fleet.relays[0], 3).await;
    pushed(&newcomer.sync(vec![add("shown", 1)]).await?);
    let pushes = push_until_dropped(&fleet, &mut caller, tail).await?;
    let before = fleet.revisions().max().expect("there are relays");
    fleet.ways[1].mend();

    fleet.is_well_behind(before).await?;
    fleet.agrees().await;
    assert_eq!(fleet.reseeds(), [0, 0, 0], "the log has lost nothing");
    // It is the same history, so the stream goes on from where it was and tells what the relay has skipped.
    let told = timeout(PATIENCE, async {
        loop {
            let message = members.next().await.expect("it goes on")?;
            assert!(!message.restart, "{message:?}");
            let mut named = message.events.iter().filter_map(|it| it.member.as_ref());
            if named.any(|it| it.node_id == newcomer.identity.node_id) {
                return Ok::<_, tonic::Status>(());
            }
        }
    });
    told.await.map_err(|_| "nobody told of the newcomer")??;

    timeout(PATIENCE, under_way).await??;
    let answer = Caller::new(&fleet.relays[1], 4).await.sync(Vec::new()).await?;
    let keys = &chunk(&answer).keys;
    assert_eq!(counter(keys, "stranded"), Some(1), "once, however often it was said");
    assert_eq!(counter(keys, "shown"), Some(2 + pushes));
    fleet.agrees().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_starts_while_others_store_snapshots_begins_with_the_newest() -> Outcome {
    let fleet = Fleet::with(1, config()).await?;
    let mut caller = Caller::new(&fleet.relays[0], 1).await;
    push_until_dropped(&fleet, &mut caller, Position::FIRST).await?;
    let newest = async || fleet.log.newest_snapshots().await.map(|them| them[0].id.position);
    let begins_with = newest().await?;
    // As soon as it has read its snapshot, the log drops what is behind that.
    let mut overtakes = 0;
    let mut told = |reading| {
        if matches!(reading, Reading::Snapshot { .. }) && overtakes == 0 {
            overtakes += 1;
            tokio::task::block_in_place(|| {
                let drop = push_until_dropped(&fleet, &mut caller, begins_with);
                tokio::runtime::Handle::current().block_on(drop).expect("pushed");
            });
        }
    };
    let started = Relay::start_telling(config(), Arc::new(fleet.log.clone()), &mut told).await?;
    assert_eq!(overtakes, 1);
    let newest = fleet.relays[0].relay().sequencer.read().fold.revision();
    assert!(started.relay.sequencer.reached(newest, PATIENCE).await, "it has all that there is");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_alone_on_its_log_leaves_no_snapshot_out() -> Outcome {
    let stored = stored_in_six_periods(1).await?;
    // A period is up to a quarter longer than is set, so there are at least four whole ones.
    assert!((4..=6).contains(&stored), "{stored}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_relays_on_one_log_about_one_at_a_time_stores_a_snapshot() -> Outcome {
    let stored = stored_in_six_periods(4).await?;
    // Each for itself, they would store 24. Now and then two are so close that neither finds the other's.
    assert!((4..=12).contains(&stored), "{stored}");
    Ok(())
}

/// How many snapshots so many relays store together while six times as much is written as makes one due.
async fn stored_in_six_periods(relays: usize) -> Outcome<u64> {
    const EVERY: u64 = 40_000;
    let fleet = Fleet::with(relays, Config { snapshot_every_bytes: EVERY, ..config() }).await?;
    let mut caller = Caller::new(&fleet.relays[0], 1).await;
    let mut reader = fleet.log.read(fleet.log.barrier().await?.expect("not empty"));
    let mut bytes = 0;
    while bytes < 6 * EVERY {
        pushed(&caller.sync(vec![register("shown", &"text".repeat(8), None)]).await?);
        bytes += reader.next_batch().await?.frames.iter().map(|it| it.frame.len() as u64).sum::<u64>();
    }
    fleet.agrees().await;
    Ok(fleet.relays.iter().map(snapshots_of).sum())
}

/// How many a relay has stored.
fn snapshots_of(relay: &Served) -> u64 {
    let page = relay.relay().metrics.encode(&Gauges::default()).expect("a page");
    let line = page.lines().find_map(|it| it.strip_prefix("dormouse_snapshots_total "));
    line.and_then(|value| value.parse().ok()).expect("it is counted")
}
