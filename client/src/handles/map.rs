//! Nested maps.

use super::{Counter, DisableWinsFlag, Flag, Place, Register, RemoveWinsSet, Set, Siblings};
use crate::replica::{Cleared, Replica, WriteError};

/// A nested map. It has no type of its own: its leaves are ordinary keys below its path, so that `carts/42` with the leaf
/// `qty` is the key `carts/42/qty`, and whoever knows a leaf's path needs no map. It is there for as long as any leaf is:
/// a leaf that somebody writes while the map is cleared elsewhere survives. Maxima, minima, sets that only grow and logs of
/// events are never taken away and are no leaves. A map has no row of its own and no bytes on the wire.
///
/// Listing and clearing look at every key of the collection that is held: some ms for 100,000 of them.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let cart = awake.map("carts/42");
/// cart.counter("apples").add(3)?;
/// cart.register::<String>("note").set(&"ring twice".to_owned())?;
/// println!("{:?}", cart.keys()); // apples, note
/// let cleared = cart.clear()?;
/// assert!(cleared.kept.is_empty() && cart.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Map(Place);

impl Map {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// The counter at that leaf. A malformed leaf is an error when it is written.
    pub fn counter(&self, leaf: &str) -> Counter {
        Counter::at(self.0.below(leaf))
    }

    /// The set at that leaf. A malformed leaf is an error when it is written.
    pub fn set(&self, leaf: &str) -> Set {
        Set::at(self.0.below(leaf))
    }

    /// The register at that leaf. A malformed leaf is an error when it is written.
    pub fn register<T>(&self, leaf: &str) -> Register<T> {
        Register::at(self.0.below(leaf))
    }

    /// The flag at that leaf. A malformed leaf is an error when it is written.
    pub fn flag(&self, leaf: &str) -> Flag {
        Flag::at(self.0.below(leaf))
    }

    /// The flag in which an off wins at that leaf. A malformed leaf is an error when it is written.
    pub fn disable_wins_flag(&self, leaf: &str) -> DisableWinsFlag {
        DisableWinsFlag::at(self.0.below(leaf))
    }

    /// The siblings at that leaf. A malformed leaf is an error when it is written.
    pub fn siblings<T>(&self, leaf: &str) -> Siblings<T> {
        Siblings::at(self.0.below(leaf))
    }

    /// The set in which a remove wins at that leaf. A malformed leaf is an error when it is written.
    pub fn remove_wins_set(&self, leaf: &str) -> RemoveWinsSet {
        RemoveWinsSet::at(self.0.below(leaf))
    }

    /// The map at that leaf. A malformed leaf is an error when it is written.
    #[must_use]
    pub fn map(&self, leaf: &str) -> Map {
        Map::at(self.0.below(leaf))
    }

    /// The leaves that are known and of which something is visible, relative to this map, in order: `apples`, `sizes/s`.
    pub fn keys(&self) -> Vec<String> {
        self.0.read(Replica::map_keys).unwrap_or_default()
    }

    /// Whether no leaf is known of which something is visible.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// Takes away every leaf that is visible here, each as it is seen now; what others say meanwhile survives. What cannot
    /// be cleared stays and is named. One push takes 1,024 rows; a wider map goes with several, and is not cleared at once.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed; nothing is cleared then.
    pub fn clear(&self) -> Result<Cleared, WriteError> {
        self.0.write(Replica::map_clear)
    }
}
