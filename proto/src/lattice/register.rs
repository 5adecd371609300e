//! The register in which the last write wins, whatever the clocks say.
//!
//! A write carries its author's wall clock. The log clamps it to its own running time plus a skew bound, and lifts it
//! above the stamp of the write that its author had seen, so a write that saw the winner wins. Equal stamps are decided
//! by the revision, hence alike everywhere.

use super::Value;
use crate::ids::Revision;

/// What a client says about a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterDelta {
    /// The new content; `None`: deleted.
    pub value: Option<Value>,
    /// The author's wall clock in milliseconds; 0: the log's own time.
    pub stamp_ms: u64,
    /// The revision at which the author saw the register; `None`: whatever is there when the log accepts it.
    pub as_of: Option<Revision>,
}

/// The row of a register. `V` is how its holder keeps the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register<V> {
    /// The stamp of the winning write, after the log clamped and lifted it.
    pub stamp_ms: u64,
    /// The revision of the winning write.
    pub revision: Revision,
    /// Its content; `None`: deleted.
    pub value: Option<V>,
}

impl<V> Default for Register<V> {
    fn default() -> Self {
        Self { stamp_ms: 0, revision: Revision::ZERO, value: None }
    }
}

impl<V> Register<V> {
    /// Nothing is visible.
    pub const fn is_dead(&self) -> bool {
        self.value.is_none()
    }

    /// The stamp for a write that saw this row as of `as_of` and carries the clamped stamp `clamped`.
    pub fn lifted(&self, as_of: Revision, clamped: u64) -> u64 {
        if self.revision > Revision::ZERO && as_of >= self.revision {
            clamped.max(self.stamp_ms.saturating_add(1))
        } else {
            clamped
        }
    }

    /// Offers a write; returns whether it won.
    pub fn offer(&mut self, stamp_ms: u64, revision: Revision, value: Option<V>) -> bool {
        let wins = self.revision == Revision::ZERO || (stamp_ms, revision) > (self.stamp_ms, self.revision);
        if wins {
            *self = Self { stamp_ms, revision, value };
        }
        wins
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    impl Lattice for Register<u8> {
        fn join(&mut self, other: &Self) {
            if other.revision > Revision::ZERO {
                self.offer(other.stamp_ms, other.revision, other.value);
            }
        }
    }

    /// Writes with few different stamps, so that equal ones are common; a revision names one write.
    fn write() -> impl Strategy<Value = Register<u8>> {
        (0..4_u64, 1..9_u8).prop_map(|(stamp_ms, at)| Register {
            stamp_ms: stamp_ms * u64::from(at) % 3,
            revision: Revision(at.into()),
            value: Some(at),
        })
    }

    proptest! {
        #[test]
        fn a_register_is_the_join_of_its_writes_in_any_order(mut writes in prop::collection::vec(write(), 1..12)) {
            writes.sort_by_key(|w| w.revision);
            writes.dedup_by_key(|w| w.revision);
            let join = |order: &mut dyn Iterator<Item = &Register<u8>>| order.fold(Register::default(), |mut all, w| { all.join(w); all });
            prop_assert_eq!(join(&mut writes.iter()), join(&mut writes.iter().rev()));
        }

        #[test]
        fn laws(stamps in prop::array::uniform3(0..3_u64), revisions in Just([1_u64, 2, 3]).prop_shuffle()) {
            let [a, b, c] = [(0, b'a'), (1, b'b'), (2, b'c')].map(|(i, value)| Register { stamp_ms: stamps[i], revision: Revision(revisions[i]), value: Some(value) });
            assert_laws(&a, &b, &c);
        }
    }

    #[test]
    fn a_write_that_saw_the_winner_wins_whatever_its_clock() {
        let mut row = Register::default();
        assert!(row.offer(1_000, Revision(5), Some('a')));
        assert!(
            !row.offer(row.lifted(Revision(4), 10), Revision(6), Some('b')),
            "it had not seen the winner"
        );
        assert!(row.offer(row.lifted(Revision(5), 10), Revision(7), Some('c')));
        assert_eq!(row.value, Some('c'));
    }

    #[test]
    fn the_first_write_wins_even_with_stamp_zero() {
        assert!(Register::default().offer(0, Revision(1), Some('a')));
    }
}
