//! Sets of every kind: a row is one element. Of each element only the newest word is kept.

use std::{collections::BTreeMap, marker::PhantomData};

use dormouse_proto::{
    ids::{Element, Revision},
    lattice::Change,
};

use super::{
    Path, Replica,
    held::{HeldRows, HeldSet},
    intent::{Context, Entry, Intent, Room, Said, Winner},
};

/// A kind of set.
pub(super) trait SetKind: Winner + Clone + Default + PartialEq {
    /// As a delta says it.
    fn change(said: &BTreeMap<Element, Said>) -> Change;
}

/// What was said of one set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ElementsIntent<K>(BTreeMap<Element, Said>, PhantomData<K>);

const BYTES: usize = 24;

fn cost(element: &Element) -> usize {
    BYTES + element.as_str().len()
}

/// Elements on one side, grouped by what their author had seen.
pub(super) fn by_context(
    said: &BTreeMap<Element, Said>,
    on: bool,
) -> impl Iterator<Item = (Option<Revision>, Vec<Element>)> {
    let mut groups: BTreeMap<Option<Revision>, Vec<Element>> = BTreeMap::new();
    for (element, said) in said.iter().filter(|(_, said)| said.on == on) {
        groups.entry(said.as_of()).or_default().push(element.clone());
    }
    groups.into_iter()
}

/// Elements on the side that needs no context.
pub(super) fn unguarded(said: &BTreeMap<Element, Said>, on: bool) -> Vec<Element> {
    said.iter().filter(|(_, said)| said.on == on).map(|(element, _)| element.clone()).collect()
}

impl<K> ElementsIntent<K> {
    pub(super) fn of_each(said: impl IntoIterator<Item = (Element, Said)>) -> Self {
        Self(said.into_iter().collect(), PhantomData)
    }

    /// What was said of that element.
    fn get(&self, element: &str) -> Option<Said> {
        self.0.get(element).copied()
    }

    fn names(&self) -> impl Iterator<Item = &Element> {
        self.0.keys()
    }
}

impl<K: SetKind> ElementsIntent<K> {
    /// Takes out what `dropped` says and returns it as a change.
    fn without(&mut self, dropped: impl Fn(Said) -> bool) -> Option<Change> {
        let kept = std::mem::take(&mut self.0);
        let (out, kept): (BTreeMap<_, _>, _) = kept.into_iter().partition(|(_, said)| dropped(*said));
        self.0 = kept;
        (!out.is_empty()).then(|| K::change(&out))
    }
}

impl<K: SetKind> Intent for ElementsIntent<K>
where
    Self: Entry,
{
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
        let fitting = self.0.keys().take_while(|element| room.take(1, cost(element))).count();
        let rest = self.0.keys().nth(fitting).cloned();
        let rest = rest.map(|first| self.0.split_off(&first)).unwrap_or_default();
        let part = std::mem::replace(&mut self.0, rest);
        (!part.is_empty()).then_some(Self(part, PhantomData))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn resolve(&mut self, path: &Path, held: &HeldRows) {
        for (element, said) in &mut self.0 {
            said.resolve(|| seen::<Self>(path, element, held));
        }
    }

    fn change(&self) -> Option<Change> {
        (!self.0.is_empty()).then(|| K::change(&self.0))
    }

    fn without_history(&mut self) -> Option<Change> {
        let dropped = self.without(Said::falls_with_history);
        for context in self.0.values_mut().filter_map(|said| said.context.as_mut()) {
            context.lose_history();
        }
        dropped
    }

    fn without_context(&mut self) -> Option<Change> {
        self.without(|said| Some(said.on) == K::LOSES)
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.without(|said| said.on)
    }

    fn without_repeats(&mut self) -> Option<Change> {
        None
    }
}

/// The revision at which an element is seen.
fn seen<I: Entry>(path: &Path, element: &Element, held: &HeldRows) -> Option<Revision> {
    let row = held.elements(path, I::KIND).and_then(|set| set.get(element.as_str()));
    held.context(path, row.map(|row| row.as_of))
}

impl Replica {
    /// Whether the element is in a set as it is known, with own writes; `None`: not followed, or never heard of.
    pub(super) fn holds_element<K>(&self, path: &Path, element: &str) -> Option<bool>
    where
        ElementsIntent<K>: Intent,
    {
        let held = self.held.elements(path, <ElementsIntent<K>>::KIND);
        let row = held.and_then(|set| set.get(element));
        let own = self.own_element(path, element, row.map(|row| row.as_of));
        match (own, row) {
            (Some(own), _) if row.is_some() || self.held.follows(path) || self.held.knows(path) => Some(own),
            (None, Some(row)) => Some(row.state),
            _ => self.held.knows(path).then_some(false),
        }
    }

    /// What own writes make of an element that is held as of `as_of`.
    fn own_element<K>(&self, path: &Path, element: &str, as_of: Option<Revision>) -> Option<bool>
    where
        ElementsIntent<K>: Intent,
    {
        let waiting = self.waiting_intent(path).and_then(|set: &ElementsIntent<K>| set.get(element));
        let sealed = || {
            let sent = self.sealed_intent::<ElementsIntent<K>>(path)?.get(element)?;
            self.shows_sealed(path, as_of).then_some(sent)
        };
        waiting.or_else(sealed).map(|said| said.on)
    }

    /// The elements of a set, sorted, with own writes; `None`: not followed, or never heard of.
    pub(super) fn elements<K: Winner>(&self, path: &Path) -> Option<Vec<&str>>
    where
        ElementsIntent<K>: Intent,
    {
        let held = self.held.elements(path, <ElementsIntent<K>>::KIND);
        let mut elements: Vec<&str> = Vec::with_capacity(held.map_or(0, HeldSet::len));
        let sealed = self.sealed_intent::<ElementsIntent<K>>(path);
        let waiting = self.waiting_intent::<ElementsIntent<K>>(path);
        let has_own = sealed.is_some() || waiting.is_some();
        for (element, row) in held.into_iter().flatten() {
            let own = has_own.then(|| self.own_element(path, element.as_str(), Some(row.as_of))).flatten();
            if own.unwrap_or(row.state) {
                elements.push(element.as_str());
            }
        }
        let known = held.is_some() || self.held.knows(path);
        if has_own && (known || self.held.follows(path)) {
            let own = sealed.into_iter().chain(waiting).flat_map(ElementsIntent::names);
            let not_held = own.filter(|element| held.is_none_or(|set| !set.contains_key(element.as_str())));
            let added =
                not_held.filter(|element| self.own_element(path, element.as_str(), None) == Some(true));
            elements.extend(added.map(Element::as_str));
        } else if !known {
            return None;
        }
        elements.sort_unstable();
        elements.dedup();
        Some(elements)
    }

    /// Says that elements are to be there, or not to be.
    pub(super) fn elements_intent<K: Winner>(
        &self,
        path: &Path,
        elements: impl IntoIterator<Item = Element>,
        on: bool,
    ) -> ElementsIntent<K>
    where
        ElementsIntent<K>: Intent,
    {
        let said = elements.into_iter().map(|element| {
            let context = (K::LOSES == Some(on)).then(|| self.element_context::<K>(path, &element));
            (element, Said { on, context })
        });
        ElementsIntent::of_each(said)
    }

    fn element_context<K>(&self, path: &Path, element: &Element) -> Context
    where
        ElementsIntent<K>: Intent,
    {
        let touches = |set: &ElementsIntent<K>| set.get(element.as_str()).is_some();
        if self.own_is_under_way(path, touches) {
            Context::Open
        } else {
            Context::At(seen::<ElementsIntent<K>>(path, element, &self.held))
        }
    }
}
