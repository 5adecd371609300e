//! The entries of one log of events that are held, and how far it was trimmed.

use std::collections::{BTreeMap, btree_map::Entry};

use dormouse_proto::ids::Revision;

use super::key::{Held, Source};
use crate::replica::{events::Missed, message::EventRow};

/// One log of events.
///
/// Invariants: an entry is never replaced; none is held whose revision is at or below the trim point.
#[derive(Clone, Debug, Default)]
pub(in crate::replica) struct HeldEvents {
    entries: BTreeMap<(Revision, u32), Held<EventRow>>,
    trimmed: Option<Held<Revision>>,
    /// The newest entry that the backlog delivered: in its order, so that everything before it was delivered too.
    delivered: Revision,
    missed: Option<Missed>,
}

impl HeldEvents {
    pub(in crate::replica) fn iter(&self) -> impl Iterator<Item = &EventRow> {
        self.entries.values().map(|held| &held.state)
    }

    pub(in crate::replica) fn trimmed_upto(&self) -> Revision {
        self.trimmed.map_or(Revision::ZERO, |row| row.state)
    }

    /// Whether an entry of that revision is held.
    pub(in crate::replica) fn has(&self, revision: Revision) -> bool {
        self.entries.range((revision, 0)..=(revision, u32::MAX)).next().is_some()
    }

    pub(super) fn take_missed(&mut self) -> Option<Missed> {
        self.missed.take()
    }

    pub(super) fn put(&mut self, source: Source, events: Vec<EventRow>, trimmed_upto: Revision) {
        for event in events {
            if source.is_backlog {
                self.delivered = self.delivered.max(event.revision);
            }
            if event.revision <= self.trimmed_upto() {
                continue;
            }
            match self.entries.entry((event.revision, event.index)) {
                Entry::Occupied(mut row) => row.get_mut().deliver(source),
                Entry::Vacant(row) => drop(row.insert(source.hold(event))),
            }
        }
        if trimmed_upto > Revision::ZERO {
            self.trim(source, trimmed_upto);
        }
    }

    fn trim(&mut self, source: Source, upto: Revision) {
        let before = self.trimmed_upto();
        match &mut self.trimmed {
            Some(row) if upto < row.state => row.deliver(source),
            Some(row) => row.renew(source, upto),
            None => self.trimmed = Some(source.hold(upto)),
        }
        // Before the first barrier nobody knows what this reader would have seen.
        let seen = source.seen_upto.max(self.delivered).max(before);
        if source.seen_upto > Revision::ZERO && upto > seen {
            let after = self.missed.map_or(seen, |missed| missed.after);
            self.missed = Some(Missed { after, upto });
        }
        self.entries = self.entries.split_off(&(self.trimmed_upto().next(), 0));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.trimmed.is_none() && self.missed.is_none()
    }

    pub(super) fn drop_undelivered(&mut self, pull: u32, at: Revision) {
        self.entries.retain(|_, row| !row.is_undelivered(pull, at));
        self.trimmed.take_if(|row| row.is_undelivered(pull, at));
    }

    /// A trim of the lost history may not have happened in the one that is left, whose entries are still to come.
    pub(super) fn lose_history(&mut self) {
        for row in self.entries.values_mut() {
            row.as_of = Revision::ZERO;
        }
        self.trimmed = None;
        self.delivered = Revision::ZERO;
    }
}
