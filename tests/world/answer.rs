//! What the fold says becomes wire messages, as `relay/src/grpc/encode.rs` makes them.

use dormouse_proto::{
    ids::Revision,
    rows::decode_value,
    wire::v1::{self, sync_response as response},
};
use dormouse_relay::state::{Chunk, LastPush, Lost, Mail, Reason, Refused, RosterEntry};
use prost::Message as _;

pub(crate) const fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::ContextInvalid => "CONTEXT_INVALID",
        Reason::Stale => "STALE",
        Reason::OutOfRange => "FIELD_INVALID",
        Reason::Quota => "QUOTA",
    }
}

pub(crate) fn refusal(reason: &str, deltas: &[u32]) -> v1::Refusal {
    // FAILED_PRECONDITION or UNAVAILABLE: whether anything was decided.
    let code = if matches!(reason, "CONTEXT_INVALID" | "FIELD_INVALID") { 9 } else { 14 };
    let field = |nth: &u32| v1::refusal::Violation {
        field: format!("push.deltas[{nth}]"),
        description: String::new(),
    };
    let violations = deltas.iter().map(field).collect();
    v1::Refusal { code, reason: reason.to_owned(), violations, ..v1::Refusal::default() }
}

pub(crate) fn refuse(answer: &mut v1::SyncResponse, reason: &str, deltas: &[u32]) {
    answer.push_result = Some(response::PushResult::PushRefused(refusal(reason, deltas)));
}

pub(crate) fn settled(last: &LastPush) -> Option<v1::Settled> {
    (last.push_no.0 > 0).then(|| v1::Settled {
        push_no: last.push_no.0,
        push_id: last.push_id.0.to_be_bytes().to_vec().into(),
        refused: last
            .refused
            .as_ref()
            .map_or_else(String::new, |Refused { reason, .. }| reason_word(*reason).into()),
        revision: last.revision.0,
    })
}

fn message(mail: Mail) -> v1::InboxMessage {
    let Mail { revision, message_id, sender, payload, expires_at_ms: _ } = mail;
    let payload = decode_value(&payload).map(Into::into);
    v1::InboxMessage { revision: revision.0, message_id, sender, payload }
}

/// A chunk, as the wire has it.
pub fn wire_chunk(chunk: Chunk) -> v1::Chunk {
    let restart = match chunk.restart {
        None => v1::chunk::Restart::Unspecified,
        Some(Lost::Compacted) => v1::chunk::Restart::Compacted,
        Some(Lost::History) => v1::chunk::Restart::Lost,
        Some(Lost::BadToken) => v1::chunk::Restart::BadToken,
    };
    let member = |(revision, entry): &(Revision, RosterEntry)| v1::Member {
        node_id: entry.node.to_string(),
        incarnation: entry.incarnation.0,
        group: entry.group.to_string(),
        state: entry.gone.map_or(v1::member::State::Unspecified, |_| v1::member::State::Gone) as i32,
        revision: revision.0,
        ..v1::Member::default()
    };
    let rows = v1::Chunk::decode(chunk.keys.as_slice()).expect("rows decode").keys;
    v1::Chunk {
        as_of: chunk.as_of.0,
        caught_up: chunk.caught_up,
        token: chunk.token.encode().into(),
        rows_left: chunk.rows_left,
        caught_up_in: chunk.caught_up_in,
        restart: restart as i32,
        restarted: chunk.restarted,
        members: chunk.members.iter().map(member).collect(),
        inbox: chunk.inbox.into_iter().map(message).collect(),
        keys: rows,
    }
}
