//! When to look at which lease again: a ring of buckets of 100 ms.
//!
//! A wheel remembers only where to look, never what is true. A lease that was renewed stays where it is; when
//! its bucket fires, the table looks at the lease and puts it where it now belongs. So a beat costs no wheel
//! operation, and a place that is out of date is recognised by the lease, which knows where it is waited for.

use super::{LeaseKey, Timestamp};

const BUCKET_MS: u64 = 100;
const BUCKETS: u64 = 4_096;

/// A bucket, numbered from the beginning of virtual time. It fires when all of its leases have run out, so at
/// most 100 ms late and never early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    /// The first bucket that fires at or after a moment.
    pub(super) fn of(moment: Timestamp) -> Self {
        Self(moment.0.div_ceil(BUCKET_MS))
    }
}

#[derive(Debug)]
pub(super) struct Wheel {
    buckets: Vec<Vec<LeaseKey>>,
    /// The next bucket to fire.
    cursor: u64,
}

fn slot(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS).unwrap_or(0)
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), cursor: 0 }
    }

    /// Puts a lease where it is looked at next, and says where that is. What lies beyond the ring is put into its
    /// last bucket: one look too many every seven minutes is cheaper than a second ring.
    pub(super) fn insert(&mut self, key: LeaseKey, wanted: Place) -> Place {
        let bucket = wanted.0.clamp(self.cursor, self.cursor + BUCKETS - 1);
        self.buckets[slot(bucket)].push(key);
        Place(bucket)
    }

    /// Takes out what fires up to `now`, in the order of the buckets.
    pub(super) fn fire(&mut self, now: Timestamp, fired: &mut Vec<(Place, LeaseKey)>) {
        let end = now.0 / BUCKET_MS + 1;
        // After a long silence the ring is emptied once, not once per bucket that has passed since.
        for bucket in self.cursor..end.min(self.cursor + BUCKETS) {
            let keys = std::mem::take(&mut self.buckets[slot(bucket)]);
            fired.extend(keys.into_iter().map(|key| (Place(bucket), key)));
        }
        self.cursor = self.cursor.max(end);
    }

    /// When the first bucket that holds anything fires.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let occupied = |bucket: &u64| !self.buckets[slot(*bucket)].is_empty();
        (self.cursor..self.cursor + BUCKETS).find(occupied).map(|bucket| Timestamp(bucket * BUCKET_MS))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::ids::NodeId;

    use super::*;

    fn key(node: u64) -> LeaseKey {
        LeaseKey { namespace: 0, node: NodeId(node) }
    }

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u64> {
        let mut out = Vec::new();
        wheel.fire(Timestamp(now), &mut out);
        out.into_iter().map(|(_, key)| key.node.0).collect()
    }

    #[test]
    fn a_bucket_never_fires_before_its_last_lease_has_run_out() {
        let mut wheel = Wheel::new();
        wheel.insert(key(1), Place::of(Timestamp(101)));
        wheel.insert(key(2), Place::of(Timestamp(100)));
        assert_eq!(wheel.next(), Some(Timestamp(100)));
        assert_eq!(fired(&mut wheel, 99), [0_u64; 0]);
        assert_eq!(fired(&mut wheel, 100), [2]);
        assert_eq!(fired(&mut wheel, 199), [0_u64; 0]);
        assert_eq!(fired(&mut wheel, 200), [1]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn what_is_too_far_or_already_past_is_looked_at_at_the_edge_of_the_ring() {
        let mut wheel = Wheel::new();
        assert_eq!(fired(&mut wheel, 1_000), [0_u64; 0]);
        assert_eq!(wheel.insert(key(1), Place::of(Timestamp(500))), Place(11), "in the past: next");
        assert_eq!(wheel.insert(key(2), Place::of(Timestamp(u64::MAX))), Place(11 + BUCKETS - 1));
        assert_eq!(fired(&mut wheel, 1_100), [1]);
        assert_eq!(fired(&mut wheel, 10_000_000), [2], "one turn of the ring, however long it was");
        assert_eq!(wheel.next(), None);
    }
}
