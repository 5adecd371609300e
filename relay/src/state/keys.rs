//! The names of a collection's keys, each once, and where to find the row of a name.

use std::hash::{BuildHasher as _, Hash};

use compact_str::CompactString;
use dormouse_proto::lattice::Type;
use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::rows::RowId;

/// The place of a key within its collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyId(pub(super) u32);

/// A hash table of places, split so that growing one part never stalls on all of them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    parts: Vec<HashTable<u32>>,
}

const PARTS: usize = 64;

impl Default for Places {
    fn default() -> Self {
        Self { parts: vec![HashTable::new(); PARTS] }
    }
}

impl Places {
    fn part(hash: u64) -> usize {
        // The table takes its tag from the top bits and its bucket from the bottom ones.
        (hash >> 40) as usize % PARTS
    }

    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.parts[Self::part(hash)].find(hash, |place| is_it(*place)).copied()
    }

    pub(super) fn insert(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        self.parts[Self::part(hash)].insert_unique(hash, place, |place| hash_of(*place));
    }

    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        if let Ok(entry) = self.parts[Self::part(hash)].find_entry(hash, |it| *it == place) {
            entry.remove();
        }
    }
}

/// One key of a collection.
#[derive(Clone, Debug)]
pub(super) struct KeyEntry {
    pub(super) name: CompactString,
    pub(super) kind: Type,
    /// The only row of a counter or a register.
    pub(super) scalar: Option<RowId>,
    /// Rows of this key; a key without rows is forgotten.
    pub(super) rows: u32,
}

/// The keys of a collection.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    entries: Vec<KeyEntry>,
    free: Vec<KeyId>,
    places: Places,
    hasher: RandomState,
}

impl Keys {
    pub(super) fn entry(&self, id: KeyId) -> &KeyEntry {
        &self.entries[id.0 as usize]
    }

    pub(super) fn entry_mut(&mut self, id: KeyId) -> &mut KeyEntry {
        &mut self.entries[id.0 as usize]
    }

    pub(super) fn hash(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    pub(super) fn find(&self, name: &str, kind: Type) -> Option<KeyId> {
        let matches = |place: u32| {
            let entry = &self.entries[place as usize];
            entry.kind == kind && entry.name == name
        };
        self.places.find(self.hash((kind, name)), matches).map(KeyId)
    }

    /// The key of that name, made if it is new. `None` when 2^32 keys are there.
    pub(super) fn find_or_insert(&mut self, name: &str, kind: Type) -> Option<KeyId> {
        if let Some(id) = self.find(name, kind) {
            return Some(id);
        }
        let entry = KeyEntry { name: CompactString::new(name), kind, scalar: None, rows: 0 };
        let id = if let Some(id) = self.free.pop() {
            self.entries[id.0 as usize] = entry;
            id
        } else {
            self.entries.push(entry);
            KeyId(u32::try_from(self.entries.len() - 1).ok()?)
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash_of = |place: u32| {
            let entry = &entries[place as usize];
            hasher.hash_one((entry.kind, entry.name.as_str()))
        };
        self.places.insert(hash_of(id.0), id.0, hash_of);
        Some(id)
    }

    /// Forgets a key that has no rows left.
    pub(super) fn remove(&mut self, id: KeyId) {
        let entry = &mut self.entries[id.0 as usize];
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
            .zip(&self.entries)
            .filter(|(_, entry)| entry.rows > 0 && entry.name.starts_with(prefix))
            .map(|(place, entry)| (entry.name.as_str(), entry.kind, KeyId(place)))
            .collect();
        found.sort_unstable();
        found
    }
}
