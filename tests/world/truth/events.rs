//! Logs of events as the reference keeps them: every entry that ever was, and how far each log is trimmed.

use dormouse_proto::{ids::NodeId, lattice::Value};

use super::{limits::Limits, reseed::are_renumbered};
use crate::rows::{Event, Shown};

#[derive(Clone, Debug)]
struct Entry {
    event: Event,
    author: Option<NodeId>,
    at_ms: u64,
    trimmed: bool,
}

/// One log of events.
#[derive(Clone, Debug, Default)]
pub(super) struct EventLog {
    entries: Vec<Entry>,
    /// The newest entry that was trimmed.
    pub(super) trimmed: u64,
    /// When that moved last.
    trimmed_at: u64,
}

impl EventLog {
    pub(super) fn append(&mut self, at: (u64, u32), payload: Value, author: Option<NodeId>, at_ms: u64) {
        self.entries.push(Entry { event: Event { at, payload }, author, at_ms, trimmed: false });
    }

    fn there(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.trimmed)
    }

    /// Drops the entries up to a revision; whether there was any.
    pub(super) fn trim(&mut self, upto: u64, at: u64) -> bool {
        let mut newest = 0;
        for entry in self.entries.iter_mut().filter(|it| !it.trimmed && it.event.at.0 <= upto) {
            entry.trimmed = true;
            newest = newest.max(entry.event.at.0);
        }
        if newest > 0 {
            (self.trimmed, self.trimmed_at) = (newest, at);
        }
        newest > 0
    }

    /// Of too many entries the oldest go, an eighth of the bound at once and whole revisions; never what the record
    /// that makes them too many has itself appended.
    pub(super) fn retain(&mut self, limits: &Limits, at: u64) {
        let most = limits.most(|it| it.events_max);
        let count = self.there().count() as u64;
        if count <= most {
            return;
        }
        let surplus = usize::try_from(count - (most - most / 8)).expect("few entries");
        let older = self.there().take(surplus).filter(|entry| entry.event.at.0 < at);
        let upto = older.last().map_or(0, |entry| entry.event.at.0);
        self.trim(upto, at);
    }

    /// Entries that are too old go; whether there was any.
    pub(super) fn expire(&mut self, log_time_ms: u64, limits: &Limits, at: u64) -> bool {
        let oldest = limits.most(|it| it.events_age_ms);
        let old = self.there().filter(|entry| log_time_ms - entry.at_ms > oldest);
        let upto = old.map(|entry| entry.event.at.0).max();
        upto.is_some_and(|upto| self.trim(upto, at))
    }

    /// Takes over the numbers of the entries that are there; whether they may have those.
    pub(super) fn renumber(&mut self, now: &[Event], safe: u64) -> bool {
        let there: Vec<&mut Entry> = self.entries.iter_mut().filter(|entry| !entry.trimmed).collect();
        let (old, new): (Vec<u64>, Vec<u64>) =
            (there.iter().map(|it| it.event.at.0).collect(), now.iter().map(|it| it.at.0).collect());
        let mut alike = are_renumbered(&old, &new, safe);
        for (entry, now) in there.into_iter().zip(now) {
            alike &= entry.event.at.1 == now.at.1 && entry.event.payload == now.payload;
            entry.event.at = now.at;
        }
        alike
    }

    pub(super) fn shown(&self) -> Shown {
        Shown::Events(self.there().map(|entry| entry.event.clone()).collect())
    }

    pub(super) fn author_of(&self, at: (u64, u32)) -> Option<NodeId> {
        self.entries.iter().find(|entry| entry.event.at == at)?.author
    }

    /// Rows of the wire that changed after a revision: entries, and the trim point.
    pub(super) fn changed_after(&self, at: u64) -> u64 {
        self.there().filter(|entry| entry.event.at.0 > at).count() as u64 + u64::from(self.trimmed_at > at)
    }
}
