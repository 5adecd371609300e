//! The largest number that was offered, and what both extremes share: only the best offer is kept.

use std::marker::PhantomData;

use dormouse_proto::lattice::Change;

use super::{
    Path, Replica, WriteError,
    held::HeldRows,
    intent::{Entry, Intent, Room},
};

/// Which extreme.
pub(super) trait Extreme: Clone + Default + PartialEq {
    /// The better of two offers.
    fn best(one: i64, other: i64) -> i64;
    /// As a delta says it.
    fn change(offer: i64) -> Change;
}

/// The largest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Largest;

impl Extreme for Largest {
    fn best(one: i64, other: i64) -> i64 {
        one.max(other)
    }

    fn change(offer: i64) -> Change {
        Change::Max(offer)
    }
}

/// What was offered to one extreme. `None`: no longer anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OfferIntent<E>(Option<i64>, PhantomData<E>);

/// What was offered to one maximum.
pub(super) type MaxIntent = OfferIntent<Largest>;

const BYTES: usize = 24;

impl<E: Extreme> Intent for OfferIntent<E>
where
    Self: Entry,
{
    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        BYTES
    }

    fn growth(&self, _: &Self) -> usize {
        0
    }

    fn then(&mut self, later: Self) {
        self.0 = self.0.into_iter().chain(later.0).reduce(E::best);
    }

    fn split(&mut self, room: &mut Room) -> Option<Self> {
        room.take(1, BYTES).then(|| std::mem::take(self))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn resolve(&mut self, _: &Path, _: &HeldRows) {}

    fn change(&self) -> Option<Change> {
        self.0.map(E::change)
    }

    fn without_history(&mut self) -> Option<Change> {
        None
    }

    fn without_context(&mut self) -> Option<Change> {
        None
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.whole()
    }

    fn without_repeats(&mut self) -> Option<Change> {
        None
    }
}

impl Replica {
    /// An extreme as it is known, with own offers; the outer `None`: not followed, or never heard of; the inner: nothing
    /// was offered.
    #[expect(clippy::option_option, reason = "nothing known and nothing offered are different answers")]
    pub(super) fn extreme<E: Extreme>(&self, path: &Path) -> Option<Option<i64>>
    where
        OfferIntent<E>: Intent,
    {
        let held = self.held.number(path, OfferIntent::<E>::KIND);
        let own = self.sealed_intent(path).into_iter().chain(self.waiting_intent(path));
        let own = own.filter_map(|offer: &OfferIntent<E>| offer.0);
        // Whether the row contains the sealed push already does not matter: the best is the best.
        let best = held.and_then(|row| row.state).into_iter().chain(own).reduce(E::best);
        let known = held.is_some() || self.held.knows(path);
        match best {
            Some(best) if known || self.held.follows(path) => Some(Some(best)),
            _ => known.then_some(None),
        }
    }

    pub(super) fn offer<E: Extreme>(&mut self, path: &Path, offer: i64) -> Result<(), WriteError>
    where
        OfferIntent<E>: Intent,
    {
        self.say(path, OfferIntent::<E>(Some(offer), PhantomData))
    }

    /// The largest number that was offered, as it is known, with own offers. The outer `None`: not followed, or never
    /// heard of; the inner: nothing was offered.
    pub fn max(&self, path: &Path) -> Option<Option<i64>> {
        self.extreme::<Largest>(path)
    }

    /// Offers a number to the maximum.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn max_offer(&mut self, path: &Path, offer: i64) -> Result<(), WriteError> {
        self.offer::<Largest>(path, offer)
    }
}
