//! The extremes of what was offered.

use super::Place;
use crate::replica::{Replica, WriteError};

/// The largest number that was ever offered, of 64 bits with a sign. It only moves one way, whatever is retried or arrives
/// late, so it cannot be cleared and is no leaf of a [`Map`](super::Map). On the wire its row has 2 to 11 bytes beside the
/// key.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let best = awake.max("game/best");
/// best.offer(4_200)?;
/// assert!(best.value() >= Some(4_200));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Max(Place);

impl Max {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// The largest offer, own ones included; `None`: nothing was offered, or nothing is known.
    pub fn value(&self) -> Option<i64> {
        self.0.read(Replica::max).flatten()
    }

    /// Whether nothing is known: the key is not followed, or nothing was ever heard of it.
    pub fn is_unknown(&self) -> bool {
        self.0.read(Replica::max).is_none()
    }

    /// Offers a number.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn offer(&self, number: i64) -> Result<(), WriteError> {
        self.0.write(|replica, path| replica.max_offer(path, number))
    }
}

/// The smallest number that was ever offered, of 64 bits with a sign. It only moves one way, whatever is retried or arrives
/// late, so it cannot be cleared and is no leaf of a [`Map`](super::Map). On the wire its row has 2 to 11 bytes beside the
/// key.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let fastest = awake.min("race/fastest-ms");
/// fastest.offer(9_580)?;
/// assert!(fastest.value() <= Some(9_580));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Min(Place);

impl Min {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// The smallest offer, own ones included; `None`: nothing was offered, or nothing is known.
    pub fn value(&self) -> Option<i64> {
        self.0.read(Replica::min).flatten()
    }

    /// Whether nothing is known: the key is not followed, or nothing was ever heard of it.
    pub fn is_unknown(&self) -> bool {
        self.0.read(Replica::min).is_none()
    }

    /// Offers a number.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn offer(&self, number: i64) -> Result<(), WriteError> {
        self.0.write(|replica, path| replica.min_offer(path, number))
    }
}
