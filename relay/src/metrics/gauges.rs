//! The numbers of the state at the moment of a scrape, and how they are written.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use super::{
    PREFIX,
    floors::{self, FloorGauge},
    groups::{self, GroupGauge, NamespaceGauge},
    labels::{Condition, Label as _, Labels},
    syncs::Syncs,
};

/// Numbers of the state, as whoever scrapes finds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Pushes that wait for the log.
    pub queue_waiting: u64,
    /// The newest revision applied.
    pub revision: u64,
    /// The position in the log of the newest frame applied.
    pub log_position: u64,
    /// Which log it is, and what its acknowledgement survives.
    pub log: [&'static str; 2],
    /// How long the log took to sync; `None`: it is not this process that syncs.
    pub syncs: Option<Syncs>,
    /// Why this relay's word is weaker than usual.
    pub conditions: Vec<Condition>,
    /// Changes of rows that readers had to be told of.
    pub rows_changed: u64,
    /// Seconds back to which a reader can still be told of everything that ended; as far as this relay remembers.
    pub floor_lag_seconds: f64,
    /// Rows that are visible.
    pub rows: u64,
    /// Rows that exist only to tell those who have not heard of their end.
    pub dead_rows: u64,
    /// What the state takes in memory, estimated.
    pub memory_estimate_bytes: u64,
    /// Members inside an invocation.
    pub awake: u64,
    /// Members that said they sleep.
    pub asleep: u64,
    /// Members whose lease ran out.
    pub suspect: u64,
    /// Members that are alive, as the sum of their likelihoods.
    pub expected_alive: f64,
    /// Percentage of the usual that awake leases have.
    pub awake_lease_percent: u64,
    /// Open watch streams.
    pub watchers: u64,
    /// Whether nobody is declared GONE at this moment.
    pub expiry_held: bool,
    /// Messages that their nodes have not received yet.
    pub inbox_waiting: u64,
    /// What was dropped because there was too much of it, in the order of [`Gauges::COLLAPSED`].
    pub collapsed: [u64; 5],
    /// What became of messages, in the order of [`Gauges::MAIL`].
    pub mail: [u64; 4],
    /// The floors, by name.
    pub floors: Vec<FloorGauge>,
    /// The groups that have members, those first that shall be shown by name.
    pub groups: Vec<GroupGauge>,
    /// The namespaces, those first that shall be shown by name.
    pub namespaces: Vec<NamespaceGauge>,
}

impl Gauges {
    /// What can be dropped because there is too much of it.
    pub const COLLAPSED: [&str; 5] = ["dead_rows", "siblings", "events", "tombstones", "once_ids"];
    /// What can become of a message.
    pub const MAIL: [&str; 4] = ["sent", "received", "expired", "undelivered"];

    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let plain = [
            ("queue_waiting", "Pushes that wait for the log", self.queue_waiting),
            ("revision", "Newest revision applied", self.revision),
            ("log_position", "Position in the log of the newest frame applied", self.log_position),
            ("rows", "Visible rows", self.rows),
            ("dead_rows", "Rows kept only to tell of their end", self.dead_rows),
            ("memory_estimate_bytes", "Memory of the state, estimated", self.memory_estimate_bytes),
            ("watchers", "Open watch streams", self.watchers),
            ("expiry_held", "1 while nobody is declared GONE", u64::from(self.expiry_held)),
            ("inbox_waiting", "Messages that their nodes have not received yet", self.inbox_waiting),
        ];
        for (name, help, value) in plain {
            registry.register(name, help, ConstGauge::new(value));
        }
        let alive = ConstGauge::new(self.expected_alive);
        registry.register(
            "members_expected_alive",
            "Members that are alive, as the sum of their likelihoods",
            alive,
        );
        let stretch = ConstGauge::new(self.awake_lease_percent as f64 / 100.0);
        registry.register(
            "awake_lease_ratio",
            "Awake leases over the usual; above 1 while this relay is late",
            stretch,
        );
        let help =
            "Time back to which a reader is told of everything that ended; one from before that starts over";
        registry.register("floor_lag_seconds", help, ConstGauge::new(self.floor_lag_seconds));
        let changed = ConstCounter::new(self.rows_changed);
        registry.register("rows_changed", "Changes of rows that readers had to be told of", changed);
        self.of_the_log(&mut registry);
        self.by_label(&mut registry);
        floors::register(&mut registry, &self.floors);
        groups::register(&mut registry, &self.groups, &self.namespaces);
        registry
    }

    fn of_the_log(&self, registry: &mut Registry) {
        let [kind, durability] = self.log;
        let info = Family::<[(&'static str, &'static str); 2], Gauge<u64, AtomicU64>>::default();
        info.get_or_create(&[("kind", kind), ("durability", durability)]).set(1);
        registry.register("log_info", "Which log it is, and what its acknowledgement survives", info);
        if let Some(syncs) = &self.syncs {
            let help = "Time that a write to the disk of the log took, its fsync included";
            registry.register("log_fsync_seconds", help, syncs.clone());
        }
    }

    fn by_label(&self, registry: &mut Registry) {
        let members = Family::<Labels, Gauge<u64, AtomicU64>>::default();
        for (state, number) in [("awake", self.awake), ("asleep", self.asleep), ("suspect", self.suspect)] {
            members.get_or_create(&[("state", state)]).set(number);
        }
        registry.register("members", "Members, by state", members);
        let conditions = Family::<Labels, Gauge<u64, AtomicU64>>::default();
        for condition in Condition::ALL {
            let holds = self.conditions.contains(condition);
            conditions.get_or_create(&[(Condition::NAME, condition.text())]).set(u64::from(holds));
        }
        registry.register("condition", "1 while this relay's word is weaker than usual, by why", conditions);
        let counted = |label, names: &[&'static str], counts: &[u64]| {
            let family = Family::<Labels, Counter>::default();
            for (name, count) in names.iter().zip(counts) {
                family.get_or_create(&[(label, *name)]).inc_by(*count);
            }
            family
        };
        let collapsed = counted("what", &Self::COLLAPSED, &self.collapsed);
        registry.register("collapsed", "Dropped by the state because there was too much of it", collapsed);
        let mail = counted("outcome", &Self::MAIL, &self.mail);
        registry.register("mail", "Messages to nodes, by what became of them", mail);
    }
}
