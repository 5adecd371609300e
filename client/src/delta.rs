//! Deltas as a back end writes them: without a context, so they mean whatever is there when the log accepts them.
//!
//! ```
//! use dormouse::delta;
//! let path = "ads/shown".parse()?;
//! let deltas = vec![delta::counter_add(&path, 3), delta::set_add(&path, ["a".parse().unwrap()])];
//! assert_eq!(deltas[0].change.kind().name(), "counter");
//! # Ok::<(), dormouse::WriteError>(())
//! ```
//!
//! A presence is none of them: it is held up by a node, for as long as that is a member.

use dormouse_proto::{
    ids::{Element, OnceId, Revision},
    lattice::{
        Append, Change, CounterDelta, Delta, EventsDelta, FlagDelta, GrowOnlySetDelta, GuardedAdd, Once,
        RegisterDelta, Remove, RemoveWinsSetDelta, Reset, SetDelta, SiblingsDelta, Value,
    },
};

use crate::replica::Path;

fn delta(path: &Path, change: Change) -> Delta {
    Delta { collection: path.collection.clone(), key: path.key.clone(), change }
}

/// Adds to a counter; negative amounts subtract. At most 2^48 either way.
pub fn counter_add(path: &Path, amount: i64) -> Delta {
    let change = CounterDelta { amount, ..CounterDelta::default() };
    delta(path, Change::Counter(change))
}

/// Adds to a counter once per `id`.
pub fn counter_add_once(path: &Path, id: OnceId, amount: i64) -> Delta {
    let change = CounterDelta { once: vec![Once { id, amount }], ..CounterDelta::default() };
    delta(path, Change::Counter(change))
}

/// Resets a counter.
pub fn counter_reset(path: &Path) -> Delta {
    let change = CounterDelta { reset: Some(Reset { as_of: None, total: 0 }), ..CounterDelta::default() };
    delta(path, Change::Counter(change))
}

/// Adds elements to a set.
pub fn set_add(path: &Path, elements: impl IntoIterator<Item = Element>) -> Delta {
    let change = SetDelta { add: elements.into_iter().collect(), remove: Vec::new() };
    delta(path, Change::Set(change))
}

/// Removes elements from a set.
pub fn set_remove(path: &Path, elements: impl IntoIterator<Item = Element>) -> Delta {
    let elements = elements.into_iter().collect();
    let change = SetDelta { add: Vec::new(), remove: vec![Remove { elements, as_of: None }] };
    delta(path, Change::Set(change))
}

/// Writes a register, at the log's own time; `None` deletes it.
pub fn register_set(path: &Path, value: Option<Value>) -> Delta {
    let change = RegisterDelta { value, stamp_ms: 0, as_of: None };
    delta(path, Change::Register(change))
}

/// Switches a flag in which an on wins.
pub fn flag_set(path: &Path, on: bool) -> Delta {
    delta(path, Change::Flag(FlagDelta { on, as_of: None }))
}

/// Switches a flag in which an off wins.
pub fn disable_wins_flag_set(path: &Path, on: bool) -> Delta {
    delta(path, Change::DisableWinsFlag(FlagDelta { on, as_of: None }))
}

/// Offers a number to a maximum.
pub fn max_offer(path: &Path, number: i64) -> Delta {
    delta(path, Change::Max(number))
}

/// Offers a number to a minimum.
pub fn min_offer(path: &Path, number: i64) -> Delta {
    delta(path, Change::Min(number))
}

/// Appends entries to a log of events, at most 500.
pub fn events_append(path: &Path, entries: impl IntoIterator<Item = Append>) -> Delta {
    let append = entries.into_iter().collect();
    delta(path, Change::Events(EventsDelta { append, ..EventsDelta::default() }))
}

/// Drops the entries of a log of events up to that revision.
pub fn events_trim(path: &Path, upto: Revision) -> Delta {
    delta(path, Change::Events(EventsDelta { trim_upto: upto, ..EventsDelta::default() }))
}

/// Puts a value in the place of all siblings that are there; `None` only takes those away.
pub fn siblings_set(path: &Path, value: Option<Value>) -> Delta {
    delta(path, Change::Siblings(SiblingsDelta { value, as_of: None }))
}

/// Adds elements to a set that only grows.
pub fn grow_only_set_add(path: &Path, elements: impl IntoIterator<Item = Element>) -> Delta {
    let add = elements.into_iter().collect();
    delta(path, Change::GrowOnlySet(GrowOnlySetDelta { add }))
}

/// Adds elements to a set in which a remove wins.
pub fn remove_wins_set_add(path: &Path, elements: impl IntoIterator<Item = Element>) -> Delta {
    let add = vec![GuardedAdd { elements: elements.into_iter().collect(), as_of: None }];
    delta(path, Change::RemoveWinsSet(RemoveWinsSetDelta { add, remove: Vec::new() }))
}

/// Removes elements from a set in which a remove wins.
pub fn remove_wins_set_remove(path: &Path, elements: impl IntoIterator<Item = Element>) -> Delta {
    let remove = elements.into_iter().collect();
    delta(path, Change::RemoveWinsSet(RemoveWinsSetDelta { add: Vec::new(), remove }))
}
