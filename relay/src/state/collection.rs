//! One collection: its keys, its rows, its dead, and the marks that outlive dropped rows.
//!
//! Dead rows exist only to tell laggards. Beyond a cap the oldest are dropped; what they knew that could still matter
//! is kept in marks, so that a laggard's older write is refused as stale instead of bringing something back.

mod body;
mod elements;
mod events;
mod scalars;

use std::collections::HashMap;

use dormouse_proto::{
    ids::{Collection as Name, Revision},
    lattice::Type,
};
use foldhash::fast::RandomState;

use super::{
    keys::{KeyId, Keys},
    places::{Gathered, Places},
    rows::{Body as _, Row, RowId, Table},
};

pub(super) use body::{
    EncodedValue, Entry, GUARDED_BYTES, GuardedElement, HOLDER_BYTES, Holder, LOG_BYTES, QUEUED_BYTES,
    RowBody, name_bytes,
};
pub(super) use events::Appending;
use events::Queue;

/// What a row costs in memory beside its payload: 48 bytes for itself, and 12 to 20 in the index. A number and not the
/// size of a type, because a quota that follows the compiler would let two relays refuse differently; a test holds it
/// against what is really allocated.
pub(super) const ROW_BYTES: usize = 65;
/// What a dead row costs beside that, in the queue of the dead.
const DEAD_BYTES: usize = 20;
/// What an element costs so that it is found: its share of a table of places.
pub(super) const PLACE_BYTES: usize = 13;
/// What a key costs beside its rows: 40 bytes and its share of a table of places.
const KEY_BYTES: usize = 54;

/// What dropped rows leave behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The newest winning revision of a dropped register.
    pub(super) register: Revision,
    /// The highest stamp of a dropped register, if one was dropped.
    pub(super) register_stamp: Option<u64>,
    /// The newest remove of a dropped remove-wins row.
    pub(super) remove_wins: Revision,
    /// The furthest trim of a dropped log of events.
    pub(super) events: Revision,
}

/// One collection of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    pub(super) name: Name,
    keys: Keys,
    elements: Places,
    table: Table<RowBody>,
    /// The entries of each log of events.
    events: HashMap<KeyId, Queue, RandomState>,
    pub(super) marks: Marks,
    bytes: usize,
}

impl Collection {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            keys: Keys::default(),
            elements: Places::default(),
            table: Table::default(),
            events: HashMap::default(),
            marks: Marks::default(),
            bytes: 0,
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn table(&self) -> &Table<RowBody> {
        &self.table
    }

    pub(super) fn set_floor(&mut self, floor: Revision) {
        self.table.set_floor(floor);
    }

    /// Estimated memory of the rows and keys.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.table.dead_rows() * DEAD_BYTES
    }

    pub(super) fn rows(&self) -> usize {
        self.table.live_rows() + self.table.dead_rows()
    }

    // ---- finding ----

    /// The element's row that probably has this hash; only to be looked at.
    pub(super) fn guess_element(&self, hash: u64) -> Option<RowId> {
        self.elements.guess(hash).map(RowId)
    }

    /// Loads a row; the number means nothing.
    pub(super) fn touch(&self, row: RowId) -> Option<u64> {
        self.table.get(row).map(|row| row.chg.0)
    }

    /// The row of a key that has but one, and the head of a log of events.
    pub(super) fn scalar_row(&self, key: KeyId) -> Option<&Row<RowBody>> {
        self.keys.entry(key).scalar.map(|id| self.table.row(id))
    }

    /// The live rows of these keys, each of which may have several. One walk over the rows of the whole collection, however
    /// many keys there are.
    pub(super) fn live_rows_of(
        &self,
        keys: impl Iterator<Item = KeyId>,
    ) -> HashMap<KeyId, Vec<&Row<RowBody>>> {
        let mut found: HashMap<KeyId, Vec<&Row<RowBody>>> = keys.map(|key| (key, Vec::new())).collect();
        if !found.is_empty() {
            for row in self.table.all().filter(|row| !row.body.is_dead()) {
                if let Some(rows) = row.body.key().and_then(|key| found.get_mut(&key)) {
                    rows.push(row);
                }
            }
        }
        found
    }

    // ---- changing ----

    /// Changes a row; `change` says whether readers must be told.
    fn change(&mut self, id: RowId, at: Revision, change: impl FnOnce(&mut RowBody) -> bool) {
        let before = self.table.before(id);
        let was = self.table.row(id).body.heap_bytes();
        let observable = change(self.table.body_mut(id));
        self.table.changed(id, before, observable, at);
        self.bytes = self.bytes + self.table.row(id).body.heap_bytes() - was;
    }

    /// Counts a new row.
    fn book(&mut self, key: KeyId, id: RowId) {
        let heap = self.table.row(id).body.heap_bytes();
        let entry = self.keys.entry_mut(key);
        entry.rows += 1;
        let key_bytes = if entry.rows == 1 { key_bytes(&entry.name) } else { 0 };
        self.bytes += ROW_BYTES + heap + key_bytes;
    }

    /// Counts a row no more, and forgets a key that has none left.
    fn unbook(&mut self, body: &RowBody) {
        let Some(key) = body.key() else { return };
        let entry = self.keys.entry_mut(key);
        entry.rows -= 1;
        let unused = (entry.rows == 0).then(|| key_bytes(&entry.name));
        self.bytes -= ROW_BYTES + body.heap_bytes() + unused.unwrap_or(0);
        if unused.is_some() {
            self.keys.remove(key);
        }
    }

    // ---- tidying ----

    /// Drops dead rows beyond the larger of `at_least` and a quarter of the live ones. Returns how many.
    pub(super) fn collect(&mut self, at_least: usize) -> usize {
        let mut dropped = 0;
        while let Some((id, row)) = self.table.drop_oldest_dead(at_least.max(self.table.live_rows() / 4)) {
            self.forget(id, &row);
            dropped += 1;
        }
        dropped
    }

    fn forget(&mut self, id: RowId, row: &Row<RowBody>) {
        match &row.body {
            RowBody::Register(_, register) => {
                self.marks.register = self.marks.register.max(register.revision);
                self.marks.register_stamp = self.marks.register_stamp.max(Some(register.stamp_ms));
            }
            RowBody::Guarded(_, element) => self.mark_removed(element.state.removed),
            RowBody::GuardedFlag(_, flag) => self.mark_removed(flag.removed),
            RowBody::EventsHead(_, head) => self.marks.events = self.marks.events.max(head.trimmed_upto),
            _ => {}
        }
        if let Some(hash) = self.hash_of(&row.body) {
            self.elements.remove(hash, id.0);
        }
        if let Some(key) = row.body.key() {
            self.keys.entry_mut(key).scalar = None;
        }
        self.unbook(&row.body);
    }

    fn mark_removed(&mut self, removed: Revision) {
        self.marks.remove_wins = self.marks.remove_wins.max(removed);
    }

    pub(super) fn is_untidy(&self) -> bool {
        self.table.is_untidy()
    }

    pub(super) fn tidy(&mut self) -> bool {
        self.table.tidy()
    }

    // ---- snapshots ----

    /// The key that rows of a snapshot are put back under.
    pub(super) fn restore_key(&mut self, key: &str, kind: Type) -> Option<KeyId> {
        self.keys.find_or_insert(key, kind)
    }

    /// Puts back a row of a snapshot. An element's place is gathered for [`Collection::restore_places`].
    pub(super) fn restore(
        &mut self,
        key: KeyId,
        chg: Revision,
        body: RowBody,
        elements: &mut Gathered,
    ) -> Option<RowId> {
        let id = self.table.restore(body, chg)?;
        match self.hash_of(&self.table.row(id).body) {
            Some(hash) => elements.push(hash, id.0),
            None if matches!(self.table.row(id).body, RowBody::Event(..)) => self.queue_restored(id),
            None => self.keys.entry_mut(key).scalar = Some(id),
        }
        self.book(key, id);
        Some(id)
    }

    /// Puts back how elements are found, after the last row.
    pub(super) fn restore_places(&mut self, elements: Gathered) {
        self.elements = elements.into_places();
    }

    pub(super) fn restore_dead(&mut self, ids: impl Iterator<Item = RowId>) {
        self.table.restore_dead(ids);
    }
}

/// What a key costs beside its rows.
pub(super) fn key_bytes(name: &str) -> usize {
    KEY_BYTES + name_bytes(name)
}
