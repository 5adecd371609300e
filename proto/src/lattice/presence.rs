//! Presence: a value that a node holds up under a key for as long as it is a member.
//!
//! One row for each key and node, written by that node alone, so there is nothing to merge but an older write with a
//! newer one of the same author, and those come in order. The record that ends the membership takes the rows away.

use super::Value;
use crate::ids::Incarnation;

/// What a node says of its own presence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceDelta {
    /// What it holds up; `None`: nothing any more.
    pub value: Option<Value>,
}

/// The row of one key and node. `V` is how its holder keeps the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence<V> {
    /// The incarnation that held it up last.
    pub incarnation: Incarnation,
    /// The content; `None`: withdrawn, or the node is gone.
    pub value: Option<V>,
}

impl<V> Default for Presence<V> {
    fn default() -> Self {
        Self { incarnation: Incarnation(0), value: None }
    }
}

/// Presences that one node holds up at once.
pub const PRESENCES_PER_NODE: usize = 64;

impl<V> Presence<V> {
    /// Nothing is visible.
    pub const fn is_dead(&self) -> bool {
        self.value.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    /// A node's writes come in the order of incarnation and push, so the join keeps the newest.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Whole {
        written: (u64, u64),
        held: Option<u64>,
    }

    impl Lattice for Whole {
        fn join(&mut self, other: &Self) {
            if other.written > self.written {
                *self = other.clone();
            }
        }
    }

    proptest! {
        #[test]
        fn laws(a in (1..4_u64, 1..4_u64), b in (1..4_u64, 1..4_u64), c in (1..4_u64, 1..4_u64)) {
            // One author, so one write has one content.
            let whole = |written: (u64, u64)| Whole { written, held: written.1.is_multiple_of(2).then_some(written.0 * 10 + written.1) };
            assert_laws(&whole(a), &whole(b), &whole(c));
        }
    }

    #[test]
    fn nothing_is_held_up_at_first() {
        assert!(Presence::<u8>::default().is_dead());
    }
}
