//! Looks ahead at the rows that the next records will touch, so that the memory is there when they are applied.
//!
//! Applying a delta to one of millions of rows takes three loads that each miss the cache and each wait for the one
//! before. Across many deltas the same loads are independent: done step by step for all of them, the processor has many
//! under way at once. Nothing here has a result.

use std::hint::black_box;

use dormouse_proto::{
    ids::Element,
    lattice::{Change, Delta},
    record::Record,
};

use super::{Fold, collection::Collection, keys::KeyId, namespace::NamespaceState, rows::RowId};

/// Deltas that are looked at together: their rows must not push each other out of the cache again.
const WINDOW: usize = 128;

/// One row to come.
struct Ahead<'a> {
    collection: &'a Collection,
    delta: &'a Delta,
    hash: u64,
    key: Option<KeyId>,
}

impl Fold {
    /// Touches the memory that the first of these records need. Returns how many records that were.
    pub(super) fn look_ahead(&self, records: &[Record]) -> usize {
        let mut ahead: Vec<Ahead<'_>> = Vec::with_capacity(WINDOW);
        let (mut looked_at, mut deltas_of_all) = (0, 0);
        for record in records {
            if deltas_of_all >= WINDOW || looked_at >= WINDOW {
                break;
            }
            looked_at += 1;
            let (namespace, deltas) = match record {
                Record::Push(push) => (&push.namespace, &push.deltas),
                Record::Write(write) => (&write.namespace, &write.deltas),
                _ => continue,
            };
            deltas_of_all += deltas.len();
            if let Some(number) = self.names.get(namespace) {
                hash_keys(&self.namespaces[*number], deltas, &mut ahead);
            }
        }
        for it in &mut ahead {
            it.key = it.collection.keys().guess(it.hash);
        }
        let mut rows: Vec<(&Collection, Option<RowId>, u64)> = Vec::with_capacity(ahead.len());
        for it in &ahead {
            guess_rows(it, &mut rows);
        }
        for (collection, row, hash) in &mut rows {
            if row.is_none() {
                *row = collection.guess_element(*hash);
            }
        }
        let touched = rows.iter().filter_map(|(collection, row, _)| collection.touch((*row)?));
        black_box(touched.fold(0, u64::wrapping_add));
        looked_at
    }
}

fn hash_keys<'a>(namespace: &'a NamespaceState, deltas: &'a [Delta], ahead: &mut Vec<Ahead<'a>>) {
    for delta in deltas {
        if let Some(collection) = namespace.collection(delta.collection.as_str()) {
            let hash = collection.keys().hash((delta.change.kind(), delta.key.as_str()));
            ahead.push(Ahead { collection, delta, hash, key: None });
        }
    }
}

/// The only row of a key; of a set of any kind the hashes by which its elements are found.
fn guess_rows<'a>(it: &Ahead<'a>, rows: &mut Vec<(&'a Collection, Option<RowId>, u64)>) {
    let Some(key) = it.key else { return };
    let (collection, keys) = (it.collection, it.collection.keys());
    let mut elements = |names: &mut dyn Iterator<Item = &Element>| {
        rows.extend(names.map(|element| (collection, None, keys.hash((key, element.as_str())))));
    };
    match &it.delta.change {
        Change::Set(set) => {
            elements(&mut set.add.iter().chain(set.remove.iter().flat_map(|remove| &remove.elements)));
        }
        Change::GrowOnlySet(set) => elements(&mut set.add.iter()),
        Change::RemoveWinsSet(set) => {
            elements(&mut set.remove.iter().chain(set.add.iter().flat_map(|add| &add.elements)));
        }
        _ => {
            let scalar = keys.entry(key).scalar;
            if scalar.is_some() {
                rows.push((collection, scalar, 0));
            }
        }
    }
}
