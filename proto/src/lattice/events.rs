//! Events: a log of entries in the order in which the great log accepted them, and a point up to which it was trimmed.
//!
//! An entry is named by its revision and its place in its delta, and never changes. Trimmed entries leave nothing behind:
//! that the trim point has moved is all that a reader must learn, and points only move forward.

use super::Value;
use crate::ids::{OnceId, Revision};

/// What a client says about events; the trim comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsDelta {
    /// To be appended, at most [`EventsDelta::MAX`].
    pub append: Vec<Append>,
    /// Entries up to here are dropped; [`Revision::ZERO`]: none.
    pub trim_upto: Revision,
}

impl EventsDelta {
    /// Entries that one delta appends at the most.
    pub const MAX: usize = 500;
}

/// One entry to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Its content.
    pub payload: Value,
    /// With an id it is appended once, whoever repeats it.
    pub id: Option<OnceId>,
}

/// The head of a log of events: 24 bytes, whatever went through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsHead {
    /// Entries up to here are gone.
    pub trimmed_upto: Revision,
    /// The newest append.
    pub appended: Revision,
    /// Entries that are there.
    pub entries: u32,
}

impl EventsHead {
    /// No entry is there.
    pub const fn is_dead(&self) -> bool {
        self.entries == 0
    }

    /// Moves the trim point forward.
    pub fn trim(&mut self, upto: Revision) {
        self.trimmed_upto = self.trimmed_upto.max(upto);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    /// The whole lattice: every entry that ever was, and the furthest trim.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Whole {
        entries: BTreeSet<(u64, u32)>,
        head: EventsHead,
    }

    impl Lattice for Whole {
        fn join(&mut self, other: &Self) {
            self.entries.extend(&other.entries);
            self.head.trim(other.head.trimmed_upto);
        }
    }

    fn whole() -> impl Strategy<Value = Whole> {
        (prop::collection::btree_set((1..9_u64, 0..3_u32), 0..6), 0..9_u64).prop_map(|(entries, upto)| {
            let mut head = EventsHead::default();
            head.trim(Revision(upto));
            Whole { entries, head }
        })
    }

    proptest! {
        #[test]
        fn laws(a in whole(), b in whole(), c in whole()) {
            assert_laws(&a, &b, &c);
        }

        #[test]
        fn a_trim_point_never_goes_back(points in prop::collection::vec(any::<u64>(), 1..12)) {
            let mut head = EventsHead::default();
            for point in &points {
                let before = head.trimmed_upto;
                head.trim(Revision(*point));
                prop_assert!(head.trimmed_upto >= before);
            }
            prop_assert_eq!(Some(head.trimmed_upto.0), points.into_iter().max());
        }
    }
}
