//! Who is a member, who was one, and the rows that tell readers so.
//!
//! A member's row changes when it joins, is re-admitted or ends, and never otherwise: AWAKE, ASLEEP and SUSPECT are
//! soft fields, part of the fold and of no row. Of an ended member a small tombstone remains. It is the only thing that
//! can still say whether an unacknowledged push was bound, so an id is never revived without it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use dormouse_proto::{
    ids::{Beat, BootId, Group, Incarnation, NodeId, PushId, PushNo, Revision},
    record::{Cause, Contact, Gone, Join},
};

use super::{
    Reason,
    policy::Limits,
    rows::{Body, Row, RowId, Table},
};

/// Free labels of a member, shared by its record and its row.
pub type Tags = Arc<BTreeMap<String, String>>;

/// The fate of a member's last push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastPush {
    /// Its number; 0 before the first.
    pub push_no: PushNo,
    /// Its id.
    pub push_id: PushId,
    /// Why it was refused; `None`: bound.
    pub refused: Option<Refused>,
    /// The revision that it was bound at; zero when refused.
    pub revision: Revision,
}

/// Why a push was refused, and for which of its deltas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason of the first offence.
    pub reason: Reason,
    /// Indexes of the offending deltas, at most [`Refused::NAMED`].
    pub deltas: Vec<u32>,
}

impl Refused {
    /// How many offending deltas are named.
    pub const NAMED: usize = 8;
}

/// What is known of a member's life, by the evidence in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soft {
    /// The newest beat that any relay reported.
    pub beat: Beat,
    /// Whether it declared sleep.
    pub asleep: bool,
    /// Log time at which its lease ends.
    pub ends_at_ms: u64,
    /// The relay session that reported it.
    pub holder: u64,
}

/// One live member.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Rises with every re-admission.
    pub incarnation: Incarnation,
    /// Whose process it is.
    pub boot_id: BootId,
    /// What it runs.
    pub group: Group,
    /// Free labels.
    pub tags: Tags,
    /// The fate of its last push.
    pub last: LastPush,
    /// What is known of its life.
    pub soft: Soft,
    /// The log's wall clock when it joined, for display.
    pub joined_at_ms: u64,
    /// The revision of its join or re-admission.
    pub revision: Revision,
}

impl Member {
    /// Takes note of a contact, unless a newer one is known.
    pub(super) fn hear(&mut self, contact: Contact, session: u64, log_time_ms: u64) {
        if contact.beat >= self.soft.beat {
            self.soft = soft(contact, session, log_time_ms);
        }
    }
}

/// What remains of an ended member for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Tombstone {
    /// The last incarnation.
    pub incarnation: Incarnation,
    /// Whose process it was.
    pub boot_id: BootId,
    /// The fate of its last push.
    pub last: LastPush,
    /// Why it ended; an evicted node is not re-admitted while the tombstone lives.
    pub cause: Cause,
    /// Log time of the end.
    pub ended_at_ms: u64,
}

/// A member as its row tells it to readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    /// Who.
    pub node: NodeId,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// What it runs.
    pub group: Group,
    /// Free labels.
    pub tags: Tags,
    /// Why it ended; `None`: it is a member.
    pub gone: Option<Cause>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RosterRow(pub(super) Option<RosterEntry>);

impl Body for RosterRow {
    fn is_dead(&self) -> bool {
        self.0.as_ref().is_none_or(|entry| entry.gone.is_some())
    }

    fn touched(&self, chg: Revision) -> Revision {
        chg
    }
}

/// What became of a Join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinVerdict {
    /// The node is a member; `again`: it was already, in that very incarnation.
    Admitted {
        /// It was a member already, in that very incarnation.
        again: bool,
    },
    /// Another process holds the id, or a newer incarnation of this one.
    Superseded,
    /// The id is unknown although the node had it: nobody can say what became of its last push.
    Forgotten,
    /// Somebody ended this membership, and that still holds.
    Evicted,
    /// There are as many members as the namespace may have.
    Full,
}

/// The members of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    live: BTreeMap<NodeId, Member>,
    tombstones: HashMap<NodeId, Tombstone>,
    /// Oldest end first; counts if and only if that tombstone still has that incarnation.
    ended: VecDeque<(NodeId, Incarnation)>,
    roster: Table<RosterRow>,
    places: HashMap<NodeId, RowId>,
}

impl Members {
    pub(super) fn get(&self, node: NodeId) -> Option<&Member> {
        self.live.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.live.get_mut(&node)
    }

    pub(super) fn tombstone(&self, node: NodeId) -> Option<&Tombstone> {
        self.tombstones.get(&node)
    }

    pub(super) fn live(&self) -> &BTreeMap<NodeId, Member> {
        &self.live
    }

    pub(super) fn tombstones_in_order(&self) -> impl Iterator<Item = (NodeId, &Tombstone)> {
        self.ended.iter().filter_map(|(node, incarnation)| {
            self.tombstones.get(node).filter(|it| it.incarnation == *incarnation).map(|it| (*node, it))
        })
    }

    pub(super) fn tombstone_count(&self) -> usize {
        self.tombstones.len()
    }

    /// Estimated memory of members, tombstones and rows. What has a name or labels counts with a usual length: a walk over
    /// all of them for a gauge would hold up the log.
    pub(super) fn bytes(&self) -> u64 {
        const MEMBER: u64 = 400;
        const TOMBSTONE: u64 = 176;
        const ROW: u64 = 200;
        let rows = (self.roster.live_rows() + self.roster.dead_rows()) as u64;
        self.live.len() as u64 * MEMBER + self.tombstones.len() as u64 * TOMBSTONE + rows * ROW
    }

    pub(super) fn roster(&self) -> &Table<RosterRow> {
        &self.roster
    }

    pub(super) fn roster_entry(&self, node: NodeId) -> Option<(Revision, &RosterEntry)> {
        let row = self.roster.row(*self.places.get(&node)?);
        row.body.0.as_ref().map(|entry| (row.chg, entry))
    }

    /// Takes note of what was heard, unless something newer is known.
    pub(super) fn heard(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        contact: Contact,
        session: u64,
        log_time_ms: u64,
    ) {
        if let Some(member) = self.live.get_mut(&node).filter(|it| it.incarnation == incarnation) {
            member.hear(contact, session, log_time_ms);
        }
    }

    pub(super) fn join(
        &mut self,
        join: &Join,
        at: Revision,
        now: Now,
        session: u64,
        limits: &Limits,
    ) -> JoinVerdict {
        let again = match self.admissible(join) {
            Ok(again) => again,
            Err(refused) => return refused,
        };
        if again {
            if let Some(contact) = join.contact {
                self.heard(join.node, join.incarnation, contact, session, now.log_time_ms);
            }
            return JoinVerdict::Admitted { again };
        }
        if !self.live.contains_key(&join.node) && self.live.len() as u64 >= limits.nodes_max {
            return JoinVerdict::Full;
        }
        let before = self.live.remove(&join.node).map(|it| (it.last, it.joined_at_ms));
        let before = before.or_else(|| self.tombstones.remove(&join.node).map(|it| (it.last, now.stamp_ms)));
        let (last, joined_at_ms) = before.unwrap_or((LastPush::default(), now.stamp_ms));
        let silent = Contact { beat: Beat(0), asleep: false, lease_ms: 0, awake_ms: 0 };
        let member = Member {
            incarnation: join.incarnation,
            boot_id: join.boot_id,
            group: join.group.clone(),
            tags: Arc::new(join.tags.clone()),
            last,
            soft: soft(join.contact.unwrap_or(silent), session, now.log_time_ms),
            joined_at_ms,
            revision: at,
        };
        let (group, tags) = (member.group.clone(), Arc::clone(&member.tags));
        self.live.insert(join.node, member);
        self.tell(
            RosterEntry { node: join.node, incarnation: join.incarnation, group, tags, gone: None },
            at,
        );
        JoinVerdict::Admitted { again }
    }

    /// Whether a Join may take effect; `Ok(true)`: it already has.
    fn admissible(&self, join: &Join) -> Result<bool, JoinVerdict> {
        let same_process =
            |known: Incarnation, boot_id: BootId| join.boot_id == boot_id && join.incarnation > known;
        if let Some(member) = self.live.get(&join.node) {
            if member.incarnation == join.incarnation && member.boot_id == join.boot_id {
                return Ok(true);
            }
            return if same_process(member.incarnation, member.boot_id) {
                Ok(false)
            } else {
                Err(JoinVerdict::Superseded)
            };
        }
        match self.tombstones.get(&join.node) {
            Some(tombstone) if tombstone.cause == Cause::Evicted => Err(JoinVerdict::Evicted),
            Some(tombstone) if same_process(tombstone.incarnation, tombstone.boot_id) => Ok(false),
            Some(_) => Err(JoinVerdict::Superseded),
            None if join.previous.is_some() => Err(JoinVerdict::Forgotten),
            None => Ok(false),
        }
    }

    /// Ends a membership, if nothing newer is known of it.
    pub(super) fn gone(&mut self, gone: &Gone, at: Revision, now: Now) -> bool {
        let known = self.live.get(&gone.node).filter(|member| member.incarnation == gone.incarnation);
        let Some(member) = known else { return false };
        if gone.cause == Cause::Expired && member.soft.beat > gone.beat {
            return false;
        }
        let Some(member) = self.live.remove(&gone.node) else {
            return false;
        };
        let tombstone = Tombstone {
            incarnation: member.incarnation,
            boot_id: member.boot_id,
            last: member.last,
            cause: gone.cause,
            ended_at_ms: now.log_time_ms,
        };
        self.tombstones.insert(gone.node, tombstone);
        self.ended.push_back((gone.node, gone.incarnation));
        let Member { incarnation, group, tags, .. } = member;
        self.tell(RosterEntry { node: gone.node, incarnation, group, tags, gone: Some(gone.cause) }, at);
        true
    }

    fn tell(&mut self, entry: RosterEntry, at: Revision) {
        let node = entry.node;
        let place = match self.places.get(&node) {
            Some(place) => *place,
            None => {
                let Some(place) = self.roster.insert(RosterRow(None)) else {
                    return;
                };
                self.places.insert(node, place);
                place
            }
        };
        let before = self.roster.before(place);
        *self.roster.body_mut(place) = RosterRow(Some(entry));
        self.roster.changed(place, before, true, at);
    }

    /// Drops tombstones that are too old or too many; `forgotten` hears of each.
    pub(super) fn forget_ended(
        &mut self,
        log_time_ms: u64,
        limits: &Limits,
        mut forgotten: impl FnMut(NodeId),
    ) {
        while let Some((node, incarnation)) = self.ended.front().copied() {
            let valid = self.tombstones.get(&node).filter(|it| it.incarnation == incarnation);
            if let Some(tombstone) = valid {
                let expired = log_time_ms.saturating_sub(tombstone.ended_at_ms) > limits.tombstone_ms;
                if !expired && self.tombstones.len() as u64 <= limits.tombstones_max {
                    return;
                }
                self.tombstones.remove(&node);
                forgotten(node);
            }
            self.ended.pop_front();
        }
    }

    /// Drops rows of ended members beyond the cap, as in every collection. Returns how many.
    pub(super) fn collect(&mut self, at_least: usize) -> u64 {
        let mut dropped = 0;
        while let Some((_, row)) = self.roster.drop_oldest_dead(at_least.max(self.roster.live_rows() / 4)) {
            if let Some(entry) = row.body.0 {
                self.places.remove(&entry.node);
            }
            dropped += 1;
        }
        dropped
    }

    pub(super) fn is_untidy(&self) -> bool {
        self.roster.is_untidy()
    }

    pub(super) fn tidy(&mut self) -> bool {
        self.roster.tidy()
    }

    // ---- snapshots ----

    pub(super) fn restore_member(&mut self, node: NodeId, member: Member) {
        self.live.insert(node, member);
    }

    pub(super) fn restore_tombstone(&mut self, node: NodeId, tombstone: Tombstone) {
        self.ended.push_back((node, tombstone.incarnation));
        self.tombstones.insert(node, tombstone);
    }

    pub(super) fn restore_row(&mut self, row: Row<RosterRow>) {
        let Some(node) = row.body.0.as_ref().map(|entry| entry.node) else {
            return;
        };
        if let Some(place) = self.roster.restore(row.body, row.chg) {
            self.places.insert(node, place);
        }
    }

    pub(super) fn restore_roster(&mut self, floor: Revision, dead: impl Iterator<Item = NodeId>) {
        self.roster.set_floor(floor);
        let places: Vec<RowId> = dead.filter_map(|node| self.places.get(&node).copied()).collect();
        self.roster.restore_dead(places.into_iter());
    }
}

/// The two clocks of the fold, both made of records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) log_time_ms: u64,
    pub(super) stamp_ms: u64,
}

fn soft(contact: Contact, session: u64, log_time_ms: u64) -> Soft {
    Soft {
        beat: contact.beat,
        asleep: contact.asleep,
        ends_at_ms: log_time_ms.saturating_add(contact.lease_ms),
        holder: session,
    }
}
