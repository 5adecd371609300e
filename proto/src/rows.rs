//! Rows on their way to the wire: written once, straight from the state into the buffer that is sent.
//!
//! A chunk of a million rows would otherwise be a million allocated messages. What is written here is the repeated
//! field of `KeyState` messages of an enclosing message, with all consecutive rows of one key in one `KeyState`.

use prost::{
    Message as _,
    encoding::{encode_varint, encoded_len_varint},
};

use crate::{
    ids::{Incarnation, NodeId, Revision},
    lattice::{Type, Value},
    wire::v1,
};

const LENGTH_DELIMITED: u64 = 2;

/// The wire form of a register's content, as it is kept and sent.
pub fn encode_value(value: &Value) -> Box<[u8]> {
    let (number, content) = match value {
        Value::Text(text) => (1, text.as_bytes()),
        Value::Data(data) => (2, data.as_slice()),
    };
    let mut out = Vec::with_capacity(1 + encoded_len_varint(content.len() as u64) + content.len());
    put_bytes(&mut out, number, content);
    out.into_boxed_slice()
}

/// Reads back what [`encode_value`] wrote; `None` for anything else.
pub fn decode_value(bytes: &[u8]) -> Option<Value> {
    v1::Value::decode(bytes).ok()?.try_into().ok()
}

/// An event in its wire form, as it is kept and sent.
pub fn encode_event(
    at: Revision,
    index: u32,
    payload: &Value,
    author: Option<NodeId>,
    accepted_at_ms: u64,
) -> Box<[u8]> {
    // In three parts, so that the payload, which is the large one, is copied but once.
    let mut out = v1::Event { revision: at.0, index, ..v1::Event::default() }.encode_to_vec();
    put_bytes(&mut out, 3, &encode_value(payload));
    let rest = v1::Event {
        node_id: author.map_or_else(String::new, |node| node.to_string()),
        accepted_at: Some(timestamp(accepted_at_ms)),
        ..v1::Event::default()
    };
    out.extend(rest.encode_to_vec());
    out.into_boxed_slice()
}

/// Milliseconds since 1970, for display.
pub fn timestamp(ms: u64) -> prost_types::Timestamp {
    let nanos = i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
    prost_types::Timestamp { seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX), nanos }
}

/// Writes rows as the repeated field `number` of `KeyState` of the message that `out` holds.
#[derive(Debug)]
pub struct RowWriter<'a> {
    out: &'a mut Vec<u8>,
    number: u32,
    /// What is written of the key that is open: its names, then its rows.
    names: Vec<u8>,
    body: Vec<u8>,
    open: Option<Type>,
    rows: usize,
}

impl<'a> RowWriter<'a> {
    /// Field number of `Chunk.keys`.
    pub const CHUNK: u32 = 8;
    /// Field number of `PushAck.keys`.
    pub const PUSH_ACK: u32 = 5;
    /// Field number of `WriteResponse.keys`.
    pub const WRITE: u32 = 4;
    /// Field number of `ReadResponse.keys`.
    pub const READ: u32 = 2;

    /// Appends to `out`, in the field `number` of the message there.
    pub fn new(out: &'a mut Vec<u8>, number: u32) -> Self {
        Self { out, number, names: Vec::new(), body: Vec::new(), open: None, rows: 0 }
    }

    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes written so far, and at most ten more: how long the open key gets is only known when it is closed.
    pub fn len(&self) -> usize {
        // Tags and lengths of its KeyState and of the state in it, which has less than 256 MiB.
        const HEAD: usize = 10;
        let head = if self.open.is_some() { HEAD } else { 0 };
        self.out.len() + self.names.len() + self.body.len() + head
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a key costs beside its rows.
    pub fn key_len(collection: &str, key: &str) -> usize {
        // Three tags and lengths beside the two names: KeyState, the names, the state.
        collection.len() + key.len() + 14
    }

    /// What one row costs beside its texts and values: two numbers, or a node and its incarnation, with their tags.
    pub const ROW_LEN: usize = 32;

    /// What one element of a set costs.
    pub fn element_len(element: &str) -> usize {
        1 + encoded_len_varint(element.len() as u64) + element.len()
    }

    /// Opens a key; the rows that follow are its.
    pub fn key(&mut self, collection: &str, key: &str, kind: Type) {
        self.close();
        self.open = Some(kind);
        put_bytes(&mut self.names, 1, collection.as_bytes());
        put_bytes(&mut self.names, 2, key.as_bytes());
    }

    /// One element of the open set, of any kind.
    pub fn element(&mut self, element: &str, present: bool) {
        put_bytes(&mut self.body, if present { 1 } else { 2 }, element.as_bytes());
        self.rows += 1;
    }

    /// The open counter.
    pub fn counter(&mut self, value: i64, total: i64) {
        prost::encoding::sint64::encode(1, &value, &mut self.body);
        prost::encoding::sint64::encode(2, &total, &mut self.body);
        self.rows += 1;
    }

    /// The open register; its content as [`encode_value`] wrote it.
    pub fn register(&mut self, value: Option<&[u8]>, stamp_ms: u64) {
        if let Some(value) = value {
            put_bytes(&mut self.body, 1, value);
        }
        prost::encoding::uint64::encode(2, &stamp_ms, &mut self.body);
        self.rows += 1;
    }

    /// The open flag, of either kind.
    pub fn flag(&mut self, on: bool) {
        if on {
            prost::encoding::bool::encode(1, &on, &mut self.body);
        }
        self.rows += 1;
    }

    /// The open maximum or minimum; `None`: nothing was offered yet.
    pub fn number(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            prost::encoding::sint64::encode(1, &value, &mut self.body);
        }
        self.rows += 1;
    }

    /// The open siblings, oldest first; their contents as [`encode_value`] wrote them.
    pub fn siblings<'v>(&mut self, values: impl Iterator<Item = (Revision, &'v [u8])>) {
        for (at, value) in values {
            let len = 1 + encoded_len_varint(at.0) + 1 + encoded_len_varint(value.len() as u64) + value.len();
            encode_varint((1 << 3) | LENGTH_DELIMITED, &mut self.body);
            encode_varint(len as u64, &mut self.body);
            prost::encoding::uint64::encode(1, &at.0, &mut self.body);
            put_bytes(&mut self.body, 2, value);
        }
        self.rows += 1;
    }

    /// One entry of the open log of events, as [`encode_event`] wrote it.
    pub fn event(&mut self, event: &[u8]) {
        put_bytes(&mut self.body, 1, event);
        self.rows += 1;
    }

    /// How far the open log of events was trimmed.
    pub fn trimmed(&mut self, upto: Revision) {
        prost::encoding::uint64::encode(2, &upto.0, &mut self.body);
        self.rows += 1;
    }

    /// What one node holds up under the open key; `None`: nothing any more. Its content as [`encode_value`] wrote it.
    pub fn holder(&mut self, node: NodeId, incarnation: Incarnation, value: Option<&[u8]>) {
        let mut holder = Vec::with_capacity(Self::ROW_LEN);
        prost::encoding::string::encode(1, &node.to_string(), &mut holder);
        prost::encoding::uint64::encode(2, &incarnation.0, &mut holder);
        if let Some(value) = value {
            put_bytes(&mut holder, 3, value);
        }
        put_bytes(&mut self.body, 1, &holder);
        self.rows += 1;
    }

    /// Writes out what is open; returns the number of rows.
    pub fn finish(mut self) -> usize {
        self.close();
        self.rows
    }

    fn close(&mut self) {
        let Some(kind) = self.open.take() else { return };
        let body_len = self.body.len() as u64;
        let len = self.names.len() as u64 + 1 + encoded_len_varint(body_len) as u64 + body_len;
        encode_varint((u64::from(self.number) << 3) | LENGTH_DELIMITED, self.out);
        encode_varint(len, self.out);
        self.out.extend_from_slice(&self.names);
        encode_varint((u64::from(kind.number()) << 3) | LENGTH_DELIMITED, self.out);
        encode_varint(body_len, self.out);
        self.out.extend_from_slice(&self.body);
        self.names.clear();
        self.body.clear();
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    encode_varint((number << 3) | LENGTH_DELIMITED, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::key_state::State;

    #[test]
    fn rows_read_as_the_messages_that_they_are() {
        let mut out = Vec::new();
        let mut rows = RowWriter::new(&mut out, RowWriter::CHUNK);
        rows.key("ads", "seen", Type::Set);
        rows.element("a", true);
        rows.element("", false);
        rows.key("ads", "shown", Type::Counter);
        rows.counter(-3, 4);
        rows.key("cfg", "x", Type::Register);
        let value = Value::Text("{}".into());
        rows.register(Some(&encode_value(&value)), 7);
        rows.key("cfg", "y", Type::Register);
        rows.register(None, 8);
        assert_eq!(rows.finish(), 5);

        let chunk = v1::Chunk::decode(out.as_slice()).expect("decodes");
        let key = |collection: &str, key: &str, state| v1::KeyState {
            collection: collection.into(),
            key: key.into(),
            state: Some(state),
        };
        let expected = vec![
            key(
                "ads",
                "seen",
                State::Set(v1::SetState { present: vec!["a".into()], removed: vec![String::new()] }),
            ),
            key("ads", "shown", State::Counter(v1::CounterState { value: -3, total: 4 })),
            key("cfg", "x", State::Register(v1::RegisterState { value: Some(value.into()), stamp_ms: 7 })),
            key("cfg", "y", State::Register(v1::RegisterState { value: None, stamp_ms: 8 })),
        ];
        assert_eq!(chunk.keys, expected);
    }

    fn written(kind: Type, write: impl Fn(&mut RowWriter<'_>)) -> State {
        let mut out = Vec::new();
        let mut rows = RowWriter::new(&mut out, RowWriter::READ);
        rows.key("c", "k", kind);
        write(&mut rows);
        rows.finish();
        let read = v1::ReadResponse::decode(out.as_slice()).expect("decodes");
        read.keys.into_iter().next().and_then(|key| key.state).expect("one key with a state")
    }

    #[test]
    fn a_flag_a_number_and_siblings_read_as_the_messages_that_they_are() {
        assert_eq!(written(Type::Flag, |rows| rows.flag(true)), State::Flag(v1::FlagState { on: true }));
        let off = written(Type::DisableWinsFlag, |rows| rows.flag(false));
        assert_eq!(off, State::DisableWinsFlag(v1::FlagState { on: false }));
        let number = |value| v1::NumberState { value };
        assert_eq!(written(Type::Max, |rows| rows.number(Some(-5))), State::Max(number(Some(-5))));
        assert_eq!(written(Type::Min, |rows| rows.number(None)), State::Min(number(None)));

        let (one, two) = (Value::Text("1".into()), Value::Data(vec![0; 200]));
        let encoded = [encode_value(&one), encode_value(&two)];
        let siblings = written(Type::Siblings, |rows| {
            let revisions = [Revision(3), Revision(1 << 40)];
            rows.siblings(revisions.into_iter().zip(encoded.iter().map(|value| &**value)));
        });
        let sibling =
            |revision, value: Value| v1::siblings_state::Sibling { revision, value: Some(value.into()) };
        let expected = vec![sibling(3, one), sibling(1 << 40, two)];
        assert_eq!(siblings, State::Siblings(v1::SiblingsState { siblings: expected }));
    }

    #[test]
    fn events_and_holders_read_as_the_messages_that_they_are() {
        let event =
            |index| encode_event(Revision(9), index, &Value::Text("e".into()), Some(NodeId(1)), 1_500);
        let events = written(Type::Events, |rows| {
            rows.event(&event(0));
            rows.trimmed(Revision(4));
            rows.event(&event(1));
        });
        let State::Events(events) = events else { panic!("{events:?}") };
        assert_eq!((events.trimmed_upto, events.events.len()), (4, 2));
        assert_eq!((events.events[1].revision, events.events[1].index), (9, 1));
        assert_eq!(events.events[0].accepted_at, Some(timestamp(1_500)));

        let held = encode_value(&Value::Text("here".into()));
        let holders = written(Type::Presence, |rows| {
            rows.holder(NodeId(1), Incarnation(2), Some(&held));
            rows.holder(NodeId(2), Incarnation(1), None);
        });
        let holder = |node, incarnation, value: Option<Value>| v1::presence_state::Holder {
            node_id: NodeId(node).to_string(),
            incarnation,
            value: value.map(Into::into),
        };
        let expected = vec![holder(1, 2, Some(Value::Text("here".into()))), holder(2, 1, None)];
        assert_eq!(holders, State::Presence(v1::PresenceState { holders: expected }));
    }

    #[test]
    fn the_length_of_a_key_is_bounded_from_above() {
        for body in [1, 200, 40_000] {
            let mut out = Vec::new();
            let mut rows = RowWriter::new(&mut out, RowWriter::CHUNK);
            rows.key("collection", "key", Type::Set);
            let element = "x".repeat(body);
            rows.element(&element, true);
            rows.finish();
            assert!(out.len() <= RowWriter::key_len("collection", "key") + RowWriter::element_len(&element));
        }
    }
}
