//! The set that only grows.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::Element,
    lattice::{Change, GrowOnlySetDelta},
};

use super::{
    Path, Replica, WriteError,
    elements::{ElementsIntent, SetKind, unguarded},
    intent::{OnlyGrows, Said},
};

/// What was said of one set that only grows.
pub(super) type GrowOnlySetIntent = ElementsIntent<OnlyGrows>;

impl SetKind for OnlyGrows {
    fn change(said: &BTreeMap<Element, Said>) -> Change {
        Change::GrowOnlySet(GrowOnlySetDelta { add: unguarded(said, true) })
    }
}

impl Replica {
    /// Whether the element is in the set as it is known, with own writes; `None`: not followed, or never heard of.
    pub fn grow_only_set_contains(&self, path: &Path, element: &str) -> Option<bool> {
        self.holds_element::<OnlyGrows>(path, element)
    }

    /// The elements of the set, sorted, with own writes; `None`: not followed, or never heard of.
    pub fn grow_only_set(&self, path: &Path) -> Option<Vec<&str>> {
        self.elements::<OnlyGrows>(path)
    }

    /// Adds an element, for ever.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn grow_only_set_add(&mut self, path: &Path, element: Element) -> Result<(), WriteError> {
        self.say(path, self.elements_intent::<OnlyGrows>(path, [element], true))
    }
}
