//! What a relay says of itself.

use std::{collections::BTreeMap, time::Duration};

use dormouse_proto::wire::v1;

use super::{Service, encode};
use crate::{access::Caller, clock::Clock, state::Fold};

/// How long the log is asked where it ends, before the answer goes without it.
const LOG_PATIENCE: Duration = Duration::from_secs(1);
/// Namespaces that are named at the most.
const NAMESPACES: usize = 100;

impl Service {
    /// To this caller.
    pub(super) async fn about(&self, caller: &Caller) -> v1::RelayInfo {
        let sequencer = &self.relay.sequencer;
        let log = tokio::time::timeout(LOG_PATIENCE, sequencer.log_now()).await.ok().flatten();
        let applied = sequencer.read();
        let mut limits = self.relay.config.limits();
        limits.extend(fold_limits(&applied.fold));
        v1::RelayInfo {
            relay_id: self.relay.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            broker: sequencer.log().kind.to_owned(),
            revision: applied.fold.revision().0,
            limits,
            conditions: self.conditions(),
            durability: encode::durability(sequencer.log().durability) as i32,
            counters: self.counters(),
            claims: sequencer.log().claims().named(),
            now: Some(now()),
            namespaces: if caller.admits_all() { namespaces(&applied.fold) } else { Vec::new() },
            log_newest: log.as_ref().and_then(|log| log.tail).map(|tail| tail.0),
            log_applied: applied.last.map_or(0, |last| last.position.0),
            store_free_bytes: log.and_then(|log| log.free_bytes),
        }
    }

    /// What has happened since this relay started, and what its state takes.
    fn counters(&self) -> BTreeMap<String, u64> {
        let uptime = ("uptime_ms", self.relay.keeper.uptime().0);
        let state_bytes = {
            let applied = self.relay.sequencer.read();
            applied.fold.namespaces().map(|(_, view)| view.memory_bytes()).sum()
        };
        let counted = self.relay.metrics.counters().into_iter().chain([uptime, ("state_bytes", state_bytes)]);
        counted.map(|(name, count)| (name.to_owned(), count)).collect()
    }
}

/// Of the wall clock, which decides nothing here: for whoever compares it with another.
fn now() -> prost_types::Timestamp {
    let ms = Clock::wall_ms().cast_signed();
    let nanos = i32::try_from(ms.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: ms.div_euclid(1_000), nanos }
}

/// Those that hold a row or a member.
fn namespaces(fold: &Fold) -> Vec<String> {
    let used = fold.namespaces().filter(|(_, view)| view.rows() > 0 || !view.members().is_empty());
    used.map(|(name, _)| name.to_string()).take(NAMESPACES).collect()
}

/// What the fold itself enforces, beside the bounds of the configuration.
fn fold_limits(fold: &Fold) -> BTreeMap<String, u64> {
    let limits = fold.limits();
    let named = [
        ("dead_rows_min", limits.dead_rows_min),
        ("tombstones_max", limits.tombstones_max),
        ("tombstone_ms", limits.tombstone_ms),
        ("once_max", limits.once_max),
        ("once_ms", limits.once_ms),
        ("stamp_skew_ms", limits.stamp_skew_ms),
        ("collections_max", limits.collections_max),
        ("rows_max", limits.rows_max),
        ("bytes_max", limits.bytes_max),
        ("nodes_max", limits.nodes_max),
        ("events_max", limits.events_max),
        ("events_bytes_max", limits.events_bytes_max),
        ("events_age_ms", limits.events_age_ms),
        ("inbox_max", limits.inbox_max),
        ("inbox_bytes_max", limits.inbox_bytes_max),
        ("namespaces_max", limits.namespaces_max),
    ];
    named.map(|(name, limit)| (name.to_owned(), limit)).into()
}
