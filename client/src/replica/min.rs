//! The smallest number that was offered.

use dormouse_proto::lattice::Change;

use super::{
    Path, Replica, WriteError,
    max::{Extreme, OfferIntent},
};

/// The smallest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Smallest;

impl Extreme for Smallest {
    fn best(one: i64, other: i64) -> i64 {
        one.min(other)
    }

    fn change(offer: i64) -> Change {
        Change::Min(offer)
    }
}

/// What was offered to one minimum.
pub(super) type MinIntent = OfferIntent<Smallest>;

impl Replica {
    /// The smallest number that was offered, as it is known, with own offers. The outer `None`: not followed, or never
    /// heard of; the inner: nothing was offered.
    pub fn min(&self, path: &Path) -> Option<Option<i64>> {
        self.extreme::<Smallest>(path)
    }

    /// Offers a number to the minimum.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn min_offer(&mut self, path: &Path, offer: i64) -> Result<(), WriteError> {
        self.offer::<Smallest>(path, offer)
    }
}
