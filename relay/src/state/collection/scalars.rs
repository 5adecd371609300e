//! Changes of types that have one row for each key.

use dormouse_proto::{
    ids::Revision,
    lattice::{Counter, Flag, Max, Min, Register, RemoveWins, Siblings, Type},
};

use super::{Collection, EncodedValue, RowBody};
use crate::state::rows::RowId;

impl Collection {
    pub(in crate::state) fn counter(&self, key: &str) -> Option<&Counter> {
        match self.scalar(key, Type::Counter)? {
            RowBody::Counter(_, counter) => Some(counter),
            _ => None,
        }
    }

    pub(in crate::state) fn register(&self, key: &str) -> Option<&Register<EncodedValue>> {
        match self.scalar(key, Type::Register)? {
            RowBody::Register(_, register) => Some(register),
            _ => None,
        }
    }

    /// Adds to a counter, after a reset with its context resolved. The caller has checked the range.
    ///
    /// What readers must be told is total and cut, not the value: a reset names the total. `by_value` judges by the
    /// value all the same, to show that the model check notices.
    pub(in crate::state) fn change_counter(
        &mut self,
        key: &str,
        reset: Option<(Revision, i64)>,
        amount: i64,
        at: Revision,
        by_value: bool,
    ) {
        let found = self.scalar_id(key, Type::Counter);
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

    /// The stamp that a write gets which carries `clamped` and saw the register as of `as_of`; `None`: stale.
    pub(in crate::state) fn stamp(&self, key: &str, as_of: Revision, clamped: u64) -> Option<u64> {
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

    pub(in crate::state) fn set_register(
        &mut self,
        key: &str,
        stamp_ms: u64,
        value: Option<EncodedValue>,
        at: Revision,
    ) {
        let make = |key| RowBody::Register(key, Register::default());
        let Some(id) = self.scalar_or_insert(key, Type::Register, make) else { return };
        self.change(id, at, |body| {
            let RowBody::Register(_, register) = body else { return false };
            let differs = register.value != value;
            register.offer(stamp_ms, at, value) && differs
        });
    }

    pub(in crate::state) fn set_flag(&mut self, key: &str, on: bool, as_of: Revision, at: Revision) {
        let found = self.scalar_id(key, Type::Flag);
        if found.is_none() && !on {
            return; // nothing there: nothing to switch off
        }
        let make = |key| RowBody::Flag(key, Flag::default());
        let Some(id) = found.or_else(|| self.insert_scalar(key, Type::Flag, make)) else { return };
        self.change(id, at, |body| {
            let RowBody::Flag(_, flag) = body else { return false };
            let was = flag.is_on();
            if on {
                flag.switch_on(at);
            } else {
                flag.switch_off(as_of);
            }
            flag.is_on() != was
        });
    }

    /// An off is remembered even where nothing is: it wins over an on whose author had not seen it.
    pub(in crate::state) fn set_guarded_flag(&mut self, key: &str, on: bool, as_of: Revision, at: Revision) {
        let make = |key| RowBody::GuardedFlag(key, RemoveWins::default());
        let Some(id) = self.scalar_or_insert(key, Type::DisableWinsFlag, make) else { return };
        self.change(id, at, |body| {
            let RowBody::GuardedFlag(_, flag) = body else { return false };
            let was = flag.is_present();
            if on {
                flag.add(as_of);
            } else {
                flag.remove(at);
            }
            flag.is_present() != was
        });
    }

    pub(in crate::state) fn offer_max(&mut self, key: &str, value: i64, at: Revision) {
        let Some(id) = self.scalar_id(key, Type::Max) else {
            return self.insert_grown(key, Type::Max, |key| RowBody::Max(key, Max(value)), at);
        };
        self.change(id, at, |body| {
            let RowBody::Max(_, max) = body else { return false };
            let was = max.0;
            max.offer(value);
            max.0 != was
        });
    }

    pub(in crate::state) fn offer_min(&mut self, key: &str, value: i64, at: Revision) {
        let Some(id) = self.scalar_id(key, Type::Min) else {
            return self.insert_grown(key, Type::Min, |key| RowBody::Min(key, Min(value)), at);
        };
        self.change(id, at, |body| {
            let RowBody::Min(_, min) = body else { return false };
            let was = min.0;
            min.offer(value);
            min.0 != was
        });
    }

    /// A row that is never dead.
    fn insert_grown(
        &mut self,
        key: &str,
        kind: Type,
        make: impl FnOnce(super::KeyId) -> RowBody,
        at: Revision,
    ) {
        let Some(key) = self.keys.find_or_insert(key, kind) else { return };
        let Some(id) = self.table.insert_live(make(key), at) else { return };
        self.keys.entry_mut(key).scalar = Some(id);
        self.book(key, id);
    }

    /// Bytes of the siblings under a key that a write which saw them as of `as_of` leaves there.
    pub(in crate::state) fn sibling_bytes(&self, key: &str, as_of: Revision) -> usize {
        match self.scalar(key, Type::Siblings) {
            Some(RowBody::Siblings(_, siblings)) => {
                siblings.iter().filter(|(at, _)| *at > as_of).map(|(_, value)| 24 + value.len()).sum()
            }
            _ => 0,
        }
    }

    /// Returns how many values had to go although nobody took them away.
    pub(in crate::state) fn write_siblings(
        &mut self,
        key: &str,
        value: Option<EncodedValue>,
        as_of: Revision,
        at: Revision,
    ) -> usize {
        let found = self.scalar_id(key, Type::Siblings);
        if found.is_none() && value.is_none() {
            return 0; // nothing there: nothing to take away
        }
        let make = |key| RowBody::Siblings(key, Siblings::default());
        let Some(id) = found.or_else(|| self.insert_scalar(key, Type::Siblings, make)) else { return 0 };
        let mut crowded = 0;
        self.change(id, at, |body| {
            let RowBody::Siblings(_, siblings) = body else { return false };
            let was = siblings.iter().count();
            match value {
                Some(value) => {
                    crowded = siblings.write(as_of, at, value, |value| value.len());
                    true
                }
                None => {
                    siblings.remove(as_of);
                    siblings.iter().count() != was
                }
            }
        });
        crowded
    }

    // ---- the one row of a key ----

    fn scalar(&self, key: &str, kind: Type) -> Option<&RowBody> {
        self.scalar_id(key, kind).map(|id| &self.table.row(id).body)
    }

    pub(in crate::state) fn scalar_id(&self, key: &str, kind: Type) -> Option<RowId> {
        self.keys.entry(self.keys.find(key, kind)?).scalar
    }

    fn scalar_or_insert(
        &mut self,
        key: &str,
        kind: Type,
        make: impl FnOnce(super::KeyId) -> RowBody,
    ) -> Option<RowId> {
        self.scalar_id(key, kind).or_else(|| self.insert_scalar(key, kind, make))
    }

    /// A row that is dead until it is changed.
    pub(super) fn insert_scalar(
        &mut self,
        key: &str,
        kind: Type,
        make: impl FnOnce(super::KeyId) -> RowBody,
    ) -> Option<RowId> {
        let key = self.keys.find_or_insert(key, kind)?;
        let id = self.table.insert(make(key))?;
        self.keys.entry_mut(key).scalar = Some(id);
        self.book(key, id);
        Some(id)
    }
}
