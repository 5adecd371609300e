//! The largest, and the smallest, number that was ever offered. Both only grow in their order and are never cleared.

/// The row of a maximum: 8 bytes. There is no row before the first offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Max(pub i64);

/// The row of a minimum: 8 bytes. There is no row before the first offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Min(pub i64);

impl Max {
    /// Takes the offer if it is larger.
    pub fn offer(&mut self, value: i64) {
        self.0 = self.0.max(value);
    }
}

impl Min {
    /// Takes the offer if it is smaller.
    pub fn offer(&mut self, value: i64) {
        self.0 = self.0.min(value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    /// With the bottom that an absent row is.
    impl Lattice for Option<Max> {
        fn join(&mut self, other: &Self) {
            match (self.as_mut(), other) {
                (Some(it), Some(other)) => it.offer(other.0),
                (None, other) => *self = *other,
                (Some(_), None) => {}
            }
        }
    }

    impl Lattice for Option<Min> {
        fn join(&mut self, other: &Self) {
            match (self.as_mut(), other) {
                (Some(it), Some(other)) => it.offer(other.0),
                (None, other) => *self = *other,
                (Some(_), None) => {}
            }
        }
    }

    proptest! {
        #[test]
        fn laws(a in any::<Option<i64>>(), b in any::<Option<i64>>(), c in any::<Option<i64>>()) {
            assert_laws(&a.map(Max), &b.map(Max), &c.map(Max));
            assert_laws(&a.map(Min), &b.map(Min), &c.map(Min));
        }

        #[test]
        fn the_extremes_of_all_offers_are_left(offers in prop::collection::vec(any::<i64>(), 1..24)) {
            let (mut max, mut min) = (Max(offers[0]), Min(offers[0]));
            for offer in &offers {
                max.offer(*offer);
                min.offer(*offer);
            }
            prop_assert_eq!(Some(max.0), offers.iter().copied().max());
            prop_assert_eq!(Some(min.0), offers.iter().copied().min());
        }
    }
}
