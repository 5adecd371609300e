//! The answers that carry many rows or many members, with those already encoded.
//!
//! A length-delimited message and a `bytes` field are the same on the wire, so the relay writes each row once, straight
//! from its state into the buffer that is sent. A test holds the field numbers to those of the generated messages.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, message},
};

use super::v1;

/// The field of `dormouse.v1.WatchMembersResponse` that holds its events.
const EVENTS: u32 = 1;

/// `dormouse.v1.SyncResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SyncResponse {
    /// What the node may count on.
    #[prost(message, optional, tag = "1")]
    pub lease: Option<v1::Lease>,
    /// An encoded `PushAck`; excludes `push_refused`.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub pushed: Option<Bytes>,
    /// Why the push was refused.
    #[prost(message, optional, tag = "3")]
    pub push_refused: Option<v1::Refusal>,
    /// An encoded `Chunk`; excludes `pull_refused`.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub chunk: Option<Bytes>,
    /// Why the pull was refused.
    #[prost(message, optional, tag = "5")]
    pub pull_refused: Option<v1::Refusal>,
    /// The fate of the node's last push.
    #[prost(message, optional, tag = "9")]
    pub settled: Option<v1::Settled>,
    /// How many are alive.
    #[prost(message, optional, tag = "6")]
    pub members: Option<v1::MemberCounts>,
    /// Please come later; nothing was refused.
    #[prost(uint32, tag = "7")]
    pub retry_after_ms: u32,
    /// Why this relay's word is weaker than usual.
    #[prost(enumeration = "v1::relay_info::Condition", repeated, tag = "8")]
    pub conditions: Vec<i32>,
}

/// `dormouse.v1.WatchResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchResponse {
    /// An encoded `Chunk`.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub chunk: Option<Bytes>,
    /// Why this relay's word is weaker than usual.
    #[prost(enumeration = "v1::relay_info::Condition", repeated, tag = "2")]
    pub conditions: Vec<i32>,
}

/// `dormouse.v1.WatchMembersResponse`.
///
/// Its events were encoded for all who watch, and are shared between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchMembersResponse {
    /// Events that go first, each as [`event`] writes it; any number of them in each part.
    pub encoded: Vec<Bytes>,
    /// Everything else, and events that are of this reader alone.
    pub rest: v1::WatchMembersResponse,
}

impl From<v1::WatchMembersResponse> for WatchMembersResponse {
    fn from(rest: v1::WatchMembersResponse) -> Self {
        Self { encoded: Vec::new(), rest }
    }
}

impl Message for WatchMembersResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.encoded.iter().for_each(|events| buf.put_slice(events));
        self.rest.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.rest.merge_field(tag, wire_type, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.encoded.iter().map(Bytes::len).sum::<usize>() + self.rest.encoded_len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Writes an event behind others, as a part of [`WatchMembersResponse::encoded`].
pub fn event(event: &v1::MemberEvent, into: &mut Vec<u8>) {
    message::encode(EVENTS, event, into);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_events_read_as_the_generated_ones_whoever_of_them_shares_a_part() {
        let named = |node_id: &str| v1::MemberEvent {
            kind: v1::member_event::Kind::Ended as i32,
            member: Some(v1::Member { node_id: node_id.into(), ..Default::default() }),
        };
        let (mut one, mut two) = (Vec::new(), Vec::new());
        event(&named("a"), &mut one);
        event(&named("b"), &mut one);
        event(&named("c"), &mut two);
        let rest = v1::WatchMembersResponse {
            events: vec![named("d")],
            revision: 9,
            caught_up: true,
            ..Default::default()
        };
        let events = ["a", "b", "c", "d"].map(named).to_vec();
        let common = v1::WatchMembersResponse { events, ..rest.clone() };
        let told = WatchMembersResponse { encoded: vec![one.into(), two.into()], rest };
        let bytes = told.encode_to_vec();
        assert_eq!(bytes.len(), told.encoded_len());
        assert_eq!(v1::WatchMembersResponse::decode(bytes.as_slice()), Ok(common.clone()));
        assert_eq!(WatchMembersResponse::decode(bytes.as_slice()), Ok(common.into()));
    }

    #[test]
    fn encoded_answers_read_as_the_generated_ones() {
        let chunk = v1::Chunk { as_of: 7, caught_up: true, ..Default::default() };
        let pushed = v1::PushAck { push_no: 3, revision: 5, ..Default::default() };
        let condition = v1::relay_info::Condition::ExpiryHeld as i32;
        let common = v1::SyncResponse {
            lease: Some(v1::Lease { node_id: "a".into(), ..Default::default() }),
            push_result: Some(v1::sync_response::PushResult::Pushed(pushed.clone())),
            pull_result: Some(v1::sync_response::PullResult::Chunk(chunk.clone())),
            settled: Some(v1::Settled { push_no: 3, ..Default::default() }),
            members: Some(v1::MemberCounts { awake: 1, ..Default::default() }),
            retry_after_ms: 9,
            conditions: vec![condition],
        };
        let encoded = SyncResponse {
            lease: common.lease.clone(),
            pushed: Some(pushed.encode_to_vec().into()),
            chunk: Some(chunk.encode_to_vec().into()),
            settled: common.settled.clone(),
            members: common.members,
            retry_after_ms: 9,
            conditions: vec![condition],
            ..Default::default()
        };
        assert_eq!(v1::SyncResponse::decode(encoded.encode_to_vec().as_slice()), Ok(common));

        let refusal = v1::Refusal { reason: "BUSY".into(), ..Default::default() };
        let refused = SyncResponse {
            push_refused: Some(refusal.clone()),
            pull_refused: Some(refusal.clone()),
            ..Default::default()
        };
        let read = v1::SyncResponse::decode(refused.encode_to_vec().as_slice()).expect("decodes");
        assert_eq!(read.push_result, Some(v1::sync_response::PushResult::PushRefused(refusal.clone())));
        assert_eq!(read.pull_result, Some(v1::sync_response::PullResult::PullRefused(refusal)));

        let watched =
            WatchResponse { chunk: Some(chunk.encode_to_vec().into()), conditions: vec![condition] };
        let read = v1::WatchResponse::decode(watched.encode_to_vec().as_slice()).expect("decodes");
        assert_eq!((read.chunk, read.conditions), (Some(chunk), vec![condition]));
    }
}
