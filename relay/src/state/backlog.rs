//! The backlog of one reader: every row that changed after its cursor, once, in the order of the revisions.
//!
//! A function that sleeps between invocations cannot be called; it collects what it missed when it wakes. Nothing is
//! kept for it here: the cursor is the reader's, and the relay learns it with the next request. So a chunk that was
//! never received has never happened, and an idle node costs nothing.
//!
//! Invariants: a chunk is built at one revision; rows of one revision are never split over chunks; after a chunk that
//! is caught up the reader holds exactly the state at its `as_of`.

use dormouse_proto::{
    convert::Follow,
    ids::{Collection as Name, Namespace, NodeId, Revision},
    rows::RowWriter,
    traps::Trap,
};

use super::{
    Fold,
    collection::{Collection, RowBody},
    inbox::Mail,
    members::RosterEntry,
    namespace::{NamespaceState, ROSTER},
    rows::{Body, Row},
    shown::{row_len, write_row},
    token::{Mismatch, Place, Token, TokenError},
};

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub struct Pull<'a> {
    /// What it has seen; `None`: nothing yet. `Some(Err(_))`: it sent bytes that are no token.
    pub token: Option<Result<Token, TokenError>>,
    /// Every collection but the members'.
    pub all: bool,
    /// Collections by name.
    pub collections: &'a [Name],
    /// The members' rows.
    pub members: bool,
    /// Whose messages come along; `None`: the reader is no node.
    pub node: Option<NodeId>,
    /// Revisions of pushes whose acknowledgement, with their rows, it has received. In order.
    pub acked: &'a [Revision],
    /// Without a token: the lowest `as_of` of a row that it holds all the same, from an acknowledgement or a read.
    pub held_since: Option<Revision>,
    /// The highest revision that it was ever shown.
    pub head: Revision,
    /// Bytes of rows; a single revision may exceed it.
    pub max_bytes: usize,
    /// Everything that was in the log when the request arrived has been applied.
    pub log_is_read: bool,
}

/// Why a pull starts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Dead rows that the reader may still show were dropped from the collections named.
    Compacted,
    /// The reader was shown a history that the log has lost.
    History,
    /// What it sent is no token of this namespace.
    BadToken,
}

/// This relay has not applied what the reader has been shown elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullError {
    /// Wait for this revision, or ask a relay that has it.
    Behind(Revision),
}

/// A bounded piece of backlog.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The revision that it was built at.
    pub as_of: Revision,
    /// The revision that the reader's chunk before it was built at; `None`: there was none, or it starts over.
    pub after: Option<Revision>,
    /// The reader's view is now exactly the state at `as_of`.
    pub caught_up: bool,
    /// Collections whose end was reached in this chunk; all, when `caught_up`.
    pub caught_up_in: Vec<String>,
    /// What the reader has seen once it has this chunk.
    pub token: Token,
    /// An upper bound of what is left.
    pub rows_left: u64,
    /// Why the pull starts over.
    pub restart: Option<Lost>,
    /// Collections that start over; empty with `restart`: all.
    pub restarted: Vec<String>,
    /// Messages to the reader.
    pub inbox: Vec<Mail>,
    /// Members' rows.
    pub members: Vec<(Revision, RosterEntry)>,
    /// The rows: the encoded field `Chunk.keys`.
    pub keys: Vec<u8>,
    /// How many rows there are in `members` and `keys`; messages are none.
    pub rows: usize,
}

/// Estimated size of a member's row on the wire.
const MEMBER_BYTES: usize = 48;

impl Fold {
    /// The next chunk of a reader's backlog. `log` tells this log from others.
    ///
    /// # Errors
    /// [`PullError::Behind`] when the reader has been shown more than this relay has applied.
    pub fn pull(&self, log: u64, namespace: &Namespace, pull: &Pull<'_>) -> Result<Chunk, PullError> {
        let restart = self.why_restart(log, namespace, pull)?;
        let empty = NamespaceState::default();
        let view = self.namespace(namespace);
        let state = view.as_ref().map_or(&empty, |view| view.state());
        Ok(Walk::new(self, state, log, namespace, pull, restart).run(pull))
    }

    /// Whether the reader comes from a history that this log does not have. Checked before anything is read.
    fn why_restart(
        &self,
        log: u64,
        namespace: &Namespace,
        pull: &Pull<'_>,
    ) -> Result<Option<Lost>, PullError> {
        let check_head = !self.traps.has(Trap::NoHead);
        let token = match &pull.token {
            Some(Err(TokenError)) => return Ok(Some(Lost::BadToken)),
            Some(Ok(token)) => match token.is_for(log, namespace) {
                Err(Mismatch::Namespace) => return Ok(Some(Lost::BadToken)),
                Err(Mismatch::Log) => return Ok(Some(Lost::History)),
                Ok(()) => Some(token),
            },
            None => None,
        };
        let mut shown: Vec<Revision> = token.into_iter().flat_map(Token::revisions).collect();
        shown.extend(check_head.then_some(pull.head));
        shown.extend(pull.held_since);
        let highest = shown.iter().copied().max().unwrap_or_default();
        if highest > self.revision() {
            return if pull.log_is_read { Ok(Some(Lost::History)) } else { Err(PullError::Behind(highest)) };
        }
        let valid = shown.iter().all(|revision| self.is_valid(*revision)) || self.traps.has(Trap::NoOpen);
        Ok((!valid).then_some(Lost::History))
    }
}

/// One pass over the followed collections at one revision.
struct Walk<'a> {
    fold: &'a Fold,
    state: &'a NamespaceState,
    as_of: Revision,
    /// Where the reader is in each collection, and whether it starts over there with this chunk.
    places: Vec<(usize, Place, bool)>,
    chunk: Chunk,
    budget: usize,
}

impl<'a> Walk<'a> {
    fn new(
        fold: &'a Fold,
        state: &'a NamespaceState,
        log: u64,
        name: &Namespace,
        pull: &Pull<'_>,
        restart: Option<Lost>,
    ) -> Self {
        let as_of = fold.revision();
        let token = pull.token.as_ref().and_then(|it| it.as_ref().ok()).filter(|_| restart.is_none());
        let mut walk = Self {
            fold,
            state,
            as_of,
            places: Vec::new(),
            budget: pull.max_bytes,
            chunk: Chunk {
                as_of,
                after: token.map(|token| token.seen),
                caught_up: false,
                caught_up_in: Vec::new(),
                token: Token::new(log, name, as_of, state.collections().len() + 1),
                rows_left: 0,
                restart,
                restarted: Vec::new(),
                inbox: Vec::new(),
                members: Vec::new(),
                keys: Vec::new(),
                rows: 0,
            },
        };
        walk.chunk.token.inbox = token.map_or(Revision::ZERO, |token| token.inbox);
        let held_since = pull.held_since.filter(|_| restart.is_none());
        for number in followed(state, pull) {
            let (place, restarts) = walk.place(number, token, held_since);
            walk.places.push((number, place, restarts || restart.is_some()));
        }
        walk
    }

    /// Where the reader is in a collection; a fresh start if rows that it may still show were dropped there.
    fn place(&mut self, number: usize, token: Option<&Token>, held_since: Option<Revision>) -> (Place, bool) {
        let fresh = Place { cursor: Revision::ZERO, boot_start: Some(self.as_of) };
        // Rows that the reader holds already, from an acknowledgement or a read, may have died since.
        let begun = Place { boot_start: held_since.or(fresh.boot_start), ..fresh };
        let place = token.and_then(|token| token.place(number)).unwrap_or(begun);
        if place.boot_start.unwrap_or(place.cursor) >= self.floor(number) {
            return (place, false);
        }
        if self.chunk.restart.is_none_or(|it| it == Lost::Compacted) {
            self.chunk.restart = Some(Lost::Compacted);
            self.chunk.restarted.push(self.name(number).to_owned());
        }
        (fresh, true)
    }

    fn floor(&self, number: usize) -> Revision {
        match number.checked_sub(1) {
            None => self.state.members.roster().floor(),
            Some(number) => self.state.collections()[number].table().floor(),
        }
    }

    fn name(&self, number: usize) -> &'a str {
        number.checked_sub(1).map_or(Follow::MEMBERS, |number| self.state.collections()[number].name.as_str())
    }

    fn run(mut self, pull: &Pull<'_>) -> Chunk {
        let places = std::mem::take(&mut self.places);
        let mut keys = Vec::new();
        let mut writer = RowWriter::new(&mut keys, RowWriter::CHUNK);
        let mut full = pull.node.is_some_and(|node| self.mail(node));
        for (number, mut place, restarts) in places {
            if !full {
                // Whoever starts over drops what is not delivered from here on, acknowledged or not.
                let acked = if restarts { &[] } else { pull.acked };
                let end = match number.checked_sub(1) {
                    None => self.members(place, acked),
                    Some(collection) => {
                        self.rows(&self.state.collections()[collection], place, acked, &mut writer)
                    }
                };
                match end {
                    None => place = Place { cursor: self.as_of, boot_start: None },
                    Some(stopped_after) => {
                        full = true;
                        place.cursor = stopped_after;
                    }
                }
            }
            if full {
                self.chunk.rows_left += self.count_after(number, place.cursor);
            } else {
                self.chunk.caught_up_in.push(self.name(number).to_owned());
            }
            self.chunk.token.push(number, place);
        }
        self.chunk.caught_up = !full;
        let rows = writer.finish();
        self.chunk.rows += rows;
        self.chunk.keys = keys;
        self.finish(pull)
    }

    /// Names what is at its end without a list of thousands: all that were asked for need no names.
    fn finish(mut self, pull: &Pull<'_>) -> Chunk {
        if self.chunk.caught_up {
            self.chunk.caught_up_in.clear();
            if pull.members {
                self.chunk.caught_up_in.push(Follow::MEMBERS.to_owned());
            }
            self.chunk.caught_up_in.extend(pull.collections.iter().map(|name| name.as_str().to_owned()));
        }
        self.chunk
    }

    fn count_after(&self, number: usize, cursor: Revision) -> u64 {
        match number.checked_sub(1) {
            None => self.state.members.roster().count_after(cursor) as u64,
            Some(number) => self.state.collections()[number].table().count_after(cursor) as u64,
        }
    }

    /// Whether a row need not be sent: its very state came with an acknowledgement, or it was dead before the start.
    fn skips(&self, at: Revision, dead: bool, place: Place, acked: &[Revision]) -> bool {
        let dead_before = |start: Revision| at <= start || self.fold.traps.has(Trap::BootSkip);
        (dead && place.boot_start.is_some_and(dead_before)) || acked.binary_search(&at).is_ok()
    }

    /// Appends messages, which come before all rows; whether the budget stopped it.
    fn mail(&mut self, node: NodeId) -> bool {
        for mail in self.state.inboxes.after(node, self.chunk.token.inbox) {
            if self.budget < mail.bytes() && !self.chunk.inbox.is_empty() {
                let left = self.state.inboxes.after(node, self.chunk.token.inbox).count();
                self.chunk.rows_left += left as u64;
                return true;
            }
            self.budget = self.budget.saturating_sub(mail.bytes());
            self.chunk.token.inbox = mail.revision;
            self.chunk.inbox.push(mail.clone());
        }
        false
    }

    /// Appends members' rows; `Some(cursor)` when the budget stopped it.
    fn members(&mut self, place: Place, acked: &[Revision]) -> Option<Revision> {
        let mut cursor = place.cursor;
        for (at, _, row) in self.state.members.roster().changed_after(place.cursor) {
            let Some(entry) = &row.body.0 else { continue };
            if self.skips(at, row.body.is_dead(), place, acked) {
                continue;
            }
            if self.budget < MEMBER_BYTES && (!self.chunk.members.is_empty() || !self.chunk.inbox.is_empty())
            {
                return Some(cursor);
            }
            cursor = at;
            self.budget = self.budget.saturating_sub(MEMBER_BYTES + entry.group.as_str().len());
            self.chunk.members.push((at, entry.clone()));
            self.chunk.rows += 1;
        }
        None
    }

    /// Appends rows of a collection, whole revisions at a time; `Some(cursor)` when the budget stopped it.
    fn rows(
        &self,
        collection: &Collection,
        place: Place,
        acked: &[Revision],
        out: &mut RowWriter<'_>,
    ) -> Option<Revision> {
        let owed = |at: Revision, row: &Row<RowBody>| !self.skips(at, row.body.is_dead(), place, acked);
        let mut changed =
            collection.table().changed_after(place.cursor).filter(|(at, _, row)| owed(*at, row)).peekable();
        let (mut together, mut open, mut cursor) = (Vec::new(), None, place.cursor);
        while let Some((at, _, row)) = changed.next() {
            together.clear();
            together.push(row);
            while let Some((_, _, row)) = changed.next_if(|next| next.0 == at) {
                together.push(row);
            }
            let len: usize = together.iter().map(|row| row_len(collection, row, open)).sum();
            let something = out.rows() > 0 || !self.chunk.members.is_empty() || !self.chunk.inbox.is_empty();
            if something && out.len() + len > self.budget {
                return Some(cursor);
            }
            for row in &together {
                write_row(collection, row, &mut open, out);
            }
            cursor = at;
        }
        None
    }
}

fn followed(state: &NamespaceState, pull: &Pull<'_>) -> Vec<usize> {
    let mut numbers: Vec<usize> = if pull.all {
        (1..=state.collections().len()).collect()
    } else {
        pull.collections
            .iter()
            .filter_map(|name| state.find(name.as_str()))
            .map(|number| number + 1)
            .collect()
    };
    if pull.members {
        numbers.push(ROSTER);
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
