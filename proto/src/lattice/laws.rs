//! The laws that make deliveries in any order, any number of times, harmless.

use std::fmt::Debug;

/// A join semilattice with a bottom.
pub trait Lattice: Default {
    /// Takes in everything that `other` says.
    fn join(&mut self, other: &Self);
}

/// Asserts that `join` commutes, associates and is idempotent, and that bottom changes nothing.
///
/// # Panics
/// If a law does not hold for these three states.
pub fn assert_laws<L: Lattice + Clone + PartialEq + Debug>(a: &L, b: &L, c: &L) {
    let join = |x: &L, y: &L| {
        let mut joined = x.clone();
        joined.join(y);
        joined
    };
    assert_eq!(join(a, b), join(b, a), "join commutes");
    assert_eq!(join(&join(a, b), c), join(a, &join(b, c)), "join associates");
    assert_eq!(join(a, a), *a, "join is idempotent");
    assert_eq!(join(a, &L::default()), *a, "bottom changes nothing");
}
