//! The set in which an add wins over a concurrent remove. One element is one row, and one number.
//!
//! A remove names every add up to the revision that its author saw; what survives is what is newer. Presence depends
//! only on the newest add, and every later dot is greater, so neither older adds nor removes need be remembered.

use crate::ids::{Element, Revision};

/// What a client says about a set. An element stands in it at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetDelta {
    /// Elements to add.
    pub add: Vec<Element>,
    /// Elements to remove, by what their author had seen.
    pub remove: Vec<Remove>,
}

/// Removes what its author saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    /// The elements.
    pub elements: Vec<Element>,
    /// The revision at which the author saw them; `None`: whatever is there when the log accepts it.
    pub as_of: Option<Revision>,
}

/// What a client says about a set that only grows. An element stands in it at most once. Its rows are mere names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrowOnlySetDelta {
    /// Elements to add.
    pub add: Vec<Element>,
}

/// The row of one element: 8 bytes beside its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetElement {
    /// The newest add, [`Revision::ZERO`] when the element is dead.
    pub added: Revision,
}

impl SetElement {
    /// Whether the element is in the set.
    pub const fn is_present(self) -> bool {
        self.added.0 > 0
    }

    /// Binds an add at the revision `at`.
    pub const fn add(&mut self, at: Revision) {
        self.added = at;
    }

    /// Removes every add up to what the author saw.
    pub fn remove(&mut self, as_of: Revision) {
        if self.added <= as_of {
            self.added = Revision::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    /// The whole lattice of one element: the newest add and the newest context of a remove.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Whole {
        added: u64,
        removed: u64,
    }

    impl Lattice for Whole {
        fn join(&mut self, other: &Self) {
            self.added = self.added.max(other.added);
            self.removed = self.removed.max(other.removed);
        }
    }

    proptest! {
        #[test]
        fn an_element_is_the_visible_part_of_the_join_in_any_order(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..24),
            turn in any::<prop::sample::Index>(),
        ) {
            let (mut row, mut bound) = (SetElement::default(), Vec::new());
            for (at, (add, seen)) in steps.iter().enumerate() {
                let dot = at as u64 + 1;
                if *add {
                    row.add(Revision(dot));
                    bound.push(Whole { added: dot, removed: 0 });
                } else {
                    let as_of = seen.index(at + 1) as u64; // a context is below the remove's own revision
                    row.remove(Revision(as_of));
                    bound.push(Whole { added: 0, removed: as_of });
                }
            }
            let turn = turn.index(bound.len());
            let joined = bound[turn..].iter().chain(&bound[..turn]).rev().fold(Whole::default(), |mut all, delta| { all.join(delta); all });
            prop_assert_eq!(row.is_present(), joined.added > joined.removed);
        }

        #[test]
        fn laws(a in (0..9_u64, 0..9_u64), b in (0..9_u64, 0..9_u64), c in (0..9_u64, 0..9_u64)) {
            let whole = |(added, removed)| Whole { added, removed };
            assert_laws(&whole(a), &whole(b), &whole(c));
        }
    }

    /// A set that only grows is the set of its elements, and their union is the join.
    impl Lattice for std::collections::BTreeSet<u8> {
        fn join(&mut self, other: &Self) {
            self.extend(other);
        }
    }

    proptest! {
        #[test]
        fn laws_of_a_set_that_only_grows(
            a in prop::collection::btree_set(0..9_u8, 0..6), b in prop::collection::btree_set(0..9_u8, 0..6), c in prop::collection::btree_set(0..9_u8, 0..6),
        ) {
            assert_laws(&a, &b, &c);
        }
    }

    #[test]
    fn an_add_that_the_remover_had_not_seen_survives() {
        let mut row = SetElement::default();
        row.add(Revision(7));
        row.remove(Revision(6));
        assert!(row.is_present());
        row.remove(Revision(7));
        assert!(!row.is_present());
    }
}
