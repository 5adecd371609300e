//! Sets: a row is one element. Of each element only the newest op is kept.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::{Element, Revision},
    lattice::{Change, Remove, SetDelta, Type},
};

use super::{
    Path, Replica, WriteError,
    held::{HeldRows, HeldSet},
    intent::{AnyIntent, Context, Intent, Room},
};

/// What was said of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementIntent {
    Add,
    Remove(Context),
}

impl ElementIntent {
    pub(super) const fn adds(self) -> bool {
        matches!(self, Self::Add)
    }
}

/// What was said of one set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SetIntent(BTreeMap<Element, ElementIntent>);

const BYTES: usize = 24;

fn cost(element: &Element) -> usize {
    BYTES + element.as_str().len()
}

impl SetIntent {
    /// What was said of that element.
    pub(super) fn get(&self, element: &str) -> Option<ElementIntent> {
        self.0.get(element).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Element, ElementIntent)> {
        self.0.iter().map(|(element, intent)| (element, *intent))
    }

    /// Takes out what `dropped` says and returns it as a change.
    fn without(&mut self, dropped: impl Fn(ElementIntent) -> bool) -> Option<Change> {
        let kept = std::mem::take(&mut self.0);
        let (out, kept) = kept.into_iter().partition(|(_, intent)| dropped(*intent));
        self.0 = kept;
        Self(out).change()
    }
}

impl Intent for SetIntent {
    const KIND: Type = Type::Set;

    fn of(any: &AnyIntent) -> Option<&Self> {
        match any {
            AnyIntent::Set(this) => Some(this),
            _ => None,
        }
    }

    fn any(self) -> AnyIntent {
        AnyIntent::Set(self)
    }

    fn rows(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.keys().map(cost).sum()
    }

    fn growth(&self, later: &Self) -> usize {
        let new = later.0.keys().filter(|element| !self.0.contains_key(*element));
        new.map(cost).sum()
    }

    fn then(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    fn split(&mut self, room: &mut Room) -> Option<Self> {
        let fitting = self
            .0
            .keys()
            .take_while(|element| room.take(1, cost(element)))
            .count();
        let rest = self.0.keys().nth(fitting).cloned();
        let rest = rest.map(|first| self.0.split_off(&first)).unwrap_or_default();
        let part = std::mem::replace(&mut self.0, rest);
        (!part.is_empty()).then_some(Self(part))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn resolve(&mut self, path: &Path, held: &HeldRows) {
        for (element, intent) in &mut self.0 {
            if *intent == ElementIntent::Remove(Context::Open) {
                *intent = ElementIntent::Remove(Context::At(seen(path, element, held)));
            }
        }
    }

    fn change(&self) -> Option<Change> {
        let mut delta = SetDelta::default();
        let mut removed: BTreeMap<Option<Revision>, Vec<Element>> = BTreeMap::new();
        for (element, intent) in &self.0 {
            match intent {
                ElementIntent::Add => delta.add.push(element.clone()),
                ElementIntent::Remove(context) => {
                    removed.entry(context.as_of()).or_default().push(element.clone());
                }
            }
        }
        let groups = removed.into_iter();
        delta.remove = groups
            .map(|(as_of, elements)| Remove { elements, as_of })
            .collect();
        (!self.0.is_empty()).then_some(Change::Set(delta))
    }

    fn without_history(&mut self) -> Option<Change> {
        self.without(|intent| matches!(intent, ElementIntent::Remove(context) if context.names_history()))
    }

    fn without_context(&mut self) -> Option<Change> {
        self.without(|intent| !intent.adds())
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.without(ElementIntent::adds)
    }

    fn is_idempotent(&self) -> bool {
        true
    }
}

/// The revision at which an element is seen.
fn seen(path: &Path, element: &Element, held: &HeldRows) -> Option<Revision> {
    let row = held.set(path).and_then(|set| set.get(element.as_str()));
    held.context(path, row.map(|row| row.as_of))
}

impl Replica {
    /// Whether the element is in the set as it is known, with own writes; `None`: not followed, or never heard of.
    pub fn set_contains(&self, path: &Path, element: &str) -> Option<bool> {
        let row = self.held.set(path).and_then(|set| set.get(element));
        let own = self.own_element(path, element, row.map(|row| row.as_of));
        match (own, row) {
            (Some(own), _) if row.is_some() || self.held.follows(path) || self.held.knows(path) => Some(own),
            (None, Some(row)) => Some(row.state),
            _ => self.held.knows(path).then_some(false),
        }
    }

    /// What own writes make of an element that is held as of `as_of`.
    fn own_element(&self, path: &Path, element: &str, as_of: Option<Revision>) -> Option<bool> {
        let waiting = self
            .waiting_intent::<SetIntent>(path)
            .and_then(|set| set.get(element));
        let sealed = || {
            let sent = self.sealed_intent::<SetIntent>(path)?.get(element)?;
            self.shows_sealed(path, as_of).then_some(sent)
        };
        waiting.or_else(sealed).map(ElementIntent::adds)
    }

    /// The elements of the set, sorted, with own writes; `None`: not followed, or never heard of.
    pub fn set(&self, path: &Path) -> Option<Vec<&str>> {
        let held = self.held.set(path);
        let mut elements: Vec<&str> = Vec::with_capacity(held.map_or(0, HeldSet::len));
        let has_own = self.sealed_intent::<SetIntent>(path).is_some()
            || self.waiting_intent::<SetIntent>(path).is_some();
        for (element, row) in held.into_iter().flatten() {
            let own = has_own
                .then(|| self.own_element(path, element.as_str(), Some(row.as_of)))
                .flatten();
            if own.unwrap_or(row.state) {
                elements.push(element.as_str());
            }
        }
        let known = held.is_some() || self.held.knows(path);
        if has_own && (known || self.held.follows(path)) {
            let sealed = self.sealed_intent::<SetIntent>(path).into_iter();
            let own = sealed.chain(self.waiting_intent(path)).flat_map(SetIntent::iter);
            let not_held =
                own.filter(|(element, _)| held.is_none_or(|set| !set.contains_key(element.as_str())));
            let added =
                not_held.filter(|(element, _)| self.own_element(path, element.as_str(), None) == Some(true));
            elements.extend(added.map(|(element, _)| element.as_str()));
        } else if !known {
            return None;
        }
        elements.sort_unstable();
        elements.dedup();
        Some(elements)
    }

    /// Adds an element.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn set_add(&mut self, path: &Path, element: Element) -> Result<(), WriteError> {
        self.say(path, SetIntent([(element, ElementIntent::Add)].into()))
    }

    /// Removes an element as it is seen now; an add that others make meanwhile survives.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn set_remove(&mut self, path: &Path, element: Element) -> Result<(), WriteError> {
        let under_way = self.own_is_under_way::<SetIntent>(path, |set| set.get(element.as_str()).is_some());
        let context = if under_way {
            Context::Open
        } else {
            Context::At(seen(path, &element, &self.held))
        };
        self.say(
            path,
            SetIntent([(element, ElementIntent::Remove(context))].into()),
        )
    }
}
