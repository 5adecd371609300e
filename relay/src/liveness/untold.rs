//! Contacts that no record has told of yet, and up to where in the log what is told reaches.

use std::collections::{HashMap, hash_map::Drain};

use super::{Evidence, LeaseKey};

/// The contacts of one relay that the next digest tells of.
#[derive(Debug, Default)]
pub(super) struct Untold {
    contacts: HashMap<LeaseKey, Evidence>,
    /// The position of the last frame that was applied.
    applied: u64,
}

impl Untold {
    /// A contact is told with the next digest, unless a newer one of that node is.
    pub(super) fn note(&mut self, key: LeaseKey, evidence: Evidence) {
        let newness = |it: &Evidence| (it.incarnation, it.beat);
        if self.contacts.get(&key).is_none_or(|noted| newness(noted) < newness(&evidence)) {
            self.contacts.insert(key, evidence);
        }
    }

    /// That membership is over.
    pub(super) fn forget(&mut self, key: LeaseKey) {
        self.contacts.remove(&key);
    }

    /// The frame at that position was applied, with all the doubts in it.
    pub(super) fn applied(&mut self, position: u64) {
        self.applied = position;
    }

    /// Takes out all contacts, and says up to which position they are all that was promised without the log: a contact
    /// that is noted later is of a relay that has applied that position, and has its doubts.
    pub(super) fn take(&mut self) -> (u64, Drain<'_, LeaseKey, Evidence>) {
        (self.applied, self.contacts.drain())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.contacts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::ids::{Beat, Incarnation, NodeId};

    use super::*;
    use crate::liveness::{Activity, Millis};

    const KEY: LeaseKey = LeaseKey { namespace: 0, node: NodeId(7) };

    fn evidence(incarnation: u64, beat: u64) -> Evidence {
        let (incarnation, beat) = (Incarnation(incarnation), Beat(beat));
        Evidence { incarnation, beat, activity: Activity::Asleep, ttl: Millis(1) }
    }

    #[test]
    fn only_the_newest_contact_of_a_node_is_told_and_only_once() {
        let mut untold = Untold::default();
        for (incarnation, beat) in [(1, 7), (2, 3), (2, 2), (1, 9)] {
            untold.note(KEY, evidence(incarnation, beat));
        }
        untold.applied(40);
        let (upto, told) = untold.take();
        assert_eq!((upto, told.collect::<Vec<_>>()), (40, vec![(KEY, evidence(2, 3))]));
        assert!(untold.is_empty());
    }
}
