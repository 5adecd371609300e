//! The rows that are held, each with the revision at which it was so.
//!
//! A row's context is the newer of its own `as_of` and the barrier of its collection, the `as_of` of the newest chunk
//! that was at the collection's end. In the middle of a pull the cursor is no context: a row may have moved up.
//!
//! Invariants: a held row is replaced only by one that is not older; after a restart of a collection, its first barrier
//! drops the rows that were not delivered since; a key that is neither followed nor fetched holds no row.

mod events;
mod key;
mod other;

use std::collections::{HashMap, hash_map::Entry};

use dormouse_proto::{
    ids::{Element, Revision},
    lattice::{Type, Value},
};

pub(super) use events::HeldEvents;
pub(super) use key::{Held, HeldSet};
use key::{HeldKey, Source};
pub(super) use other::HeldHolders;
use other::Other;

use super::{
    Follow, Path,
    counter::CounterRow,
    events::Missed,
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
    kind: Type,
    elements: Vec<Element>,
}

/// All rows that are held.
#[derive(Clone, Debug)]
pub(super) struct HeldRows {
    follow: Follow,
    collections: HashMap<String, HeldCollection>,
    /// With `*`: the barrier of collections of which nothing is known but that they were asked for.
    barrier: Revision,
}

impl HeldRows {
    pub(super) fn new(follow: Follow) -> Self {
        Self { follow, collections: HashMap::new(), barrier: Revision::ZERO }
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
        let own = self.collections.get(collection).map_or(Revision::ZERO, |it| it.barrier);
        // The barrier of `*` says nothing of a collection that is followed by its name alone.
        if self.follow.all() { own.max(self.barrier) } else { own }
    }

    /// The context of a row that is held as of `as_of`; `None`: nothing is known, and nothing will be.
    pub(super) fn context(&self, path: &Path, as_of: Option<Revision>) -> Option<Revision> {
        if self.follows(path) {
            Some(as_of.unwrap_or_default().max(self.barrier(path.collection.as_str())))
        } else {
            as_of
        }
    }

    fn key(&self, path: &Path) -> Option<&HeldKey> {
        self.collections.get(path.collection.as_str())?.keys.get(path.key.as_str())
    }

    fn other(&self, path: &Path) -> Option<&Other> {
        self.key(path)?.other.as_deref()
    }

    pub(super) fn counter(&self, path: &Path) -> Option<Held<CounterRow>> {
        self.key(path)?.counter
    }

    pub(super) fn register(&self, path: &Path) -> Option<&Held<RegisterRow>> {
        self.key(path)?.register.as_ref()
    }

    /// The elements of a set of some kind.
    pub(super) fn elements(&self, path: &Path, kind: Type) -> Option<&HeldSet> {
        let key = self.key(path)?;
        let set = match kind {
            Type::Set => Some(&key.set),
            kind => key.other.as_ref()?.elements(kind),
        };
        set.filter(|set| !set.is_empty())
    }

    /// A flag of some kind.
    pub(super) fn switch(&self, path: &Path, kind: Type) -> Option<Held<bool>> {
        self.other(path)?.switch(kind)
    }

    /// A maximum or a minimum.
    pub(super) fn number(&self, path: &Path, kind: Type) -> Option<Held<Option<i64>>> {
        self.other(path)?.number(kind)
    }

    pub(super) fn siblings(&self, path: &Path) -> Option<&Held<Vec<(Revision, Value)>>> {
        self.other(path)?.siblings.as_ref()
    }

    pub(super) fn events(&self, path: &Path) -> Option<&HeldEvents> {
        self.other(path)?.events.as_deref()
    }

    pub(super) fn presence(&self, path: &Path) -> Option<&HeldHolders> {
        self.other(path)?.presence.as_deref()
    }

    pub(super) fn take_missed(&mut self, path: &Path) -> Option<Missed> {
        let collection = self.collections.get_mut(path.collection.as_str())?;
        let key = collection.keys.get_mut(path.key.as_str())?;
        key.other.as_mut()?.events.as_mut()?.take_missed()
    }

    /// The keys of a collection that begin with `prefix` and of which anything is held.
    pub(super) fn keys_below(&self, collection: &str, prefix: &str) -> impl Iterator<Item = &str> {
        let keys = self.collections.get(collection).into_iter().flat_map(|it| it.keys.keys());
        keys.map(String::as_str).filter(move |key| key.starts_with(prefix))
    }

    /// Takes rows in. Rows of collections that are not followed only renew keys that were fetched.
    pub(super) fn put(&mut self, as_of: Revision, is_backlog: bool, keys: Vec<KeyRows>) {
        let mut keys = keys.into_iter().peekable();
        while let Some(first) = keys.next() {
            let followed = self.follow.covers(&first.collection);
            let name = first.collection.clone();
            let seen_upto = self.barrier(&name);
            let collection = self.collections.entry(name).or_default();
            let source = Source { as_of, pull: collection.pull, is_backlog, seen_upto };
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
        let collection = self.collections.entry(path.collection.as_str().to_owned()).or_default();
        let key = collection.keys.entry(path.key.as_str().to_owned()).or_default();
        if !followed {
            *key = HeldKey::default();
        }
        key.fetched = true;
    }

    /// Collections that the answered request had asked for are known as a whole.
    pub(super) fn reach(&mut self, names: &[String], asked: &Follow, at: Revision) {
        for name in names.iter().filter(|name| asked.covers(name) && self.follow.covers(name)) {
            if !self.collections.contains_key(name) {
                self.collections.insert(name.clone(), HeldCollection::default());
            }
            if let Some(it) = self.collections.get_mut(name) {
                it.reach(at);
            }
        }
    }

    /// Everything that the answered request had asked for is known as a whole.
    pub(super) fn reach_all(&mut self, asked: &Follow, at: Revision) {
        if asked.all() && self.follow.all() {
            self.barrier = self.barrier.max(at);
        }
        for (name, collection) in &mut self.collections {
            if asked.covers(name) && self.follow.covers(name) {
                collection.reach(at);
            }
        }
        let named: Vec<String> = asked.named().map(str::to_owned).collect();
        self.reach(&named, asked, at);
    }

    /// Begins to follow. What was fetched of collections that were not followed is forgotten: the backlog that is to come
    /// skips rows that were dead before it began, and would never take back what was read of them.
    pub(super) fn begin(&mut self, name: &str) {
        let before = self.follow.clone();
        self.follow.add(name);
        self.collections.retain(|it, _| before.covers(it) || !self.follow.covers(it));
    }

    /// Follows no longer, and drops the rows. Whether it was followed by that name.
    pub(super) fn give_up(&mut self, name: &str) -> bool {
        let before = self.follow.clone();
        if !self.follow.remove(name) {
            return false;
        }
        if before.all() && !self.follow.all() {
            // What the barrier of `*` said stays true of those that are followed by their names as well.
            for name in self.follow.named() {
                let it = self.collections.entry(name.to_owned()).or_default();
                it.barrier = it.barrier.max(self.barrier);
            }
            self.barrier = Revision::ZERO;
        }
        self.collections.retain(|it, _| !before.covers(it) || self.follow.covers(it));
        true
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
            Entry::Occupied(mut key) if followed || key.get().fetched => {
                key.get_mut().put(source, rows);
            }
            Entry::Vacant(key) if followed => {
                key.insert(HeldKey::default()).put(source, rows);
            }
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
                key.drop_dead(&dead, at);
                if key.is_empty() {
                    self.keys.remove(&dead.key);
                }
            }
        }
    }
}

impl Dead {
    fn among(key: &str, rows: &Rows) -> Option<Self> {
        let (is_dead, removed): (bool, &[String]) = match rows {
            Rows::Set { removed, .. } | Rows::RemoveWinsSet { removed, .. } => (!removed.is_empty(), removed),
            Rows::Register { value, .. } => (value.is_none(), &[]),
            Rows::Flag { on } | Rows::DisableWinsFlag { on } => (!on, &[]),
            Rows::Siblings { values } => (values.is_empty(), &[]),
            Rows::Presence { holders } => (holders.iter().any(|row| row.value.is_none()), &[]),
            _ => (false, &[]),
        };
        let elements = || removed.iter().cloned().map(Element::try_from).filter_map(Result::ok).collect();
        is_dead.then(|| Self { key: key.to_owned(), kind: rows.kind(), elements: elements() })
    }
}
