//! What the fold says becomes wire messages.

use bytes::Bytes;
use dormouse_proto::{
    ids::{PushNo, Revision},
    record::Cause,
    rows::{decode_value, timestamp},
    wire::v1::{
        self,
        member::{GoneReason, State},
    },
};
use prost::Message as _;

use super::{selector::Filter, status::reason_word};
use crate::{
    liveness::{Learned, LeaseState, LeaseView},
    log::Durability,
    metrics::Condition,
    state::{Chunk, LastPush, Lost, Mail, Member, RosterEntry},
};

/// Why this relay's word is weaker than usual, on the wire.
pub(super) fn condition(condition: Condition) -> v1::relay_info::Condition {
    use v1::relay_info::Condition as Wire;
    match condition {
        Condition::StoreFull => Wire::StoreFull,
        Condition::LogUnreachable => Wire::LogUnreachable,
        Condition::ExpiryHeld => Wire::ExpiryHeld,
        Condition::MassLoss => Wire::MassLoss,
        Condition::LeasesStretched => Wire::LeasesStretched,
    }
}

/// A chunk, encoded. Its rows are encoded already and are only copied.
pub(super) fn chunk(chunk: Chunk) -> Bytes {
    let Chunk {
        as_of,
        after: _,
        caught_up,
        caught_up_in,
        token,
        rows_left,
        restart,
        restarted,
        inbox,
        members,
        keys,
        rows: _,
    } = chunk;
    let restart = match restart {
        None => v1::chunk::Restart::Unspecified,
        Some(Lost::Compacted) => v1::chunk::Restart::Compacted,
        Some(Lost::History) => v1::chunk::Restart::Lost,
        Some(Lost::BadToken) => v1::chunk::Restart::BadToken,
    };
    let mut encoded = v1::Chunk {
        as_of: as_of.0,
        caught_up,
        token: token.encode().into(),
        rows_left,
        caught_up_in,
        restart: restart as i32,
        restarted,
        members: members.iter().map(|(revision, entry)| roster_member(revision.0, entry)).collect(),
        inbox: inbox.into_iter().map(inbox_message).collect(),
        keys: Vec::new(),
    }
    .encode_to_vec();
    // Fields may come in any order, so the rows are simply appended.
    encoded.extend_from_slice(&keys);
    encoded.into()
}

fn inbox_message(mail: Mail) -> v1::InboxMessage {
    let Mail { revision, message_id, sender, payload, expires_at_ms: _ } = mail;
    v1::InboxMessage {
        revision: revision.0,
        message_id,
        sender,
        payload: decode_value(&payload).map(Into::into),
    }
}

/// A member as its row tells it: AWAKE, ASLEEP and SUSPECT come and go without one.
pub(super) fn roster_member(revision: u64, entry: &RosterEntry) -> v1::Member {
    v1::Member {
        node_id: entry.node.to_string(),
        incarnation: entry.incarnation.0,
        group: entry.group.to_string(),
        state: entry.gone.map_or(State::Unspecified, |_| State::Gone) as i32,
        gone_reason: entry.gone.map_or(GoneReason::Unspecified, gone_reason) as i32,
        revision,
        ..Default::default()
    }
}

/// An ended member, with its labels.
pub(super) fn ended_member(revision: u64, entry: &RosterEntry) -> v1::Member {
    v1::Member { tags: entry.tags.as_ref().clone(), ..roster_member(revision, entry) }
}

pub(super) fn gone_reason(cause: Cause) -> GoneReason {
    match cause {
        Cause::Left => GoneReason::Left,
        Cause::Expired => GoneReason::Expired,
        Cause::Evicted => GoneReason::Evicted,
    }
}

/// What a member is taken for, and how likely it is to live. One whose lease this relay does not know is SUSPECT.
pub(super) fn live_state(lease: Option<&LeaseView>) -> (State, f32) {
    let state = lease.map_or(State::Suspect, |it| match it.state {
        LeaseState::Awake => State::Awake,
        LeaseState::Asleep => State::Asleep,
        LeaseState::Suspect => State::Suspect,
    });
    (state, lease.map_or(0.0, |it| likely(it.p_alive)))
}

/// Likelihoods travel as 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "seven digits say all that is known")]
pub(super) fn likely(number: f64) -> f32 {
    number as f32
}

/// What only the FULL view has of a live member, beside its row and its lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    joined_at_ms: u64,
    pushes: PushNo,
    inbox_waiting: u32,
}

impl Life {
    /// Of a member for whom so many messages wait.
    pub(super) fn of(member: &Member, inbox_waiting: usize) -> Self {
        let inbox_waiting = u32::try_from(inbox_waiting).unwrap_or(u32::MAX);
        Self { joined_at_ms: member.joined_at_ms, pushes: member.last.push_no, inbox_waiting }
    }
}

/// A live member, with the FULL view if asked for. Its row is of the revision `at`.
pub(super) fn live_member(
    (at, entry, life): (Revision, &RosterEntry, &Life),
    lease: Option<&LeaseView>,
    wall_ms: u64,
    full: bool,
) -> v1::Member {
    let (state, p_alive) = live_state(lease);
    let mut message = v1::Member { state: state as i32, p_alive, ..roster_member(at.0, entry) };
    if full {
        message.tags = entry.tags.as_ref().clone();
        message.joined_at = Some(timestamp(life.joined_at_ms));
        message.last_seen = lease.map(|it| timestamp(wall_ms.saturating_sub(it.silent.0)));
        message.lease_left_ms = lease.map_or(0, |it| millis(it.left.0));
        message.pushes = life.pushes.0;
        message.inbox_waiting = life.inbox_waiting;
    }
    message
}

/// A count of members, with what their group has taught, once it has taught something.
pub(super) fn count(count: v1::MemberCount, learned: Option<&Learned>) -> v1::MemberCount {
    let Some(Learned { gap_p50, gap_p99, asleep_lease: Some(asleep_lease), .. }) = learned else {
        return count;
    };
    v1::MemberCount {
        wake_gap_p50_ms: millis(gap_p50.0),
        wake_gap_p99_ms: millis(gap_p99.0),
        asleep_lease_ms: millis(asleep_lease.0),
        ..count
    }
}

/// Durations travel as 32 bits.
pub(super) fn millis(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

/// The fate of a node's last push; nothing before its first.
pub(super) fn settled(last: &LastPush) -> Option<v1::Settled> {
    (last.push_no.0 > 0).then(|| v1::Settled {
        push_no: last.push_no.0,
        push_id: last.push_id.0.to_be_bytes().to_vec().into(),
        refused: last.refused.as_ref().map_or_else(String::new, |it| reason_word(it.reason).to_owned()),
        revision: last.revision.0,
    })
}

pub(super) fn durability(durability: Durability) -> v1::push_ack::Durability {
    match durability {
        Durability::PageCache => v1::push_ack::Durability::PageCache,
        Durability::Majority => v1::push_ack::Durability::Majority,
        Durability::Fsync => v1::push_ack::Durability::Fsync,
    }
}

/// Whether a member is asked for.
pub(super) fn matches(filter: &Filter, member: &v1::Member) -> bool {
    filter.lives(member.state(), member.p_alive) && concerns(filter, member)
}

/// Whether a member is one of those that are asked for, whatever its state is by now.
pub(super) fn concerns(filter: &Filter, member: &v1::Member) -> bool {
    filter.concerns(&member.group, &member.tags)
}
