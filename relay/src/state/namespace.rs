//! One namespace: its collections, its members, its idempotency ids; and how it is read.

use std::collections::{BTreeMap, HashMap, VecDeque};

use dormouse_proto::{
    ids::{Collection as Name, NodeId, Revision},
    lattice::Delta,
    record::Policy,
    rows::RowWriter,
};
use foldhash::fast::RandomState;

use super::{
    collapsed::Collapsed,
    collection::Collection,
    inbox::{Inboxes, MailCounts},
    keys::KeyId,
    members::{Member, Members, RosterEntry, Tombstone},
    once::OnceIds,
    policy::Limits,
    presences::Presences,
    shown::{self, ReadBounds, Touched},
};

/// The number under which the members' rows are addressed in tokens; collections follow from 1.
pub(super) const ROSTER: usize = 0;

/// An append to a log of events, to be trimmed when it is too old.
#[derive(Clone, Copy, Debug)]
struct Aging {
    at_ms: u64,
    at: Revision,
    collection: usize,
    log: KeyId,
}

#[derive(Clone, Debug, Default)]
pub(super) struct NamespaceState {
    pub(super) members: Members,
    pub(super) once: OnceIds,
    pub(super) inboxes: Inboxes,
    pub(super) presences: Presences,
    /// What was dropped for its number; not part of the state.
    pub(super) collapsed: Collapsed,
    /// The limits that differ from those of all namespaces, ...
    pub(super) own: Policy,
    /// ... and those in force.
    pub(super) limits: Limits,
    /// Appends, oldest first.
    aging: VecDeque<Aging>,
    names: HashMap<Name, usize, RandomState>,
    /// In the order of their creation, which is the log's and so alike on every relay.
    collections: Vec<Collection>,
    untidy: VecDeque<usize>,
    queued: Vec<bool>,
    /// Rows and bytes of each collection when they were last counted, and their sums.
    counted: Vec<(u64, u64)>,
    rows: u64,
    bytes: u64,
}

impl NamespaceState {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Puts the limits in force: those of all namespaces, and the own ones above them.
    pub(super) fn limit(&mut self, all: &Limits) {
        self.limits = *all;
        self.limits.apply(&self.own);
    }

    pub(super) fn collections(&self) -> &[Collection] {
        &self.collections
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(super) fn collection(&self, name: &str) -> Option<&Collection> {
        self.find(name).map(|number| &self.collections[number])
    }

    /// The collection of that name, made if it is new.
    pub(super) fn collection_mut(&mut self, name: &Name) -> &mut Collection {
        let number = match self.names.get(name) {
            Some(number) => *number,
            None => self.add(Collection::new(name.clone())),
        };
        &mut self.collections[number]
    }

    pub(super) fn add(&mut self, collection: Collection) -> usize {
        let number = self.collections.len();
        self.names.insert(collection.name.clone(), number);
        self.collections.push(collection);
        self.counted.push((0, 0));
        self.recount(number);
        number
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// After all deltas of a push: drops dead rows beyond the cap, and counts what the touched collections hold.
    pub(super) fn after_push(&mut self, deltas: &[Delta], dead_rows_min: usize) {
        let mut last: Option<&Name> = None;
        for Delta { collection: name, .. } in deltas {
            if last == Some(name) {
                continue;
            }
            last = Some(name);
            let Some(number) = self.find(name.as_str()) else { continue };
            self.after_change(number, dead_rows_min);
        }
    }

    fn after_change(&mut self, number: usize, dead_rows_min: usize) {
        let collection = &mut self.collections[number];
        self.collapsed.dead_rows += collection.collect(dead_rows_min) as u64;
        let is_untidy = collection.is_untidy();
        self.recount(number);
        if is_untidy {
            self.queue_untidy(number + 1);
        }
    }

    /// Takes away what an ended member held up.
    pub(super) fn withdraw(&mut self, node: NodeId, at: Revision) {
        let dead_rows_min = usize::try_from(self.limits.dead_rows_min).unwrap_or(usize::MAX);
        for (name, key) in self.presences.take(node) {
            let Some(number) = self.find(name.as_str()) else { continue };
            let collection = &mut self.collections[number];
            let incarnation = collection.presence(key.as_str(), node).map(|it| it.incarnation);
            collection.set_presence(key.as_str(), (node, incarnation.unwrap_or_default()), None, at);
            self.after_change(number, dead_rows_min);
        }
    }

    /// An append will be too old some day.
    pub(super) fn ages(&mut self, collection: &str, log: KeyId, at: Revision, at_ms: u64) {
        if let Some(collection) = self.find(collection) {
            self.aging.push_back(Aging { at_ms, at, collection, log });
        }
    }

    /// Trims events that are too old, at most so many appends; those of one revision go together.
    pub(super) fn trim_aged(&mut self, log_time_ms: u64, at: Revision, at_most: usize) {
        let dead_rows_min = usize::try_from(self.limits.dead_rows_min).unwrap_or(usize::MAX);
        let mut trimmed = 0;
        while let Some(oldest) = self.aging.front().copied() {
            let too_young = log_time_ms.saturating_sub(oldest.at_ms) <= self.limits.events_age_ms;
            if too_young || trimmed >= at_most {
                return;
            }
            for Aging { at: upto, collection, log, .. } in self.aged_with(oldest.at) {
                let dropped = self.collections[collection].trim_events(log, upto, at);
                if dropped > 0 {
                    // What something else has trimmed before is not counted: a relay that started since does not know of it.
                    trimmed += 1;
                    self.collapsed.events += dropped;
                    self.after_change(collection, dead_rows_min);
                }
            }
        }
    }

    /// Takes out the oldest appends, all of that revision, in the order of their names: that in which they were appended
    /// is not known after a restart.
    fn aged_with(&mut self, at: Revision) -> Vec<Aging> {
        let count = self.aging.iter().take_while(|it| it.at == at).count();
        let mut aged: Vec<Aging> = self.aging.drain(..count).collect();
        if count > 1 {
            let name = |it: &Aging| self.collections[it.collection].keys().entry(it.log).name.clone();
            aged.sort_by_cached_key(|it| (it.collection, name(it)));
        }
        aged
    }

    /// After a restore: what ages, in the order in which it was appended.
    pub(super) fn restore_aging(&mut self) {
        let appends = self.collections.iter().enumerate().flat_map(|(collection, it)| {
            let of = move |(at_ms, log, at)| Aging { at_ms, at, collection, log };
            it.appends().into_iter().map(of)
        });
        let mut aging: Vec<Aging> = appends.collect();
        aging.sort_by_key(|it| it.at);
        self.aging = aging.into();
    }

    /// Something here waits for log time to pass.
    pub(super) fn awaits_log_time(&self) -> bool {
        self.members.tombstone_count() > 0
            || self.once.len() > 0
            || !self.aging.is_empty()
            || self.inboxes.all_waiting().0 > 0
    }

    /// Log time has moved on: what is too old goes, at most so many rows.
    pub(super) fn pass_time(&mut self, log_time_ms: u64, at: Revision, at_most: usize) {
        let limits = self.limits;
        self.forget_ended(log_time_ms, &limits);
        self.collapsed.once_ids += self.once.forget(log_time_ms, &limits);
        self.inboxes.expire(log_time_ms, at_most);
        self.trim_aged(log_time_ms, at, at_most);
    }

    /// Drops tombstones that are too old or too many, each with the messages that nobody will ever receive.
    pub(super) fn forget_ended(&mut self, log_time_ms: u64, limits: &Limits) {
        let Self { members, inboxes, collapsed, .. } = self;
        members.forget_ended(log_time_ms, limits, |node| {
            inboxes.forget(node);
            collapsed.tombstones += 1;
        });
    }

    /// Brings the sums over all collections up to date for one of them, without a walk over the others.
    pub(super) fn recount(&mut self, number: usize) {
        let (rows, bytes) = (self.collections[number].rows() as u64, self.collections[number].bytes() as u64);
        let (was_rows, was_bytes) = std::mem::replace(&mut self.counted[number], (rows, bytes));
        self.rows = self.rows + rows - was_rows;
        self.bytes = self.bytes + bytes - was_bytes;
    }

    fn queue_untidy(&mut self, number: usize) {
        if self.queued.len() <= number {
            self.queued.resize(number + 1, false);
        }
        if !std::mem::replace(&mut self.queued[number], true) {
            self.untidy.push_back(number);
        }
    }

    pub(super) fn take_untidy(&mut self) -> Option<usize> {
        if self.members.is_untidy() {
            self.queue_untidy(ROSTER);
        }
        self.untidy.pop_front()
    }

    /// One step of tidying; returns whether that collection has more to do.
    pub(super) fn tidy(&mut self, number: usize) -> bool {
        let more = match number.checked_sub(1) {
            None => self.members.tidy(),
            Some(number) => self.collections[number].tidy(),
        };
        if !more {
            self.queued[number] = false;
        }
        more
    }
}

/// One namespace at one revision.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    number: usize,
    state: &'a NamespaceState,
}

impl<'a> View<'a> {
    pub(super) fn new(number: usize, state: &'a NamespaceState) -> Self {
        Self { number, state }
    }

    pub(super) fn state(&self) -> &'a NamespaceState {
        self.state
    }

    /// The number of this namespace in this log; alike on every relay.
    pub fn number(&self) -> u32 {
        u32::try_from(self.number).unwrap_or(u32::MAX)
    }

    /// A live member.
    pub fn member(&self, node: NodeId) -> Option<&'a Member> {
        self.state.members.get(node)
    }

    /// What remains of an ended member.
    pub fn tombstone(&self, node: NodeId) -> Option<&'a Tombstone> {
        self.state.members.tombstone(node)
    }

    /// The live members, by node id.
    pub fn members(&self) -> &'a BTreeMap<NodeId, Member> {
        self.state.members.live()
    }

    /// A member's row, dead or alive, and the revision at which it last changed.
    pub fn roster_entry(&self, node: NodeId) -> Option<(Revision, &'a RosterEntry)> {
        self.state.members.roster_entry(node)
    }

    /// Members' rows, dead ones too, in the order in which they changed.
    pub fn roster_entries(&self) -> impl Iterator<Item = (Revision, &'a RosterEntry)> + use<'a> {
        let rows = self.state.members.roster().changed_after(Revision::ZERO);
        rows.filter_map(|(at, _, row)| row.body.0.as_ref().map(|entry| (at, entry)))
    }

    /// Members' rows that changed after a revision, in order; `None` if some of those have been dropped.
    pub fn roster_after(
        &self,
        after: Revision,
    ) -> Option<impl Iterator<Item = (Revision, &'a RosterEntry)> + use<'a>> {
        let roster = self.state.members.roster();
        let rows = roster
            .changed_after(after)
            .filter_map(|(at, _, row)| row.body.0.as_ref().map(|entry| (at, entry)));
        (after >= roster.floor()).then_some(rows)
    }

    /// Rows, dead ones included, without the members'.
    pub fn rows(&self) -> u64 {
        self.state.rows()
    }

    /// Dead rows, without the members'.
    pub fn dead_rows(&self) -> u64 {
        self.state.collections.iter().map(|it| it.table().dead_rows() as u64).sum()
    }

    /// Estimated bytes of memory of the rows.
    pub fn bytes(&self) -> u64 {
        self.state.bytes()
    }

    /// Estimated bytes of memory of everything: rows, members with their tombstones and rows, idempotency ids, messages.
    pub fn memory_bytes(&self) -> u64 {
        /// What a collection costs that holds nothing: its tables of places.
        const COLLECTION: u64 = 4096;
        self.state.bytes()
            + COLLECTION * self.state.collections.len() as u64
            + self.state.members.bytes()
            + self.state.once.bytes()
            + self.state.inboxes.all_waiting().1
    }

    /// Collections that ever were written to.
    pub fn collections(&self) -> impl Iterator<Item = &'a Name> + use<'a> {
        self.state.collections.iter().map(|it| &it.name)
    }

    /// Messages that wait, and what they take in memory.
    pub fn mail_waiting(&self) -> (u64, u64) {
        self.state.inboxes.all_waiting()
    }

    /// Messages that wait for a node.
    pub fn inbox_waiting(&self, node: NodeId) -> usize {
        self.state.inboxes.waiting(node)
    }

    /// Whether messages up to that revision wait for a node.
    pub fn has_mail_upto(&self, node: NodeId, upto: Revision) -> bool {
        self.state.inboxes.after(node, Revision::ZERO).next().is_some_and(|mail| mail.revision <= upto)
    }

    /// What became of messages, since this process began.
    pub fn mail_counts(&self) -> MailCounts {
        self.state.inboxes.counts
    }

    /// What was dropped because there was too much of it, since this process began.
    pub fn collapsed(&self) -> Collapsed {
        self.state.collapsed
    }

    /// The limits in force.
    pub fn limits(&self) -> &'a Limits {
        &self.state.limits
    }

    /// Writes the rows that deltas touched, as they are now, into `rows`.
    ///
    /// A row that is exactly what its delta asked for is left out: a set element that is present after an add or absent
    /// after a remove.
    ///
    /// Answers whether all of them are in `rows`; it stops soon after `max_bytes`.
    pub fn write_touched(&self, touched: &Touched<'_>, max_bytes: usize, rows: &mut RowWriter<'_>) -> bool {
        touched.deltas.iter().all(|delta| {
            shown::write_touched(self.state, delta, touched, rows);
            rows.len() <= max_bytes
        })
    }

    /// Writes the keys of `collection` that match into `rows`: one name, or a prefix that ends with `*`.
    ///
    /// Starts after the name `after` and stops at `max_bytes`; returns the last name written when there are more.
    pub fn write_matching(
        &self,
        collection: &str,
        pattern: &str,
        after: Option<&str>,
        bounds: ReadBounds,
        rows: &mut RowWriter<'_>,
    ) -> Option<String> {
        let collection = self.state.collection(collection)?;
        shown::write_matching(collection, pattern, after, bounds, rows)
    }
}
