//! Nested maps: no type of its own. The leaves of a map are ordinary keys below its path, `carts/42/qty` below `carts/42`.
//!
//! A clear takes away what is shown here and nothing else, each leaf with its own context: what others say meanwhile
//! survives. So it is one delta for each leaf, and needs no rule in the relay.

use std::collections::BTreeSet;

use dormouse_proto::{
    ids::{Element, Key},
    lattice::Type,
};

use super::{
    Path, Replica, WriteError,
    elements::ElementsIntent,
    intent::{AddWins, AnyIntent, Entry, Intent, RemoveWins, Winner},
};

/// What a clear did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "some keys may stay"]
pub struct Cleared {
    /// Rows that are taken away.
    pub rows: usize,
    /// The paths of keys that stay, because what they hold cannot be cleared: a maximum, a minimum, a set that only
    /// grows, a log of events, a presence.
    pub kept: Vec<String>,
}

impl Replica {
    /// The paths of all keys below that one of which anything is held or said.
    fn below(&self, path: &Path) -> BTreeSet<Path> {
        let prefix = format!("{}/", path.key);
        let (collection, prefix) = (&path.collection, prefix.as_str());
        let held =
            self.held.keys_below(collection.as_str(), prefix).filter_map(|key| key.parse::<Key>().ok());
        let sealed = self.sealed.iter().flat_map(|push| push.said.list());
        let said = sealed.chain(self.outbox.list()).map(|saying| &saying.path);
        let said = said.filter(|it| it.collection == *collection && it.key.as_str().starts_with(prefix));
        let keys = held.chain(said.map(|it| it.key.clone()));
        keys.map(|key| Path { collection: collection.clone(), key }).collect()
    }

    /// The leaves below a path of which something is visible, own writes included, in order and relative to it: `qty`,
    /// `sizes/s`. `None`: not followed, or never heard of.
    pub fn map_keys(&self, path: &Path) -> Option<Vec<String>> {
        let leaves = self.below(path);
        if leaves.is_empty() {
            return self.held.knows(path).then(Vec::new);
        }
        let own = path.key.as_str().len() + 1;
        let live = leaves.iter().filter(|leaf| self.is_live(leaf));
        Some(live.map(|leaf| leaf.key.as_str()[own..].to_owned()).collect())
    }

    /// Whether anything is visible under that very path.
    fn is_live(&self, path: &Path) -> bool {
        self.counter(path).is_some_and(|value| value != 0)
            || self.register(path).flatten().is_some()
            || self.flag(path) == Some(true)
            || self.disable_wins_flag(path) == Some(true)
            || self.set(path).is_some_and(|set| !set.is_empty())
            || self.remove_wins_set(path).is_some_and(|set| !set.is_empty())
            || self.siblings(path).is_some_and(|siblings| !siblings.is_empty())
            || self.stays(path)
    }

    /// Whether anything is visible there that cannot be cleared.
    fn stays(&self, path: &Path) -> bool {
        self.max(path).flatten().is_some()
            || self.min(path).flatten().is_some()
            || self.grow_only_set(path).is_some_and(|set| !set.is_empty())
            || self.events(path).is_some_and(|log| !log.is_empty())
            || self.presence(path).is_some_and(|holders| !holders.is_empty())
    }

    /// Takes away everything below a path that is shown here. It goes with one push if that has room for it, and with
    /// several, which are not atomic, if more than 1,024 rows are touched.
    ///
    /// # Errors
    /// When the outbox is full; nothing is cleared then.
    pub fn map_clear(&mut self, path: &Path) -> Result<Cleared, WriteError> {
        let (mut cleared, mut intents) = (Cleared::default(), Vec::new());
        for leaf in self.below(path) {
            let clears = self.clears(&leaf);
            cleared.rows += clears.iter().map(|it| super::intent::each!(it, it => it.rows())).sum::<usize>();
            cleared.kept.extend(self.stays(&leaf).then(|| leaf.to_string()));
            intents.extend(clears.into_iter().map(|intent| (leaf.clone(), intent)));
        }
        self.say_all(intents)?;
        Ok(cleared)
    }

    /// What takes away everything that is visible under that very path.
    fn clears(&self, path: &Path) -> Vec<AnyIntent> {
        let mut clears = Vec::new();
        if self.counter(path).is_some_and(|value| value != 0) {
            clears.push(self.counter_reset_intent(path).any());
        }
        if self.register(path).flatten().is_some() {
            clears.push(self.register_intent(path, None, 0).any());
        }
        if self.siblings(path).is_some_and(|siblings| !siblings.is_empty()) {
            clears.push(self.siblings_intent(path, None).any());
        }
        if self.flag(path) == Some(true) {
            clears.push(self.switch_intent::<AddWins>(path, false).any());
        }
        if self.disable_wins_flag(path) == Some(true) {
            clears.push(self.switch_intent::<RemoveWins>(path, false).any());
        }
        clears.extend(self.removes_all::<AddWins>(path));
        clears.extend(self.removes_all::<RemoveWins>(path));
        clears
    }

    fn removes_all<K: Winner>(&self, path: &Path) -> Option<AnyIntent>
    where
        ElementsIntent<K>: Intent,
    {
        debug_assert!(!matches!(<ElementsIntent<K>>::KIND, Type::GrowOnlySet), "nothing is removed from it");
        let elements = self.elements::<K>(path)?.into_iter().filter_map(|it| it.parse::<Element>().ok());
        let removes = self.elements_intent::<K>(path, elements, false);
        (!removes.is_empty()).then(|| removes.any())
    }
}
