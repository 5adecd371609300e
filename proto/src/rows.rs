//! Rows on their way to the wire: written once, straight from the state into the buffer that is sent.
//!
//! A chunk of a million rows would otherwise be a million allocated messages. What is written here is the repeated
//! field of `KeyState` messages of an enclosing message, with all consecutive rows of one key in one `KeyState`.

use prost::{
    Message as _,
    encoding::{encode_varint, encoded_len_varint},
};

use crate::{
    lattice::{Type, Value},
    wire::v1,
};

const LENGTH_DELIMITED: u64 = 2;

/// The wire form of a register's content, as it is kept and sent.
pub fn encode_value(value: &Value) -> Box<[u8]> {
    v1::Value::from(value.clone()).encode_to_vec().into_boxed_slice()
}

/// Reads back what [`encode_value`] wrote; `None` for anything else.
pub fn decode_value(bytes: &[u8]) -> Option<Value> {
    v1::Value::decode(bytes).ok()?.try_into().ok()
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

    /// Bytes written so far, at least.
    pub fn len(&self) -> usize {
        self.out.len() + self.names.len() + self.body.len()
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

    /// One element of the open set.
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
