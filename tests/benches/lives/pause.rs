//! A relay that is stopped with SIGSTOP and goes on with SIGCONT, as in a frozen virtual machine. It must blame nobody for
//! the time in which it did not listen, and yet find out soon who really died meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dormouse_proto::wire::v1::{self, member_event::Kind};
use rustix::process::{Pid, Signal, kill_process};
use tonic::{Streaming, transport::Channel};

use crate::{
    is_long,
    load::{Renewing, Says, Settings, changes, channel, channels, joined, watch_members},
    millis,
    relay::RelayProcess,
    report,
};

/// Half of all leases; the other half sleeps.
const AWAKE: usize = 5_000;
const ASLEEP: usize = 5_000;
/// Nodes that join last and are never heard again.
const DYING: usize = 100;
const LEASE: Duration = Duration::from_secs(3);
/// A grace that is over before the hold is, so that only the pause delays an end.
const LEASES: &Settings = &[("DORMOUSE_AWAKE_LEASE_MS", "3000"), ("DORMOUSE_SUSPECT_GRACE_MS", "300")];
const POLL: Duration = Duration::from_millis(10);
/// The longest that an end is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// When whose end was told.
type Ends = Arc<Mutex<BTreeMap<String, Instant>>>;

async fn note_ends(mut stream: Streaming<v1::WatchMembersResponse>, ends: Ends) {
    while let Ok(Some(message)) = stream.message().await {
        let now = Instant::now();
        let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.extend(changes(message).filter(|(kind, _)| *kind == Kind::Ended).map(|(_, id)| (id, now)));
    }
}

struct Stopped {
    relay: RelayProcess,
    channels: Vec<Channel>,
    ends: Ends,
    /// Those who were meant to die.
    dead: BTreeSet<String>,
}

pub(crate) async fn pauses() {
    let trials = if is_long() { [20, 20, 20] } else { [2, 2, 1] };
    let relay = RelayProcess::start(LEASES).expect("a relay");
    let channels = channels(&relay.url()).await;
    let ends = Ends::default();
    // A connection of its own, so that the answers that waited do not delay the news.
    tokio::spawn(note_ends(watch_members(channel(&relay.url()).await).await, Arc::clone(&ends)));
    joined(&channels, ASLEEP, Says::Asleep).await;
    let renewing = Renewing::start(joined(&channels, AWAKE, Says::Awake).await);
    let mut stopped = Stopped { relay, channels, ends, dead: BTreeSet::new() };
    tokio::time::sleep(2 * LEASE).await;
    let mut late = Vec::new();
    for (seconds, trials) in [5, 30, 120].into_iter().zip(trials) {
        for _ in 0..trials {
            late.push(stopped.trial(Duration::from_secs(seconds)).await);
        }
        let worst = late.iter().rev().take(trials).max().copied().unwrap_or_default();
        report(&format!("relay_pause_{seconds}s_real_deaths_late_ms"), millis(worst), "ms");
        report(&format!("relay_pause_{seconds}s_false_deaths"), stopped.false_deaths() as f64, "count");
    }
    report("relay_pause_failed_renewals", renewing.failed() as f64, "count");
    report("relay_pauses", late.len() as f64, "count");
    report("relay_pause_false_deaths", stopped.false_deaths() as f64, "count");
    report("relay_pause_real_deaths_late_ms", millis(late.into_iter().max().unwrap_or_default()), "ms");
    drop(renewing);
}

impl Stopped {
    /// How long after the hold the last of those was told to have ended who died.
    async fn trial(&mut self, length: Duration) -> Duration {
        let dying = joined(&self.channels, DYING, Says::Awake).await;
        let dying: BTreeSet<String> = dying.into_iter().map(|node| node.id).collect();
        self.signal(Signal::STOP);
        tokio::time::sleep(length).await;
        self.signal(Signal::CONT);
        let released = self.end_of_the_hold().await;
        let all_told = |ends: &BTreeMap<String, Instant>| dying.iter().all(|id| ends.contains_key(id));
        while !all_told(&self.told()) {
            assert!(released.elapsed() < PATIENCE, "{} of {DYING} ended", self.told().len());
            tokio::time::sleep(POLL).await;
        }
        let told = self.told();
        let last = dying.iter().map(|id| told[id]).max().expect("there were some");
        self.dead.extend(dying);
        // Whoever was blamed would have ended by then.
        tokio::time::sleep(2 * LEASE).await;
        last.saturating_duration_since(released)
    }

    async fn end_of_the_hold(&self) -> Instant {
        let held = || self.relay.metric("dormouse_expiry_held").expect("a metric") == 1;
        assert!(held(), "a relay that was stopped declares nobody gone for a while");
        while held() {
            tokio::time::sleep(POLL).await;
        }
        Instant::now()
    }

    fn told(&self) -> BTreeMap<String, Instant> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nodes that were declared GONE and were well, by what a watcher was told; and by the relay's own count of those
    /// that came back.
    fn false_deaths(&self) -> u64 {
        let told = self.told().keys().filter(|id| !self.dead.contains(*id)).count() as u64;
        told.max(self.relay.metric("dormouse_false_deaths_total").expect("a metric"))
    }

    fn signal(&self, signal: Signal) {
        let pid = self.relay.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
        kill_process(pid, signal).expect("signalled");
    }
}
