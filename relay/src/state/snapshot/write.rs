//! From the state to the stream.

use std::collections::HashMap;

use dormouse_proto::{
    ids::{Namespace, Revision},
    record::Policy,
    wire::log_v1::{self as stored, part::Kind},
};
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use super::{FORMAT, StateHash, reason, row::fill};
use crate::state::{
    Fold, Limits, Mail,
    collection::{Collection, RowBody},
    inbox::Inboxes,
    keys::KeyId,
    members::{LastPush, Members},
    namespace::NamespaceState,
    once::OnceIds,
    rows::{Body as _, Row},
};

/// Rows of one part, ...
const BATCH: usize = 512;
/// ... and bytes beyond which a part is not made longer: a reader takes it as a whole.
const PART_BYTES: usize = 1 << 20;

impl Fold {
    /// Writes the state piece by piece; `piece` gets a few MiB at once at the most. Answers with the state's hash.
    pub fn write_snapshot(&self, mut piece: impl FnMut(&[u8])) -> StateHash {
        let mut hasher = Xxh3::new();
        self.write_parts(&mut |bytes| {
            hasher.update(bytes);
            piece(bytes);
        });
        let hash = hasher.digest128();
        emit(Kind::End(stored::End { hash: hash.to_le_bytes().to_vec().into() }), &mut piece);
        StateHash(hash)
    }

    /// The hash of the whole state.
    pub fn hash(&self) -> StateHash {
        let mut hasher = Xxh3::new();
        self.write_parts(&mut |bytes| hasher.update(bytes));
        StateHash(hasher.digest128())
    }

    fn write_parts(&self, out: &mut impl FnMut(&[u8])) {
        let begin = stored::Begin {
            format: FORMAT,
            runs: self.segments.runs().iter().flat_map(|run| [run.0.0, run.1.0]).collect(),
            log_time_ms: self.log_time_ms,
            stamp_ms: self.stamp_ms,
            limits: Some(policy(&self.limits).into()),
            effective: self.effective.0,
        };
        emit(Kind::Begin(begin), out);
        // In the order of their numbers, which is that of the log.
        let mut names: Vec<(&Namespace, usize)> =
            self.names.iter().map(|(name, number)| (name, *number)).collect();
        names.sort_unstable_by_key(|(_, number)| *number);
        for (name, number) in names {
            let namespace = &self.namespaces[number];
            let own = (namespace.own != Policy::default()).then(|| namespace.own.clone().into());
            emit(Kind::Namespace(stored::NamespaceBegin { name: name.to_string(), limits: own }), out);
            write_namespace(namespace, out);
        }
    }
}

fn emit(kind: Kind, out: &mut impl FnMut(&[u8])) {
    out(&stored::Part { kind: Some(kind) }.encode_length_delimited_to_vec());
}

fn policy(limits: &Limits) -> Policy {
    let Limits {
        dead_rows_min,
        tombstones_max,
        tombstone_ms,
        once_max,
        once_ms,
        stamp_skew_ms,
        collections_max,
        rows_max,
        bytes_max,
        nodes_max,
        events_max,
        events_bytes_max,
        events_age_ms,
        inbox_max,
        inbox_bytes_max,
        namespaces_max: _, // not a policy
    } = *limits;
    Policy {
        namespace: None,
        dead_rows_min: Some(dead_rows_min),
        tombstones_max: Some(tombstones_max),
        tombstone_ms: Some(tombstone_ms),
        once_max: Some(once_max),
        once_ms: Some(once_ms),
        stamp_skew_ms: Some(stamp_skew_ms),
        collections_max: Some(collections_max),
        rows_max: Some(rows_max),
        bytes_max: Some(bytes_max),
        nodes_max: Some(nodes_max),
        events_max: Some(events_max),
        events_bytes_max: Some(events_bytes_max),
        events_age_ms: Some(events_age_ms),
        inbox_max: Some(inbox_max),
        inbox_bytes_max: Some(inbox_bytes_max),
    }
}

fn write_namespace(namespace: &NamespaceState, out: &mut impl FnMut(&[u8])) {
    for collection in namespace.collections() {
        let begin = stored::CollectionBegin {
            name: collection.name.to_string(),
            floor: collection.table().floor().0,
            register_mark: collection.marks.register.0,
            register_stamp: collection.marks.register_stamp,
            remove_wins_mark: collection.marks.remove_wins.0,
            events_mark: collection.marks.events.0,
        };
        emit(Kind::Collection(begin), out);
        write_rows(collection, out);
    }
    write_members(&namespace.members, out);
    write_inboxes(&namespace.inboxes, out);
    write_once(&namespace.once, out);
}

fn write_rows(collection: &Collection, out: &mut impl FnMut(&[u8])) {
    let mut unseen: Vec<_> = collection.table().unseen().collect();
    unseen.sort_by_cached_key(|row| full_name(collection, row));
    let rows =
        unseen.into_iter().chain(collection.table().changed_after(Revision::ZERO).map(|(_, _, row)| row));

    let (mut batch, mut bytes, mut last, mut ordinal) = (Vec::with_capacity(BATCH), 0, None, 0_u32);
    let mut dead: HashMap<*const Row<RowBody>, u32> = HashMap::new();
    for row in rows {
        if row.body.is_dead() {
            dead.insert(std::ptr::from_ref(row), ordinal);
        }
        ordinal += 1;
        batch.push(stored_row(collection, row, &mut last));
        bytes += row.body.heap_bytes();
        if batch.len() == BATCH || bytes >= PART_BYTES {
            bytes = 0;
            emit(Kind::Rows(stored::Rows { rows: std::mem::take(&mut batch) }), out);
        }
    }
    if !batch.is_empty() {
        emit(Kind::Rows(stored::Rows { rows: batch }), out);
    }
    let order: Vec<u32> = collection
        .table()
        .dead_in_order()
        .filter_map(|row| dead.get(&std::ptr::from_ref(row)).copied())
        .collect();
    for part in order.chunks(8 * BATCH) {
        emit(Kind::Dead(stored::Dead { rows: part.to_vec() }), out);
    }
}

fn stored_row(collection: &Collection, row: &Row<RowBody>, last: &mut Option<KeyId>) -> stored::Row {
    let mut stored = stored::Row { chg: row.chg.0, ..Default::default() };
    let Some(key) = row.body.key() else { return stored };
    if *last != Some(key) {
        let entry = collection.keys().entry(key);
        stored.key = entry.name.to_string();
        stored.kind = u32::from(entry.kind.number());
        *last = Some(key);
    }
    fill(&mut stored, &row.body);
    stored
}

/// Key, type and element of a row.
fn full_name(collection: &Collection, row: &Row<RowBody>) -> (String, u8, String) {
    let Some(key) = row.body.key() else { return Default::default() };
    let entry = collection.keys().entry(key);
    (entry.name.to_string(), entry.kind.number(), row.body.element().unwrap_or_default().to_owned())
}

fn write_inboxes(inboxes: &Inboxes, out: &mut impl FnMut(&[u8])) {
    for (node, mails) in inboxes.in_order() {
        let mail = |mail: &&Mail| stored::Mail {
            revision: mail.revision.0,
            message_id: mail.message_id.clone(),
            sender: mail.sender.clone(),
            payload: mail.payload.to_vec().into(),
            expires_at_ms: mail.expires_at_ms,
        };
        // A message has 64 KiB at the most, so that a part has a few MiB.
        for some in mails.chunks(64) {
            let inbox = stored::Inbox { node_id: node.0, mails: some.iter().map(mail).collect() };
            emit(Kind::Inboxes(stored::Inboxes { inboxes: vec![inbox] }), out);
        }
    }
}

fn write_members(members: &Members, out: &mut impl FnMut(&[u8])) {
    let live: Vec<_> = members.live().iter().collect();
    for part in live.chunks(BATCH) {
        let members = part.iter().map(|(node, member)| stored::Member {
            node_id: node.0,
            incarnation: member.incarnation.0,
            boot_id: member.boot_id.0.to_vec().into(),
            group: member.group.to_string(),
            tags: member.tags.as_ref().clone(),
            last: Some(stored_last(&member.last)),
            beat: member.soft.beat.0,
            asleep: member.soft.asleep,
            ends_at_ms: member.soft.ends_at_ms,
            holder: member.soft.holder,
            joined_at_ms: member.joined_at_ms,
            revision: member.revision.0,
        });
        emit(Kind::Members(stored::Members { members: members.collect() }), out);
    }
    let tombstones: Vec<_> = members.tombstones_in_order().collect();
    for part in tombstones.chunks(BATCH) {
        let tombstones = part.iter().map(|(node, tombstone)| stored::Tombstone {
            node_id: node.0,
            incarnation: tombstone.incarnation.0,
            boot_id: tombstone.boot_id.0.to_vec().into(),
            last: Some(stored_last(&tombstone.last)),
            cause: stored::gone::Cause::from(tombstone.cause) as i32,
            ended_at_ms: tombstone.ended_at_ms,
        });
        emit(Kind::Tombstones(stored::Tombstones { tombstones: tombstones.collect() }), out);
    }
    write_roster(members, out);
}

fn write_roster(members: &Members, out: &mut impl FnMut(&[u8])) {
    let roster = members.roster();
    let rows: Vec<_> = roster
        .changed_after(Revision::ZERO)
        .filter_map(|(at, _, row)| Some((at, row.body.0.as_ref()?)))
        .collect();
    for part in rows.chunks(BATCH) {
        let rows = part.iter().map(|(at, entry)| stored::RosterRow {
            node_id: entry.node.0,
            incarnation: entry.incarnation.0,
            group: entry.group.to_string(),
            gone: entry.gone.map_or(0, |cause| stored::gone::Cause::from(cause) as i32),
            chg: at.0,
            tags: entry.tags.as_ref().clone(),
        });
        emit(Kind::Roster(stored::Roster { floor: 0, rows: rows.collect(), dead: Vec::new() }), out);
    }
    let dead =
        roster.dead_in_order().filter_map(|row| row.body.0.as_ref().map(|entry| entry.node.0)).collect();
    emit(Kind::Roster(stored::Roster { floor: roster.floor().0, rows: Vec::new(), dead }), out);
}

fn write_once(once: &OnceIds, out: &mut impl FnMut(&[u8])) {
    let all: Vec<_> = once.iter().collect();
    for part in all.chunks(BATCH) {
        let ids = part.iter().map(|(key, at_ms, outcome)| stored::OnceId {
            key: key.0.to_le_bytes().to_vec().into(),
            at_ms: *at_ms,
            revision: outcome.map_or(0, |revision| revision.0),
            refused: outcome.map_or_else(reason::number, |_| 0),
        });
        emit(Kind::Once(stored::OnceIds { ids: ids.collect() }), out);
    }
}

fn stored_last(last: &LastPush) -> stored::LastPush {
    stored::LastPush {
        push_no: last.push_no.0,
        push_id: last.push_id.0,
        revision: last.revision.0,
        refused: last.refused.as_ref().map_or(0, |refused| reason::number(refused.reason)),
        deltas: last.refused.as_ref().map_or_else(Vec::new, |refused| refused.deltas.clone()),
    }
}
