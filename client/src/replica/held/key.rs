//! The rows under one name. A new type is one more field here.

use std::collections::{HashMap, hash_map::Entry};

use dormouse_proto::{
    ids::{Element, Revision},
    lattice::Type,
};

use super::{Dead, other::Other};
use crate::replica::{counter::CounterRow, message::Rows, register::RegisterRow};

/// A row as it was at `as_of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replica) struct Held<S> {
    pub(in crate::replica) as_of: Revision,
    /// Which pull of its collection delivered it last.
    pull: u32,
    pub(in crate::replica) state: S,
}

/// The elements of one set; `false`: known to be absent.
pub(in crate::replica) type HeldSet = HashMap<Element, Held<bool>>;

/// Where and when rows were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) as_of: Revision,
    pub(super) pull: u32,
    /// They came in the order of their changes, none left out that had not come before.
    pub(super) is_backlog: bool,
    /// The barrier of the collection before them.
    pub(super) seen_upto: Revision,
}

impl Source {
    pub(super) const fn hold<S>(self, state: S) -> Held<S> {
        Held { as_of: self.as_of, pull: self.pull, state }
    }
}

impl<S> Held<S> {
    /// Replaces the row unless the new one is older; delivered it is either way.
    pub(super) fn renew(&mut self, source: Source, state: S) {
        self.pull = source.pull;
        if source.as_of >= self.as_of {
            *self = source.hold(state);
        }
    }

    /// The same row once more.
    pub(super) fn deliver(&mut self, source: Source) {
        self.pull = source.pull;
        self.as_of = self.as_of.max(source.as_of);
    }

    pub(super) const fn is_undelivered(&self, pull: u32, at: Revision) -> bool {
        self.pull != pull && self.as_of.0 <= at.0
    }
}

pub(super) fn put<S>(slot: &mut Option<Held<S>>, source: Source, state: S) {
    match slot {
        Some(held) => held.renew(source, state),
        None => *slot = Some(source.hold(state)),
    }
}

/// Takes in elements of a set.
pub(super) fn put_elements(set: &mut HeldSet, source: Source, present: Vec<String>, removed: Vec<String>) {
    set.reserve(present.len());
    let present = present.into_iter().map(|name| (name, true));
    for (name, is_there) in present.chain(removed.into_iter().map(|name| (name, false))) {
        // A name that breaks its rule cannot have come from a log; skipping it is all that is left to do.
        let Ok(element) = Element::try_from(name) else { continue };
        match set.entry(element) {
            Entry::Occupied(mut row) => row.get_mut().renew(source, is_there),
            Entry::Vacant(row) => drop(row.insert(source.hold(is_there))),
        }
    }
}

/// Drops elements that are not there and that the barrier `at` speaks for.
pub(super) fn drop_dead_elements(set: &mut HeldSet, elements: &[Element], at: Revision) {
    for element in elements {
        if set.get(element).is_some_and(|row| !row.state && row.as_of <= at) {
            set.remove(element);
        }
    }
}

/// The rows under one name, by type.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldKey {
    pub(super) counter: Option<Held<CounterRow>>,
    pub(super) set: HeldSet,
    pub(super) register: Option<Held<RegisterRow>>,
    pub(super) other: Option<Box<Other>>,
    /// The key was read on its own: what is not held was not there then.
    pub(super) fetched: bool,
}

impl HeldKey {
    pub(super) fn put(&mut self, source: Source, rows: Rows) {
        match rows {
            Rows::Counter { value, total } => {
                let total = Some(total);
                put(&mut self.counter, source, CounterRow { value, total });
            }
            Rows::Register { value, stamp_ms } => {
                put(&mut self.register, source, RegisterRow { value, stamp_ms });
            }
            Rows::Set { present, removed } => put_elements(&mut self.set, source, present, removed),
            rows => self.other.get_or_insert_default().put(source, rows),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let frequent = self.counter.is_some() || !self.set.is_empty() || self.register.is_some();
        !(frequent || self.fetched || self.other.as_ref().is_some_and(|other| !other.is_empty()))
    }

    /// Drops what a pull that started over has not delivered by its end.
    pub(super) fn drop_undelivered(&mut self, pull: u32, at: Revision) {
        self.set.retain(|_, row| !row.is_undelivered(pull, at));
        self.counter.take_if(|row| row.is_undelivered(pull, at));
        self.register.take_if(|row| row.is_undelivered(pull, at));
        if let Some(other) = &mut self.other {
            other.drop_undelivered(pull, at);
        }
    }

    /// Drops rows of which nothing is visible and that the barrier `at` speaks for.
    pub(super) fn drop_dead(&mut self, dead: &Dead, at: Revision) {
        match (dead.kind, &mut self.other) {
            (Type::Set, _) => drop_dead_elements(&mut self.set, &dead.elements, at),
            (Type::Register, _) => {
                self.register.take_if(|row| row.state.value.is_none() && row.as_of <= at);
            }
            (_, Some(other)) => other.drop_dead(dead, at),
            (_, None) => {}
        }
    }

    pub(super) fn lose_history(&mut self) {
        for row in self.set.values_mut() {
            row.as_of = Revision::ZERO;
        }
        if let Some(row) = &mut self.counter {
            row.as_of = Revision::ZERO;
            row.state.total = None;
        }
        if let Some(row) = &mut self.register {
            row.as_of = Revision::ZERO;
        }
        if let Some(other) = &mut self.other {
            other.lose_history();
        }
    }
}
