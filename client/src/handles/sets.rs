//! Sets of every kind.

use super::Place;
use crate::replica::WriteError;

fn owned(elements: Vec<&str>) -> Vec<String> {
    elements.into_iter().map(str::to_owned).collect()
}

/// A set of texts, each at most 1 KiB. An add wins over a concurrent remove. Each element is a row of its own and has its
/// bytes and 2 more on the wire.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let seen = awake.set("ads/seen");
/// seen.add("ad-17")?;
/// assert!(seen.contains("ad-17"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Set(Place);

impl Set {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// Whether the element is in the set; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known_to_contain(&self, element: &str) -> Option<bool> {
        self.0.read(|replica, path| replica.set_contains(path, element))
    }

    /// Whether the element is known to be in the set.
    pub fn contains(&self, element: &str) -> bool {
        self.known_to_contain(element) == Some(true)
    }

    /// The elements that are known, sorted.
    pub fn elements(&self) -> Vec<String> {
        self.0.read(|replica, path| replica.set(path).map(owned)).unwrap_or_default()
    }

    /// Adds an element.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or the element larger than 1 KiB.
    pub fn add(&self, element: &str) -> Result<(), WriteError> {
        let element = self.0.element(element)?;
        self.0.write(|replica, path| replica.set_add(path, element))
    }

    /// Removes an element as it is seen now; an add that others make meanwhile survives.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn remove(&self, element: &str) -> Result<(), WriteError> {
        let element = self.0.element(element)?;
        self.0.write(|replica, path| replica.set_remove(path, element))
    }
}

/// A set of texts, each at most 1 KiB, from which nothing is ever removed: the cheapest set, and one that cannot be cleared,
/// so it is no leaf of a [`Map`](super::Map). Each element is a row of its own and has its bytes and 2 more on the wire.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let customers = awake.grow_only_set("shop/ever-seen");
/// customers.add("customer-7")?;
/// println!("{} customers", customers.elements().len());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct GrowOnlySet(Place);

impl GrowOnlySet {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// Whether the element is in the set; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known_to_contain(&self, element: &str) -> Option<bool> {
        self.0.read(|replica, path| replica.grow_only_set_contains(path, element))
    }

    /// Whether the element is known to be in the set.
    pub fn contains(&self, element: &str) -> bool {
        self.known_to_contain(element) == Some(true)
    }

    /// The elements that are known, sorted.
    pub fn elements(&self) -> Vec<String> {
        self.0.read(|replica, path| replica.grow_only_set(path).map(owned)).unwrap_or_default()
    }

    /// Adds an element, for ever.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or the element larger than 1 KiB.
    pub fn add(&self, element: &str) -> Result<(), WriteError> {
        let element = self.0.element(element)?;
        self.0.write(|replica, path| replica.grow_only_set_add(path, element))
    }
}

/// A set of texts, each at most 1 KiB, in which a remove wins over a concurrent add: for what must stay away once somebody
/// took it out. An add counts for what its author has seen, so an element that was removed comes back only by an add that
/// knows of the removal. An add that is too old to tell is dropped, and [`reports`](crate::Awake::reports) says so. Each
/// element is a row of its own and has its bytes and 2 more on the wire.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let allowed = awake.remove_wins_set("access/allowed");
/// allowed.remove("key-3")?; // wins over everybody who adds it without knowing
/// assert!(!allowed.contains("key-3"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RemoveWinsSet(Place);

impl RemoveWinsSet {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// Whether the element is in the set; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known_to_contain(&self, element: &str) -> Option<bool> {
        self.0.read(|replica, path| replica.remove_wins_set_contains(path, element))
    }

    /// Whether the element is known to be in the set.
    pub fn contains(&self, element: &str) -> bool {
        self.known_to_contain(element) == Some(true)
    }

    /// The elements that are known, sorted.
    pub fn elements(&self) -> Vec<String> {
        self.0.read(|replica, path| replica.remove_wins_set(path).map(owned)).unwrap_or_default()
    }

    /// Adds an element as it is seen now; a remove that others make meanwhile wins.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or the element larger than 1 KiB.
    pub fn add(&self, element: &str) -> Result<(), WriteError> {
        let element = self.0.element(element)?;
        self.0.write(|replica, path| replica.remove_wins_set_add(path, element))
    }

    /// Removes an element; an add whose author does not know of this loses.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn remove(&self, element: &str) -> Result<(), WriteError> {
        let element = self.0.element(element)?;
        self.0.write(|replica, path| replica.remove_wins_set_remove(path, element))
    }
}
