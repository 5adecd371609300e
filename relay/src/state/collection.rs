//! One collection: its keys, its rows, its dead, and the marks that outlive dropped rows.
//!
//! Dead rows exist only to tell laggards. Beyond a cap the oldest are dropped; what they knew that could still matter
//! is kept in two marks, so that a laggard's older write is refused as stale instead of bringing something back.

use std::collections::HashMap;

use compact_str::CompactString;
use dormouse_proto::{
    ids::{Collection as Name, Revision},
    lattice::{Counter, Register, SetElement, Type},
};

use super::{
    keys::{KeyId, Keys},
    places::{Gathered, Places},
    rows::{Body, Row, RowId, Table},
};

/// The content of a register as it goes on the wire: an encoded `Value`.
pub(super) type EncodedValue = Box<[u8]>;

/// What a row holds.
#[derive(Clone, Debug, Default)]
pub(super) enum RowBody {
    /// A free place.
    #[default]
    Vacant,
    Counter(KeyId, Counter),
    Element(KeyId, CompactString, SetElement),
    Register(KeyId, Register<EncodedValue>),
}

impl Body for RowBody {
    fn is_dead(&self) -> bool {
        match self {
            Self::Vacant => true,
            Self::Counter(_, counter) => counter.is_dead(),
            Self::Element(_, _, element) => !element.is_present(),
            Self::Register(_, register) => register.is_dead(),
        }
    }

    fn touched(&self, chg: Revision) -> Revision {
        match self {
            // A delete can be news to the lattice without being observable: nobody had seen a value.
            Self::Register(_, register) => chg.max(register.revision),
            _ => chg,
        }
    }
}

impl RowBody {
    pub(super) fn key(&self) -> Option<KeyId> {
        match self {
            Self::Vacant => None,
            Self::Counter(key, _) | Self::Element(key, _, _) | Self::Register(key, _) => Some(*key),
        }
    }

    /// Bytes beyond the row itself.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Vacant | Self::Counter(..) => 0,
            Self::Element(_, name, _) => PLACE_BYTES + if name.is_heap_allocated() { name.len() } else { 0 },
            Self::Register(_, register) => register.value.as_ref().map_or(0, |value| value.len()),
        }
    }
}

/// What a row costs in memory beside its payload: 48 bytes for itself, and 12 to 20 in the index. A number and not the
/// size of a type, because a quota that follows the compiler would let two relays refuse differently; a test holds it
/// against what is really allocated.
const ROW_BYTES: usize = 65;
/// What a dead row costs beside that, in the queue of the dead.
const DEAD_BYTES: usize = 20;
/// What an element costs so that it is found: its share of a table of places.
const PLACE_BYTES: usize = 13;
/// What a key costs beside its rows: 40 bytes and its share of a table of places.
const KEY_BYTES: usize = 54;

/// What dropped rows leave behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The newest winning revision of a dropped register.
    pub(super) register: Revision,
    /// The highest stamp of a dropped register, if one was dropped.
    pub(super) register_stamp: Option<u64>,
}

/// One collection of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    pub(super) name: Name,
    keys: Keys,
    elements: Places,
    table: Table<RowBody>,
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

    pub(super) fn counter(&self, key: &str) -> Option<&Counter> {
        match &self.scalar(key, Type::Counter)?.1.body {
            RowBody::Counter(_, counter) => Some(counter),
            _ => None,
        }
    }

    pub(super) fn register(&self, key: &str) -> Option<&Register<EncodedValue>> {
        match &self.scalar(key, Type::Register)?.1.body {
            RowBody::Register(_, register) => Some(register),
            _ => None,
        }
    }

    fn scalar(&self, key: &str, kind: Type) -> Option<(RowId, &Row<RowBody>)> {
        let id = self.keys.entry(self.keys.find(key, kind)?).scalar?;
        Some((id, self.table.row(id)))
    }

    pub(super) fn has_element(&self, key: &str, element: &str) -> bool {
        self.keys.find(key, Type::Set).is_some_and(|key| self.element(key, element).is_some())
    }

    pub(super) fn is_present(&self, key: &str, element: &str) -> bool {
        let row = self.keys.find(key, Type::Set).and_then(|key| self.element(key, element));
        row.is_some_and(|id| !self.table.row(id).body.is_dead())
    }

    fn element(&self, key: KeyId, element: &str) -> Option<RowId> {
        let matches = |place: u32| match &self.table.row(RowId(place)).body {
            RowBody::Element(of, name, _) => *of == key && name == element,
            _ => false,
        };
        self.elements.find(self.keys.hash((key, element)), matches).map(RowId)
    }

    /// The element's row that probably has this hash; only to be looked at.
    pub(super) fn guess_element(&self, hash: u64) -> Option<RowId> {
        self.elements.guess(hash).map(RowId)
    }

    /// Loads a row; the number means nothing.
    pub(super) fn touch(&self, row: RowId) -> Option<u64> {
        self.table.get(row).map(|row| row.chg.0)
    }

    /// The only row of a counter or a register.
    pub(super) fn scalar_row(&self, key: KeyId) -> Option<&Row<RowBody>> {
        self.keys.entry(key).scalar.map(|id| self.table.row(id))
    }

    /// The elements that are in these sets. One walk over the rows of the whole collection, however many sets there are.
    pub(super) fn present_elements(
        &self,
        sets: impl Iterator<Item = KeyId>,
    ) -> HashMap<KeyId, Vec<&Row<RowBody>>> {
        let mut elements: HashMap<KeyId, Vec<&Row<RowBody>>> = sets.map(|key| (key, Vec::new())).collect();
        if !elements.is_empty() {
            for row in self.table.all().filter(|row| !row.body.is_dead()) {
                if let Some(rows) = row.body.key().and_then(|key| elements.get_mut(&key)) {
                    rows.push(row);
                }
            }
        }
        elements
    }

    // ---- changing ----

    /// Adds to a counter, after a reset with its context resolved. The caller has checked the range.
    ///
    /// What readers must be told is total and cut, not the value: a reset names the total. `by_value` judges by the
    /// value all the same, to show that the model check notices.
    pub(super) fn change_counter(
        &mut self,
        key: &str,
        reset: Option<(Revision, i64)>,
        amount: i64,
        at: Revision,
        by_value: bool,
    ) {
        let found = self.scalar(key, Type::Counter).map(|(id, _)| id);
        if found.is_none() && amount == 0 {
            return; // nothing there, nothing added: nothing to write
        }
        let make = |key| RowBody::Counter(key, Counter::new(at));
        let Some(id) = found.or_else(|| self.insert_scalar(key, Type::Counter, make)) else {
            return;
        };
        let before = self.table.before(id);
        let RowBody::Counter(_, counter) = self.table.body_mut(id) else {
            return;
        };
        let was = *counter;
        if counter.apply(reset, amount).is_ok() {
            let observable = if by_value {
                counter.value() != was.value()
            } else {
                counter.observable() != was.observable()
            };
            self.table.changed(id, before, observable, at);
        }
    }

    pub(super) fn add_element(&mut self, key: &str, element: &str, at: Revision) {
        let Some(key) = self.keys.find_or_insert(key, Type::Set) else {
            return;
        };
        let Some(id) =
            self.element(key, element).or_else(|| self.insert_element(key, element, SetElement::default()))
        else {
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

    pub(super) fn remove_element(&mut self, key: &str, element: &str, as_of: Revision, at: Revision) {
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

    /// The stamp that a write gets which carries `clamped` and saw the register as of `as_of`; `None`: stale.
    pub(super) fn stamp(&self, key: &str, as_of: Revision, clamped: u64) -> Option<u64> {
        if let Some(register) = self.register(key) {
            return Some(register.lifted(as_of, clamped));
        }
        match self.marks.register_stamp {
            // A row of that name may have been dropped: only who saw everything dropped may lift its stamp.
            Some(dropped) if clamped <= dropped => {
                (as_of >= self.marks.register).then(|| dropped.saturating_add(1))
            }
            _ => Some(clamped),
        }
    }

    pub(super) fn set_register(
        &mut self,
        key: &str,
        stamp_ms: u64,
        value: Option<EncodedValue>,
        at: Revision,
    ) {
        let found = self.scalar(key, Type::Register).map(|(id, _)| id);
        let make = |key| RowBody::Register(key, Register::default());
        let Some(id) = found.or_else(|| self.insert_scalar(key, Type::Register, make)) else {
            return;
        };
        let before = self.table.before(id);
        let was_bytes = self.table.row(id).body.heap_bytes();
        let RowBody::Register(_, register) = self.table.body_mut(id) else {
            return;
        };
        let differs = register.value != value;
        let won = register.offer(stamp_ms, at, value);
        self.table.changed(id, before, won && differs, at);
        self.bytes = self.bytes + self.table.row(id).body.heap_bytes() - was_bytes;
    }

    fn insert_scalar(&mut self, key: &str, kind: Type, make: impl FnOnce(KeyId) -> RowBody) -> Option<RowId> {
        let key = self.keys.find_or_insert(key, kind)?;
        let id = self.table.insert(make(key))?;
        self.keys.entry_mut(key).scalar = Some(id);
        self.book(key, id);
        Some(id)
    }

    fn insert_element(&mut self, key: KeyId, name: &str, element: SetElement) -> Option<RowId> {
        let id = self.table.insert(RowBody::Element(key, CompactString::new(name), element))?;
        self.elements.insert(self.keys.hash((key, name)), id.0);
        self.book(key, id);
        Some(id)
    }

    /// Counts a new row.
    fn book(&mut self, key: KeyId, id: RowId) {
        let heap = self.table.row(id).body.heap_bytes();
        let entry = self.keys.entry_mut(key);
        entry.rows += 1;
        let key_bytes = if entry.rows == 1 { KEY_BYTES + entry.heap_bytes() } else { 0 };
        self.bytes += ROW_BYTES + heap + key_bytes;
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
            RowBody::Element(key, name, _) => {
                self.elements.remove(self.keys.hash((*key, name.as_str())), id.0);
            }
            RowBody::Counter(..) | RowBody::Vacant => {}
        }
        let Some(key) = row.body.key() else { return };
        let entry = self.keys.entry_mut(key);
        entry.rows -= 1;
        entry.scalar = None;
        let unused = (entry.rows == 0).then(|| KEY_BYTES + entry.heap_bytes());
        self.bytes -= ROW_BYTES + row.body.heap_bytes() + unused.unwrap_or(0);
        if unused.is_some() {
            self.keys.remove(key);
        }
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
        if let RowBody::Element(_, name, _) = &self.table.row(id).body {
            elements.push(self.keys.hash((key, name.as_str())), id.0);
        } else {
            self.keys.entry_mut(key).scalar = Some(id);
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
