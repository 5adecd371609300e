//! What an operator can count: the relay's counters, and the numbers of its state at the moment of a scrape.
//!
//! Counting is one atomic addition; only an append and a refusal take a short lock. What mirrors state is no counter:
//! whoever scrapes hands it in as [`Gauges`], so that no second copy of it can go stale. Every value of a label is
//! there from the start with 0, because a series that appears with its first event hides that event from `rate()`.

mod figures;
mod floors;
mod gauges;
mod groups;
mod labels;
mod namespaces;
mod plain;
mod syncs;
#[cfg(test)]
mod tests;

pub use figures::FIGURES;
pub use floors::FloorGauge;
pub use gauges::Gauges;
pub use groups::{GroupGauge, NamespaceGauge};
pub use labels::{Admission, Condition, FileRead, Handshake, PushResult, Reseeding, Visit, WebhookOutcome};
pub use plain::{CONTENT_TYPE as PLAIN_CONTENT_TYPE, plain};
pub use syncs::Syncs;

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use dormouse_proto::{ids::Namespace, record::Cause};
use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

use figures::Spent;
use floors::FloorCounters;
use labels::{CounterPer, Labels, REASONS};
use namespaces::PerNamespace;

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "dormouse";

/// The counters of one relay. Shared behind an `Arc`; every method takes `&self`, and none waits for I/O.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pushes: CounterPer<PushResult>,
    deltas: Counter,
    pulls: Counter,
    rows_sent: Counter,
    chunk_bytes: Counter,
    wakes: Counter,
    beats: Counter,
    joins: CounterPer<Admission>,
    ends: CounterPer<Cause>,
    false_deaths: Counter,
    refusals: Family<Labels, Counter>,
    log_append: Histogram,
    backlog_age: Histogram,
    lease_lag: Histogram,
    appending: Spent,
    catching_up: Spent,
    namespaces: PerNamespace,
    frames: Counter,
    records: Counter,
    snapshots: Counter,
    reseeds: CounterPer<Reseeding>,
    relay_pause: Counter<f64, AtomicU64>,
    mass_losses: Counter,
    floors: FloorCounters,
    connections: Counter,
    connections_open: Gauge,
    connections_closed: CounterPer<Visit>,
    handshakes: CounterPer<Handshake>,
    tls_reads: CounterPer<FileRead>,
    tokens_reads: CounterPer<FileRead>,
}

fn registered<M: Metric + Clone>(registry: &mut Registry, metric: M, name: &str, help: &str) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    registered(registry, Counter::default(), name, help)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let it = &mut registry;
        // The encoder adds `_total` to a counter's name, and the full stop to a help text. The buckets reach from 0.1 ms
        // to 3.3 s: half a second is all that a client waits.
        let append_buckets = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let refusals = registered(it, Family::default(), "refusals", "Refusals, by the contract's reason");
        for reason in REASONS {
            drop(refusals.get_or_create(&[("reason", *reason)]));
        }
        Self {
            pushes: CounterPer::registered(it, "pushes", "Pushes, by what became of them"),
            deltas: counter(it, "deltas", "Deltas of the pushes that were bound"),
            pulls: counter(it, "pulls", "Pulls answered with a chunk"),
            rows_sent: counter(it, "rows_sent", "Rows in those chunks"),
            chunk_bytes: counter(it, "chunk_bytes", "Encoded bytes of those chunks"),
            wakes: counter(it, "wakes", "Contacts that made a member AWAKE that was not"),
            beats: counter(it, "beats", "Contacts that only renewed a lease"),
            joins: CounterPer::registered(it, "joins", "Nodes admitted, by how"),
            ends: CounterPer::registered(it, "ends", "Memberships ended, by cause"),
            false_deaths: counter(it, "false_deaths", "Nodes declared GONE that were heard of again"),
            refusals,
            log_append: registered(
                it,
                append_buckets,
                "log_append_seconds",
                "Time until the log had a frame",
            ),
            backlog_age: registered(
                it,
                Histogram::new(exponential_buckets(1.0, 4.0, 8)),
                "backlog_age_seconds",
                "Age of what a pull brought: since the oldest change in it, to about a second",
            ),
            lease_lag: registered(
                it,
                Histogram::new(exponential_buckets(0.001, 4.0, 8)),
                "lease_lag_seconds",
                "How much later than wanted this relay looked at its leases",
            ),
            appending: Spent::default(),
            catching_up: Spent::default(),
            namespaces: PerNamespace::registered(it),
            frames: counter(it, "frames", "Frames that this relay appended to the log"),
            records: counter(it, "records", "Records in those frames"),
            snapshots: counter(it, "snapshots", "Snapshots that this relay stored"),
            reseeds: CounterPer::registered(
                it,
                "reseeds",
                "Logs that came back without their newest frames, by what became of that",
            ),
            relay_pause: registered(
                it,
                Counter::default(),
                "relay_pause_seconds",
                "Time in which this relay stood still",
            ),
            mass_losses: counter(
                it,
                "mass_losses",
                "Times that so many members fell silent at once that they were kept",
            ),
            floors: FloorCounters::registered(it),
            connections: counter(it, "connections", "Connections that were taken in"),
            connections_open: registered(
                it,
                Gauge::default(),
                "connections_open",
                "Connections at this moment, those under a handshake included",
            ),
            connections_closed: CounterPer::registered(
                it,
                "connections_closed",
                "Connections that were turned away, or closed by this side, by why",
            ),
            handshakes: CounterPer::registered(
                it,
                "tls_handshakes",
                "TLS handshakes, by what became of them",
            ),
            tls_reads: CounterPer::registered(
                it,
                "tls_reads",
                "Changes of the certificate's files, by what became of them",
            ),
            tokens_reads: CounterPer::registered(
                it,
                "tokens_reads",
                "Changes of the tokens file, by what became of them",
            ),
            registry,
        }
    }
}

impl Metrics {
    /// A push to that namespace has its fate. Its deltas count if it was bound.
    pub fn pushed(&self, namespace: &Namespace, result: PushResult, deltas: usize) {
        self.pushes.of(result).inc();
        self.namespaces.pushed(namespace);
        if result == PushResult::Bound {
            add(&self.deltas, deltas);
        }
    }

    /// A pull was answered with a chunk of so many rows and bytes.
    pub fn pulled(&self, rows: usize, bytes: usize) {
        self.pulls.inc();
        add(&self.rows_sent, rows);
        add(&self.chunk_bytes, bytes);
    }

    /// A node's pull from that namespace was answered; `age`: since the oldest change that it brought, if it brought one
    /// to a node that had been told something before.
    pub fn caught_up(&self, namespace: &Namespace, age: Option<Duration>) {
        self.namespaces.pulled(namespace);
        if let Some(age) = age {
            self.backlog_age.observe(age.as_secs_f64());
            self.catching_up.add(age);
        }
    }

    /// This relay looked at its leases so much later than it wanted to.
    pub fn looked_late(&self, late: Duration) {
        self.lease_lag.observe(late.as_secs_f64());
    }

    /// A contact made a member AWAKE that was not.
    pub fn woke(&self) {
        self.wakes.inc();
    }

    /// A contact only renewed a lease.
    pub fn beat(&self) {
        self.beats.inc();
    }

    /// A node was admitted.
    pub fn joined(&self, admission: Admission) {
        self.joins.of(admission).inc();
    }

    /// A membership ended.
    pub fn ended(&self, cause: Cause) {
        self.ends.of(cause).inc();
    }

    /// A node that had been declared GONE for its silence was heard of again.
    pub fn died_falsely(&self) {
        self.false_deaths.inc();
    }

    /// Very many members fell silent at once.
    pub fn lost_many(&self) {
        self.mass_losses.inc();
    }

    /// How nodes were admitted, why memberships ended, and what became of pushes, since this relay started.
    pub fn by_kind(&self) -> [(&'static str, Vec<(&'static str, u64)>); 4] {
        [
            ("joins", self.joins.counted()),
            ("ends", self.ends.counted()),
            ("pushes", self.pushes.counted()),
            ("refusals", self.refusals()),
        ]
    }

    /// Refusals since it started, by the contract's reason; those that were none are left out.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        let counted = REASONS.iter().map(|reason| {
            (*reason, self.refusals.get(&[("reason", *reason)]).map_or(0, |counter| counter.get()))
        });
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// What everybody may know of this relay, since it started.
    pub fn counters(&self) -> [(&'static str, u64); 7] {
        [
            ("joins", self.joins.of(Admission::Joined).get()),
            ("readmissions", self.joins.of(Admission::Readmitted).get()),
            ("ends", self.ends.sum()),
            ("false_deaths", self.false_deaths.get()),
            ("pushes", self.pushes.sum()),
            ("pulls", self.pulls.get()),
            ("mass_losses", self.mass_losses.get()),
        ]
    }

    /// Something was refused. The reason is one of the contract's words, never text of a caller: each is a series.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// The log has taken a frame of so many records.
    pub fn appended(&self, records: usize, took: Duration) {
        self.frames.inc();
        add(&self.records, records);
        self.log_append.observe(took.as_secs_f64());
        self.appending.add(took);
    }

    /// A snapshot was stored.
    pub fn snapshot_stored(&self) {
        self.snapshots.inc();
    }

    /// The log had come back without its newest frames, and that is over now.
    pub fn reseeded(&self, outcome: Reseeding) {
        self.reseeds.of(outcome).inc();
    }

    /// This relay stood still for so long.
    pub fn paused(&self, length: Duration) {
        self.relay_pause.inc_by(length.as_secs_f64());
    }

    /// There is a floor of that name, so its events count from 0.
    pub fn floor_known(&self, floor: &str) {
        self.floors.known(floor);
    }

    /// The count of a value crossed that floor.
    pub fn floor_crossed(&self, floor: &str, below: bool) {
        self.floors.crossed(floor, below);
    }

    /// A connection was taken in.
    pub fn visitor_came(&self) {
        self.connections.inc();
        self.connections_open.inc();
    }

    /// A connection that was taken in has ended.
    pub fn visitor_left(&self) {
        self.connections_open.dec();
    }

    /// A connection was turned away, or closed by this side.
    pub fn visited(&self, how: Visit) {
        self.connections_closed.of(how).inc();
    }

    /// A handshake has come to its end.
    pub fn shook_hands(&self, outcome: Handshake) {
        self.handshakes.of(outcome).inc();
    }

    /// The files of the certificate have changed.
    pub fn tls_read(&self, outcome: FileRead) {
        self.tls_reads.of(outcome).inc();
    }

    /// The tokens file has changed.
    pub fn tokens_read(&self, outcome: FileRead) {
        self.tokens_reads.of(outcome).inc();
    }

    /// What became of the posting of an event to its owner.
    pub fn posted(&self, outcome: WebhookOutcome) {
        self.floors.posted(outcome);
    }

    /// Everything in the text format of `OpenMetrics`, as [`CONTENT_TYPE`] says.
    pub fn encode(&self, gauges: &Gauges) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &self.registry)?;
        text::encode_registry(&mut page, &gauges.registry())?;
        text::encode_eof(&mut page)?;
        Ok(page)
    }
}

fn add(counter: &Counter, amount: usize) {
    counter.inc_by(u64::try_from(amount).unwrap_or(u64::MAX));
}
