//! A fleet for programs: one object for each time that it is shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{Fleet, Group, Living};
use crate::show::{durability, member};

/// The fleet, with all of its groups and the members that were asked for.
pub(crate) fn of_fleet(fleet: &Fleet) -> Value {
    let living = fleet.living();
    let listed = u64::try_from(fleet.members.len()).unwrap_or(u64::MAX);
    json!({
        "askedAtMs": unix_ms(fleet.asked_at),
        "lost": fleet.lost,
        "totals": of_living(&living),
        "rates": fleet.rates.as_ref().map(|rates| {
            rates.0.iter().map(|(name, rate)| (format!("{name}PerS"), thousandths(*rate))).collect::<Map<_, _>>()
        }),
        "relay": {
            "relayId": fleet.relay.relay_id,
            "version": fleet.relay.version,
            "revision": fleet.relay.revision,
            "durability": durability(fleet.relay.durability),
            "conditions": fleet.relay.conditions,
            "counters": fleet.relay.counters,
        },
        "groups": fleet.groups.iter().map(of_group).collect::<Vec<_>>(),
        "members": fleet.members.iter().map(member::json).collect::<Vec<_>>(),
        "moreMembers": living.total().saturating_sub(listed),
    })
}

fn of_living(it: &Living) -> Map<String, Value> {
    Map::from_iter([
        ("awake".to_owned(), it.awake.into()),
        ("asleep".to_owned(), it.asleep.into()),
        ("suspect".to_owned(), it.suspect.into()),
        ("expectedAlive".to_owned(), thousandths(it.expected_alive)),
    ])
}

fn of_group(it: &Group) -> Map<String, Value> {
    let taught = it.taught.as_ref();
    let mut object = Map::from_iter([("group".to_owned(), it.name.as_str().into())]);
    object.extend(of_living(&it.living));
    object.extend([
        ("wakeGapP50Ms".to_owned(), ms(taught.and_then(|it| it.wake_gap_p50))),
        ("wakeGapP99Ms".to_owned(), ms(taught.and_then(|it| it.wake_gap_p99))),
        ("asleepLeaseMs".to_owned(), ms(taught.and_then(|it| it.asleep_lease))),
        (
            "versions".to_owned(),
            it.versions.iter().cloned().map(|(name, members)| (name, Value::from(members))).collect(),
        ),
    ]);
    object
}

fn thousandths(it: f64) -> Value {
    ((it * 1_000.0).round() / 1_000.0).into()
}

fn ms(it: Option<Duration>) -> Value {
    it.and_then(|it| u64::try_from(it.as_millis()).ok()).into()
}

fn unix_ms(at: SystemTime) -> Value {
    ms(at.duration_since(UNIX_EPOCH).ok())
}
