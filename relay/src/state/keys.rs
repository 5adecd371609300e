//! The names of a collection's keys, each once, and where to find the row of a name.

use std::hash::{BuildHasher as _, Hash};

use compact_str::CompactString;
use dormouse_proto::lattice::Type;
use foldhash::quality::RandomState;

use super::{
    places::Places,
    rows::{Blocks, RowId},
};

/// The place of a key within its collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyId(pub(super) u32);

/// One key of a collection.
#[derive(Clone, Debug)]
pub(super) struct KeyEntry {
    pub(super) name: CompactString,
    pub(super) kind: Type,
    /// The only row of a type that has but one, or the head of a log of events.
    pub(super) scalar: Option<RowId>,
    /// Rows of this key; a key without rows is forgotten.
    pub(super) rows: u32,
}

/// The keys of a collection.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    entries: Blocks<KeyEntry, 1024>,
    free: Vec<KeyId>,
    places: Places,
    hasher: RandomState,
}

impl Keys {
    pub(super) fn entry(&self, id: KeyId) -> &KeyEntry {
        self.entries.at(id.0)
    }

    pub(super) fn entry_mut(&mut self, id: KeyId) -> &mut KeyEntry {
        self.entries.at_mut(id.0)
    }

    pub(super) fn hash(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    pub(super) fn find(&self, name: &str, kind: Type) -> Option<KeyId> {
        self.find_hashed(self.hash((kind, name)), name, kind)
    }

    fn find_hashed(&self, hash: u64, name: &str, kind: Type) -> Option<KeyId> {
        let matches = |place: u32| {
            let entry = self.entries.at(place);
            entry.kind == kind && entry.name == name
        };
        self.places.find(hash, matches).map(KeyId)
    }

    /// The key that probably has this hash; only to be looked at.
    pub(super) fn guess(&self, hash: u64) -> Option<KeyId> {
        self.places.guess(hash).map(KeyId)
    }

    /// The key of that name, made if it is new. `None` when 2^32 keys are there.
    pub(super) fn find_or_insert(&mut self, name: &str, kind: Type) -> Option<KeyId> {
        let hash = self.hash((kind, name));
        if let Some(id) = self.find_hashed(hash, name, kind) {
            return Some(id);
        }
        let entry = KeyEntry { name: CompactString::new(name), kind, scalar: None, rows: 0 };
        let id = if let Some(id) = self.free.pop() {
            *self.entries.at_mut(id.0) = entry;
            id
        } else {
            KeyId(self.entries.push(entry)?)
        };
        self.places.insert(hash, id.0);
        Some(id)
    }

    /// Forgets a key that has no rows left.
    pub(super) fn remove(&mut self, id: KeyId) {
        let entry = self.entries.at_mut(id.0);
        let name = std::mem::take(&mut entry.name);
        let hash = self.hasher.hash_one((entry.kind, name.as_str()));
        self.places.remove(hash, id.0);
        self.free.push(id);
    }

    /// The keys of that very name, in the order of their types.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> Vec<(&'a str, Type, KeyId)> {
        Type::ALL.into_iter().filter_map(|kind| Some((name, kind, self.find(name, kind)?))).collect()
    }

    /// The keys whose names begin with `prefix`, in the order of their names and types.
    pub(super) fn with_prefix<'a>(&'a self, prefix: &str) -> Vec<(&'a str, Type, KeyId)> {
        let mut found: Vec<_> = (0_u32..)
            .zip(self.entries.iter())
            .filter(|(_, entry)| entry.rows > 0 && entry.name.starts_with(prefix))
            .map(|(place, entry)| (entry.name.as_str(), entry.kind, KeyId(place)))
            .collect();
        found.sort_unstable();
        found
    }
}
