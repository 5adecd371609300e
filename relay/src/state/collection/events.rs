//! Logs of events: a head, and entries in the order in which they were accepted.
//!
//! An entry is a row that never changes. When it is trimmed its row goes without a trace: that the head's trim point has
//! moved tells every reader which entries are gone. So a log that is appended to and trimmed for ever holds what is in it
//! and nothing of what went through it.

use std::collections::VecDeque;

use dormouse_proto::{
    ids::{NodeId, Revision},
    lattice::{EventsHead, Type, Value},
    rows::encode_event,
};

use super::{Collection, Entry, KeyId, RowBody};
use crate::state::{policy::Limits, rows::RowId};

/// The entries of one log, oldest first.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Queue {
    entries: VecDeque<RowId>,
    bytes: u64,
}

/// Who appends, and when.
#[derive(Clone, Copy, Debug)]
pub(in crate::state) struct Appending {
    pub(in crate::state) at: Revision,
    /// `None`: a caller that is no node.
    pub(in crate::state) author: Option<NodeId>,
    pub(in crate::state) log_time_ms: u64,
    /// The log's wall clock, for display.
    pub(in crate::state) stamp_ms: u64,
}

impl Collection {
    /// Appends entries; the number of each is its place in its delta.
    pub(in crate::state) fn append_events(&mut self, key: &str, values: &[(u32, &Value)], by: Appending) {
        if values.is_empty() {
            return;
        }
        // What a log of that name had dropped may have been news to somebody: who was before it must hear of a gap.
        let begun = EventsHead { trimmed_upto: self.marks.events, ..EventsHead::default() };
        let head = self.scalar_id(key, Type::Events);
        let head =
            head.or_else(|| self.insert_scalar(key, Type::Events, |key| RowBody::EventsHead(key, begun)));
        let Some(head) = head else { return };
        let Some(key) = self.table.row(head).body.key() else { return };
        let mut appended = 0;
        for (index, value) in values {
            let event = encode_event(by.at, *index, value, by.author, by.stamp_ms);
            let entry = Entry { index: *index, at_ms: by.log_time_ms, event };
            appended += u32::from(self.append_entry(key, entry, by.at).is_some());
        }
        // Of the head nothing is observable but its trim point.
        self.change(head, by.at, |body| {
            if let RowBody::EventsHead(_, head) = body {
                head.entries += appended;
                head.appended = by.at;
            }
            false
        });
    }

    fn append_entry(&mut self, key: KeyId, entry: Entry, at: Revision) -> Option<()> {
        let bytes = entry.event.len() as u64;
        let id = self.table.insert_live(RowBody::Event(key, entry), at)?;
        self.book(key, id);
        let queue = self.events.entry(key).or_default();
        queue.entries.push_back(id);
        queue.bytes += bytes;
        Some(())
    }

    /// The log under that name.
    pub(in crate::state) fn events_key(&self, key: &str) -> Option<KeyId> {
        self.keys.find(key, Type::Events)
    }

    /// How far a log was trimmed; zero: never, or there is no such log.
    pub(in crate::state) fn trimmed_upto(&self, key: KeyId) -> Revision {
        let head = self.keys.entry(key).scalar.map(|id| &self.table.row(id).body);
        match head {
            Some(RowBody::EventsHead(_, head)) => head.trimmed_upto,
            _ => Revision::ZERO,
        }
    }

    /// The entries after a revision, oldest first.
    pub(in crate::state) fn entries_after(
        &self,
        key: KeyId,
        after: Revision,
    ) -> impl Iterator<Item = (Revision, &Entry)> {
        let entries = self.events.get(&key).map(|queue| &queue.entries);
        let skipped = entries.map_or(0, |it| it.partition_point(|id| self.table.row(*id).chg <= after));
        entries.into_iter().flat_map(move |it| it.range(skipped..)).filter_map(|id| {
            let row = self.table.row(*id);
            match &row.body {
                RowBody::Event(_, entry) => Some((row.chg, entry)),
                _ => None,
            }
        })
    }

    /// Drops the entries up to a revision. Returns how many.
    pub(in crate::state) fn trim_events(&mut self, key: &str, upto: Revision, at: Revision) -> u64 {
        self.events_key(key).map_or(0, |key| self.trim_log(key, upto, at))
    }

    fn trim_log(&mut self, key: KeyId, upto: Revision, at: Revision) -> u64 {
        let Some(queue) = self.events.get_mut(&key) else { return 0 };
        let count = queue.entries.partition_point(|id| self.table.row(*id).chg <= upto);
        if count == 0 {
            return 0;
        }
        let dropped: Vec<RowId> = queue.entries.drain(..count).collect();
        if queue.entries.is_empty() {
            self.events.remove(&key);
        } else if queue.entries.capacity() > 4 * queue.entries.len() {
            queue.entries.shrink_to_fit();
        }
        let newest = dropped.last().map_or(Revision::ZERO, |id| self.table.row(*id).chg);
        for id in dropped {
            self.drop_entry(key, id);
        }
        if let Some(head) = self.keys.entry(key).scalar {
            self.change(head, at, |body| {
                if let RowBody::EventsHead(_, head) = body {
                    head.trim(newest);
                    head.entries = head.entries.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
                }
                true
            });
        }
        count as u64
    }

    fn drop_entry(&mut self, key: KeyId, id: RowId) {
        let row = self.table.remove(id);
        if let (RowBody::Event(_, entry), Some(queue)) = (&row.body, self.events.get_mut(&key)) {
            queue.bytes -= entry.event.len() as u64;
        }
        self.unbook(&row.body);
    }

    /// Keeps a log within its bounds, in steps of an eighth: not one trim for each append. Returns how many entries went.
    pub(in crate::state) fn retain_events(&mut self, key: &str, limits: &Limits, at: Revision) -> u64 {
        let Some(key) = self.events_key(key) else { return 0 };
        let Some(queue) = self.events.get(&key) else { return 0 };
        let (count, bytes) = (queue.entries.len() as u64, queue.bytes);
        if count <= limits.events_max && bytes <= limits.events_bytes_max {
            return 0;
        }
        let keep = limits.events_max - limits.events_max / 8;
        let keep_bytes = limits.events_bytes_max - limits.events_bytes_max / 8;
        let (mut left, mut left_bytes, mut upto) = (count, bytes, Revision::ZERO);
        for id in &queue.entries {
            let row = self.table.row(*id);
            // What this very record appends was promised to whoever appended it.
            if (left <= keep && left_bytes <= keep_bytes) || row.chg == at {
                break;
            }
            left -= 1;
            left_bytes -= if let RowBody::Event(_, entry) = &row.body { entry.event.len() as u64 } else { 0 };
            upto = row.chg;
        }
        self.trim_log(key, upto, at)
    }

    /// Puts an entry of a snapshot into the queue of its log; entries come in order.
    pub(super) fn queue_restored(&mut self, id: RowId) {
        if let RowBody::Event(key, entry) = &self.table.row(id).body {
            let queue = self.events.entry(*key).or_default();
            queue.entries.push_back(id);
            queue.bytes += entry.event.len() as u64;
        }
    }

    /// The revision of the oldest entry of a log; `None`: it is empty, or not there.
    pub(in crate::state) fn oldest_event(&self, key: &str) -> Option<Revision> {
        let queue = self.events.get(&self.events_key(key)?)?;
        queue.entries.front().map(|id| self.table.row(*id).chg)
    }

    /// The same of all logs that hold something, in no order.
    pub(in crate::state) fn oldest_events(&self) -> impl Iterator<Item = (Revision, &str)> {
        self.events.iter().filter_map(|(key, queue)| {
            let oldest = self.table.row(*queue.entries.front()?).chg;
            Some((oldest, self.keys.entry(*key).name.as_str()))
        })
    }

    /// The newest revision of a log that is too old, of about so many entries at the most; `None`: nothing is.
    pub(in crate::state) fn aged_upto(
        &self,
        key: &str,
        is_old: impl Fn(u64) -> bool,
        at_most: usize,
    ) -> Option<Revision> {
        let entries = self.entries_after(self.events_key(key)?, Revision::ZERO);
        let old = entries.take_while(|(_, entry)| is_old(entry.at_ms)).take(at_most.max(1));
        old.last().map(|(at, _)| at)
    }
}
