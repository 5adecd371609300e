//! One namespace: its collections, its members, its idempotency ids; and how it is read.

use std::collections::{BTreeMap, HashMap, VecDeque};

use dormouse_proto::{
    ids::{Collection as Name, NodeId, Revision},
    lattice::Delta,
    rows::RowWriter,
};
use foldhash::fast::RandomState;

use super::{
    backlog,
    collection::Collection,
    members::{Member, Members, RosterEntry, Tombstone},
    once::OnceIds,
};

/// The number under which the members' rows are addressed in tokens; collections follow from 1.
pub(super) const ROSTER: usize = 0;

#[derive(Clone, Debug, Default)]
pub(super) struct NamespaceState {
    pub(super) members: Members,
    pub(super) once: OnceIds,
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
            let collection = &mut self.collections[number];
            collection.collect(dead_rows_min);
            let is_untidy = collection.is_untidy();
            self.recount(number);
            if is_untidy {
                self.queue_untidy(number + 1);
            }
        }
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

    /// Collections that ever were written to.
    pub fn collections(&self) -> impl Iterator<Item = &'a Name> + use<'a> {
        self.state.collections.iter().map(|it| &it.name)
    }

    /// Writes the rows that these deltas touched, as they are now, into `rows`.
    ///
    /// A row that is exactly what its delta asked for is left out: a set element that is present after an add or absent
    /// after a remove.
    ///
    /// Stops above `max_bytes`; answers whether that was not necessary.
    pub fn write_touched(&self, deltas: &[Delta], max_bytes: usize, rows: &mut RowWriter<'_>) -> bool {
        deltas.iter().all(|delta| {
            backlog::write_touched(self.state, delta, rows);
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
        max_bytes: usize,
        rows: &mut RowWriter<'_>,
    ) -> Option<String> {
        let collection = self.state.collection(collection)?;
        backlog::write_matching(collection, pattern, after, max_bytes, rows)
    }
}
