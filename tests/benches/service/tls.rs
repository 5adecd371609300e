//! What a certificate and a token cost, against the same calls in plaintext.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    load::{Work, drive, members, members_under_tls},
    median, millis,
    process::{Process, TOKEN},
    report,
};

/// Warm calls under TLS over those in plaintext, and the first call of a new process under TLS.
pub(crate) async fn tls() {
    let plain = Process::relay(0);
    let (guarded, ca) = Process::relay_under_tls();
    report("tls_sync_ratio", ratio(&plain, &guarded, &ca, &Work::Push(1)).await, "ratio");
    // Nothing waits for a disk here, so it is the ratio of what the processors do.
    let empty = Work::Pull(Bytes::new());
    let (plain, (guarded, ca)) = (Process::relay(0), Process::relay_under_tls());
    report("tls_empty_wake_ratio", ratio(&plain, &guarded, &ca, &empty).await, "ratio");
    report("tls_cold_first_sync_p50_ms", cold(&guarded.url, &ca).await, "ms");
}

async fn ratio(plain: &Process, guarded: &Process, ca: &str, work: &Work) -> f64 {
    const NODES: usize = 64;
    const TURNS: usize = 7;
    const TURN: Duration = Duration::from_millis(1_500);
    let mut loads =
        [members(&plain.url, NODES).await, members_under_tls(&guarded.url, ca, TOKEN, NODES).await];
    let mut ratios = Vec::new();
    for _ in 0..TURNS {
        // In turns, so that whatever else the machine does meets both alike.
        let mut rates = [0.0; 2];
        for (load, rate) in loads.iter_mut().zip(&mut rates) {
            let (nodes, figures) = drive(std::mem::take(load), TURN, work).await;
            (*load, *rate) = (nodes, figures.per_s);
        }
        ratios.push(rates[1] / rates[0]);
    }
    median(ratios)
}

/// The first wake of a new process: connection, handshake, join with its fsync, empty backlog.
async fn cold(url: &str, ca: &str) -> f64 {
    const COUNT: usize = 300;
    let mut took = Vec::new();
    for _ in 0..COUNT {
        let builder = dormouse::Node::builder().url(url).ca(ca).token(TOKEN).group("bench").follow("nothing");
        let node = builder.build().expect("valid settings");
        let started = Instant::now();
        let awake = node.wake(Duration::from_secs(600)).await;
        took.push(millis(started.elapsed()));
        assert_eq!(awake.freshness(), dormouse::Freshness::Current);
    }
    median(took)
}
