//! Which rows of presence each node has, so that the record that ends its membership finds them.

use std::collections::{BTreeSet, HashMap};

use dormouse_proto::{
    ids::{Collection as Name, Key, NodeId},
    lattice::Delta,
};
use foldhash::fast::RandomState;

use super::namespace::NamespaceState;

/// The live rows of presence of one namespace, by node and in the order of their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Presences(HashMap<NodeId, BTreeSet<(Name, Key)>, RandomState>);

impl Presences {
    /// How many a node has.
    pub(super) fn of(&self, node: NodeId) -> usize {
        self.0.get(&node).map_or(0, BTreeSet::len)
    }

    /// Whether the node holds something up under the key of that delta.
    pub(super) fn holds(&self, namespace: &NamespaceState, node: NodeId, delta: &Delta) -> bool {
        let collection = namespace.collection(delta.collection.as_str());
        let state = collection.and_then(|it| it.presence(delta.key.as_str(), node));
        state.is_some_and(|state| !state.is_dead())
    }

    /// Takes note that a node holds something up under a key, or nothing any more.
    pub(super) fn note(&mut self, node: NodeId, collection: &Name, key: &Key, holds: bool) {
        if holds {
            self.0.entry(node).or_default().insert((collection.clone(), key.clone()));
            return;
        }
        if let Some(rows) = self.0.get_mut(&node) {
            rows.remove(&(collection.clone(), key.clone()));
            if rows.is_empty() {
                self.0.remove(&node);
            }
        }
    }

    /// Takes out the rows of a node, in the order of their names.
    pub(super) fn take(&mut self, node: NodeId) -> BTreeSet<(Name, Key)> {
        self.0.remove(&node).unwrap_or_default()
    }
}
