//! The rows that are held, each with the revision at which it was so.
//!
//! A row's context is the newer of its own `as_of` and the barrier of its collection, the `as_of` of the newest chunk
//! that was at the collection's end. In the middle of a pull the cursor is no context: a row may have moved up.
//!
//! Invariants: a held row is replaced only by one that is not older; after a restart of a collection, its first barrier
//! drops the rows that were not delivered since; a key that is neither followed nor fetched holds no row.

mod key;

use std::collections::{HashMap, hash_map::Entry};

use dormouse_proto::ids::{Element, Revision};

pub(super) use key::{Held, HeldSet};
use key::{HeldKey, Source};

use super::{
    Follow, Path,
    counter::CounterRow,
    message::{KeyRows, Rows},
    register::RegisterRow,
};

#[derive(Clone, Debug, Default)]
struct HeldCollection {
    keys: HashMap<String, HeldKey>,
    barrier: Revision,
    /// Raised by every restart.
    pull: u32,
    /// A restart has not reached its barrier yet.
    restarted: bool,
    /// Rows of which nothing is visible; after the next barrier their absence says as much.
    dead: Vec<Dead>,
}

/// Rows of one key of which nothing is visible.
#[derive(Clone, Debug)]
struct Dead {
    key: String,
    elements: Vec<Element>,
    register: bool,
}

/// All rows that are held.
#[derive(Clone, Debug)]
pub(super) struct HeldRows {
    follow: Follow,
    collections: HashMap<String, HeldCollection>,
    /// The barrier of collections of which nothing is known but that they were asked for.
    barrier: Revision,
}

impl HeldRows {
    pub(super) fn new(follow: Follow) -> Self {
        Self {
            follow,
            collections: HashMap::new(),
            barrier: Revision::ZERO,
        }
    }

    pub(super) const fn follow(&self) -> &Follow {
        &self.follow
    }

    pub(super) fn follows(&self, path: &Path) -> bool {
        self.follow.covers(path.collection.as_str())
    }

    /// Whether the absence of a row says that it is not there.
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.barrier(path.collection.as_str()) > Revision::ZERO
            || self.key(path).is_some_and(|key| key.fetched)
    }

    /// The newest revision at which the whole collection was known; zero: never.
    pub(super) fn barrier(&self, collection: &str) -> Revision {
        if !self.follow.covers(collection) {
            return Revision::ZERO;
        }
        let own = self
            .collections
            .get(collection)
            .map_or(Revision::ZERO, |it| it.barrier);
        own.max(self.barrier)
    }

    /// The context of a row that is held as of `as_of`; `None`: nothing is known, and nothing will be.
    pub(super) fn context(&self, path: &Path, as_of: Option<Revision>) -> Option<Revision> {
        if self.follows(path) {
            Some(
                as_of
                    .unwrap_or_default()
                    .max(self.barrier(path.collection.as_str())),
            )
        } else {
            as_of
        }
    }

    fn key(&self, path: &Path) -> Option<&HeldKey> {
        self.collections
            .get(path.collection.as_str())?
            .keys
            .get(path.key.as_str())
    }

    pub(super) fn counter(&self, path: &Path) -> Option<Held<CounterRow>> {
        self.key(path)?.counter
    }

    pub(super) fn set(&self, path: &Path) -> Option<&HeldSet> {
        self.key(path).map(|key| &key.set).filter(|set| !set.is_empty())
    }

    pub(super) fn register(&self, path: &Path) -> Option<&Held<RegisterRow>> {
        self.key(path)?.register.as_ref()
    }

    /// Takes rows in. Rows of collections that are not followed only renew keys that were fetched.
    pub(super) fn put(&mut self, as_of: Revision, keys: Vec<KeyRows>) {
        let mut keys = keys.into_iter().peekable();
        while let Some(first) = keys.next() {
            let followed = self.follow.covers(&first.collection);
            let name = first.collection.clone();
            let collection = self.collections.entry(name).or_default();
            let source = Source {
                as_of,
                pull: collection.pull,
            };
            let collection_name = first.collection;
            collection.put(source, followed, first.key, first.rows);
            while let Some(next) = keys.next_if(|next| next.collection == collection_name) {
                collection.put(source, followed, next.key, next.rows);
            }
        }
    }

    /// Forgets what is held of a key that is not followed, because all of it has just been read again.
    pub(super) fn fetched(&mut self, path: &Path) {
        let followed = self.follows(path);
        let collection = self
            .collections
            .entry(path.collection.as_str().to_owned())
            .or_default();
        let key = collection.keys.entry(path.key.as_str().to_owned()).or_default();
        if !followed {
            *key = HeldKey::default();
        }
        key.fetched = true;
    }

    /// A followed collection is known as a whole.
    pub(super) fn reach(&mut self, collection: &str, at: Revision) {
        if !self.follow.covers(collection) {
            return;
        }
        if !self.collections.contains_key(collection) {
            self.collections
                .insert(collection.to_owned(), HeldCollection::default());
        }
        if let Some(it) = self.collections.get_mut(collection) {
            it.reach(at);
        }
    }

    /// Everything that is followed is known as a whole.
    pub(super) fn reach_all(&mut self, at: Revision) {
        self.barrier = self.barrier.max(at);
        for (name, collection) in &mut self.collections {
            if self.follow.covers(name) {
                collection.reach(at);
            }
        }
    }

    /// The pull of some collections starts over; of all, when none is named. Rows and contexts are kept.
    pub(super) fn restart(&mut self, names: &[String]) {
        for (name, collection) in &mut self.collections {
            if names.is_empty() || names.contains(name) {
                collection.pull += 1;
                collection.restarted = true;
            }
        }
    }

    /// The history that the rows come from is lost: they stay visible until they are replaced, but are no context.
    pub(super) fn lose_history(&mut self) {
        self.barrier = Revision::ZERO;
        for collection in self.collections.values_mut() {
            collection.barrier = Revision::ZERO;
            for key in collection.keys.values_mut() {
                key.lose_history();
            }
        }
    }
}

impl HeldCollection {
    fn put(&mut self, source: Source, followed: bool, name: String, rows: Rows) {
        if followed {
            self.dead.extend(Dead::among(&name, &rows));
        }
        match self.keys.entry(name) {
            Entry::Occupied(mut key) if followed || key.get().fetched => key.get_mut().put(source, rows),
            Entry::Vacant(key) if followed => key.insert(HeldKey::default()).put(source, rows),
            _ => {}
        }
    }

    fn reach(&mut self, at: Revision) {
        self.barrier = self.barrier.max(at);
        if std::mem::take(&mut self.restarted) {
            let pull = self.pull;
            for key in self.keys.values_mut() {
                key.drop_undelivered(pull, at);
            }
            self.keys.retain(|_, key| !key.is_empty());
        }
        for dead in std::mem::take(&mut self.dead) {
            if let Some(key) = self.keys.get_mut(&dead.key) {
                key.drop_dead(&dead.elements, dead.register, at);
                if key.is_empty() {
                    self.keys.remove(&dead.key);
                }
            }
        }
    }
}

impl Dead {
    fn among(key: &str, rows: &Rows) -> Option<Self> {
        let (elements, register) = match rows {
            Rows::Set { removed, .. } if !removed.is_empty() => {
                let named = removed.iter().cloned().map(Element::try_from);
                (named.filter_map(Result::ok).collect(), false)
            }
            Rows::Register { value: None, .. } => (Vec::new(), true),
            _ => return None,
        };
        Some(Self {
            key: key.to_owned(),
            elements,
            register,
        })
    }
}
