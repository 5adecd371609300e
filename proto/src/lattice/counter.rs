//! The resettable counter: a running total and one cut.
//!
//! The total is never lowered by a reset. A reset names the total that its author saw and the revision at which it saw
//! it; the newest such cut is what the visible value is counted from. So two resets of the same version are the same
//! cut, what was added after it survives, and no entry per author exists that could be lost or counted twice.

use crate::ids::{OnceId, Revision};

/// The largest amount that one delta may add or subtract: 2^48.
pub const MAX_AMOUNT: u64 = 1 << 48;

/// A signed amount.
pub type Amount = i64;

/// What a client says about a counter; the reset comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterDelta {
    /// Takes away the total that was seen.
    pub reset: Option<Reset>,
    /// To be added, after the reset.
    pub amount: Amount,
    /// Amounts that count once per id, whoever repeats them.
    pub once: Vec<Once>,
}

/// Takes away what its author saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The revision at which the author saw the counter; `None`: whatever is there when the log accepts it.
    pub as_of: Option<Revision>,
    /// The total, not the value, that it saw there.
    pub total: Amount,
}

/// An amount that counts once per id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Unique per effect, for example a platform's request id.
    pub id: OnceId,
    /// What is added the first time.
    pub amount: Amount,
}

/// A counter's total would leave the range of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// The row of a counter: 32 bytes, whatever its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Everything that was ever added.
    pub total: Amount,
    /// The revision of the newest cut, and ...
    pub cut_as_of: Revision,
    /// ... the total that it takes away.
    pub cut_total: Amount,
    /// The revision that created this row: a reset of an older row of that name is stale.
    pub born: Revision,
}

impl Counter {
    /// A counter that the record at `born` creates.
    pub const fn new(born: Revision) -> Self {
        Self { total: 0, cut_as_of: Revision::ZERO, cut_total: 0, born }
    }

    /// What a reader sees. Never overflows for a counter that only [`Counter::apply`] has changed.
    pub const fn value(&self) -> Amount {
        self.total.wrapping_sub(self.cut_total)
    }

    /// What must be told to readers when it changes. The value is not enough: a reset names the total.
    pub const fn observable(&self) -> (Amount, Amount) {
        (self.total, self.cut_total)
    }

    /// Nothing is visible.
    pub const fn is_dead(&self) -> bool {
        self.total == self.cut_total
    }

    /// Resets, then adds. `reset` is the cut that its author saw, with its context resolved.
    ///
    /// # Errors
    /// [`OutOfRange`] if total or value would not fit; nothing has changed then.
    pub fn apply(&mut self, reset: Option<(Revision, Amount)>, amount: Amount) -> Result<(), OutOfRange> {
        let mut next = *self;
        if let Some((as_of, total)) = reset
            && as_of > next.cut_as_of
        {
            next.cut_as_of = as_of;
            next.cut_total = total;
        }
        next.total = next.total.checked_add(amount).ok_or(OutOfRange)?;
        next.total.checked_sub(next.cut_total).ok_or(OutOfRange)?;
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    /// The whole lattice: every addition by its dot, and the newest cut.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Whole {
        added: BTreeMap<Revision, Amount>,
        cut: (Revision, Amount),
    }

    impl Lattice for Whole {
        fn join(&mut self, other: &Self) {
            self.added.extend(&other.added);
            self.cut = self.cut.max(other.cut);
        }
    }

    /// A history as a log would order it: each delta's context is a state that really was.
    fn history() -> impl Strategy<Value = Vec<(Option<usize>, Amount)>> {
        prop::collection::vec((prop::option::of(any::<prop::sample::Index>()), -5..9_i64), 1..24).prop_map(
            |steps| {
                steps
                    .iter()
                    .enumerate()
                    .map(|(at, (seen, n))| (seen.map(|index| index.index(at + 1)), *n))
                    .collect()
            },
        )
    }

    /// Runs a history; returns the row, the bound deltas as states of the lattice, and the totals after each step.
    fn run(history: &[(Option<usize>, Amount)]) -> (Counter, Vec<Whole>) {
        let (mut row, mut deltas, mut totals) = (Counter::new(Revision(1)), Vec::new(), vec![0]);
        for (at, (seen, amount)) in history.iter().enumerate() {
            let reset = seen.map(|version| (Revision(version as u64), totals[version]));
            row.apply(reset, *amount).expect("small amounts fit");
            totals.push(row.total);
            let dot = Revision(at as u64 + 1);
            deltas.push(Whole { added: [(dot, *amount)].into(), cut: reset.unwrap_or_default() });
        }
        (row, deltas)
    }

    proptest! {
        #[test]
        fn a_counter_is_the_visible_part_of_the_join_in_any_order(
            (history, order) in history().prop_flat_map(|h| { let n = h.len(); (Just(h), Just((0..n).collect::<Vec<_>>()).prop_shuffle()) })
        ) {
            let (row, deltas) = run(&history);
            let mut joined = Whole::default();
            for index in order {
                joined.join(&deltas[index]);
                joined.join(&deltas[index]); // a repeat is harmless
            }
            prop_assert_eq!(row.total, joined.added.values().sum::<i64>());
            prop_assert_eq!(row.cut_total, joined.cut.1);
        }

        #[test]
        fn laws(a in history(), b in history(), c in history()) {
            let whole = |h: &[(Option<usize>, Amount)]| run(h).1.iter().fold(Whole::default(), |mut all, delta| { all.join(delta); all });
            // Dots are unique: the three histories get disjoint ones.
            let apart = |mut state: Whole, by: u64| {
                state.added = state.added.into_iter().map(|(dot, n)| (Revision(dot.0 * 3 + by), n)).collect();
                state.cut.0 = Revision(state.cut.0.0 * 3 + by);
                state
            };
            assert_laws(&apart(whole(&a), 0), &apart(whole(&b), 1), &apart(whole(&c), 2));
        }
    }

    #[test]
    fn what_is_added_after_a_reset_was_seen_survives_it() {
        let mut row = Counter::new(Revision(1));
        row.apply(None, 5).expect("fits");
        row.apply(None, 2).expect("fits");
        row.apply(Some((Revision(1), 5)), 0).expect("fits");
        assert_eq!(row.value(), 2);
        row.apply(Some((Revision(1), 5)), 0).expect("fits");
        assert_eq!(row.value(), 2, "two resets of the same version are the same cut");
    }

    #[test]
    fn a_total_beyond_64_bits_is_refused_and_changes_nothing() {
        let mut row = Counter { total: i64::MAX - 1, ..Counter::new(Revision(1)) };
        assert_eq!(row.apply(Some((Revision(9), 3)), 5), Err(OutOfRange));
        assert_eq!(row, Counter { total: i64::MAX - 1, ..Counter::new(Revision(1)) });
    }
}
