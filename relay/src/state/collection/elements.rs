//! Changes of types that have several rows under a key: sets of all kinds, and presence.

use compact_str::CompactString;
use dormouse_proto::{
    ids::{Incarnation, NodeId, Revision},
    lattice::{Presence, RemoveWins, SetElement, Type},
};

use super::{Collection, EncodedValue, GuardedElement, Holder, KeyId, RowBody};
use crate::state::rows::{Body as _, RowId};

impl Collection {
    pub(in crate::state) fn has_element(&self, key: &str, kind: Type, element: &str) -> bool {
        self.keys.find(key, kind).is_some_and(|key| self.element(key, element).is_some())
    }

    pub(in crate::state) fn is_present(&self, key: &str, kind: Type, element: &str) -> bool {
        let row = self.keys.find(key, kind).and_then(|key| self.element(key, element));
        row.is_some_and(|id| !self.table.row(id).body.is_dead())
    }

    fn element(&self, key: KeyId, element: &str) -> Option<RowId> {
        let matches = |place: u32| {
            let body = &self.table.row(RowId(place)).body;
            body.key() == Some(key) && body.element() == Some(element)
        };
        self.elements.find(self.keys.hash((key, element)), matches).map(RowId)
    }

    pub(in crate::state) fn add_element(&mut self, key: &str, element: &str, at: Revision) {
        let Some(key) = self.keys.find_or_insert(key, Type::Set) else {
            return;
        };
        let new = || RowBody::Element(key, CompactString::new(element), SetElement::default());
        let Some(id) = self.element(key, element).or_else(|| self.insert_element(key, element, new())) else {
            return;
        };
        let before = self.table.before(id);
        let RowBody::Element(_, _, row) = self.table.body_mut(id) else {
            return;
        };
        let was_present = row.is_present();
        row.add(at);
        self.table.changed(id, before, !was_present, at);
    }

    pub(in crate::state) fn remove_element(
        &mut self,
        key: &str,
        element: &str,
        as_of: Revision,
        at: Revision,
    ) {
        let Some(id) = self.keys.find(key, Type::Set).and_then(|key| self.element(key, element)) else {
            return; // nothing there: nothing to write
        };
        let before = self.table.before(id);
        let RowBody::Element(_, _, row) = self.table.body_mut(id) else {
            return;
        };
        let was_present = row.is_present();
        row.remove(as_of);
        let observable = row.is_present() != was_present;
        self.table.changed(id, before, observable, at);
    }

    pub(in crate::state) fn grow(&mut self, key: &str, element: &str, at: Revision) {
        let Some(key) = self.keys.find_or_insert(key, Type::GrowOnlySet) else { return };
        if self.element(key, element).is_some() {
            return;
        }
        let body = RowBody::Grown(key, CompactString::new(element));
        let Some(id) = self.table.insert_live(body, at) else { return };
        self.place(key, element, id);
    }

    /// A remove is remembered even where nothing is: it wins over an add whose author had not seen it.
    pub(in crate::state) fn change_guarded(
        &mut self,
        key: &str,
        element: &str,
        change: impl FnOnce(&mut RemoveWins),
        at: Revision,
    ) {
        let Some(key) = self.keys.find_or_insert(key, Type::RemoveWinsSet) else { return };
        let new = || {
            let name = CompactString::new(element);
            RowBody::Guarded(key, Box::new(GuardedElement { name, state: RemoveWins::default() }))
        };
        let Some(id) = self.element(key, element).or_else(|| self.insert_element(key, element, new())) else {
            return;
        };
        self.change(id, at, |body| {
            let RowBody::Guarded(_, element) = body else { return false };
            let was = element.state.is_present();
            change(&mut element.state);
            element.state.is_present() != was
        });
    }

    fn insert_element(&mut self, key: KeyId, name: &str, body: RowBody) -> Option<RowId> {
        let id = self.table.insert(body)?;
        self.place(key, name, id);
        Some(id)
    }

    fn place(&mut self, key: KeyId, name: &str, id: RowId) {
        self.elements.insert(self.keys.hash((key, name)), id.0);
        self.book(key, id);
    }

    // ---- presence ----

    /// What a node holds up under a key, or held up last.
    pub(in crate::state) fn presence(&self, key: &str, node: NodeId) -> Option<&Presence<EncodedValue>> {
        let id = self.holder(self.keys.find(key, Type::Presence)?, node)?;
        match &self.table.row(id).body {
            RowBody::Presence(_, holder) => Some(&holder.state),
            _ => None,
        }
    }

    fn holder(&self, key: KeyId, node: NodeId) -> Option<RowId> {
        let matches = |place: u32| match &self.table.row(RowId(place)).body {
            RowBody::Presence(of, holder) => *of == key && holder.node == node,
            _ => false,
        };
        self.elements.find(self.keys.hash((key, node)), matches).map(RowId)
    }

    /// Holds something up for a node, or nothing any more.
    pub(in crate::state) fn set_presence(
        &mut self,
        key: &str,
        (node, incarnation): (NodeId, Incarnation),
        value: Option<EncodedValue>,
        at: Revision,
    ) {
        let known = self.keys.find(key, Type::Presence).and_then(|key| self.holder(key, node));
        if known.is_none() && value.is_none() {
            return; // nothing there: nothing to withdraw
        }
        let Some(id) = known.or_else(|| self.insert_holder(key, node)) else { return };
        self.change(id, at, |body| {
            let RowBody::Presence(_, holder) = body else { return false };
            let next = Presence { incarnation, value };
            // Who holds nothing up any more has no incarnation that anybody could miss.
            let observable = holder.state.value != next.value
                || !next.is_dead() && holder.state.incarnation != incarnation;
            holder.state = next;
            observable
        });
    }

    fn insert_holder(&mut self, key: &str, node: NodeId) -> Option<RowId> {
        let key = self.keys.find_or_insert(key, Type::Presence)?;
        let id = self
            .table
            .insert(RowBody::Presence(key, Box::new(Holder { node, state: Presence::default() })))?;
        self.elements.insert(self.keys.hash((key, node)), id.0);
        self.book(key, id);
        Some(id)
    }

    /// The hash under which a row is found, if its key may have several.
    pub(super) fn hash_of(&self, body: &RowBody) -> Option<u64> {
        match body {
            RowBody::Presence(key, holder) => Some(self.keys.hash((*key, holder.node))),
            body => Some(self.keys.hash((body.key()?, body.element()?))),
        }
    }
}
