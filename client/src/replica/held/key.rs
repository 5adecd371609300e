//! The rows under one name. A new type is one more field here.

use std::collections::{HashMap, hash_map::Entry};

use dormouse_proto::ids::{Element, Revision};

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
}

impl Source {
    const fn hold<S>(self, state: S) -> Held<S> {
        Held {
            as_of: self.as_of,
            pull: self.pull,
            state,
        }
    }
}

impl<S> Held<S> {
    /// Replaces the row unless the new one is older; delivered it is either way.
    fn renew(&mut self, source: Source, state: S) {
        self.pull = source.pull;
        if source.as_of >= self.as_of {
            *self = source.hold(state);
        }
    }

    const fn is_undelivered(&self, pull: u32, at: Revision) -> bool {
        self.pull != pull && self.as_of.0 <= at.0
    }
}

fn put<S>(slot: &mut Option<Held<S>>, source: Source, state: S) {
    match slot {
        Some(held) => held.renew(source, state),
        None => *slot = Some(source.hold(state)),
    }
}

/// The rows under one name, by type.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldKey {
    pub(super) counter: Option<Held<CounterRow>>,
    pub(super) set: HeldSet,
    pub(super) register: Option<Held<RegisterRow>>,
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
            Rows::Set { present, removed } => {
                self.set.reserve(present.len());
                self.put_elements(source, present, true);
                self.put_elements(source, removed, false);
            }
        }
    }

    fn put_elements(&mut self, source: Source, elements: Vec<String>, present: bool) {
        // A name that breaks its rule cannot have come from a log; skipping it is all that is left to do.
        for element in elements
            .into_iter()
            .filter_map(|name| Element::try_from(name).ok())
        {
            match self.set.entry(element) {
                Entry::Occupied(mut row) => row.get_mut().renew(source, present),
                Entry::Vacant(row) => {
                    row.insert(source.hold(present));
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counter.is_none() && self.set.is_empty() && self.register.is_none() && !self.fetched
    }

    /// Drops what a pull that started over has not delivered by its end.
    pub(super) fn drop_undelivered(&mut self, pull: u32, at: Revision) {
        self.set.retain(|_, row| !row.is_undelivered(pull, at));
        self.counter.take_if(|row| row.is_undelivered(pull, at));
        self.register.take_if(|row| row.is_undelivered(pull, at));
    }

    /// Drops rows of which nothing is visible and that the barrier `at` speaks for.
    pub(super) fn drop_dead(&mut self, elements: &[Element], register: bool, at: Revision) {
        for element in elements {
            if self
                .set
                .get(element)
                .is_some_and(|row| !row.state && row.as_of <= at)
            {
                self.set.remove(element);
            }
        }
        if register {
            self.register
                .take_if(|row| row.state.value.is_none() && row.as_of <= at);
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
    }
}
