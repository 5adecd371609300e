//! Limits that the fold itself enforces. They change by records only, because two relays must refuse alike.

use dormouse_proto::record::Policy;

/// The limits in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Dead rows that each collection keeps at least; beyond it, a quarter of the live ones.
    pub dead_rows_min: u64,
    /// Tombstones of ended members, per namespace.
    pub tombstones_max: u64,
    /// How long a tombstone lives, in log time.
    pub tombstone_ms: u64,
    /// Idempotency ids, per namespace.
    pub once_max: u64,
    /// How long an idempotency id is remembered, in log time.
    pub once_ms: u64,
    /// How far ahead of the log's own time a register stamp may be.
    pub stamp_skew_ms: u64,
    /// Collections per namespace. A collection's name is kept for ever, with the marks of what it dropped.
    pub collections_max: u64,
    /// Rows per namespace, dead ones included.
    pub rows_max: u64,
    /// Estimated bytes of rows per namespace.
    pub bytes_max: u64,
    /// Live members per namespace.
    pub nodes_max: u64,
    /// Entries of one log of events; older ones are trimmed, in steps of an eighth.
    pub events_max: u64,
    /// Bytes of the entries of one log of events; likewise.
    pub events_bytes_max: u64,
    /// How long an event is kept, in log time.
    pub events_age_ms: u64,
    /// Messages that wait for one node.
    pub inbox_max: u64,
    /// Bytes of the messages that wait for one node.
    pub inbox_bytes_max: u64,
    /// Namespaces per log.
    pub namespaces_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dead_rows_min: 8_192,
            tombstones_max: 262_144,
            tombstone_ms: 3_600_000,
            once_max: 1 << 20,
            once_ms: 3_600_000,
            stamp_skew_ms: 60_000,
            collections_max: 4_096,
            rows_max: 100_000_000,
            bytes_max: 16 << 30,
            nodes_max: 1_048_576,
            events_max: 1_000_000,
            events_bytes_max: 1 << 30,
            events_age_ms: 7 * 24 * 3_600_000,
            inbox_max: 1_024,
            inbox_bytes_max: 1 << 20,
            namespaces_max: 4_096,
        }
    }
}

impl Limits {
    /// Whether everything that a policy names is in force.
    pub fn satisfy(&self, wanted: &Policy) -> bool {
        let mut after = *self;
        after.apply(wanted);
        after == *self
    }

    /// Takes over what a policy record names.
    pub(super) fn apply(&mut self, policy: &Policy) {
        let Policy {
            namespace: _, // whose limits these are is the caller's matter
            dead_rows_min,
            tombstones_max,
            tombstone_ms,
            once_max,
            once_ms,
            stamp_skew_ms,
            collections_max,
            rows_max,
            bytes_max,
            nodes_max,
            events_max,
            events_bytes_max,
            events_age_ms,
            inbox_max,
            inbox_bytes_max,
        } = policy;
        let set = |limit: &mut u64, to: &Option<u64>| {
            if let Some(to) = to {
                *limit = *to;
            }
        };
        set(&mut self.dead_rows_min, dead_rows_min);
        set(&mut self.tombstones_max, tombstones_max);
        set(&mut self.tombstone_ms, tombstone_ms);
        set(&mut self.once_max, once_max);
        set(&mut self.once_ms, once_ms);
        set(&mut self.stamp_skew_ms, stamp_skew_ms);
        set(&mut self.collections_max, collections_max);
        set(&mut self.rows_max, rows_max);
        set(&mut self.bytes_max, bytes_max);
        set(&mut self.nodes_max, nodes_max);
        set(&mut self.events_max, events_max);
        set(&mut self.events_bytes_max, events_bytes_max);
        set(&mut self.events_age_ms, events_age_ms);
        set(&mut self.inbox_max, inbox_max);
        set(&mut self.inbox_bytes_max, inbox_bytes_max);
    }
}

/// Takes over into one policy what a newer one names.
pub(super) fn amend(policy: &mut Policy, newer: &Policy) {
    let Policy {
        namespace: _,
        dead_rows_min,
        tombstones_max,
        tombstone_ms,
        once_max,
        once_ms,
        stamp_skew_ms,
        collections_max,
        rows_max,
        bytes_max,
        nodes_max,
        events_max,
        events_bytes_max,
        events_age_ms,
        inbox_max,
        inbox_bytes_max,
    } = newer;
    let set = |limit: &mut Option<u64>, to: &Option<u64>| *limit = to.or(*limit);
    set(&mut policy.dead_rows_min, dead_rows_min);
    set(&mut policy.tombstones_max, tombstones_max);
    set(&mut policy.tombstone_ms, tombstone_ms);
    set(&mut policy.once_max, once_max);
    set(&mut policy.once_ms, once_ms);
    set(&mut policy.stamp_skew_ms, stamp_skew_ms);
    set(&mut policy.collections_max, collections_max);
    set(&mut policy.rows_max, rows_max);
    set(&mut policy.bytes_max, bytes_max);
    set(&mut policy.nodes_max, nodes_max);
    set(&mut policy.events_max, events_max);
    set(&mut policy.events_bytes_max, events_bytes_max);
    set(&mut policy.events_age_ms, events_age_ms);
    set(&mut policy.inbox_max, inbox_max);
    set(&mut policy.inbox_bytes_max, inbox_bytes_max);
}
