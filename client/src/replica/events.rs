//! Events: a log of entries. An entry is named by its revision and index and never changes; what is said of a log is a
//! list of entries to append, in their order, and a point up to which it is to be trimmed.

use dormouse_proto::{
    ids::{NodeId, OnceId, Revision},
    lattice::{Append, Change, EventsDelta, Value},
};

use super::{
    Path, Replica, WriteError,
    held::{HeldEvents, HeldRows},
    intent::{Intent, Room},
};

/// What was said of one log of events. The trim comes first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EventsIntent {
    /// Zero: nothing is trimmed.
    trim_upto: Revision,
    append: Vec<Append>,
}

/// An entry, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventView<'a> {
    /// Where it was accepted, and its place there; `None`: an own entry that is not bound yet.
    pub at: Option<(Revision, u32)>,
    /// Its content.
    pub payload: &'a Value,
    /// Whose push it was; `None`: a caller that is no node, or an own entry that is not bound yet.
    pub node: Option<NodeId>,
    /// The log's wall clock in milliseconds since 1970, for display; 0: not said.
    pub accepted_at_ms: u64,
}

/// Entries that were dropped before they were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Everything up to here was seen.
    pub after: Revision,
    /// What was accepted up to here is gone.
    pub upto: Revision,
}

const BYTES: usize = 32;
const APPEND_BYTES: usize = 32;

fn cost(entry: &Append) -> usize {
    APPEND_BYTES + entry.payload.len() + entry.id.as_ref().map_or(0, |id| id.as_str().len())
}

impl EventsIntent {
    fn names(&self, id: &OnceId) -> bool {
        self.append.iter().any(|entry| entry.id.as_ref() == Some(id))
    }

    fn without(&mut self, dropped: impl Fn(&Append) -> bool) -> Option<Change> {
        let (append, kept) = std::mem::take(&mut self.append).into_iter().partition(dropped);
        self.append = kept;
        Self { append, ..Self::default() }.change()
    }

    fn without_trim(&mut self) -> Option<Change> {
        Self { trim_upto: std::mem::take(&mut self.trim_upto), ..Self::default() }.change()
    }
}

impl Intent for EventsIntent {
    fn rows(&self) -> usize {
        self.append.len() + 1
    }

    fn bytes(&self) -> usize {
        BYTES + self.append.iter().map(cost).sum::<usize>()
    }

    fn growth(&self, later: &Self) -> usize {
        later.append.iter().map(cost).sum()
    }

    fn then(&mut self, later: Self) {
        self.trim_upto = self.trim_upto.max(later.trim_upto);
        for entry in later.append {
            if !entry.id.as_ref().is_some_and(|id| self.names(id)) {
                self.append.push(entry);
            }
        }
    }

    fn split(&mut self, room: &mut Room) -> Option<Self> {
        let mut left = *room;
        if !left.take(1, BYTES) {
            return None;
        }
        let first = self.append.iter().take(EventsDelta::MAX);
        let fitting = first.take_while(|entry| left.take(1, cost(entry))).count();
        if fitting == 0 && self.trim_upto == Revision::ZERO {
            return None;
        }
        *room = left;
        let append = self.append.drain(..fitting).collect();
        Some(Self { trim_upto: std::mem::take(&mut self.trim_upto), append })
    }

    fn is_empty(&self) -> bool {
        self.append.is_empty() && self.trim_upto == Revision::ZERO
    }

    fn resolve(&mut self, _: &Path, _: &HeldRows) {}

    fn change(&self) -> Option<Change> {
        let Self { trim_upto, append } = self;
        let delta = EventsDelta { append: append.clone(), trim_upto: *trim_upto };
        (!self.is_empty()).then_some(Change::Events(delta))
    }

    fn without_history(&mut self) -> Option<Change> {
        self.without_trim()
    }

    fn without_context(&mut self) -> Option<Change> {
        None
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.without(|_| true)
    }

    fn without_repeats(&mut self) -> Option<Change> {
        self.without(|entry| entry.id.is_none())
    }
}

impl Replica {
    /// The entries that are known, in their order, and after them the own ones that are not bound yet; `None`: not
    /// followed, or never heard of.
    pub fn events(&self, path: &Path) -> Option<Vec<EventView<'_>>> {
        let held = self.held.events(path);
        let sealed =
            self.sealed_intent::<EventsIntent>(path).filter(|_| self.lacks_sealed_events(path, held));
        let waiting = self.waiting_intent::<EventsIntent>(path);
        let has_own = sealed.is_some() || waiting.is_some();
        let known = held.is_some() || self.held.knows(path);
        if !(known || (has_own && self.held.follows(path))) {
            return None;
        }
        let own = || sealed.into_iter().chain(waiting);
        let trimmed = own().map(|said| said.trim_upto).max().unwrap_or_default();
        let rows = held.into_iter().flat_map(HeldEvents::iter).filter(|row| row.revision > trimmed);
        let confirmed = rows.map(|row| EventView {
            at: Some((row.revision, row.index)),
            payload: &row.payload,
            node: row.node,
            accepted_at_ms: row.accepted_at_ms,
        });
        let unbound = |entry| EventView { at: None, payload: entry, node: None, accepted_at_ms: 0 };
        let pending = own().flat_map(|said| &said.append).map(|entry| unbound(&entry.payload));
        Some(confirmed.chain(pending).collect())
    }

    /// Whether what is held of the log does not contain the sealed push. Rows of one revision come together, so one entry
    /// of that revision speaks for all of them, and so does a trim point beyond it.
    fn lacks_sealed_events(&self, path: &Path, held: Option<&HeldEvents>) -> bool {
        let bound = self.sealed.as_ref().and_then(|push| push.bound);
        let has = |bound| held.is_some_and(|log| log.has(bound) || log.trimmed_upto() >= bound);
        self.shows_sealed(path, bound.filter(|bound| has(*bound)))
    }

    /// How far the log is known to be trimmed; zero: not at all.
    pub fn events_trimmed_upto(&self, path: &Path) -> Revision {
        self.held.events(path).map_or(Revision::ZERO, HeldEvents::trimmed_upto)
    }

    /// Entries that were trimmed before they arrived here, told once. Never of a log that was trimmed before it was
    /// followed.
    pub fn take_events_missed(&mut self, path: &Path) -> Option<Missed> {
        self.held.take_missed(path)
    }

    /// Appends an entry. With an id it is appended once, whoever repeats it.
    ///
    /// # Errors
    /// When the value is larger than 256 KiB or the outbox is full.
    pub fn events_append(
        &mut self,
        path: &Path,
        payload: Value,
        id: Option<OnceId>,
    ) -> Result<(), WriteError> {
        super::error::check_value(Some(&payload))?;
        let names = |said: &EventsIntent| id.as_ref().is_some_and(|id| said.names(id));
        let said =
            self.sealed_intent(path).is_some_and(names) || self.waiting_intent(path).is_some_and(names);
        if said {
            return Ok(());
        }
        let append = vec![Append { payload, id }];
        self.say(path, EventsIntent { append, ..EventsIntent::default() })
    }

    /// Drops the entries up to that revision.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn events_trim(&mut self, path: &Path, upto: Revision) -> Result<(), WriteError> {
        self.say(path, EventsIntent { trim_upto: upto, ..EventsIntent::default() })
    }
}
