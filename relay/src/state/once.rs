//! Idempotency ids: what took effect once does not take effect again within a bounded window.
//!
//! They cover the platform's own retries, which arrive from another container and so with another node id. An id is
//! kept as a fingerprint of 128 bits, together with what it was used for, so two counters may share one.

use std::collections::{HashMap, VecDeque};

use dormouse_proto::ids::{NodeId, Revision};
use xxhash_rust::xxh3::Xxh3;

use super::{Reason, policy::Limits};

/// The fingerprint of an id and what it is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OnceKey(pub(super) u128);

impl OnceKey {
    /// Of an id within one counter.
    pub(super) fn of_counter(collection: &str, key: &str, id: &str) -> Self {
        Self::of(&["counter", collection, key, id])
    }

    /// Of a whole write.
    pub(super) fn of_write(request_id: &str) -> Self {
        Self::of(&["write", request_id])
    }

    /// Of one event of one log.
    pub(super) fn of_event(collection: &str, key: &str, id: &str) -> Self {
        Self::of(&["event", collection, key, id])
    }

    /// Of a message to one node.
    pub(super) fn of_mail(node: NodeId, message_id: &str) -> Self {
        Self::of(&["mail", &node.to_string(), message_id])
    }

    fn of(parts: &[&str]) -> Self {
        let mut hasher = Xxh3::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.digest128())
    }
}

/// What an id led to.
pub(super) type Outcome = Result<Revision, Reason>;

/// The ids of one namespace, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct OnceIds {
    known: HashMap<OnceKey, Outcome>,
    order: VecDeque<(OnceKey, u64)>,
    /// How many were dropped since this process began; not part of the state.
    pub(super) forgotten: u64,
}

impl OnceIds {
    pub(super) fn get(&self, key: OnceKey) -> Option<Outcome> {
        self.known.get(&key).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Estimated memory.
    pub(super) fn bytes(&self) -> u64 {
        // A key with its outcome and a byte to find it by, in a table that is full at seven eighths, and the order.
        const KNOWN: usize = size_of::<(OnceKey, Outcome)>() + 1;
        const PLACE: usize = size_of::<(OnceKey, u64)>();
        (self.known.capacity() * 8 / 7 * KNOWN + self.order.capacity() * PLACE) as u64
    }

    /// Remembers an id that is not known yet.
    pub(super) fn insert(&mut self, key: OnceKey, outcome: Outcome, log_time_ms: u64, limits: &Limits) {
        if self.known.insert(key, outcome).is_none() {
            self.order.push_back((key, log_time_ms));
        }
        self.forget(log_time_ms, limits);
    }

    /// Drops ids that are too old or too many.
    pub(super) fn forget(&mut self, log_time_ms: u64, limits: &Limits) {
        while let Some((key, at)) = self.order.front() {
            if log_time_ms.saturating_sub(*at) <= limits.once_ms && self.known.len() as u64 <= limits.once_max
            {
                return;
            }
            self.known.remove(key);
            self.order.pop_front();
            self.forgotten += 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (OnceKey, u64, Outcome)> {
        self.order.iter().filter_map(|(key, at)| self.known.get(key).map(|outcome| (*key, *at, *outcome)))
    }

    pub(super) fn restore(&mut self, key: OnceKey, at: u64, outcome: Outcome) {
        self.known.insert(key, outcome);
        self.order.push_back((key, at));
    }
}
