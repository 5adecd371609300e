//! `/state.json`: what the page shows. It is made for the page and may change with it; `/metrics` is for programs.

use std::cmp::Reverse;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{About, Admin, page::answer};
use crate::{
    history::{LENGTH, Recent},
    metrics::{Condition, FIGURES, FloorGauge, Gauges, GroupGauge, Metrics},
};

/// Groups that are listed: the largest.
const GROUPS_LISTED: usize = 50;
/// Values of a floor that are listed: those with the fewest alive.
const VALUES_LISTED: usize = 20;

/// `?from=N`: the samples from that number on, for a page that has those before.
pub(super) async fn json(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let from = query.as_deref().and_then(|it| it.strip_prefix("from=")?.parse().ok()).unwrap_or(0);
    let (gauges, recent) = (admin.readiness.gauges(), admin.readiness.recent(from));
    let unmet = admin.readiness.unmet();
    let state = json!({
        "about": about(&admin.readiness.about(), &gauges),
        "unmet": unmet,
        "conditions": gauges.conditions.iter().map(|it: &Condition| it.name()).collect::<Vec<_>>(),
        "now": now(&admin.metrics, &gauges),
        "since_start": since_start(&admin.metrics),
        "groups": groups(&gauges.groups),
        "groups_known": gauges.groups.len(),
        "floors": gauges.floors.iter().map(floor).collect::<Vec<_>>(),
        "history": history(&recent),
    });
    answer("application/json", state.to_string())
}

/// Numbers that a browser would round travel as text.
fn about(about: &About, gauges: &Gauges) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "relay": about.relay,
        "log": about.log,
        "durability": about.durability,
        "acknowledged": about.acknowledged,
        "relays": about.relays,
        "uptime_ms": about.uptime_ms,
        "revision": gauges.revision.to_string(),
        "log_position": gauges.log_position.to_string(),
        "floor_lag_ms": gauges.floor_lag_seconds * 1e3,
        "awake_lease_percent": gauges.awake_lease_percent,
    })
}

fn now(metrics: &Metrics, gauges: &Gauges) -> Value {
    let figures = metrics.figures(gauges);
    FIGURES
        .iter()
        .zip(figures)
        .map(|(name, number)| ((*name).to_owned(), number.into()))
        .collect::<Map<_, _>>()
        .into()
}

fn since_start(metrics: &Metrics) -> Value {
    let counted = |counts: Vec<(&str, u64)>| -> Value {
        counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect::<Map<_, _>>().into()
    };
    let kinds = metrics.by_kind();
    kinds.into_iter().map(|(kind, counts)| (kind.to_owned(), counted(counts))).collect::<Map<_, _>>().into()
}

fn groups(groups: &[GroupGauge]) -> Value {
    let mut largest: Vec<&GroupGauge> = groups.iter().collect();
    largest.sort_by_key(|it| Reverse(it.members()));
    let listed = largest.into_iter().take(GROUPS_LISTED).map(|it| {
        json!({
            "namespace": it.namespace,
            "group": it.group,
            "awake": it.awake,
            "asleep": it.asleep,
            "suspect": it.suspect,
            "expected_alive": it.expected_alive,
            "expired": it.expired,
            "back": it.back,
        })
    });
    listed.collect()
}

fn floor(floor: &FloorGauge) -> Value {
    let mut live: Vec<&(String, u64)> = floor.live.iter().collect();
    live.sort_by_key(|(_, members)| *members);
    let fewest = live.iter().take(VALUES_LISTED).map(|(value, members)| json!([value, members]));
    json!({
        "floor": floor.floor,
        "minimum": floor.minimum,
        "live": fewest.collect::<Vec<_>>(),
        "below": live.iter().filter(|(_, members)| *members < floor.minimum).count(),
    })
}

fn history(recent: &Recent) -> Value {
    let samples = recent
        .samples
        .iter()
        .map(|it| json!({ "at": it.at_ms, "figures": it.figures.as_slice(), "groups": it.groups }));
    json!({
        "length": LENGTH,
        "figures": FIGURES.as_slice(),
        "groups": recent.groups,
        "first": recent.first,
        "samples": samples.collect::<Vec<_>>(),
    })
}
