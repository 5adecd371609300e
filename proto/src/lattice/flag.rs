//! The flag in which an on wins over a concurrent off: one element of an add-wins set, without its name.

use crate::ids::Revision;

/// What a client says about a flag of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagDelta {
    /// The new state.
    pub on: bool,
    /// The revision at which the author saw the flag; `None`: whatever is there when the log accepts it. Only the state
    /// that loses against a concurrent change of the other kind has a context: off here, on where off wins.
    pub as_of: Option<Revision>,
}

/// The row of a flag: 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag {
    /// The newest on, [`Revision::ZERO`] when it is off.
    pub switched_on: Revision,
}

impl Flag {
    /// Whether it is on.
    pub const fn is_on(self) -> bool {
        self.switched_on.0 > 0
    }

    /// Binds an on at the revision `at`.
    pub const fn switch_on(&mut self, at: Revision) {
        self.switched_on = at;
    }

    /// Takes back every on up to what the author saw.
    pub fn switch_off(&mut self, as_of: Revision) {
        if self.switched_on <= as_of {
            self.switched_on = Revision::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lattice::laws::{Lattice, assert_laws};

    /// The whole lattice: the newest on and the newest context of an off.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Whole {
        on: u64,
        off: u64,
    }

    impl Lattice for Whole {
        fn join(&mut self, other: &Self) {
            self.on = self.on.max(other.on);
            self.off = self.off.max(other.off);
        }
    }

    proptest! {
        #[test]
        fn a_flag_is_the_visible_part_of_the_join_in_any_order(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..24),
        ) {
            let (mut row, mut bound) = (Flag::default(), Vec::new());
            for (at, (on, seen)) in steps.iter().enumerate() {
                let (dot, as_of) = (at as u64 + 1, seen.index(at + 1) as u64);
                if *on {
                    row.switch_on(Revision(dot));
                    bound.push(Whole { on: dot, off: 0 });
                } else {
                    row.switch_off(Revision(as_of));
                    bound.push(Whole { on: 0, off: as_of });
                }
            }
            let joined = bound.iter().rev().fold(Whole::default(), |mut all, delta| { all.join(delta); all });
            prop_assert_eq!(row.is_on(), joined.on > joined.off);
        }

        #[test]
        fn laws(a in (0..9_u64, 0..9_u64), b in (0..9_u64, 0..9_u64), c in (0..9_u64, 0..9_u64)) {
            let whole = |(on, off)| Whole { on, off };
            assert_laws(&whole(a), &whole(b), &whole(c));
        }
    }

    #[test]
    fn an_on_that_nobody_had_seen_survives_an_off() {
        let mut row = Flag::default();
        row.switch_on(Revision(7));
        row.switch_off(Revision(6));
        assert!(row.is_on());
        row.switch_off(Revision(7));
        assert!(!row.is_on());
    }
}
