//! What a row holds, as it stands in a snapshot.

use dormouse_proto::{
    ids::{Incarnation, NodeId, Revision},
    lattice::{
        Counter, EventsHead, Flag, Max, Min, Presence, Register, RemoveWins, SetElement, Siblings, Type,
    },
    wire::log_v1 as stored,
};

use super::RestoreError;
use crate::state::collection::{EncodedValue, Entry, GuardedElement, Holder, RowBody};
use crate::state::keys::KeyId;

/// Writes what a row holds.
pub(super) fn fill(stored: &mut stored::Row, body: &RowBody) {
    let owned = |value: &[u8]| value.to_vec().into();
    match body {
        RowBody::Vacant => {}
        RowBody::Counter(_, counter) => {
            stored.total = counter.total;
            stored.cut_as_of = counter.cut_as_of.0;
            stored.cut_total = counter.cut_total;
            stored.born = counter.born.0;
        }
        RowBody::Element(_, name, element) => {
            stored.element = name.to_string();
            stored.added = element.added.0;
        }
        RowBody::Register(_, register) => {
            stored.stamp_ms = register.stamp_ms;
            stored.revision = register.revision.0;
            stored.value = register.value.as_deref().map(owned);
        }
        RowBody::Flag(_, flag) => stored.added = flag.switched_on.0,
        RowBody::Max(_, max) => stored.number = max.0,
        RowBody::Min(_, min) => stored.number = min.0,
        RowBody::Siblings(_, siblings) => {
            let sibling = |(at, value): (Revision, &EncodedValue)| stored::row::Sibling {
                revision: at.0,
                value: owned(value),
            };
            stored.siblings = siblings.iter().map(sibling).collect();
        }
        RowBody::Grown(_, name) => stored.element = name.to_string(),
        RowBody::Guarded(_, element) => {
            stored.element = element.name.to_string();
            fill_guarded(stored, &element.state);
        }
        RowBody::GuardedFlag(_, flag) => fill_guarded(stored, flag),
        RowBody::EventsHead(_, head) => {
            stored.trimmed_upto = head.trimmed_upto.0;
            stored.revision = head.appended.0;
            stored.entries = head.entries;
        }
        RowBody::Event(_, entry) => {
            stored.entry = true;
            stored.index = entry.index;
            stored.at_ms = entry.at_ms;
            stored.value = Some(owned(&entry.event));
        }
        RowBody::Presence(_, holder) => {
            stored.node_id = holder.node.0;
            stored.incarnation = holder.state.incarnation.0;
            stored.value = holder.state.value.as_deref().map(owned);
        }
    }
}

fn fill_guarded(stored: &mut stored::Row, state: &RemoveWins) {
    stored.seen = state.seen.map(u64::from);
    stored.removed = state.removed.0;
}

/// Takes back what [`fill`] wrote.
pub(super) fn body(kind: Type, row: &stored::Row, key: KeyId) -> Result<RowBody, RestoreError> {
    Ok(match kind {
        Type::Counter => RowBody::Counter(
            key,
            Counter {
                total: row.total,
                cut_as_of: Revision(row.cut_as_of),
                cut_total: row.cut_total,
                born: Revision(row.born),
            },
        ),
        Type::Set => {
            RowBody::Element(key, row.element.as_str().into(), SetElement { added: Revision(row.added) })
        }
        Type::Register => {
            let (stamp_ms, revision) = (row.stamp_ms, Revision(row.revision));
            RowBody::Register(key, Register { stamp_ms, revision, value: value(row) })
        }
        Type::Flag => RowBody::Flag(key, Flag { switched_on: Revision(row.added) }),
        Type::Max => RowBody::Max(key, Max(row.number)),
        Type::Min => RowBody::Min(key, Min(row.number)),
        Type::Events if row.entry => RowBody::Event(
            key,
            Entry {
                index: row.index,
                at_ms: row.at_ms,
                event: value(row).ok_or(RestoreError::Damaged("an event without content"))?,
            },
        ),
        Type::Events => RowBody::EventsHead(
            key,
            EventsHead {
                trimmed_upto: Revision(row.trimmed_upto),
                appended: Revision(row.revision),
                entries: row.entries,
            },
        ),
        Type::Presence => {
            let state = Presence { incarnation: Incarnation(row.incarnation), value: value(row) };
            RowBody::Presence(key, Box::new(Holder { node: NodeId(row.node_id), state }))
        }
        Type::Siblings => {
            let sibling = |it: &stored::row::Sibling| (Revision(it.revision), owned(&it.value));
            RowBody::Siblings(key, Siblings::from_list(row.siblings.iter().map(sibling).collect()))
        }
        Type::GrowOnlySet => RowBody::Grown(key, row.element.as_str().into()),
        Type::RemoveWinsSet => {
            let name = row.element.as_str().into();
            RowBody::Guarded(key, Box::new(GuardedElement { name, state: guarded(row) }))
        }
        Type::DisableWinsFlag => RowBody::GuardedFlag(key, guarded(row)),
    })
}

fn owned(value: &[u8]) -> EncodedValue {
    value.to_vec().into_boxed_slice()
}

fn value(row: &stored::Row) -> Option<EncodedValue> {
    row.value.as_deref().map(owned)
}

fn guarded(row: &stored::Row) -> RemoveWins {
    RemoveWins { seen: row.seen.map(Revision), removed: Revision(row.removed) }
}
