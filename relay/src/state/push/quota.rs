//! What a namespace may grow to. What removes, trims or renews passes; but where nothing was, a delete or a remove that has
//! to be remembered is a row like any other.

use dormouse_proto::{
    ids::{Element, Revision},
    lattice::{Append, Change, Delta, Value},
};

use super::Context;
use crate::state::{
    collection::{
        Collection, GUARDED_BYTES, HOLDER_BYTES, LOG_BYTES, PLACE_BYTES, QUEUED_BYTES, ROW_BYTES, key_bytes,
        name_bytes,
    },
    namespace::NamespaceState,
    once::OnceKey,
};

/// Rows and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Growth {
    rows: u64,
    bytes: u64,
}

impl Growth {
    fn of(rows: usize, bytes: usize) -> Self {
        Self { rows: rows as u64, bytes: bytes as u64 }
    }

    fn and(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, bytes: self.bytes + other.bytes }
    }
}

/// Whether these deltas would make the namespace larger than it may be.
pub(super) fn exceeds(namespace: &NamespaceState, deltas: &[Delta], context: &Context<'_>) -> bool {
    let limits = context.limits;
    if new_collections(namespace, deltas) > limits.collections_max {
        return true;
    }
    let sum = |of: &dyn Fn(&Delta) -> Growth| deltas.iter().map(of).fold(Growth::default(), Growth::and);
    let over = |growth: Growth| {
        (growth.rows > 0 && namespace.rows() + growth.rows > limits.rows_max)
            || (growth.bytes > 0 && namespace.bytes() + growth.bytes > limits.bytes_max)
    };
    // Looking rows up is worth it only near the limits.
    over(sum(&at_most)) && over(sum(&|delta| exactly(namespace, delta, context)))
}

fn value_len(value: Option<&Value>) -> usize {
    // A tag and a length beside the content.
    value.map_or(0, |value| value.len() + 6)
}

/// What a delta adds at the most, without looking at any row.
fn at_most(delta: &Delta) -> Growth {
    let one_row = |heap: usize| Growth::of(1, ROW_BYTES + heap);
    let new_rows = match &delta.change {
        Change::Counter(_)
        | Change::Flag(_)
        | Change::DisableWinsFlag(_)
        | Change::Max(_)
        | Change::Min(_) => one_row(0),
        Change::Register(change) => one_row(value_len(change.value.as_ref())),
        Change::Siblings(change) => one_row(24 + value_len(change.value.as_ref())),
        Change::Presence(change) => one_row(PLACE_BYTES + HOLDER_BYTES + value_len(change.value.as_ref())),
        Change::Events(change) => events(change.append.iter()),
        Change::Set(change) => elements(change.add.iter().map(Element::as_str), PLACE_BYTES),
        Change::GrowOnlySet(change) => elements(change.add.iter().map(Element::as_str), PLACE_BYTES),
        // A remove of what is not there is remembered.
        Change::RemoveWinsSet(change) => {
            let added = change.add.iter().flat_map(|it| &it.elements);
            elements(added.chain(&change.remove).map(Element::as_str), PLACE_BYTES + GUARDED_BYTES)
        }
    };
    if new_rows.rows == 0 { new_rows } else { new_rows.and(Growth::of(0, key_bytes(delta.key.as_str()))) }
}

/// What the encoding of an event takes beside its payload, at the most.
const EVENT_BYTES: usize = 56;

/// Entries, and the head of their log.
fn events<'a>(append: impl Iterator<Item = &'a Append>) -> Growth {
    let one =
        |it: &Append| Growth::of(1, ROW_BYTES + QUEUED_BYTES + EVENT_BYTES + value_len(Some(&it.payload)));
    let entries = append.map(one).fold(Growth::default(), Growth::and);
    if entries.rows == 0 { entries } else { entries.and(Growth::of(1, ROW_BYTES + LOG_BYTES)) }
}

/// Its id says that it was appended before.
fn is_repeated(namespace: &NamespaceState, delta: &Delta, append: &Append) -> bool {
    let (collection, key) = (delta.collection.as_str(), delta.key.as_str());
    let once = append.id.as_ref().map(|id| OnceKey::of_event(collection, key, id.as_str()));
    once.is_some_and(|once| namespace.once.get(once).is_some())
}

fn elements<'a>(names: impl Iterator<Item = &'a str>, beside: usize) -> Growth {
    let one = |name: &str| Growth::of(1, ROW_BYTES + beside + name_bytes(name));
    names.map(one).fold(Growth::default(), Growth::and)
}

/// What a delta adds to what is there.
fn exactly(namespace: &NamespaceState, delta: &Delta, context: &Context<'_>) -> Growth {
    let (collection, key) = (namespace.collection(delta.collection.as_str()), delta.key.as_str());
    let kind = delta.change.kind();
    let known = |element: &str| collection.is_some_and(|it| it.has_element(key, kind, element));
    match &delta.change {
        Change::Set(change) => {
            let new = change.add.iter().map(Element::as_str).filter(|it| !known(it));
            with_key(collection, delta, elements(new, PLACE_BYTES))
        }
        Change::GrowOnlySet(change) => {
            let new = change.add.iter().map(Element::as_str).filter(|it| !known(it));
            with_key(collection, delta, elements(new, PLACE_BYTES))
        }
        Change::RemoveWinsSet(change) => {
            let added = change.add.iter().flat_map(|it| &it.elements);
            let all = added.chain(&change.remove).map(Element::as_str);
            with_key(collection, delta, elements(all.filter(|it| !known(it)), PLACE_BYTES + GUARDED_BYTES))
        }
        Change::Events(change) => {
            let fresh = change.append.iter().filter(|it| !is_repeated(namespace, delta, it));
            with_key(collection, delta, events(fresh))
        }
        Change::Counter(change) if change.amount == 0 && change.once.is_empty() => Growth::default(),
        Change::Presence(change) if change.value.is_none() => Growth::default(),
        Change::Presence(change) => {
            let held = collection.zip(context.author).and_then(|(it, (node, _))| it.presence(key, node));
            let Some(held) = held else { return at_most(delta) };
            let was = held.value.as_ref().map_or(0, |it| it.len());
            Growth::of(0, value_len(change.value.as_ref()).saturating_sub(was))
        }
        Change::Flag(change) if !change.on => Growth::default(),
        Change::Siblings(change) if change.value.is_none() => Growth::default(),
        Change::Counter(_)
        | Change::Register(_)
        | Change::Siblings(_)
        | Change::Flag(_)
        | Change::DisableWinsFlag(_)
        | Change::Max(_)
        | Change::Min(_) => scalar(collection, delta, context),
    }
}

/// With what the key itself takes, if there is none yet.
fn with_key(collection: Option<&Collection>, delta: &Delta, rows: Growth) -> Growth {
    let key = delta.key.as_str();
    let is_new = collection.is_none_or(|it| it.keys().find(key, delta.change.kind()).is_none());
    if rows.rows > 0 && is_new { rows.and(Growth::of(0, key_bytes(key))) } else { rows }
}

/// One row for the key: new, or as much larger as its content becomes.
fn scalar(collection: Option<&Collection>, delta: &Delta, context: &Context<'_>) -> Growth {
    let key = delta.key.as_str();
    let known = collection.filter(|it| it.scalar_id(key, delta.change.kind()).is_some());
    let Some(collection) = known else { return at_most(delta) };
    let content = match &delta.change {
        Change::Register(change) => {
            let was = collection.register(key).and_then(|it| it.value.as_ref()).map_or(0, |it| it.len());
            value_len(change.value.as_ref()).saturating_sub(was)
        }
        Change::Siblings(change) => {
            let was = collection.sibling_bytes(key, Revision::ZERO);
            let left = collection.sibling_bytes(key, context.resolve(change.as_of));
            (left + 24 + value_len(change.value.as_ref())).saturating_sub(was)
        }
        _ => 0,
    };
    Growth::of(0, content)
}

/// How many collections there would be; zero when these deltas make none.
fn new_collections(namespace: &NamespaceState, deltas: &[Delta]) -> u64 {
    let mut new: Vec<&str> = Vec::new();
    let mut last: Option<&str> = None;
    for delta in deltas {
        if !makes_collection(delta) {
            continue;
        }
        let name = delta.collection.as_str();
        if last.replace(name) != Some(name) && namespace.find(name).is_none() {
            new.push(name);
        }
    }
    new.sort_unstable();
    new.dedup();
    if new.is_empty() { 0 } else { (namespace.collections().len() + new.len()) as u64 }
}

/// A collection's name is kept for ever, so what only removes from one that is not there does not make it.
pub(super) fn makes_collection(delta: &Delta) -> bool {
    match &delta.change {
        Change::Counter(change) => change.amount != 0 || !change.once.is_empty(),
        Change::Set(change) => !change.add.is_empty(),
        Change::GrowOnlySet(change) => !change.add.is_empty(),
        Change::Flag(change) => change.on,
        Change::Siblings(change) => change.value.is_some(),
        Change::Events(change) => !change.append.is_empty(),
        Change::Presence(change) => change.value.is_some(),
        // A delete or a remove of what is not there is remembered: it wins over what did not see it.
        Change::Register(_) | Change::DisableWinsFlag(_) | Change::Max(_) | Change::Min(_) => true,
        Change::RemoveWinsSet(change) => !change.add.is_empty() || !change.remove.is_empty(),
    }
}
