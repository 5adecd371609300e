//! Deltas: inward with all their checks, outward as the client builds them.

mod outward;
mod values;

use std::collections::HashSet;

use super::{Violation, Violations, bounds};
use crate::{
    ids::{Element, Revision},
    lattice::{Change, CounterDelta, Delta, MAX_AMOUNT, Once, RegisterDelta, Remove, Reset, SetDelta, Value},
    wire::v1,
};

/// Checks the deltas of a push or a write. `path` is how the field is called in messages: `push.deltas`.
///
/// # Errors
/// Every field that breaks a rule, up to [`Violations::NAMED`].
pub fn deltas_from_wire(deltas: Vec<v1::Delta>, path: &str) -> Result<Vec<Delta>, Violations> {
    if deltas.len() > bounds::DELTAS {
        return Err(Violation::too_large(path, deltas.len(), bounds::DELTAS, "deltas").into());
    }
    let mut wrong = Violations::default();
    let checked: Vec<Option<Delta>> = deltas
        .into_iter()
        .enumerate()
        .map(|(nth, delta)| delta_from_wire(delta, &At { path, nth }, &mut wrong))
        .collect();
    let rows: usize = checked.iter().flatten().map(|delta| delta.change.rows()).sum();
    if rows > bounds::ROWS {
        wrong.add(Violation::too_large(path, rows, bounds::ROWS, "rows"));
    }
    check_distinct(&checked, path, &mut wrong);
    let all = checked.into_iter().collect();
    wrong.into_result(all)
}

/// A delta's place in messages; formatted only when something is wrong with it.
struct At<'a> {
    path: &'a str,
    nth: usize,
}

impl At<'_> {
    fn field(&self, rest: impl std::fmt::Display) -> String {
        format!("{}[{}].{rest}", self.path, self.nth)
    }
}

fn check_distinct(deltas: &[Option<Delta>], path: &str, wrong: &mut Violations) {
    if deltas.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(deltas.len());
    for (nth, delta) in deltas.iter().enumerate() {
        let Some(delta) = delta else { continue };
        if !seen.insert((delta.collection.as_str(), delta.key.as_str(), delta.change.kind())) {
            let twice = "a push holds at most one delta for each collection, key and type";
            wrong.add(Violation::new(format!("{path}[{nth}]"), twice));
        }
    }
}

fn delta_from_wire(delta: v1::Delta, at: &At<'_>, wrong: &mut Violations) -> Option<Delta> {
    use v1::delta::Change as Wire;
    let v1::Delta { collection, key, change } = delta;
    let collection = wrong.check(|| at.field("collection"), collection.try_into());
    let key = wrong.check(|| at.field("key"), key.try_into());
    let change = match change {
        Some(Wire::Counter(change)) => counter_from_wire(change, at, wrong).map(Change::Counter),
        Some(Wire::Set(change)) => set_from_wire(change, at, wrong).map(Change::Set),
        Some(Wire::Register(change)) => register_from_wire(change, at, wrong).map(Change::Register),
        Some(Wire::Flag(change)) => Some(Change::Flag(values::flag(change))),
        Some(Wire::Max(v1::NumberDelta { value })) => Some(Change::Max(value)),
        Some(Wire::Min(v1::NumberDelta { value })) => Some(Change::Min(value)),
        Some(Wire::Events(change)) => values::events(change, at, wrong).map(Change::Events),
        Some(Wire::Presence(change)) => values::presence(change, at, wrong).map(Change::Presence),
        Some(Wire::Siblings(change)) => values::siblings(change, at, wrong).map(Change::Siblings),
        Some(Wire::GrowOnlySet(change)) => values::grow_only_set(change, at, wrong).map(Change::GrowOnlySet),
        Some(Wire::RemoveWinsSet(change)) => {
            values::remove_wins_set(change, at, wrong).map(Change::RemoveWinsSet)
        }
        Some(Wire::DisableWinsFlag(change)) => Some(Change::DisableWinsFlag(values::flag(change))),
        None => {
            wrong.add(Violation::new(at.field("change"), "this relay does not know this type"));
            None
        }
    };
    Some(Delta { collection: collection?, key: key?, change: change? })
}

fn counter_from_wire(delta: v1::CounterDelta, at: &At<'_>, wrong: &mut Violations) -> Option<CounterDelta> {
    let v1::CounterDelta { reset, add, subtract, once } = delta;
    let too_much = |amount: u64| amount > MAX_AMOUNT;
    let rule = "an amount is at most 2^48";
    if too_much(add) {
        wrong.add(Violation::new(at.field("counter.add"), rule));
    }
    if too_much(subtract) {
        wrong.add(Violation::new(at.field("counter.subtract"), rule));
    }
    if once.len() > bounds::ONCE {
        wrong.add(Violation::too_large(at.field("counter.once"), once.len(), bounds::ONCE, "ids"));
        return None;
    }
    if let Some(nth) = once.iter().position(|it| too_much(it.amount.unsigned_abs())) {
        wrong.add(Violation::new(at.field(format_args!("counter.once[{nth}].amount")), rule));
    }
    let once: Option<Vec<Once>> = once
        .into_iter()
        .enumerate()
        .map(|(nth, v1::counter_delta::Once { id, amount })| {
            let id = wrong.check(|| at.field(format_args!("counter.once[{nth}].id")), id.try_into())?;
            Some(Once { id, amount })
        })
        .collect();
    let reset =
        reset.map(|v1::counter_delta::Reset { as_of, total }| Reset { as_of: as_of.map(Revision), total });
    let signed = |amount: u64| i64::try_from(amount).ok();
    Some(CounterDelta { reset, amount: signed(add)? - signed(subtract)?, once: once? })
}

fn set_from_wire(delta: v1::SetDelta, at: &At<'_>, wrong: &mut Violations) -> Option<SetDelta> {
    let v1::SetDelta { add, remove } = delta;
    let add = elements(add, |nth| at.field(format_args!("set.add[{nth}]")), wrong);
    let remove: Option<Vec<Remove>> = remove
        .into_iter()
        .enumerate()
        .map(|(group, v1::set_delta::Remove { elements: names, as_of })| {
            let field = |nth| at.field(format_args!("set.remove[{group}].elements[{nth}]"));
            Some(Remove { elements: elements(names, field, wrong)?, as_of: as_of.map(Revision) })
        })
        .collect();
    let delta = SetDelta { add: add?, remove: remove? };
    let all = delta.add.iter().chain(delta.remove.iter().flat_map(|it| &it.elements));
    no_name_twice(all, "set", at, wrong)?;
    Some(delta)
}

fn no_name_twice<'a>(
    mut all: impl Iterator<Item = &'a Element>,
    field: &str,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<()> {
    // Most deltas name one element, which needs no table.
    let Some(first) = all.next() else { return Some(()) };
    let mut seen = HashSet::new();
    if all.any(|element| element == first || !seen.insert(element.as_str())) {
        wrong.add(Violation::new(at.field(field), "an element stands at most once in a delta"));
        return None;
    }
    Some(())
}

fn elements(
    names: Vec<String>,
    field: impl Fn(usize) -> String,
    wrong: &mut Violations,
) -> Option<Vec<Element>> {
    names.into_iter().enumerate().map(|(nth, name)| wrong.check(|| field(nth), name.try_into())).collect()
}

fn register_from_wire(
    delta: v1::RegisterDelta,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<RegisterDelta> {
    let v1::RegisterDelta { value, stamp_ms, as_of } = delta;
    let value = values::optional_value(value, "register.value", at, wrong)?;
    Some(RegisterDelta { value, stamp_ms, as_of: as_of.map(Revision) })
}

/// Checks the content of a register.
///
/// # Errors
/// When it has no kind, or is larger than [`Value::MAX_BYTES`].
pub fn value_from_wire(value: v1::Value, field: impl Fn() -> String) -> Result<Value, Violation> {
    let value = Value::try_from(value).map_err(|NoKind| Violation::new(field(), "neither text nor data"))?;
    if value.len() > Value::MAX_BYTES {
        return Err(Violation::too_large(field(), value.len(), Value::MAX_BYTES, "bytes"));
    }
    Ok(value)
}

/// A `Value` that says neither text nor data, or something that this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKind;

impl TryFrom<v1::Value> for Value {
    type Error = NoKind;

    fn try_from(value: v1::Value) -> Result<Self, NoKind> {
        match value.kind {
            Some(v1::value::Kind::Text(text)) => Ok(Self::Text(text)),
            Some(v1::value::Kind::Data(data)) => Ok(Self::Data(data.into())),
            None => Err(NoKind),
        }
    }
}

impl From<Value> for v1::Value {
    fn from(value: Value) -> Self {
        let kind = match value {
            Value::Text(text) => v1::value::Kind::Text(text),
            Value::Data(data) => v1::value::Kind::Data(data.into()),
        };
        Self { kind: Some(kind) }
    }
}
