//! The set in which a remove wins: it is the adds that say what their author had seen.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::Element,
    lattice::{Change, GuardedAdd, RemoveWinsSetDelta},
};

use super::{
    Path, Replica, WriteError,
    elements::{ElementsIntent, SetKind, by_context, unguarded},
    intent::{RemoveWins, Said},
};

/// What was said of one set in which a remove wins.
pub(super) type RemoveWinsSetIntent = ElementsIntent<RemoveWins>;

impl SetKind for RemoveWins {
    fn change(said: &BTreeMap<Element, Said>) -> Change {
        let add = by_context(said, true).map(|(as_of, elements)| GuardedAdd { elements, as_of });
        Change::RemoveWinsSet(RemoveWinsSetDelta { add: add.collect(), remove: unguarded(said, false) })
    }
}

impl Replica {
    /// Whether the element is in the set as it is known, with own writes; `None`: not followed, or never heard of.
    pub fn remove_wins_set_contains(&self, path: &Path, element: &str) -> Option<bool> {
        self.holds_element::<RemoveWins>(path, element)
    }

    /// The elements of the set, sorted, with own writes; `None`: not followed, or never heard of.
    pub fn remove_wins_set(&self, path: &Path) -> Option<Vec<&str>> {
        self.elements::<RemoveWins>(path)
    }

    /// Adds an element as it is seen now; a remove that others make meanwhile wins.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn remove_wins_set_add(&mut self, path: &Path, element: Element) -> Result<(), WriteError> {
        self.say(path, self.elements_intent::<RemoveWins>(path, [element], true))
    }

    /// Removes an element, and every add whose author does not know of this.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn remove_wins_set_remove(&mut self, path: &Path, element: Element) -> Result<(), WriteError> {
        self.say(path, self.elements_intent::<RemoveWins>(path, [element], false))
    }
}
