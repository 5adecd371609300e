//! Wire messages become the replica's words here, and nowhere else. Strings are moved.

use dormouse_proto::{
    ids::{Incarnation, NodeId, PushId, PushNo, Revision},
    lattice::Value,
    wire::v1,
};
use tonic::Code;

use crate::replica::{
    Outgoing, Replica,
    message::{
        Ack, Admission, Chunk, EventRow, HolderRow, InboxRow, KeyRows, MemberRow, Refusal, Restart, Rows,
        Settled, Verdict,
    },
};

/// What an answer meant, beside what the replica took in.
#[derive(Debug, Default)]
pub(crate) struct Absorbed {
    pub(crate) acked: Option<(Revision, i32)>,
    pub(crate) push_refused: Option<v1::Refusal>,
    pub(crate) pull_refused: Option<v1::Refusal>,
    pub(crate) progress: Option<crate::replica::Progress>,
    pub(crate) send_tags: bool,
    pub(crate) members: Option<v1::MemberCounts>,
}

/// Takes a whole answer in, in the order that the replica asks for.
pub(crate) fn absorb(replica: &mut Replica, answer: v1::SyncResponse) -> Absorbed {
    use v1::sync_response::{PullResult, PushResult};
    let v1::SyncResponse {
        lease,
        push_result,
        pull_result,
        settled: fate,
        members,
        retry_after_ms: _,
        conditions: _,
    } = answer;
    let mut absorbed = Absorbed { members, ..Absorbed::default() };
    let mut push_result = push_result;
    // A push whose outcome nobody can know is a matter of the old identity, so it comes before a new one.
    if let Some(PushResult::PushRefused(refused)) = &push_result
        && verdict(refused) == Verdict::OutcomeUnknown
    {
        replica.absorb_refusal(&refusal(refused));
        push_result = None;
    }
    if let Some(lease) = lease {
        absorbed.send_tags = lease.send_tags;
        absorb_lease(replica, &lease);
    }
    absorb_push(replica, push_result, &mut absorbed);
    let lost =
        matches!(&pull_result, Some(PullResult::Chunk(it)) if it.restart() == v1::chunk::Restart::Lost);
    let fate = fate.and_then(|fate| settled(&fate));
    if let Some(fate) = fate.filter(|_| !lost) {
        replica.absorb_settled(fate);
    }
    match pull_result {
        Some(PullResult::Chunk(it)) => {
            absorbed.progress = Some(replica.absorb_chunk(chunk(it)));
            // A lost history takes along what was settled in it. This answer speaks of the history that is left, whose
            // revisions must not be compared with barriers of the one that is gone.
            if let Some(fate) = fate.filter(|_| lost) {
                replica.absorb_settled(fate);
            }
        }
        Some(PullResult::PullRefused(refused)) => absorbed.pull_refused = Some(refused),
        None => {}
    }
    absorbed
}

fn absorb_push(
    replica: &mut Replica,
    result: Option<v1::sync_response::PushResult>,
    absorbed: &mut Absorbed,
) {
    use v1::sync_response::PushResult;
    match result {
        Some(PushResult::Pushed(pushed)) => {
            absorbed.acked = Some((Revision(pushed.revision), pushed.durability));
            replica.absorb_ack(ack(pushed));
        }
        Some(PushResult::PushRefused(refused)) => {
            replica.absorb_refusal(&refusal(&refused));
            absorbed.push_refused = Some(refused);
        }
        None => {}
    }
}

fn absorb_lease(replica: &mut Replica, lease: &v1::Lease) {
    use v1::lease::Admission as Wire;
    let admission = match lease.admission() {
        Wire::Unspecified | Wire::Renewed => Admission::Renewed,
        Wire::Joined => Admission::Joined,
        Wire::Readmitted => Admission::Readmitted,
        Wire::Forked => Admission::Forked,
        Wire::Forgotten => Admission::Forgotten,
    };
    if let Ok(node) = lease.node_id.parse::<NodeId>() {
        replica.absorb_lease(admission, node, Incarnation(lease.incarnation));
    }
}

/// Push and pull of one transmission.
pub(crate) fn outgoing(it: &Outgoing<'_>, max_bytes: u32) -> (Option<v1::Push>, v1::Pull, u64) {
    let push = it.push.as_ref().map(|push| v1::Push {
        push_no: push.push_no.into(),
        deltas: push.deltas.iter().cloned().map(Into::into).collect(),
        push_id: push.push_id.0.to_be_bytes().to_vec().into(),
        retried: push.retried,
    });
    let pull = v1::Pull {
        token: it.pull.token.to_vec().into(),
        collections: it.pull.collections.to_vec(),
        acked: it.pull.acked.iter().map(|revision| revision.0).collect(),
        held_since: it.pull.held_since.map_or(0, u64::from),
        max_bytes,
        min_revision: 0,
    };
    (push, pull, it.head.into())
}

fn ack(it: v1::PushAck) -> Ack {
    let v1::PushAck { push_no, revision, as_of, durability: _, keys } = it;
    Ack {
        push_no: PushNo(push_no),
        revision: Revision(revision),
        as_of: Revision(as_of),
        keys: keys.into_iter().filter_map(key_rows).collect(),
    }
}

fn settled(it: &v1::Settled) -> Option<Settled> {
    let v1::Settled { push_no, push_id, refused, revision } = it;
    let push_id = <[u8; 8]>::try_from(&push_id[..]).ok()?;
    Some(Settled {
        push_no: PushNo(*push_no),
        push_id: PushId(u64::from_be_bytes(push_id)),
        bound: refused.is_empty().then_some(Revision(*revision)),
    })
}

fn verdict(it: &v1::Refusal) -> Verdict {
    match it.reason.as_str() {
        "STALE" => Verdict::Stale,
        "QUOTA" => Verdict::Quota,
        "OUTCOME_UNKNOWN" => Verdict::OutcomeUnknown,
        "BUSY" | "STARTING" | "BEHIND" | "LOG_UNREACHABLE" | "STORE_FULL" => Verdict::Later,
        // A reason of a newer relay: its code tells whether anything was decided.
        _ => match Code::from(it.code) {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => Verdict::Invalid,
            _ => Verdict::Later,
        },
    }
}

fn refusal(it: &v1::Refusal) -> Refusal {
    Refusal {
        reason: it.reason.clone(),
        verdict: verdict(it),
        deltas: it.violations.iter().filter_map(|wrong| delta_index(&wrong.field)).collect(),
    }
}

/// The 3 of `push.deltas[3].set.add[0]`.
fn delta_index(field: &str) -> Option<usize> {
    let (_, rest) = field.split_once("deltas[")?;
    rest.split_once(']')?.0.parse().ok()
}

/// Takes a chunk apart.
pub(crate) fn chunk(it: v1::Chunk) -> Chunk {
    let restart = match it.restart() {
        v1::chunk::Restart::Unspecified => None,
        v1::chunk::Restart::Compacted => Some(Restart::Compacted),
        v1::chunk::Restart::Lost => Some(Restart::Lost),
        v1::chunk::Restart::BadToken => Some(Restart::BadToken),
    };
    let v1::Chunk {
        as_of,
        caught_up,
        token,
        rows_left,
        caught_up_in,
        restart: _,
        restarted,
        members,
        inbox,
        keys,
    } = it;
    Chunk {
        as_of: Revision(as_of),
        caught_up,
        caught_up_in,
        token: token.into(),
        rows_left,
        restart,
        restarted,
        members: members.into_iter().filter_map(member).collect(),
        inbox: inbox.into_iter().filter_map(message).collect(),
        keys: keys.into_iter().filter_map(key_rows).collect(),
    }
}

/// `None`: its content is of a kind that this build does not know.
fn message(it: v1::InboxMessage) -> Option<InboxRow> {
    let v1::InboxMessage { revision, message_id, sender, payload } = it;
    let payload = payload?.try_into().ok()?;
    Some(InboxRow { revision: Revision(revision), message_id, sender, payload })
}

fn member(it: v1::Member) -> Option<MemberRow> {
    Some(MemberRow {
        gone: it.state() == v1::member::State::Gone,
        node: it.node_id.parse().ok()?,
        incarnation: Incarnation(it.incarnation),
        group: it.group,
    })
}

/// The rows of one key; `None`: of a type that this build does not know.
pub(crate) fn key_rows(it: v1::KeyState) -> Option<KeyRows> {
    use v1::key_state::State;
    let v1::KeyState { collection, key, state } = it;
    let rows = match state? {
        State::Counter(v1::CounterState { value, total }) => Rows::Counter { value, total },
        State::Set(v1::SetState { present, removed }) => Rows::Set { present, removed },
        State::Register(v1::RegisterState { value, stamp_ms }) => {
            Rows::Register { value: value.and_then(known), stamp_ms }
        }
        State::Flag(v1::FlagState { on }) => Rows::Flag { on },
        State::Max(v1::NumberState { value }) => Rows::Max { value },
        State::Min(v1::NumberState { value }) => Rows::Min { value },
        State::Events(v1::EventsState { events, trimmed_upto }) => Rows::Events {
            events: events.into_iter().filter_map(event).collect(),
            trimmed_upto: Revision(trimmed_upto),
        },
        State::Presence(v1::PresenceState { holders }) => {
            Rows::Presence { holders: holders.into_iter().filter_map(holder).collect() }
        }
        State::Siblings(v1::SiblingsState { siblings }) => {
            Rows::Siblings { values: siblings.into_iter().filter_map(sibling).collect() }
        }
        State::GrowOnlySet(v1::SetState { present, removed }) => Rows::GrowOnlySet { present, removed },
        State::RemoveWinsSet(v1::SetState { present, removed }) => Rows::RemoveWinsSet { present, removed },
        State::DisableWinsFlag(v1::FlagState { on }) => Rows::DisableWinsFlag { on },
    };
    Some(KeyRows { collection, key, rows })
}

/// `None`: of a kind that this build does not know.
fn known(value: v1::Value) -> Option<Value> {
    Value::try_from(value).ok()
}

fn sibling(it: v1::siblings_state::Sibling) -> Option<(Revision, Value)> {
    let v1::siblings_state::Sibling { revision, value } = it;
    Some((Revision(revision), known(value?)?))
}

fn event(it: v1::Event) -> Option<EventRow> {
    let v1::Event { revision, index, payload, node_id, accepted_at } = it;
    let ms = |at: prost_types::Timestamp| {
        let (seconds, nanos) = (u64::try_from(at.seconds).ok()?, u64::try_from(at.nanos).ok()?);
        seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
    };
    Some(EventRow {
        revision: Revision(revision),
        index,
        payload: known(payload?)?,
        node: node_id.parse().ok(),
        accepted_at_ms: accepted_at.and_then(ms).unwrap_or(0),
    })
}

fn holder(it: v1::presence_state::Holder) -> Option<HolderRow> {
    let v1::presence_state::Holder { node_id, incarnation, value } = it;
    Some(HolderRow {
        node: node_id.parse().ok()?,
        incarnation: Incarnation(incarnation),
        value: value.and_then(known),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_its_delta() {
        assert_eq!(delta_index("push.deltas[31].set.add[0]"), Some(31));
        assert_eq!(delta_index("push.push_no"), None);
    }

    #[test]
    fn a_fate_that_comes_with_a_lost_history_is_that_of_the_history_that_is_left() {
        use dormouse_proto::{ids::PushId, wire::v1::sync_response::PullResult};
        let mut replica = Replica::new(crate::replica::Follow::everything(), 1 << 20);
        let path = "a/n".parse().expect("a path");
        replica.counter_add(&path, 3).expect("fits");
        replica.seal(PushId(7));
        let state = v1::key_state::State::Counter(v1::CounterState { value: 3, total: 3 });
        let chunk = v1::Chunk {
            as_of: 9,
            caught_up: true,
            token: vec![1].into(),
            restart: v1::chunk::Restart::Lost as i32,
            keys: vec![v1::KeyState { collection: "a".into(), key: "n".into(), state: Some(state) }],
            ..v1::Chunk::default()
        };
        let fate = v1::Settled {
            push_no: 1,
            push_id: 7_u64.to_be_bytes().to_vec().into(),
            revision: 8,
            ..v1::Settled::default()
        };
        let pull_result = Some(PullResult::Chunk(chunk));
        absorb(
            &mut replica,
            v1::SyncResponse { settled: Some(fate), pull_result, ..v1::SyncResponse::default() },
        );
        assert_eq!(replica.counter(&path), Some(3), "the row contains the push already");
        assert_eq!(replica.pending().deltas, 0);
    }

    #[test]
    fn a_barrier_of_a_lost_history_settles_nothing() {
        use dormouse_proto::{ids::PushId, wire::v1::sync_response::PullResult};
        let mut replica = Replica::new(crate::replica::Follow::everything(), 1 << 20);
        let chunk = |as_of: u64, caught_up: bool, restart: v1::chunk::Restart| v1::Chunk {
            as_of,
            caught_up,
            token: vec![1].into(),
            restart: restart as i32,
            ..v1::Chunk::default()
        };
        replica.absorb_chunk(super::chunk(chunk(90, true, v1::chunk::Restart::Unspecified)));
        let path = "a/n".parse().expect("a path");
        replica.counter_add(&path, 3).expect("fits");
        replica.seal(PushId(7));
        let push_id = 7_u64.to_be_bytes().to_vec().into();
        let fate = v1::Settled { push_no: 1, push_id, revision: 50, ..v1::Settled::default() };
        let pull_result = Some(PullResult::Chunk(chunk(60, false, v1::chunk::Restart::Lost)));
        absorb(
            &mut replica,
            v1::SyncResponse { settled: Some(fate), pull_result, ..v1::SyncResponse::default() },
        );
        // Bound at 50, which is below the barrier 90 of a history that is gone; its row has not arrived.
        assert_eq!(replica.counter(&path), Some(3));
        assert_eq!(replica.pending().deltas, 1);
    }

    #[test]
    fn a_reason_of_a_newer_relay_is_judged_by_its_code() {
        let refused =
            |code: Code| v1::Refusal { code: code as i32, reason: "NEW".into(), ..Default::default() };
        assert_eq!(verdict(&refused(Code::InvalidArgument)), Verdict::Invalid);
        assert_eq!(verdict(&refused(Code::Unavailable)), Verdict::Later);
    }
}
