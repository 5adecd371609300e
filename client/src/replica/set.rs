//! The set in which an add wins: it is the removes that say what their author had seen.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::Element,
    lattice::{Change, Remove, SetDelta},
};

use super::{
    Path, Replica, WriteError,
    elements::{ElementsIntent, SetKind, by_context, unguarded},
    intent::{AddWins, Said},
};

/// What was said of one set.
pub(super) type SetIntent = ElementsIntent<AddWins>;

impl SetKind for AddWins {
    fn change(said: &BTreeMap<Element, Said>) -> Change {
        let remove = by_context(said, false).map(|(as_of, elements)| Remove { elements, as_of });
        Change::Set(SetDelta { add: unguarded(said, true), remove: remove.collect() })
    }
}

impl Replica {
    /// Whether the element is in the set as it is known, with own writes; `None`: not followed, or never heard of.
    pub fn set_contains(&self, path: &Path, element: &str) -> Option<bool> {
        self.holds_element::<AddWins>(path, element)
    }

    /// The elements of the set, sorted, with own writes; `None`: not followed, or never heard of.
    pub fn set(&self, path: &Path) -> Option<Vec<&str>> {
        self.elements::<AddWins>(path)
    }

    /// Adds an element.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn set_add(&mut self, path: &Path, element: Element) -> Result<(), WriteError> {
        self.say(path, self.elements_intent::<AddWins>(path, [element], true))
    }

    /// Removes an element as it is seen now; an add that others make meanwhile survives.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn set_remove(&mut self, path: &Path, element: Element) -> Result<(), WriteError> {
        self.say(path, self.elements_intent::<AddWins>(path, [element], false))
    }
}
