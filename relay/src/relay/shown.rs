//! What a relay shows of itself to those who look: the numbers of its state, its last minutes, why its word is weaker.

use std::time::Duration;

use dormouse_proto::ids::{Namespace, Revision};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::Relay;
use crate::{
    admin::{About, Readiness},
    history::Recent,
    log::{Durability, Durations},
    metrics::{Condition, Gauges, GroupGauge, NamespaceGauge, Syncs},
    sequencer::Applied,
    state::{Chunk, Collapsed, MailCounts, View},
};

/// How often the relay notes its figures.
const SECOND: Duration = Duration::from_secs(1);

impl Relay {
    /// Why its word is weaker than usual; empty: all is well.
    pub fn conditions(&self) -> Vec<Condition> {
        let store_full = self.sequencer.store_full();
        let unreachable = !store_full && self.sequencer.trouble().is_some();
        let may_hold = [
            (Condition::StoreFull, store_full),
            (Condition::LogUnreachable, unreachable),
            (Condition::ExpiryHeld, self.keeper.expiry_held()),
            (Condition::MassLoss, self.keeper.mass_loss_held()),
            (Condition::LeasesStretched, self.keeper.lease_percent() > 100),
        ];
        may_hold.into_iter().filter(|(_, holds)| *holds).map(|(condition, _)| condition).collect()
    }

    /// A node's pull from that namespace is answered with this chunk.
    pub fn caught_up(&self, namespace: &Namespace, chunk: &Chunk) {
        let after = chunk.after.filter(|_| chunk.rows > 0);
        let age = |after| Duration::from_millis(self.history.age(self.keeper.uptime().0, after));
        self.metrics.caught_up(namespace, after.map(age));
    }

    /// Notes the figures of each second until it is told to stop.
    pub(super) async fn remember(self, mut stop: watch::Receiver<bool>) {
        let mut seconds = interval(SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = seconds.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let gauges = self.gauges();
            let figures = self.metrics.figures(&gauges);
            self.history.take(self.keeper.uptime().0, Revision(gauges.revision), figures, &gauges.groups);
        }
    }

    /// What the state has, namespace by namespace.
    fn count(&self, gauges: &mut Gauges, applied: &Applied) {
        let mut floor = Revision::ZERO;
        let mut namespaces: Vec<(&Namespace, View<'_>)> = applied.fold.namespaces().collect();
        // As they were made, so that a new one takes no other one's place among those that are shown by name.
        namespaces.sort_unstable_by_key(|(_, view)| view.number());
        for (name, view) in &namespaces {
            let counts = self.keeper.counts(view.number());
            gauges.awake += counts.awake;
            gauges.asleep += counts.asleep;
            gauges.suspect += counts.suspect;
            gauges.expected_alive += self.keeper.expected_alive(view.number());
            gauges.rows_changed += view.changes();
            gauges.count(name, view);
            floor = floor.max(view.highest_floor());
        }
        gauges.floor_lag_seconds = self.history.age(self.keeper.uptime().0, floor) as f64 / 1e3;
        let named = self.keeper.groups().into_iter().filter_map(|it| {
            let (namespace, _) = namespaces.get(it.namespace as usize)?;
            Some(GroupGauge {
                namespace: namespace.to_string(),
                group: it.group.to_string(),
                awake: it.members.awake,
                asleep: it.members.asleep,
                suspect: it.members.suspect,
                expected_alive: it.expected_alive,
                expired: it.expired,
                back: it.back,
            })
        });
        gauges.groups = named.collect();
    }
}

impl Gauges {
    /// What a namespace holds, what the fold has dropped there on its own, and what became of messages.
    fn count(&mut self, name: &Namespace, view: &View<'_>) {
        let (dead_rows, memory_estimate_bytes) = (view.dead_rows(), view.memory_bytes());
        let rows = view.rows() - dead_rows;
        self.rows += rows;
        self.dead_rows += dead_rows;
        self.memory_estimate_bytes += memory_estimate_bytes;
        let namespace = name.to_string();
        self.namespaces.push(NamespaceGauge { namespace, rows, dead_rows, memory_estimate_bytes });
        let Collapsed { dead_rows, siblings, events, tombstones, once_ids } = view.collapsed();
        let MailCounts { sent, received, expired, undelivered } = view.mail_counts();
        self.inbox_waiting += view.mail_waiting().0;
        let collapsed = [dead_rows, siblings, events, tombstones, once_ids];
        self.collapsed.iter_mut().zip(collapsed).for_each(|(sum, more)| *sum += more);
        let mail = [sent, received, expired, undelivered];
        self.mail.iter_mut().zip(mail).for_each(|(sum, more)| *sum += more);
    }
}

impl Readiness for Relay {
    fn unmet(&self) -> Vec<String> {
        let mut unmet: Vec<String> =
            self.sequencer.trouble().map(|why| format!("log: {why}")).into_iter().collect();
        if *self.stopping.borrow() {
            unmet.push("stopping".to_owned());
        }
        unmet
    }

    fn promises(&self) -> Vec<String> {
        let facts = self.sequencer.log();
        let claims = facts.claims().named().into_iter().map(|(name, claim)| format!("{name}: {claim}"));
        std::iter::once(format!("log: {}, {:?}", facts.kind, facts.durability)).chain(claims).collect()
    }

    fn gauges(&self) -> Gauges {
        let facts = self.sequencer.log();
        let mut gauges = Gauges {
            queue_waiting: self.sequencer.waiting() as u64,
            watchers: (self.config.watchers_max - self.watchers.available_permits()) as u64,
            expiry_held: self.keeper.expiry_held(),
            conditions: self.conditions(),
            awake_lease_percent: u64::from(self.keeper.lease_percent()),
            floors: self.floors.gauges(),
            log: [facts.kind, durability(facts.durability)],
            syncs: self.sequencer.syncs().map(|it| syncs(&it)),
            ..Gauges::default()
        };
        let applied = self.sequencer.read();
        gauges.revision = applied.fold.revision().0;
        gauges.log_position = applied.last.map_or(0, |last| last.position.0);
        self.count(&mut gauges, &applied);
        gauges
    }

    fn about(&self) -> About {
        let facts = self.sequencer.log();
        About {
            relay: self.id.to_string(),
            log: facts.kind,
            durability: durability(facts.durability),
            acknowledged: facts.claims().acknowledged.says,
            relays: self.keeper.relays() as u64,
            uptime_ms: self.keeper.uptime().0,
        }
    }

    fn recent(&self, from: u64) -> Recent {
        self.history.recent(from)
    }
}

/// What an acknowledgement survives, in one word for a label.
const fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::PageCache => "page_cache",
        Durability::Majority => "majority",
        Durability::Fsync => "fsync",
    }
}

fn syncs(took: &Durations) -> Syncs {
    // By way of microseconds, because 1 s and 638.4 ms make 1.6383999999999999 s, and a bound is a name.
    let bound = |it: Option<Duration>| it.map_or(f64::INFINITY, |it| it.as_micros() as f64 / 1e6);
    let buckets = took.buckets().map(|(longest, count)| (bound(longest), count)).collect();
    Syncs { seconds: took.total().as_secs_f64(), buckets }
}
