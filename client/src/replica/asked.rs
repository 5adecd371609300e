//! What an acknowledgement leaves out: the rows that are exactly what their delta asked for.

use dormouse_proto::{
    ids::{Element, Incarnation, NodeId},
    lattice::{Change, Delta, FlagDelta, PresenceDelta, RegisterDelta, RemoveWinsSetDelta, SetDelta},
};

use super::message::{HolderRow, KeyRows, Rows};

fn texts<'a>(elements: impl IntoIterator<Item = &'a Element>) -> Vec<String> {
    elements.into_iter().map(|element| element.as_str().to_owned()).collect()
}

/// The rows that a delta of that node asked for; `None`: the relay always names them.
pub(super) fn asked_for(delta: &Delta, node: Option<(NodeId, Incarnation)>) -> Option<KeyRows> {
    let rows = match &delta.change {
        // What they become depends on what was there, or on where they were bound.
        Change::Counter(_) | Change::Siblings(_) | Change::Events(_) => return None,
        Change::Set(SetDelta { add, remove }) => Rows::Set {
            present: texts(add),
            removed: texts(remove.iter().flat_map(|remove| &remove.elements)),
        },
        Change::GrowOnlySet(set) => Rows::GrowOnlySet { present: texts(&set.add), removed: Vec::new() },
        Change::RemoveWinsSet(RemoveWinsSetDelta { add, remove }) => Rows::RemoveWinsSet {
            present: texts(add.iter().flat_map(|add| &add.elements)),
            removed: texts(remove),
        },
        Change::Register(RegisterDelta { value, stamp_ms, .. }) => {
            Rows::Register { value: value.clone(), stamp_ms: *stamp_ms }
        }
        Change::Flag(FlagDelta { on, .. }) => Rows::Flag { on: *on },
        Change::DisableWinsFlag(FlagDelta { on, .. }) => Rows::DisableWinsFlag { on: *on },
        Change::Max(value) => Rows::Max { value: Some(*value) },
        Change::Min(value) => Rows::Min { value: Some(*value) },
        Change::Presence(PresenceDelta { value }) => {
            let (node, incarnation) = node?;
            Rows::Presence { holders: vec![HolderRow { node, incarnation, value: value.clone() }] }
        }
    };
    let (collection, key) = (delta.collection.as_str().to_owned(), delta.key.as_str().to_owned());
    Some(KeyRows { collection, key, rows })
}
