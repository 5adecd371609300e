//! Which rows of presence each node has, so that the record that ends its membership finds them.

use std::collections::{BTreeSet, HashMap};

use dormouse_proto::ids::{Collection as Name, Key, NodeId};
use foldhash::fast::RandomState;

/// The live rows of presence of one namespace, by node and in the order of their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Presences(HashMap<NodeId, BTreeSet<(Name, Key)>, RandomState>);

impl Presences {
    /// How many a node has.
    pub(super) fn of(&self, node: NodeId) -> usize {
        self.0.get(&node).map_or(0, BTreeSet::len)
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
