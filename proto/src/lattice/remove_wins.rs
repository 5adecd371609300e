//! The set in which a remove wins over a concurrent add, and the flag in which off wins over a concurrent on.
//!
//! Here it is the add that needs a context: it says up to which revision its author knew the removes, and it counts
//! only while there is no newer one. Two numbers say all of it: the newest context of an add, and the newest remove.

use crate::ids::{Element, Revision};

/// What a client says about a remove-wins set. An element stands in it at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoveWinsSetDelta {
    /// Elements to add, by what their author had seen.
    pub add: Vec<GuardedAdd>,
    /// Elements to remove.
    pub remove: Vec<Element>,
}

/// Adds elements, unless they were removed since their author looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedAdd {
    /// The elements.
    pub elements: Vec<Element>,
    /// The revision at which the author saw them; `None`: whatever is there when the log accepts it.
    pub as_of: Option<Revision>,
}

/// The row of one element, or of a flag: 24 bytes beside its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveWins {
    /// The newest context of an add; `None`: it was never added.
    pub seen: Option<Revision>,
    /// The newest remove, [`Revision::ZERO`] before the first.
    pub removed: Revision,
}

impl RemoveWins {
    /// Whether the element is in the set, or the flag on.
    pub fn is_present(&self) -> bool {
        self.seen.is_some_and(|seen| seen >= self.removed)
    }

    /// Adds it, for an author who had seen everything up to `as_of`.
    pub fn add(&mut self, as_of: Revision) {
        self.seen = self.seen.max(Some(as_of));
    }

    /// Binds a remove at the revision `at`.
    pub fn remove(&mut self, at: Revision) {
        self.removed = self.removed.max(at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    impl Lattice for RemoveWins {
        fn join(&mut self, other: &Self) {
            self.seen = self.seen.max(other.seen);
            self.removed = self.removed.max(other.removed);
        }
    }

    fn row() -> impl Strategy<Value = RemoveWins> {
        (prop::option::of(0..9_u64), 0..9_u64)
            .prop_map(|(seen, removed)| RemoveWins { seen: seen.map(Revision), removed: Revision(removed) })
    }

    proptest! {
        #[test]
        fn an_element_is_the_join_of_its_deltas_in_any_order(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..24),
        ) {
            let (mut row, mut bound) = (RemoveWins::default(), Vec::new());
            for (at, (add, seen)) in steps.iter().enumerate() {
                let (dot, as_of) = (Revision(at as u64 + 1), Revision(seen.index(at + 1) as u64));
                let mut delta = RemoveWins::default();
                if *add { delta.add(as_of) } else { delta.remove(dot) }
                if *add { row.add(as_of) } else { row.remove(dot) }
                bound.push(delta);
            }
            let joined = bound.iter().rev().fold(RemoveWins::default(), |mut all, delta| { all.join(delta); all });
            prop_assert_eq!(row, joined);
        }

        #[test]
        fn laws(a in row(), b in row(), c in row()) {
            assert_laws(&a, &b, &c);
        }
    }

    #[test]
    fn an_add_that_had_not_seen_the_remove_loses() {
        let mut row = RemoveWins::default();
        row.add(Revision(3));
        assert!(row.is_present());
        row.remove(Revision(5));
        row.add(Revision(4));
        assert!(!row.is_present(), "its author did not know of the remove");
        row.add(Revision(5));
        assert!(row.is_present());
    }
}
