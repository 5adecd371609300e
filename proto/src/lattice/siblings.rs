//! The register that keeps what was written concurrently: each write takes away those that its author had seen.
//!
//! A write names every value up to its context, so what is left is exactly what no later writer has seen. Nothing of a
//! value that was taken away need be remembered, because later dots are always greater.

use super::Value;
use crate::ids::Revision;

/// What a client says about siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingsDelta {
    /// The new content; `None`: only takes away what was seen.
    pub value: Option<Value>,
    /// The revision at which the author saw them; `None`: whatever is there when the log accepts it.
    pub as_of: Option<Revision>,
}

/// The row of siblings. `V` is how its holder keeps a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Siblings<V> {
    /// Oldest first; at most [`Siblings::MAX`].
    values: Vec<(Revision, V)>,
}

impl<V> Default for Siblings<V> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<V> Siblings<V> {
    /// How many stand side by side; of more the oldest goes.
    pub const MAX: usize = 64;
    /// Bytes that they may have together; of more the oldest goes, but never the newest. A row must fit into an answer, and
    /// everybody who follows it gets the whole of it.
    pub const MAX_BYTES: usize = Value::MAX_BYTES;

    /// Puts back what [`Siblings::iter`] gave.
    pub fn from_list(mut values: Vec<(Revision, V)>) -> Self {
        values.shrink_to_fit();
        Self { values }
    }

    /// Nothing is visible.
    pub const fn is_dead(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, oldest first, each with the revision of its write.
    pub fn iter(&self) -> impl Iterator<Item = (Revision, &V)> {
        self.values.iter().map(|(at, value)| (*at, value))
    }

    /// Takes away every value up to what the author saw.
    pub fn remove(&mut self, as_of: Revision) {
        self.values.retain(|(at, _)| *at > as_of);
        self.values.shrink_to_fit();
    }

    /// Binds a write at the revision `at`, which is above all that are there; `len` is what a value has. Returns how many
    /// of the oldest had to go although nobody took them away.
    pub fn write(&mut self, as_of: Revision, at: Revision, value: V, len: impl Fn(&V) -> usize) -> usize {
        self.values.retain(|(at, _)| *at > as_of);
        self.values.push((at, value));
        let (mut bytes, mut kept) = (0, 0);
        for (_, value) in self.values.iter().rev() {
            bytes += len(value);
            if kept > 0 && (kept == Self::MAX || bytes > Self::MAX_BYTES) {
                break;
            }
            kept += 1;
        }
        let crowded = self.values.len() - kept;
        self.values.drain(..crowded);
        self.values.shrink_to_fit();
        crowded
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    /// The whole lattice: every write by its dot, and whether somebody who saw it took it away.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Whole {
        written: BTreeMap<u64, u8>,
        covered: u64,
    }

    impl Lattice for Whole {
        fn join(&mut self, other: &Self) {
            self.written.extend(&other.written);
            self.covered = self.covered.max(other.covered);
        }
    }

    proptest! {
        #[test]
        fn siblings_are_the_visible_part_of_the_join_in_any_order(
            steps in prop::collection::vec((any::<bool>(), any::<u8>(), any::<prop::sample::Index>()), 1..48),
        ) {
            let (mut row, mut bound) = (Siblings::default(), Vec::new());
            for (at, (write, value, seen)) in steps.iter().enumerate() {
                let (dot, as_of) = (at as u64 + 1, seen.index(at + 1) as u64);
                if *write {
                    row.write(Revision(as_of), Revision(dot), *value, |_| 1);
                    bound.push(Whole { written: [(dot, *value)].into(), covered: as_of });
                } else {
                    row.remove(Revision(as_of));
                    bound.push(Whole { written: BTreeMap::new(), covered: as_of });
                }
            }
            let joined = bound.iter().rev().fold(Whole::default(), |mut all, delta| { all.join(delta); all });
            let visible: Vec<_> = joined.written.into_iter().filter(|(dot, _)| *dot > joined.covered).collect();
            prop_assert_eq!(row.iter().map(|(at, value)| (at.0, *value)).collect::<Vec<_>>(), visible);
        }

        #[test]
        fn laws(a in (any::<u8>(), 0..9_u64), b in (any::<u8>(), 0..9_u64), c in (any::<u8>(), 0..9_u64)) {
            let whole = |dot: u64, (value, covered)| Whole { written: [(dot, value)].into(), covered };
            assert_laws(&whole(1, a), &whole(2, b), &whole(3, c));
        }
    }

    #[test]
    fn writes_that_did_not_see_each_other_stay_until_somebody_has_seen_them() {
        let mut row = Siblings::default();
        row.write(Revision(0), Revision(1), 'a', |_| 1);
        row.write(Revision(0), Revision(2), 'b', |_| 1);
        assert_eq!(row.iter().count(), 2);
        row.write(Revision(2), Revision(3), 'c', |_| 1);
        assert_eq!(row.iter().collect::<Vec<_>>(), [(Revision(3), &'c')]);
    }

    #[test]
    fn of_more_than_64_the_oldest_goes() {
        let mut row = Siblings::default();
        let crowded: usize = (1..=65).map(|at| row.write(Revision(0), Revision(at), at, |_| 1)).sum();
        assert_eq!(crowded, 1);
        assert_eq!(row.iter().next(), Some((Revision(2), &2)));
    }

    #[test]
    fn values_that_are_too_large_together_make_room_for_the_newest() {
        let (mut row, half) = (Siblings::default(), Siblings::<char>::MAX_BYTES / 2);
        assert_eq!(row.write(Revision(0), Revision(1), 'a', |_| half), 0);
        assert_eq!(row.write(Revision(0), Revision(2), 'b', |_| half), 0);
        assert_eq!(row.write(Revision(0), Revision(3), 'c', |_| half), 1);
        assert_eq!(
            row.write(Revision(0), Revision(4), 'd', |_| 4 * half),
            2,
            "the newest stays, however large"
        );
    }
}
