//! Deltas as the client sends them.

use crate::{
    lattice::{
        Append, Change, CounterDelta, Delta, EventsDelta, FlagDelta, GrowOnlySetDelta, GuardedAdd, Once,
        PresenceDelta, RegisterDelta, Remove, RemoveWinsSetDelta, Reset, SetDelta, SiblingsDelta,
    },
    wire::v1,
};

impl From<Delta> for v1::Delta {
    fn from(Delta { collection, key, change }: Delta) -> Self {
        use v1::delta::Change as Wire;
        let change = match change {
            Change::Counter(delta) => Wire::Counter(delta.into()),
            Change::Set(delta) => Wire::Set(delta.into()),
            Change::Register(RegisterDelta { value, stamp_ms, as_of }) => Wire::Register(v1::RegisterDelta {
                value: value.map(Into::into),
                stamp_ms,
                as_of: as_of.map(u64::from),
            }),
            Change::Flag(delta) => Wire::Flag(delta.into()),
            Change::Max(value) => Wire::Max(v1::NumberDelta { value }),
            Change::Min(value) => Wire::Min(v1::NumberDelta { value }),
            Change::Events(delta) => Wire::Events(delta.into()),
            Change::Presence(PresenceDelta { value }) => {
                Wire::Presence(v1::PresenceDelta { value: value.map(Into::into) })
            }
            Change::Siblings(SiblingsDelta { value, as_of }) => Wire::Siblings(v1::SiblingsDelta {
                value: value.map(Into::into),
                as_of: as_of.map(u64::from),
            }),
            Change::GrowOnlySet(GrowOnlySetDelta { add }) => {
                Wire::GrowOnlySet(v1::GrowOnlySetDelta { add: add.into_iter().map(Into::into).collect() })
            }
            Change::RemoveWinsSet(delta) => Wire::RemoveWinsSet(delta.into()),
            Change::DisableWinsFlag(delta) => Wire::DisableWinsFlag(delta.into()),
        };
        Self { collection: collection.into(), key: key.into(), change: Some(change) }
    }
}

impl From<CounterDelta> for v1::CounterDelta {
    fn from(CounterDelta { reset, amount, once }: CounterDelta) -> Self {
        Self {
            reset: reset.map(|Reset { as_of, total }| v1::counter_delta::Reset {
                as_of: as_of.map(u64::from),
                total,
            }),
            add: u64::try_from(amount).unwrap_or(0),
            subtract: if amount < 0 { amount.unsigned_abs() } else { 0 },
            once: once
                .into_iter()
                .map(|Once { id, amount }| v1::counter_delta::Once { id: id.into(), amount })
                .collect(),
        }
    }
}

impl From<SetDelta> for v1::SetDelta {
    fn from(SetDelta { add, remove }: SetDelta) -> Self {
        let group = |Remove { elements, as_of }| v1::set_delta::Remove {
            elements: Vec::into_iter(elements).map(Into::into).collect(),
            as_of: as_of.map(u64::from),
        };
        Self {
            add: add.into_iter().map(Into::into).collect(),
            remove: remove.into_iter().map(group).collect(),
        }
    }
}

impl From<FlagDelta> for v1::FlagDelta {
    fn from(FlagDelta { on, as_of }: FlagDelta) -> Self {
        Self { on, as_of: as_of.map(u64::from) }
    }
}

impl From<EventsDelta> for v1::EventsDelta {
    fn from(EventsDelta { append, trim_upto }: EventsDelta) -> Self {
        let event = |Append { payload, id }| v1::events_delta::Append {
            payload: Some(payload.into()),
            id: id.map_or_else(String::new, Into::into),
        };
        Self { append: append.into_iter().map(event).collect(), trim_upto: trim_upto.0 }
    }
}

impl From<RemoveWinsSetDelta> for v1::RemoveWinsSetDelta {
    fn from(RemoveWinsSetDelta { add, remove }: RemoveWinsSetDelta) -> Self {
        let group = |GuardedAdd { elements, as_of }| v1::remove_wins_set_delta::Add {
            elements: Vec::into_iter(elements).map(Into::into).collect(),
            as_of: as_of.map(u64::from),
        };
        Self {
            add: add.into_iter().map(group).collect(),
            remove: remove.into_iter().map(Into::into).collect(),
        }
    }
}
