//! The numbers of the floors. Their names and the values of tags are labels; the configuration bounds the former, the
//! floor itself the latter.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::labels::{CounterPer, WebhookOutcome};

type PerFloor = [(&'static str, String); 1];
type PerFloorAnd = [(&'static str, String); 2];
type GaugePer<L> = Family<L, Gauge<u64, AtomicU64>>;

/// The numbers of one floor at the moment of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FloorGauge {
    /// How it is called.
    pub floor: String,
    /// How many members should be alive for each value.
    pub minimum: u64,
    /// How many are, by value.
    pub live: Vec<(String, u64)>,
    /// Values that are not looked at, because there are too many.
    pub passed_over: u64,
}

/// What is counted of floors.
#[derive(Debug)]
pub(super) struct FloorCounters {
    events: Family<PerFloorAnd, Counter>,
    webhooks: CounterPer<WebhookOutcome>,
}

impl FloorCounters {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let events = Family::<PerFloorAnd, Counter>::default();
        let help = "Counts of live members that fell below a floor, or came back";
        registry.register("floor_events", help, events.clone());
        let help = "Events posted to the owners of floors, by what became of them";
        Self { events, webhooks: CounterPer::registered(registry, "webhooks", help) }
    }

    pub(super) fn known(&self, floor: &str) {
        for below in [true, false] {
            drop(self.events.get_or_create(&event_labels(floor, below)));
        }
    }

    pub(super) fn crossed(&self, floor: &str, below: bool) {
        self.events.get_or_create(&event_labels(floor, below)).inc();
    }

    pub(super) fn posted(&self, outcome: WebhookOutcome) {
        self.webhooks.of(outcome).inc();
    }
}

fn event_labels(floor: &str, below: bool) -> PerFloorAnd {
    [("floor", floor.to_owned()), ("below", below.to_string())]
}

/// Adds the numbers of the floors to those of a scrape.
pub(super) fn register(registry: &mut Registry, floors: &[FloorGauge]) {
    let live = GaugePer::<PerFloorAnd>::default();
    let (minimum, passed_over) = (GaugePer::<PerFloor>::default(), GaugePer::<PerFloor>::default());
    for floor in floors {
        let name = || floor.floor.clone();
        for (value, members) in &floor.live {
            live.get_or_create(&[("floor", name()), ("value", value.clone())]).set(*members);
        }
        minimum.get_or_create(&[("floor", name())]).set(floor.minimum);
        passed_over.get_or_create(&[("floor", name())]).set(floor.passed_over);
    }
    registry.register("floor_live", "AWAKE and ASLEEP members, by floor and value of its tag", live);
    registry.register("floor_minimum", "Live members that each value of a floor should have", minimum);
    let help = "Values that a floor does not look at, because there are too many";
    registry.register("floor_values_passed_over", help, passed_over);
}

#[cfg(test)]
mod tests {
    use crate::metrics::{FloorGauge, Gauges, Metrics, WebhookOutcome};

    #[test]
    fn a_floor_has_its_numbers_by_name_and_value() {
        let metrics = Metrics::default();
        metrics.floor_known("workers");
        metrics.floor_crossed("workers", true);
        metrics.posted(WebhookOutcome::TriedAgain);
        let workers = FloorGauge {
            floor: "workers".to_owned(),
            minimum: 2,
            live: vec![("a \"1\"".to_owned(), 1), ("b".to_owned(), 3)],
            passed_over: 4,
        };
        let page = metrics.encode(&Gauges { floors: vec![workers], ..Gauges::default() }).unwrap_or_default();
        for line in [
            r#"dormouse_floor_events_total{floor="workers",below="true"} 1"#,
            r#"dormouse_floor_events_total{floor="workers",below="false"} 0"#,
            r#"dormouse_webhooks_total{outcome="tried_again"} 1"#,
            r#"dormouse_webhooks_total{outcome="delivered"} 0"#,
            r#"dormouse_floor_live{floor="workers",value="a \"1\""} 1"#,
            r#"dormouse_floor_live{floor="workers",value="b"} 3"#,
            r#"dormouse_floor_minimum{floor="workers"} 2"#,
            r#"dormouse_floor_values_passed_over{floor="workers"} 4"#,
        ] {
            assert!(page.lines().any(|it| it == line), "{line} is not in:\n{page}");
        }
    }
}
