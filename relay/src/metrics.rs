//! What an operator can count: the relay's counters, and the numbers of its state at the moment of a scrape.
//!
//! Counting is one atomic addition; only an append and a refusal take a short lock. What mirrors state is no counter:
//! whoever scrapes hands it in as [`Gauges`], so that no second copy of it can go stale. Every value of a label is
//! there from the start with 0, because a series that appears with its first event hides that event from `rate()`.

mod floors;
mod labels;

pub use floors::FloorGauge;
pub use labels::{Admission, FileRead, Handshake, PushResult, Reseeding, WebhookOutcome};

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use dormouse_proto::record::Cause;
use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

use floors::FloorCounters;
use labels::{CounterPer, Labels, REASONS};

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "dormouse";

/// Numbers of the state, as whoever scrapes finds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Pushes that wait for the log.
    pub queue_waiting: u64,
    /// The newest revision applied.
    pub revision: u64,
    /// Rows that are visible.
    pub rows: u64,
    /// Rows that exist only to tell those who have not heard of their end.
    pub dead_rows: u64,
    /// What the state takes in memory, estimated.
    pub memory_bytes_estimate: u64,
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
}

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
    frames: Counter,
    records: Counter,
    snapshots: Counter,
    reseeds: CounterPer<Reseeding>,
    relay_pause: Counter<f64, AtomicU64>,
    mass_losses: Counter,
    floors: FloorCounters,
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
    /// A push has its fate. Its deltas count if it was bound.
    pub fn pushed(&self, result: PushResult, deltas: usize) {
        self.pushes.of(result).inc();
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

impl Gauges {
    /// What can be dropped because there is too much of it.
    pub const COLLAPSED: [&str; 5] = ["dead_rows", "siblings", "events", "tombstones", "once_ids"];
    /// What can become of a message.
    pub const MAIL: [&str; 4] = ["sent", "received", "expired", "undelivered"];

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let plain = [
            ("queue_waiting", "Pushes that wait for the log", self.queue_waiting),
            ("revision", "Newest revision applied", self.revision),
            ("rows", "Visible rows", self.rows),
            ("dead_rows", "Rows kept only to tell of their end", self.dead_rows),
            ("memory_bytes_estimate", "Memory of the state, estimated", self.memory_bytes_estimate),
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
        let members = Family::<Labels, Gauge<u64, AtomicU64>>::default();
        for (state, number) in [("awake", self.awake), ("asleep", self.asleep), ("suspect", self.suspect)] {
            members.get_or_create(&[("state", state)]).set(number);
        }
        registry.register("members", "Members, by state", members);
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
        floors::register(&mut registry, &self.floors);
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics, gauges: &Gauges) -> String {
        metrics.encode(gauges).unwrap_or_default()
    }

    fn assert_line(page: &str, line: &str) {
        assert!(page.lines().any(|it| it == line), "{line} is not in:\n{page}");
    }

    #[test]
    fn what_was_counted_is_on_the_page() {
        let metrics = Metrics::default();
        metrics.pushed(PushResult::Bound, 3);
        metrics.pushed(PushResult::Duplicate, 3);
        metrics.pulled(7, 900);
        metrics.joined(Admission::Readmitted);
        metrics.ended(Cause::Evicted);
        metrics.refused("BUSY");
        metrics.appended(12, Duration::from_micros(150));
        metrics.paused(Duration::from_millis(1_500));
        let page = page(&metrics, &Gauges::default());
        for line in [
            "dormouse_pushes_total{result=\"bound\"} 1",
            "dormouse_pushes_total{result=\"duplicate\"} 1",
            "dormouse_deltas_total 3",
            "dormouse_pulls_total 1",
            "dormouse_rows_sent_total 7",
            "dormouse_chunk_bytes_total 900",
            "dormouse_joins_total{admission=\"readmitted\"} 1",
            "dormouse_ends_total{cause=\"evicted\"} 1",
            "dormouse_refusals_total{reason=\"BUSY\"} 1",
            "dormouse_frames_total 1",
            "dormouse_records_total 12",
            "dormouse_log_append_seconds_count 1",
            "dormouse_log_append_seconds_bucket{le=\"0.0001\"} 0",
            "dormouse_log_append_seconds_bucket{le=\"0.0002\"} 1",
            "dormouse_relay_pause_seconds_total 1.5",
        ] {
            assert_line(&page, line);
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_label_whose_values_are_known_is_there_before_its_first_event() {
        let page = page(&Metrics::default(), &Gauges::default());
        assert_line(&page, "dormouse_pushes_total{result=\"fork\"} 0");
        assert_line(&page, "dormouse_joins_total{admission=\"forgotten\"} 0");
        assert_line(&page, "dormouse_ends_total{cause=\"expired\"} 0");
        assert_line(&page, "dormouse_refusals_total{reason=\"STORE_FULL\"} 0");
        assert_line(&page, "dormouse_false_deaths_total 0");
    }

    #[test]
    fn gauges_are_those_of_the_scrape() {
        let metrics = Metrics::default();
        let gauges = Gauges {
            revision: 1 << 60,
            awake: 2,
            suspect: 1,
            expiry_held: true,
            collapsed: [7, 0, 0, 0, 0],
            mail: [9, 8, 0, 1],
            ..Gauges::default()
        };
        let first = page(&metrics, &gauges);
        assert_line(&first, "dormouse_collapsed_total{what=\"dead_rows\"} 7");
        assert_line(&first, "dormouse_mail_total{outcome=\"undelivered\"} 1");
        assert_line(&first, "dormouse_revision 1152921504606846976");
        assert_line(&first, "dormouse_members{state=\"awake\"} 2");
        assert_line(&first, "dormouse_expiry_held 1");
        assert_line(&page(&metrics, &Gauges::default()), "dormouse_members{state=\"awake\"} 0");
    }

    #[test]
    fn every_metric_has_one_name_and_one_description() {
        let page = page(&Metrics::default(), &Gauges::default());
        let mut names: Vec<_> =
            page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), all), (34, 34));
        assert!(names.iter().all(|name| name.starts_with("dormouse_")));
    }
}
