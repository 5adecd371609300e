//! From the stream back to the state. The stream may come from a damaged disk, so nothing in it is believed.

use std::sync::Arc;

use dormouse_proto::{
    ids::{Beat, BootId, Incarnation, InvalidName, Key, NodeId, PushId, PushNo, Revision},
    lattice::Type,
    record::{Cause, Policy},
    wire::log_v1::{self as stored, part::Kind},
};
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use super::{
    FORMAT,
    parts::{row_of, rows_of, split_part},
    reason,
    restamp::Restamping,
    row,
};
use crate::state::{
    Fold, Limits, Mail,
    collection::{Collection, Marks, RowBody},
    keys::KeyId,
    members::{LastPush, Member, Refused, RosterEntry, RosterRow, Soft, Tombstone},
    namespace::NamespaceState,
    once::OnceKey,
    places::Gathered,
    rows::{Row, RowId},
    segments::Segments,
};

/// A snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It ends before its end.
    #[error("the snapshot is cut short")]
    Short,
    /// It was written by a newer build.
    #[error("the snapshot has format {0}, this build reads format {FORMAT}")]
    Format(u32),
    /// Its hash does not match its content.
    #[error("the snapshot's hash does not match its content")]
    Hash,
    /// Something in it cannot be.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
}

impl From<InvalidName> for RestoreError {
    fn from(_: InvalidName) -> Self {
        Self::Damaged("a name breaks its rule")
    }
}

impl From<prost::DecodeError> for RestoreError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Damaged("a part cannot be decoded")
    }
}

/// Takes a snapshot in, piece by piece.
pub struct Restore {
    fold: Fold,
    hasher: Xxh3,
    pending: Vec<u8>,
    namespace: Option<usize>,
    collection: Option<Filling>,
    /// The row that is being read. One for all, so that its strings need not be allocated for each.
    row: stored::Row,
    begun: bool,
    ended: bool,
    /// The revisions that rows have instead of their own.
    pub(super) restamping: Restamping,
}

/// The collection that rows are being put into.
#[derive(Debug)]
struct Filling {
    collection: Collection,
    ids: Vec<RowId>,
    key: Option<(KeyId, Type)>,
    elements: Gathered,
    dead: Vec<RowId>,
    /// What nodes hold up here.
    presences: Vec<(NodeId, Key)>,
}

impl Fold {
    /// Takes back what [`Fold::write_snapshot`] wrote, in pieces of any size.
    ///
    /// # Errors
    /// [`RestoreError`] if it is not whole, not understood or damaged.
    pub fn restore<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = P>) -> Result<Self, RestoreError> {
        let mut restore = Restore::new();
        for piece in pieces {
            restore.take(piece.as_ref())?;
        }
        restore.finish()
    }
}

impl Default for Restore {
    fn default() -> Self {
        Self::new()
    }
}

impl Restore {
    /// Before the first piece.
    pub fn new() -> Self {
        Self {
            fold: Fold::new(),
            hasher: Xxh3::new(),
            pending: Vec::new(),
            namespace: None,
            collection: None,
            row: stored::Row::default(),
            begun: false,
            ended: false,
            restamping: Restamping::default(),
        }
    }

    /// Takes the next piece, of any size.
    ///
    /// # Errors
    /// [`RestoreError`] if it is not understood or damaged; nothing can be made of the rest then.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        self.pending.extend_from_slice(piece);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some((part, whole)) = split_part(rest)? {
            match rows_of(part) {
                Some(rows) => self.rows(rows, &rest[..whole])?,
                None => self.part(stored::Part::decode(part)?, &rest[..whole])?,
            }
            rest = &rest[whole..];
        }
        self.pending = rest.to_vec();
        Ok(())
    }

    /// The state, if the snapshot was whole.
    ///
    /// # Errors
    /// [`RestoreError::Short`] if it was not.
    pub fn finish(self) -> Result<Fold, RestoreError> {
        if self.ended && self.pending.is_empty() { Ok(self.fold) } else { Err(RestoreError::Short) }
    }

    /// A part that holds nothing but rows, which are nearly all of a snapshot: one after the other, and not all at once.
    fn rows(&mut self, mut rows: &[u8], bytes: &[u8]) -> Result<(), RestoreError> {
        if self.ended || !self.begun {
            return Err(RestoreError::Damaged("its parts are out of order"));
        }
        self.hasher.update(bytes);
        let filling = self.collection.as_mut().ok_or(RestoreError::Damaged("rows without a collection"))?;
        while !rows.is_empty() {
            let (row, rest) = row_of(rows).ok_or(RestoreError::Damaged("a row that is cut"))?;
            self.row.clear();
            self.row.merge(row)?;
            filling.row(&self.row, &self.restamping)?;
            rows = rest;
        }
        Ok(())
    }

    fn part(&mut self, part: stored::Part, bytes: &[u8]) -> Result<(), RestoreError> {
        let kind = part.kind.ok_or(RestoreError::Damaged("a part of an unknown kind"))?;
        if self.ended || self.begun == matches!(kind, Kind::Begin(_)) {
            return Err(RestoreError::Damaged("its parts are out of order"));
        }
        if !matches!(kind, Kind::Rows(_) | Kind::Dead(_)) {
            self.close_collection()?;
        }
        if let Kind::End(end) = kind {
            self.ended = true;
            self.fold.namespaces.iter_mut().for_each(NamespaceState::restore_ages);
            let whole = end.hash.as_ref() == self.hasher.digest128().to_le_bytes();
            return if whole { Ok(()) } else { Err(RestoreError::Hash) };
        }
        self.hasher.update(bytes);
        match kind {
            Kind::Begin(begin) => self.begin(begin),
            Kind::Namespace(begin) => self.begin_namespace(begin),
            Kind::Collection(begin) => self.begin_collection(begin),
            Kind::Rows(rows) => rows.rows.iter().try_for_each(|row| self.one_row(row)),
            Kind::Dead(dead) => self.filling()?.dead(&dead.rows),
            Kind::Members(members) => members.members.into_iter().try_for_each(|it| self.member(it)),
            Kind::Tombstones(tombstones) => {
                tombstones.tombstones.into_iter().try_for_each(|it| self.tombstone(it))
            }
            Kind::Roster(roster) => self.roster(roster),
            Kind::Inboxes(inboxes) => inboxes.inboxes.into_iter().try_for_each(|it| self.inbox(it)),
            Kind::Once(once) => once.ids.into_iter().try_for_each(|it| self.once(&it)),
            Kind::End(_) => Ok(()),
        }
    }

    fn begin(&mut self, begin: stored::Begin) -> Result<(), RestoreError> {
        if begin.format != FORMAT {
            return Err(RestoreError::Format(begin.format));
        }
        self.begun = true;
        let runs = begin
            .runs
            .chunks(2)
            .map(|run| (Revision(run[0]), Revision(run.last().copied().unwrap_or(0))))
            .collect();
        self.fold.segments =
            Segments::from_runs(runs).ok_or(RestoreError::Damaged("its revisions are out of order"))?;
        self.fold.log_time_ms = begin.log_time_ms;
        self.fold.stamp_ms = begin.stamp_ms;
        self.fold.effective = Revision(begin.effective);
        let mut limits = Limits::default();
        limits.apply(&Policy::from(begin.limits.unwrap_or_default()));
        self.fold.limits = limits;
        Ok(())
    }

    fn begin_namespace(&mut self, begin: stored::NamespaceBegin) -> Result<(), RestoreError> {
        let name = begin.name.try_into()?;
        let number = self.fold.namespaces.len();
        if self.fold.names.insert(name, number).is_some() {
            return Err(RestoreError::Damaged("a namespace comes twice"));
        }
        let mut namespace = NamespaceState::new(self.fold.limits);
        namespace.own = Policy::from(begin.limits.unwrap_or_default());
        namespace.limit(&self.fold.limits);
        self.fold.namespaces.push(namespace);
        self.namespace = Some(number);
        Ok(())
    }

    fn begin_collection(&mut self, begin: stored::CollectionBegin) -> Result<(), RestoreError> {
        let mut collection = Collection::new(begin.name.try_into()?);
        collection.set_floor(Revision(begin.floor));
        collection.marks = Marks {
            register: Revision(begin.register_mark),
            register_stamp: begin.register_stamp,
            remove_wins: Revision(begin.remove_wins_mark),
            events: Revision(begin.events_mark),
        };
        self.collection = Some(Filling {
            collection,
            ids: Vec::new(),
            key: None,
            elements: Gathered::default(),
            dead: Vec::new(),
            presences: Vec::new(),
        });
        Ok(())
    }

    fn one_row(&mut self, row: &stored::Row) -> Result<(), RestoreError> {
        let filling = self.collection.as_mut().ok_or(RestoreError::Damaged("rows without a collection"))?;
        filling.row(row, &self.restamping)
    }

    fn filling(&mut self) -> Result<&mut Filling, RestoreError> {
        self.collection.as_mut().ok_or(RestoreError::Damaged("rows without a collection"))
    }

    fn close_collection(&mut self) -> Result<(), RestoreError> {
        let Some(Filling { mut collection, elements, dead, presences, .. }) = self.collection.take() else {
            return Ok(());
        };
        collection.restore_places(elements);
        collection.restore_dead(dead.into_iter());
        let namespace = self.namespace()?;
        if namespace.find(collection.name.as_str()).is_some() {
            return Err(RestoreError::Damaged("a collection comes twice"));
        }
        for (node, key) in presences {
            namespace.presences.note(node, &collection.name, &key, true);
        }
        namespace.add(collection);
        Ok(())
    }

    fn namespace(&mut self) -> Result<&mut NamespaceState, RestoreError> {
        let number = self.namespace.ok_or(RestoreError::Damaged("no namespace begun"))?;
        Ok(&mut self.fold.namespaces[number])
    }

    fn member(&mut self, stored: stored::Member) -> Result<(), RestoreError> {
        let member = Member {
            incarnation: Incarnation(stored.incarnation),
            boot_id: boot_id(&stored.boot_id)?,
            group: stored.group.try_into()?,
            tags: Arc::new(stored.tags),
            last: last_push(stored.last.unwrap_or_default())?,
            soft: Soft {
                beat: Beat(stored.beat),
                asleep: stored.asleep,
                ends_at_ms: stored.ends_at_ms,
                holder: stored.holder,
            },
            joined_at_ms: stored.joined_at_ms,
            revision: Revision(stored.revision),
        };
        self.namespace()?.members.restore_member(NodeId(stored.node_id), member);
        Ok(())
    }

    fn tombstone(&mut self, stored: stored::Tombstone) -> Result<(), RestoreError> {
        let tombstone = Tombstone {
            incarnation: Incarnation(stored.incarnation),
            boot_id: boot_id(&stored.boot_id)?,
            cause: Cause::try_from(stored.cause())
                .map_err(|_| RestoreError::Damaged("a tombstone without a cause"))?,
            last: last_push(stored.last.unwrap_or_default())?,
            ended_at_ms: stored.ended_at_ms,
        };
        self.namespace()?.members.restore_tombstone(NodeId(stored.node_id), tombstone);
        Ok(())
    }

    fn roster(&mut self, roster: stored::Roster) -> Result<(), RestoreError> {
        let last = roster.rows.is_empty();
        for row in roster.rows {
            let entry = RosterEntry {
                node: NodeId(row.node_id),
                incarnation: Incarnation(row.incarnation),
                gone: Cause::try_from(row.gone()).ok(),
                tags: Arc::new(row.tags),
                group: row.group.try_into()?,
            };
            let chg = self.restamping.of(Revision(row.chg));
            self.namespace()?.members.restore_row(Row { chg, body: RosterRow(Some(entry)) });
        }
        if last {
            self.namespace()?
                .members
                .restore_roster(Revision(roster.floor), roster.dead.into_iter().map(NodeId));
        }
        Ok(())
    }

    fn inbox(&mut self, inbox: stored::Inbox) -> Result<(), RestoreError> {
        for mail in inbox.mails {
            let stored::Mail { revision, message_id, sender, payload, expires_at_ms } = mail;
            let payload = payload.to_vec().into_boxed_slice();
            let revision = self.restamping.of(Revision(revision));
            let mail = Mail { revision, message_id, sender, payload, expires_at_ms };
            self.namespace()?.inboxes.restore(NodeId(inbox.node_id), mail);
        }
        Ok(())
    }

    fn once(&mut self, id: &stored::OnceId) -> Result<(), RestoreError> {
        let key = id
            .key
            .as_ref()
            .try_into()
            .map(u128::from_le_bytes)
            .map_err(|_| RestoreError::Damaged("an id of odd length"))?;
        let outcome = match id.refused {
            0 => Ok(Revision(id.revision)),
            number => Err(reason::from_number(number).ok_or(RestoreError::Damaged("an unknown reason"))?),
        };
        self.namespace()?.once.restore(OnceKey(key), id.at_ms, outcome);
        Ok(())
    }
}

impl Filling {
    fn row(&mut self, row: &stored::Row, restamping: &Restamping) -> Result<(), RestoreError> {
        const TOO_MANY: RestoreError = RestoreError::Damaged("more rows than there can be");
        if row.kind != 0 {
            let kind =
                Type::from_number(row.kind).ok_or(RestoreError::Damaged("a row of an unknown type"))?;
            self.key = Some((self.collection.restore_key(&row.key, kind).ok_or(TOO_MANY)?, kind));
        }
        let (key, kind) = self.key.ok_or(RestoreError::Damaged("a row without a key"))?;
        if kind == Type::Presence && row.value.is_some() {
            let name = self.collection.keys().entry(key).name.parse()?;
            self.presences.push((NodeId(row.node_id), name));
        }
        let (was, mut body) = (Revision(row.chg), row::body(kind, row, key)?);
        if let RowBody::Event(_, entry) = &mut body {
            entry.event = restamping.event(std::mem::take(&mut entry.event), was)?;
        }
        let id = self.collection.restore(key, restamping.of(was), body, &mut self.elements);
        self.ids.push(id.ok_or(TOO_MANY)?);
        Ok(())
    }

    fn dead(&mut self, rows: &[u32]) -> Result<(), RestoreError> {
        let id_of = |ordinal: &u32| {
            self.ids.get(*ordinal as usize).copied().ok_or(RestoreError::Damaged("a dead row that is none"))
        };
        let ids = rows.iter().map(id_of).collect::<Result<Vec<_>, _>>()?;
        self.dead.extend(ids);
        Ok(())
    }
}

fn boot_id(bytes: &[u8]) -> Result<BootId, RestoreError> {
    bytes.try_into().map(BootId).map_err(|_| RestoreError::Damaged("a boot id of odd length"))
}

fn last_push(stored: stored::LastPush) -> Result<LastPush, RestoreError> {
    let refused = match stored.refused {
        0 => None,
        number => {
            let reason = reason::from_number(number).ok_or(RestoreError::Damaged("an unknown reason"))?;
            Some(Refused { reason, deltas: stored.deltas })
        }
    };
    Ok(LastPush {
        push_no: PushNo(stored.push_no),
        push_id: PushId(stored.push_id),
        refused,
        revision: Revision(stored.revision),
    })
}
