//! The rows of the rarer types under one name, apart so that a key of a frequent type does not pay for them.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::{Incarnation, NodeId, Revision},
    lattice::{Type, Value},
};

use super::{
    Dead,
    events::HeldEvents,
    key::{Held, HeldSet, Source, put, put_elements},
};
use crate::replica::message::{HolderRow, Rows};

/// What one node holds up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::replica) struct Holder {
    pub(in crate::replica) incarnation: Incarnation,
    /// `None`: nothing any more.
    pub(in crate::replica) value: Option<Value>,
}

/// Those who hold something up, and those who no longer do.
pub(in crate::replica) type HeldHolders = BTreeMap<NodeId, Held<Holder>>;

/// The rows of the rarer types. What is large beside a pointer is boxed: a key mostly has one type.
#[derive(Clone, Debug, Default)]
pub(super) struct Other {
    flag: Option<Held<bool>>,
    disable_wins_flag: Option<Held<bool>>,
    max: Option<Held<Option<i64>>>,
    min: Option<Held<Option<i64>>>,
    pub(super) siblings: Option<Held<Vec<(Revision, Value)>>>,
    pub(super) events: Option<Box<HeldEvents>>,
    pub(super) presence: Option<Box<HeldHolders>>,
    grow_only_set: Option<Box<HeldSet>>,
    remove_wins_set: Option<Box<HeldSet>>,
}

impl Other {
    pub(super) fn elements(&self, kind: Type) -> Option<&HeldSet> {
        match kind {
            Type::GrowOnlySet => self.grow_only_set.as_deref(),
            Type::RemoveWinsSet => self.remove_wins_set.as_deref(),
            _ => None,
        }
    }

    pub(super) const fn switch(&self, kind: Type) -> Option<Held<bool>> {
        match kind {
            Type::Flag => self.flag,
            Type::DisableWinsFlag => self.disable_wins_flag,
            _ => None,
        }
    }

    pub(super) const fn number(&self, kind: Type) -> Option<Held<Option<i64>>> {
        match kind {
            Type::Max => self.max,
            Type::Min => self.min,
            _ => None,
        }
    }

    /// Takes rows in. Those of the frequent types are not for here.
    pub(super) fn put(&mut self, source: Source, rows: Rows) {
        match rows {
            Rows::Flag { on } => put(&mut self.flag, source, on),
            Rows::DisableWinsFlag { on } => put(&mut self.disable_wins_flag, source, on),
            Rows::Max { value } => put(&mut self.max, source, value),
            Rows::Min { value } => put(&mut self.min, source, value),
            Rows::Siblings { values } => put(&mut self.siblings, source, values),
            Rows::Events { events, trimmed_upto } => {
                self.events.get_or_insert_default().put(source, events, trimmed_upto);
            }
            Rows::Presence { holders } => self.put_holders(source, holders),
            Rows::GrowOnlySet { present, removed } => {
                put_elements(self.grow_only_set.get_or_insert_default(), source, present, removed);
            }
            Rows::RemoveWinsSet { present, removed } => {
                put_elements(self.remove_wins_set.get_or_insert_default(), source, present, removed);
            }
            Rows::Counter { .. } | Rows::Set { .. } | Rows::Register { .. } => {}
        }
    }

    fn put_holders(&mut self, source: Source, holders: Vec<HolderRow>) {
        let held = self.presence.get_or_insert_default();
        for HolderRow { node, incarnation, value } in holders {
            let holder = Holder { incarnation, value };
            match held.get_mut(&node) {
                Some(row) => row.renew(source, holder),
                None => drop(held.insert(node, source.hold(holder))),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { flag, disable_wins_flag, max, min, siblings, .. } = self;
        let scalars = flag.is_some() || disable_wins_flag.is_some() || max.is_some() || min.is_some();
        let sets = [&self.grow_only_set, &self.remove_wins_set].into_iter().flatten();
        let has_elements = sets.into_iter().any(|set| !set.is_empty());
        let has_events = self.events.as_ref().is_some_and(|log| !log.is_empty());
        let has_holders = self.presence.as_ref().is_some_and(|holders| !holders.is_empty());
        !(scalars || siblings.is_some() || has_elements || has_events || has_holders)
    }

    /// Drops what a pull that started over has not delivered by its end.
    pub(super) fn drop_undelivered(&mut self, pull: u32, at: Revision) {
        self.flag.take_if(|row| row.is_undelivered(pull, at));
        self.disable_wins_flag.take_if(|row| row.is_undelivered(pull, at));
        self.max.take_if(|row| row.is_undelivered(pull, at));
        self.min.take_if(|row| row.is_undelivered(pull, at));
        self.siblings.take_if(|row| row.is_undelivered(pull, at));
        for set in [&mut self.grow_only_set, &mut self.remove_wins_set].into_iter().flatten() {
            set.retain(|_, row| !row.is_undelivered(pull, at));
        }
        if let Some(log) = &mut self.events {
            log.drop_undelivered(pull, at);
        }
        if let Some(holders) = &mut self.presence {
            holders.retain(|_, row| !row.is_undelivered(pull, at));
        }
    }

    /// Drops rows of which nothing is visible and that the barrier `at` speaks for.
    pub(super) fn drop_dead(&mut self, dead: &Dead, at: Revision) {
        match dead.kind {
            Type::Flag => drop(self.flag.take_if(|row| !row.state && row.as_of <= at)),
            Type::DisableWinsFlag => {
                self.disable_wins_flag.take_if(|row| !row.state && row.as_of <= at);
            }
            Type::Siblings => {
                self.siblings.take_if(|row| row.state.is_empty() && row.as_of <= at);
            }
            Type::Presence => {
                if let Some(holders) = &mut self.presence {
                    holders.retain(|_, row| row.state.value.is_some() || row.as_of > at);
                }
            }
            Type::RemoveWinsSet => {
                if let Some(set) = &mut self.remove_wins_set {
                    super::key::drop_dead_elements(set, &dead.elements, at);
                }
            }
            _ => {}
        }
    }

    pub(super) fn lose_history(&mut self) {
        for row in [&mut self.flag, &mut self.disable_wins_flag].into_iter().flatten() {
            row.as_of = Revision::ZERO;
        }
        for row in [&mut self.max, &mut self.min].into_iter().flatten() {
            row.as_of = Revision::ZERO;
        }
        if let Some(row) = &mut self.siblings {
            row.as_of = Revision::ZERO;
        }
        for set in [&mut self.grow_only_set, &mut self.remove_wins_set].into_iter().flatten() {
            set.values_mut().for_each(|row| row.as_of = Revision::ZERO);
        }
        if let Some(log) = &mut self.events {
            log.lose_history();
        }
        for row in self.presence.iter_mut().flat_map(|holders| holders.values_mut()) {
            row.as_of = Revision::ZERO;
        }
    }
}
