//! Leases at rest and leases that are renewed: bytes, processor time, calls per second.

use std::time::{Duration, Instant};

use dormouse_proto::ids::{Beat, Incarnation, NodeId};
use dormouse_relay::liveness::{
    Activity, Evidence, LeaseKey, LeasePolicy, LeaseSettings, LeaseTable, Millis, Session, Timestamp,
};
use tokio::task::JoinSet;

use crate::{
    ALLOCATOR,
    load::{Node, Says, channels, joined},
    millis, p99,
    relay::RelayProcess,
    report, usage,
};

/// A million leases in one table.
pub(crate) fn bytes_of_a_lease() {
    const LEASES: u64 = 1_000_000;
    let before = ALLOCATOR.allocated();
    let policy = LeasePolicy::new(LeaseSettings::default(), []).expect("the defaults");
    let table = LeaseTable::new(policy);
    let group = "bench".parse().expect("a group");
    let activity = Activity::Awake { remaining: None, then_asleep: false };
    let evidence = Evidence { incarnation: Incarnation(1), beat: Beat(1), activity, ttl: Millis(3_000) };
    for node in 0..LEASES {
        // Spread over the whole range, as the ids of real nodes are.
        let node = NodeId(node.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        table.admitted(Timestamp(0), LeaseKey { namespace: 0, node }, &group, &evidence, Session(1));
    }
    assert_eq!(table.counts(0).awake, LEASES);
    report("lease_bytes_1m", (ALLOCATOR.allocated() - before) as f64 / LEASES as f64, "bytes");
}

/// Nodes that renew one call after the other, with neither push nor pull: the best of some rounds, by its rate.
pub(crate) async fn renewals() {
    const NODES: usize = 64;
    const PERIOD: Duration = Duration::from_secs(10);
    const ROUNDS: usize = 3;
    let relay = RelayProcess::start(&[]).expect("a relay");
    let pid = relay.pid().expect("it runs");
    let mut nodes = joined(&channels(&relay.url()).await, NODES, Says::Awake).await;
    let mut best: Option<(usize, Vec<Duration>, f64)> = None;
    for _ in 0..ROUNDS {
        let (before, mut tasks) = (usage::cpu_us(pid), JoinSet::new());
        for node in nodes.drain(..) {
            tasks.spawn(renew_for(node, PERIOD));
        }
        let mut all = Vec::new();
        for (node, times) in tasks.join_all().await {
            nodes.push(node);
            all.extend(times);
        }
        let cpu_us = usage::cpu_us(pid) - before;
        if best.as_ref().is_none_or(|(most, ..)| all.len() > *most) {
            best = Some((all.len(), all, cpu_us));
        }
    }
    let (calls, times, cpu_us) = best.expect("a round");
    report("renewals_per_s", calls as f64 / PERIOD.as_secs_f64(), "1/s");
    report("renewals_p99_ms", millis(p99(times)), "ms");
    report("renewals_relay_cpu_us", cpu_us / calls as f64, "us");
}

async fn renew_for(mut node: Node, period: Duration) -> (Node, Vec<Duration>) {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < period {
        let called = Instant::now();
        node.beat(Says::Awake).await.expect("renewed");
        times.push(called.elapsed());
    }
    (node, times)
}

/// Sleepers, and nobody says anything.
pub(crate) async fn idle() {
    const SLEEPERS: usize = 10_000;
    /// What the joins have set going is over by then.
    const SETTLED: Duration = Duration::from_secs(15);
    const PERIOD: Duration = Duration::from_secs(60);
    let relay = RelayProcess::start(&[]).expect("a relay");
    let pid = relay.pid().expect("it runs");
    let channels = channels(&relay.url()).await;
    let nodes = joined(&channels, SLEEPERS, Says::Asleep).await;
    tokio::time::sleep(SETTLED).await;
    let records = || relay.metric("dormouse_records_total").expect("a metric");
    let (cpu_us, before) = (usage::cpu_us(pid), records());
    tokio::time::sleep(PERIOD).await;
    report("idle_10k_core_share", (usage::cpu_us(pid) - cpu_us) / PERIOD.as_secs_f64() / 1e6, "cores");
    report("idle_10k_records", (records() - before) as f64, "count");
    let asleep = relay.metric("dormouse_members{state=\"asleep\"}").expect("a metric");
    assert_eq!(asleep, nodes.len() as u64, "they sleep all the while");
}
