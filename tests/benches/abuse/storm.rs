//! A thousand functions start within a second, beside ten thousand that are inside their invocations.

use std::time::Duration;

use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient, sync_request::Next};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    guarded::Target,
    median, percentile,
    regular::{Beating, connect},
    report,
    usage::cpu_us,
};

const RENEWING: usize = 10_000;
/// Connections that these share: a process each would be more than this machine has.
const CONNECTIONS: usize = 100;
/// The client's beat.
const BEAT: Duration = Duration::from_secs(1);
const STARTING: u32 = 1_000;
const STORMS: usize = 5;
const WITHIN: Duration = Duration::from_secs(1);

pub(crate) async fn storms() {
    storm(&Target::plain(), "").await;
    storm(&Target::under_tls(), "_tls").await;
}

/// Several storms, one after the other, on the same members; the median counts.
async fn storm(target: &Target, suffix: &str) {
    let stop = watch::Sender::new(false);
    let renewing = renew(target, &stop).await;
    let (mut storms, mut calm, mut told) = (Vec::new(), Vec::new(), 0);
    for _ in 0..STORMS {
        tokio::time::sleep(BEAT).await;
        let calm_from = Instant::now();
        let used = |of| cpu_us(of) / 1e6;
        let before = (used(target.pid()), used(std::process::id()));
        tokio::time::sleep(3 * BEAT).await;
        calm.push((calm_from, Instant::now()));
        let began = Instant::now();
        let between = (used(target.pid()), used(std::process::id()));
        let mut starting = JoinSet::new();
        for nth in 0..STARTING {
            let (url, ca) = (target.url.clone(), target.ca.clone());
            starting.spawn(async move {
                tokio::time::sleep_until(began + WITHIN * nth / STARTING).await;
                cold_start(&url, ca.as_deref()).await
            });
        }
        told += starting.join_all().await.into_iter().sum::<u32>();
        storms.push((began, Instant::now()));
        let (now, took) = ((used(target.pid()), used(std::process::id())), began.elapsed().as_secs_f64());
        println!(
            "# cores of relay and load: calm {:.2} {:.2}, storm {:.2} {:.2}",
            (between.0 - before.0) / 3.0,
            (between.1 - before.1) / 3.0,
            (now.0 - between.0) / took,
            (now.1 - between.1) / took,
        );
    }
    stop.send_replace(true);
    let calls: Vec<_> = renewing.join_all().await.into_iter().flatten().collect();
    let p99 = |(from, to): &(Instant, Instant)| {
        let meanwhile = calls.iter().filter(|(at, _)| from <= at && at < to);
        percentile(meanwhile.map(|(_, took)| *took).collect(), 99)
    };
    let served = storms.iter().map(|(began, ended)| (*ended - *began).as_secs_f64());
    report(&format!("storm{suffix}_1000_served_s"), median(served.collect()), "s");
    report(&format!("storm{suffix}_renew_p99_calm_ms"), median(calm.iter().map(p99).collect()), "ms");
    report(&format!("storm{suffix}_renew_p99_ms"), median(storms.iter().map(p99).collect()), "ms");
    report(&format!("storm{suffix}_told_to_come_back"), f64::from(told), "calls");
}

/// Members that beat once a second, each at its own moment.
async fn renew(target: &Target, stop: &watch::Sender<bool>) -> JoinSet<Vec<(Instant, Duration)>> {
    let (mut tasks, mut joining) = (JoinSet::new(), JoinSet::new());
    for _ in 0..CONNECTIONS {
        let channel = connect(&target.url, target.ca.as_deref()).await.expect("a connection");
        joining.spawn(async move {
            let mut nodes = Vec::new();
            for _ in 0..RENEWING / CONNECTIONS {
                let mut node = Beating::new(channel.clone(), None);
                node.beat().await.expect("it joins");
                nodes.push(node);
            }
            nodes
        });
    }
    for mut node in joining.join_all().await.into_iter().flatten() {
        let stopped = stop.subscribe();
        tasks.spawn(async move {
            let mut calls = Vec::new();
            tokio::time::sleep(BEAT.mul_f64(fastrand::f64())).await;
            let mut beats = tokio::time::interval(BEAT);
            // A beat that is late makes the next one later, as in the client; it is not made up for.
            beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !*stopped.borrow() {
                beats.tick().await;
                let called = Instant::now();
                node.beat().await.expect("a renewal is never refused");
                calls.push((called, called.elapsed()));
            }
            calls
        });
    }
    tasks
}

/// A new process: its connection, its join with an empty pull. Answers how often it was told to come back.
async fn cold_start(url: &str, ca: Option<&str>) -> u32 {
    let boot_id = fastrand::u128(..).to_be_bytes().to_vec();
    let call_id = boot_id[..8].to_vec().into();
    let identity = v1::NodeIdentity { boot_id: boot_id.into(), group: "storm".into(), ..Default::default() };
    let mut request = v1::SyncRequest {
        node: Some(identity),
        call_id,
        pull: Some(v1::Pull { collections: vec!["nothing".into()], ..Default::default() }),
        next: Some(Next::Awake(v1::Awake { remaining_ms: 10_000, then_asleep: false })),
        ..Default::default()
    };
    let mut told = 0;
    let channel = connect(url, ca).await.expect("a connection");
    loop {
        request.beat += 1;
        match MailboxClient::new(channel.clone()).sync(request.clone()).await {
            Ok(_) => return told,
            Err(status) => tokio::time::sleep(when(&status)).await,
        }
        told += 1;
    }
}

/// What a refusal says of coming back, with jitter; a refusal that does not say it is none of a storm.
fn when(status: &Status) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    let delay = details.retry_info().and_then(|it| it.retry_delay).expect("it says when");
    delay.mul_f64(0.5 + fastrand::f64())
}
