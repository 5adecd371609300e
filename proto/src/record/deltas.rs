//! Deltas between their domain form and the stored one.

use super::{Unreadable, stored::required_value};
use crate::{
    ids::{Element, InvalidName, OnceId, Revision},
    lattice::{
        Append, Change, CounterDelta, Delta, EventsDelta, FlagDelta, GrowOnlySetDelta, GuardedAdd, Once,
        PresenceDelta, RegisterDelta, Remove, RemoveWinsSetDelta, Reset, SetDelta, SiblingsDelta, Value,
    },
    wire::log_v1 as stored,
};

impl From<Value> for stored::Value {
    fn from(value: Value) -> Self {
        let kind = match value {
            Value::Text(text) => stored::value::Kind::Text(text),
            Value::Data(data) => stored::value::Kind::Data(data.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<stored::Value> for Value {
    type Error = Unreadable;

    fn try_from(value: stored::Value) -> Result<Self, Unreadable> {
        match value.kind {
            Some(stored::value::Kind::Text(text)) => Ok(Self::Text(text)),
            Some(stored::value::Kind::Data(data)) => Ok(Self::Data(data.into())),
            None => Err(Unreadable::UnknownKind),
        }
    }
}

fn texts(elements: Vec<Element>) -> Vec<String> {
    elements.into_iter().map(Into::into).collect()
}

fn elements(names: Vec<String>) -> Result<Vec<Element>, InvalidName> {
    names.into_iter().map(TryInto::try_into).collect()
}

impl From<Delta> for stored::Delta {
    fn from(Delta { collection, key, change }: Delta) -> Self {
        use stored::delta::Change as Stored;
        let change = match change {
            Change::Counter(CounterDelta { reset, amount, once }) => Stored::Counter(stored::CounterDelta {
                reset: reset.is_some(),
                reset_as_of: reset.and_then(|it| it.as_of).map(u64::from),
                reset_total: reset.map_or(0, |it| it.total),
                amount,
                once: once
                    .into_iter()
                    .map(|Once { id, amount }| stored::counter_delta::Once { id: id.into(), amount })
                    .collect(),
            }),
            Change::Set(SetDelta { add, remove }) => Stored::Set(stored::SetDelta {
                add: texts(add),
                remove: remove
                    .into_iter()
                    .map(|Remove { elements, as_of }| stored::set_delta::Remove {
                        elements: texts(elements),
                        as_of: as_of.map(u64::from),
                    })
                    .collect(),
            }),
            Change::Register(RegisterDelta { value, stamp_ms, as_of }) => {
                Stored::Register(stored::RegisterDelta {
                    value: value.map(|it| match it {
                        Value::Text(text) => stored::register_delta::Value::Text(text),
                        Value::Data(data) => stored::register_delta::Value::Data(data.into()),
                    }),
                    stamp_ms,
                    as_of: as_of.map(u64::from),
                })
            }
            Change::Flag(flag) => Stored::Flag(flag.into()),
            Change::Max(value) => Stored::Max(value),
            Change::Min(value) => Stored::Min(value),
            Change::Events(events) => Stored::Events(events.into()),
            Change::Presence(PresenceDelta { value }) => {
                Stored::Presence(stored::PresenceDelta { value: value.map(Into::into) })
            }
            Change::Siblings(SiblingsDelta { value, as_of }) => Stored::Siblings(stored::SiblingsDelta {
                value: value.map(Into::into),
                as_of: as_of.map(u64::from),
            }),
            Change::GrowOnlySet(GrowOnlySetDelta { add }) => {
                Stored::GrowOnlySet(stored::Elements { elements: texts(add) })
            }
            Change::RemoveWinsSet(set) => Stored::RemoveWinsSet(set.into()),
            Change::DisableWinsFlag(flag) => Stored::DisableWinsFlag(flag.into()),
        };
        Self { collection: collection.into(), key: key.into(), change: Some(change) }
    }
}

impl TryFrom<stored::Delta> for Delta {
    type Error = Unreadable;

    fn try_from(delta: stored::Delta) -> Result<Self, Unreadable> {
        use stored::delta::Change as Stored;
        let change = match delta.change.ok_or(Unreadable::UnknownKind)? {
            Stored::Counter(counter) => Change::Counter(counter.try_into()?),
            Stored::Set(set) => Change::Set(set.try_into()?),
            Stored::Register(stored::RegisterDelta { value, stamp_ms, as_of }) => {
                Change::Register(RegisterDelta {
                    value: value.map(|it| match it {
                        stored::register_delta::Value::Text(text) => Value::Text(text),
                        stored::register_delta::Value::Data(data) => Value::Data(data.into()),
                    }),
                    stamp_ms,
                    as_of: as_of.map(Revision),
                })
            }
            Stored::Flag(flag) => Change::Flag(flag.into()),
            Stored::Max(value) => Change::Max(value),
            Stored::Min(value) => Change::Min(value),
            Stored::Events(events) => Change::Events(events.try_into()?),
            Stored::Presence(stored::PresenceDelta { value }) => {
                Change::Presence(PresenceDelta { value: value.map(TryInto::try_into).transpose()? })
            }
            Stored::Siblings(stored::SiblingsDelta { value, as_of }) => Change::Siblings(SiblingsDelta {
                value: value.map(TryInto::try_into).transpose()?,
                as_of: as_of.map(Revision),
            }),
            Stored::GrowOnlySet(set) => {
                Change::GrowOnlySet(GrowOnlySetDelta { add: elements(set.elements)? })
            }
            Stored::RemoveWinsSet(set) => Change::RemoveWinsSet(set.try_into()?),
            Stored::DisableWinsFlag(flag) => Change::DisableWinsFlag(flag.into()),
        };
        Ok(Self { collection: delta.collection.try_into()?, key: delta.key.try_into()?, change })
    }
}

impl TryFrom<stored::CounterDelta> for CounterDelta {
    type Error = Unreadable;

    fn try_from(delta: stored::CounterDelta) -> Result<Self, Unreadable> {
        let stored::CounterDelta { reset, reset_as_of, reset_total, amount, once } = delta;
        Ok(Self {
            reset: reset.then_some(Reset { as_of: reset_as_of.map(Revision), total: reset_total }),
            amount,
            once: once
                .into_iter()
                .map(|it| Ok(Once { id: it.id.try_into()?, amount: it.amount }))
                .collect::<Result<_, InvalidName>>()?,
        })
    }
}

impl TryFrom<stored::SetDelta> for SetDelta {
    type Error = Unreadable;

    fn try_from(delta: stored::SetDelta) -> Result<Self, Unreadable> {
        Ok(Self {
            add: elements(delta.add)?,
            remove: delta
                .remove
                .into_iter()
                .map(|it| Ok(Remove { elements: elements(it.elements)?, as_of: it.as_of.map(Revision) }))
                .collect::<Result<_, InvalidName>>()?,
        })
    }
}

impl From<FlagDelta> for stored::FlagDelta {
    fn from(FlagDelta { on, as_of }: FlagDelta) -> Self {
        Self { on, as_of: as_of.map(u64::from) }
    }
}

impl From<stored::FlagDelta> for FlagDelta {
    fn from(stored::FlagDelta { on, as_of }: stored::FlagDelta) -> Self {
        Self { on, as_of: as_of.map(Revision) }
    }
}

impl From<EventsDelta> for stored::EventsDelta {
    fn from(EventsDelta { append, trim_upto }: EventsDelta) -> Self {
        let event = |Append { payload, id }| stored::events_delta::Append {
            payload: Some(payload.into()),
            id: id.map_or_else(String::new, Into::into),
        };
        Self { append: append.into_iter().map(event).collect(), trim_upto: trim_upto.0 }
    }
}

impl TryFrom<stored::EventsDelta> for EventsDelta {
    type Error = Unreadable;

    fn try_from(stored::EventsDelta { append, trim_upto }: stored::EventsDelta) -> Result<Self, Unreadable> {
        let event = |stored::events_delta::Append { payload, id }| -> Result<Append, Unreadable> {
            let id = if id.is_empty() { None } else { Some(OnceId::try_from(id)?) };
            Ok(Append { payload: required_value(payload)?, id })
        };
        let append = append.into_iter().map(event).collect::<Result<_, _>>()?;
        Ok(Self { append, trim_upto: Revision(trim_upto) })
    }
}

impl From<RemoveWinsSetDelta> for stored::RemoveWinsSetDelta {
    fn from(RemoveWinsSetDelta { add, remove }: RemoveWinsSetDelta) -> Self {
        let group = |GuardedAdd { elements, as_of }| stored::remove_wins_set_delta::Add {
            elements: texts(elements),
            as_of: as_of.map(u64::from),
        };
        Self { add: add.into_iter().map(group).collect(), remove: texts(remove) }
    }
}

impl TryFrom<stored::RemoveWinsSetDelta> for RemoveWinsSetDelta {
    type Error = Unreadable;

    fn try_from(delta: stored::RemoveWinsSetDelta) -> Result<Self, Unreadable> {
        let group = |it: stored::remove_wins_set_delta::Add| {
            Ok(GuardedAdd { elements: elements(it.elements)?, as_of: it.as_of.map(Revision) })
        };
        Ok(Self {
            add: delta.add.into_iter().map(group).collect::<Result<_, InvalidName>>()?,
            remove: elements(delta.remove)?,
        })
    }
}
