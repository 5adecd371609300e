//! What a node says of itself, as the log tells it.

use dormouse_proto::{
    ids::{Beat, Incarnation},
    record,
};

use crate::liveness::{Activity, Evidence, Millis};

/// Stands in a contact for an invocation of unknown length.
const UNKNOWN_MS: u64 = u64::MAX;

/// What a node says of itself, as evidence in the log.
pub fn contact_of(beat: Beat, activity: Activity, lease: Millis) -> record::Contact {
    let (asleep, awake_ms) = match activity {
        Activity::Asleep => (true, 0),
        Activity::Awake { remaining, then_asleep: true } => {
            (true, remaining.map_or(UNKNOWN_MS, |it| it.0.max(1)))
        }
        Activity::Awake { .. } => (false, 0),
    };
    record::Contact { beat, asleep, lease_ms: lease.0, awake_ms }
}

/// What the log tells of a contact, as what the node had said of itself.
pub fn activity_of(asleep: bool, awake_ms: u64) -> Activity {
    match (asleep, awake_ms) {
        (false, _) => Activity::Awake { remaining: None, then_asleep: false },
        (true, 0) => Activity::Asleep,
        (true, UNKNOWN_MS) => Activity::Awake { remaining: None, then_asleep: true },
        (true, ms) => Activity::Awake { remaining: Some(Millis(ms)), then_asleep: true },
    }
}

/// A contact as the log tells it, of this incarnation.
pub fn evidence_of(incarnation: Incarnation, contact: record::Contact) -> Evidence {
    Evidence {
        incarnation,
        beat: contact.beat,
        activity: activity_of(contact.asleep, contact.awake_ms),
        ttl: Millis(contact.lease_ms),
    }
}
