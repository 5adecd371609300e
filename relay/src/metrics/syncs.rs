//! How long a log took to sync, counted where it syncs and shown at a scrape.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Durations in buckets, as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Syncs {
    /// Seconds of all of them together.
    pub seconds: f64,
    /// The longest that a bucket takes, in seconds, and how many are in it; the last one takes all that are longer.
    pub buckets: Vec<(f64, u64)>,
}

impl EncodeMetric for Syncs {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let count = self.buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.seconds, count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Gauges, Metrics};

    #[test]
    fn buckets_add_up_to_the_last_one() {
        let syncs = Syncs { seconds: 0.75, buckets: vec![(0.1, 2), (0.2, 0), (f64::INFINITY, 1)] };
        let gauges = Gauges { syncs: Some(syncs), ..Gauges::default() };
        let page = Metrics::default().encode(&gauges).unwrap_or_default();
        for line in [
            "# TYPE dormouse_log_fsync_seconds histogram",
            "dormouse_log_fsync_seconds_sum 0.75",
            "dormouse_log_fsync_seconds_count 3",
            "dormouse_log_fsync_seconds_bucket{le=\"0.1\"} 2",
            "dormouse_log_fsync_seconds_bucket{le=\"0.2\"} 2",
            "dormouse_log_fsync_seconds_bucket{le=\"+Inf\"} 3",
        ] {
            assert!(page.lines().any(|it| it == line), "{line} is not in:\n{page}");
        }
        let without = Metrics::default().encode(&Gauges::default()).unwrap_or_default();
        assert!(!without.contains("fsync"), "a log that others sync has no such numbers");
    }
}
