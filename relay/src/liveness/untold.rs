//! Contacts that no record has told of yet, and up to where in the log what is told reaches.
//!
//! A contact is told in every digest until one of them has come back: a digest says that all of them are told, and one
//! before it may have been refused.

use std::collections::HashMap;

use super::{Evidence, LeaseKey};

/// The contacts of one relay that no digest has told of and come back.
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

    /// All contacts, and up to which position they are all that was promised without the log: a contact that is noted
    /// later is of a relay that has applied that position, and has its doubts.
    pub(super) fn all(&self) -> (u64, impl Iterator<Item = (LeaseKey, Evidence)>) {
        (self.applied, self.contacts.iter().map(|(key, evidence)| (*key, *evidence)))
    }

    /// The log has told of these.
    pub(super) fn told(&mut self, contacts: &[(LeaseKey, Evidence)]) {
        for (key, evidence) in contacts {
            if self.contacts.get(key) == Some(evidence) {
                self.contacts.remove(key);
            }
        }
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
    fn only_the_newest_contact_of_a_node_is_told_and_until_it_has_come_back() {
        let mut untold = Untold::default();
        for (incarnation, beat) in [(1, 7), (2, 3), (2, 2), (1, 9)] {
            untold.note(KEY, evidence(incarnation, beat));
        }
        untold.applied(40);
        let all = |untold: &Untold| untold.all().1.collect::<Vec<_>>();
        assert_eq!((untold.all().0, all(&untold)), (40, vec![(KEY, evidence(2, 3))]));
        assert_eq!(all(&untold), [(KEY, evidence(2, 3))], "that digest may be refused");
        untold.note(KEY, evidence(2, 4));
        untold.told(&[(KEY, evidence(2, 3))]);
        assert_eq!(all(&untold), [(KEY, evidence(2, 4))], "heard since");
        untold.told(&[(KEY, evidence(2, 4))]);
        assert!(untold.is_empty());
    }
}
