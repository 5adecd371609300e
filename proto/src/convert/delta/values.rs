//! The changes of the types beside counter, set and register, checked.

use super::{At, elements, no_name_twice, value_from_wire};
use crate::{
    convert::{Violation, Violations},
    ids::{OnceId, Revision},
    lattice::{
        Append, EventsDelta, FlagDelta, GrowOnlySetDelta, GuardedAdd, PresenceDelta, RemoveWinsSetDelta,
        SiblingsDelta, Value,
    },
    wire::v1,
};

pub(super) fn flag(delta: v1::FlagDelta) -> FlagDelta {
    let v1::FlagDelta { on, as_of } = delta;
    FlagDelta { on, as_of: as_of.map(Revision) }
}

pub(super) fn events(delta: v1::EventsDelta, at: &At<'_>, wrong: &mut Violations) -> Option<EventsDelta> {
    let v1::EventsDelta { append, trim_upto } = delta;
    if append.len() > EventsDelta::MAX {
        let field = at.field("events.append");
        wrong.add(Violation::too_large(field, append.len(), EventsDelta::MAX, "events"));
        return None;
    }
    let append: Option<Vec<Append>> =
        append.into_iter().enumerate().map(|(nth, it)| event(it, nth, at, wrong)).collect();
    Some(EventsDelta { append: append?, trim_upto: Revision(trim_upto) })
}

fn event(
    append: v1::events_delta::Append,
    nth: usize,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<Append> {
    let v1::events_delta::Append { payload, id } = append;
    let field = |name: &str| at.field(format_args!("events.append[{nth}].{name}"));
    let Some(payload) = payload else {
        wrong.add(Violation::new(field("payload"), "required"));
        return None;
    };
    let payload = match value_from_wire(payload, || field("payload")) {
        Ok(payload) => payload,
        Err(violation) => {
            wrong.add(violation);
            return None;
        }
    };
    let id = if id.is_empty() { None } else { Some(wrong.check(|| field("id"), OnceId::try_from(id))?) };
    Some(Append { payload, id })
}

pub(super) fn presence(
    delta: v1::PresenceDelta,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<PresenceDelta> {
    let v1::PresenceDelta { value } = delta;
    Some(PresenceDelta { value: optional_value(value, "presence.value", at, wrong)? })
}

pub(super) fn siblings(
    delta: v1::SiblingsDelta,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<SiblingsDelta> {
    let v1::SiblingsDelta { value, as_of } = delta;
    let value = optional_value(value, "siblings.value", at, wrong)?;
    Some(SiblingsDelta { value, as_of: as_of.map(Revision) })
}

/// The outer `None`: wrong; the inner one: absent.
#[expect(clippy::option_option, reason = "the outer one: wrong; the inner one: absent")]
pub(super) fn optional_value(
    value: Option<v1::Value>,
    field: &str,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<Option<Value>> {
    match value.map(|value| value_from_wire(value, || at.field(field))) {
        None => Some(None),
        Some(Ok(value)) => Some(Some(value)),
        Some(Err(violation)) => {
            wrong.add(violation);
            None
        }
    }
}

pub(super) fn grow_only_set(
    delta: v1::GrowOnlySetDelta,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<GrowOnlySetDelta> {
    let v1::GrowOnlySetDelta { add } = delta;
    let add = elements(add, |nth| at.field(format_args!("grow_only_set.add[{nth}]")), wrong)?;
    no_name_twice(add.iter(), "grow_only_set", at, wrong)?;
    Some(GrowOnlySetDelta { add })
}

pub(super) fn remove_wins_set(
    delta: v1::RemoveWinsSetDelta,
    at: &At<'_>,
    wrong: &mut Violations,
) -> Option<RemoveWinsSetDelta> {
    let v1::RemoveWinsSetDelta { add, remove } = delta;
    let remove = elements(remove, |nth| at.field(format_args!("remove_wins_set.remove[{nth}]")), wrong);
    let add: Option<Vec<GuardedAdd>> = add
        .into_iter()
        .enumerate()
        .map(|(group, v1::remove_wins_set_delta::Add { elements: names, as_of })| {
            let field = |nth| at.field(format_args!("remove_wins_set.add[{group}].elements[{nth}]"));
            Some(GuardedAdd { elements: elements(names, field, wrong)?, as_of: as_of.map(Revision) })
        })
        .collect();
    let delta = RemoveWinsSetDelta { add: add?, remove: remove? };
    let all = delta.remove.iter().chain(delta.add.iter().flat_map(|it| &it.elements));
    no_name_twice(all, "remove_wins_set", at, wrong)?;
    Some(delta)
}
