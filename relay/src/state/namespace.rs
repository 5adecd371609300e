//! One namespace: its collections, its members, its idempotency ids; and how it is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

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
    members::{Member, Members, RosterEntry, Tombstone},
    once::OnceIds,
    policy::{Limits, amend},
    presences::Presences,
    shown::{self, ReadBounds, Touched},
};

/// The number under which the members' rows are addressed in tokens; collections follow from 1.
pub(super) const ROSTER: usize = 0;

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
    /// The logs of events that hold something: the revision of the oldest entry, the collection, the key.
    ages: BTreeSet<(Revision, usize, String)>,
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
        let number = self.find_or_add(name);
        &mut self.collections[number]
    }

    pub(super) fn find_or_add(&mut self, name: &Name) -> usize {
        match self.names.get(name) {
            Some(number) => *number,
            None => self.add(Collection::new(name.clone())),
        }
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

    /// Changes a log of events, and notes how old its oldest entry is then.
    pub(super) fn change_log<T>(
        &mut self,
        collection: usize,
        key: &str,
        change: impl FnOnce(&mut Collection) -> T,
    ) -> T {
        let rows = &mut self.collections[collection];
        let before = rows.oldest_event(key);
        let done = change(rows);
        let after = rows.oldest_event(key);
        if before != after {
            let place = |at| (at, collection, key.to_owned());
            before.map(|at| self.ages.remove(&place(at)));
            after.map(|at| self.ages.insert(place(at)));
        }
        done
    }

    /// Trims events that are too old, of at most so many logs. What is left is trimmed by the next digest.
    fn trim_aged(&mut self, log_time_ms: u64, at: Revision, logs: usize) {
        /// What one record may drop: some ten milliseconds' work.
        const ENTRIES: usize = 65_536;
        let dead_rows_min = usize::try_from(self.limits.dead_rows_min).unwrap_or(usize::MAX);
        let age_ms = self.limits.events_age_ms;
        let mut left = ENTRIES;
        for _ in 0..logs {
            let Some((_, collection, key)) = self.ages.first().cloned() else { return };
            let is_old = |at_ms: u64| log_time_ms.saturating_sub(at_ms) > age_ms;
            // Revisions and log time rise together, so if the oldest of all is young, all are.
            let Some(upto) = self.collections[collection].aged_upto(&key, is_old, left) else { return };
            let dropped = self.change_log(collection, &key, |rows| rows.trim_events(&key, upto, at));
            self.collapsed.events += dropped;
            self.after_change(collection, dead_rows_min);
            left = left.saturating_sub(usize::try_from(dropped).unwrap_or(usize::MAX));
            if left == 0 {
                return;
            }
        }
    }

    /// After a restore: how old the logs are.
    pub(super) fn restore_ages(&mut self) {
        let logs = self.collections.iter().enumerate().flat_map(|(collection, it)| {
            it.oldest_events().map(move |(at, key)| (at, collection, key.to_owned()))
        });
        self.ages = logs.collect();
    }

    /// Another state took this one's place: what this process has counted goes on.
    pub(super) fn go_on_counting(&mut self, before: &Self) {
        self.collapsed = before.collapsed;
        self.inboxes.counts = before.inboxes.counts;
        self.once.forgotten = before.once.forgotten;
    }

    /// Something here waits for log time to pass.
    pub(super) fn awaits_log_time(&self) -> bool {
        self.members.tombstone_count() > 0
            || self.once.len() > 0
            || !self.ages.is_empty()
            || self.inboxes.all_waiting().0 > 0
    }

    /// Log time has moved on: what is too old goes, at most so many rows.
    pub(super) fn pass_time(&mut self, log_time_ms: u64, at: Revision, at_most: usize) {
        let limits = self.limits;
        self.forget_ended(log_time_ms, &limits);
        self.once.forget(log_time_ms, &limits);
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

    /// Changes of rows that readers had to be told of, since this process began; the members' rows included.
    pub fn changes(&self) -> u64 {
        let collections: u64 = self.state.collections.iter().map(|it| it.table().changes()).sum();
        collections + self.state.members.roster().changes()
    }

    /// The revision up to which rows that ended were dropped somewhere: a reader whose cursor is below it starts over
    /// there. Zero: nowhere yet.
    pub fn highest_floor(&self) -> Revision {
        let floors = self.state.collections.iter().map(|it| it.table().floor());
        floors.chain([self.state.members.roster().floor()]).max().unwrap_or_default()
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
        Collapsed { once_ids: self.state.once.forgotten, ..self.state.collapsed }
    }

    /// The limits in force.
    pub fn limits(&self) -> &'a Limits {
        &self.state.limits
    }

    /// Whether the limits of its own are what that policy names.
    pub fn has_own(&self, wanted: &Policy) -> bool {
        let mut own = self.state.own.clone();
        amend(&mut own, wanted);
        own == self.state.own
    }

    /// Writes the rows that deltas touched, as they are now, into `rows`.
    ///
    /// A row that is exactly what its delta asked for is left out, of the types whose delta says what becomes of them.
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
