//! What is remembered of each second: the numbers that a person who looks wants to see as curves.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Gauges, Metrics};

/// Durations and how many there were: a histogram keeps its own to itself.
#[derive(Debug, Default)]
pub(super) struct Spent {
    times: AtomicU64,
    micros: AtomicU64,
}

impl Spent {
    pub(super) fn add(&self, took: Duration) {
        self.times.fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// What the numbers of [`Metrics::figures`] are, in their order. The first ten are as of their moment, the others only grow:
/// what happened meanwhile is the difference of two.
pub const FIGURES: [&str; 28] = [
    "awake",
    "asleep",
    "suspect",
    "expected_alive",
    "rows",
    "dead_rows",
    "memory_bytes",
    "queue",
    "watchers",
    "inbox",
    "wakes",
    "beats",
    "joins",
    "left",
    "expired",
    "evicted",
    "false_deaths",
    "pushes",
    "pulls",
    "rows_sent",
    "rows_changed",
    "chunk_bytes",
    "refusals",
    "appends",
    "append_us",
    "backlogs",
    "backlog_ms",
    "paused_ms",
];

impl Metrics {
    /// The numbers of this moment, as [`FIGURES`] names them.
    pub fn figures(&self, gauges: &Gauges) -> [u64; FIGURES.len()] {
        let [left, expired, evicted] = self.ends.counts();
        let [joined, readmitted, forked, forgotten] = self.joins.counts();
        [
            gauges.awake,
            gauges.asleep,
            gauges.suspect,
            whole(gauges.expected_alive),
            gauges.rows,
            gauges.dead_rows,
            gauges.memory_estimate_bytes,
            gauges.queue_waiting,
            gauges.watchers,
            gauges.inbox_waiting,
            self.wakes.get(),
            self.beats.get(),
            joined + readmitted + forked + forgotten,
            left,
            expired,
            evicted,
            self.false_deaths.get(),
            self.pushes.sum(),
            self.pulls.get(),
            self.rows_sent.get(),
            gauges.rows_changed,
            self.chunk_bytes.get(),
            self.refusals().iter().map(|(_, count)| count).sum(),
            self.appending.times.load(Relaxed),
            self.appending.micros.load(Relaxed),
            self.catching_up.times.load(Relaxed),
            self.catching_up.micros.load(Relaxed) / 1_000,
            whole(self.relay_pause.get() * 1e3),
        ]
    }
}

/// To the nearest whole number; what is none is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from a float saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use dormouse_proto::{ids::Namespace, record::Cause};

    use super::*;
    use crate::metrics::{Admission, PushResult};

    #[test]
    fn a_figure_stands_where_its_name_does() {
        let (metrics, shop) =
            (Metrics::default(), Namespace::try_from("shop".to_owned()).expect("a valid name"));
        metrics.joined(Admission::Readmitted);
        metrics.ended(Cause::Expired);
        metrics.pushed(&shop, PushResult::Bound, 2);
        metrics.pulled(7, 900);
        metrics.caught_up(&shop, Some(Duration::from_millis(2_500)));
        metrics.refused("BUSY");
        metrics.refused("QUOTA");
        metrics.appended(1, Duration::from_micros(150));
        let gauges = Gauges { suspect: 3, expected_alive: 2.6, rows_changed: 9, ..Gauges::default() };
        let figures = metrics.figures(&gauges);
        for (name, wanted) in [
            ("suspect", 3),
            ("expected_alive", 3),
            ("joins", 1),
            ("left", 0),
            ("expired", 1),
            ("pushes", 1),
            ("pulls", 1),
            ("rows_sent", 7),
            ("rows_changed", 9),
            ("chunk_bytes", 900),
            ("refusals", 2),
            ("appends", 1),
            ("append_us", 150),
            ("backlogs", 1),
            ("backlog_ms", 2_500),
        ] {
            let place = FIGURES.iter().position(|it| *it == name);
            assert_eq!(place.map(|place| figures[place]), Some(wanted), "{name}");
        }
        let others: u64 = figures.iter().sum();
        assert_eq!(others, 3 + 3 + 1 + 1 + 1 + 1 + 7 + 9 + 900 + 2 + 1 + 150 + 1 + 2_500, "the rest is 0");
    }
}
