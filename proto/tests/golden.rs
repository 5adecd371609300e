//! Golden vectors of the wire, one line each in `golden.txt`: what a client of another language must write, and what one
//! of an older release still writes. A line is never changed, only added.
//!
//! `DORMOUSE_REGENERATE=1 cargo test -p dormouse-proto --all-features --test golden` writes lines that are missing.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use dormouse_proto::{
    convert::deltas_from_wire,
    ids::{Incarnation, NodeId, OnceId, Revision},
    lattice::{
        Append, Change, CounterDelta, Delta, EventsDelta, FlagDelta, GrowOnlySetDelta, GuardedAdd, Once,
        PresenceDelta, RegisterDelta, Remove, RemoveWinsSetDelta, Reset, SetDelta, SiblingsDelta, Type,
        Value,
    },
    record::{Frame, FrameHeader, Record, Write},
    rows::{RowWriter, encode_event, encode_value},
    wire::v1,
};
use prost::Message as _;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn elements(names: &[&str]) -> Vec<dormouse_proto::ids::Element> {
    names.iter().map(|name| name.parse().expect("valid")).collect()
}

fn id(text: &str) -> OnceId {
    text.parse().expect("valid")
}

/// A change of every type, with every field set.
fn changes() -> Vec<Change> {
    let as_of = Some(Revision(300));
    vec![
        Change::Counter(CounterDelta {
            reset: Some(Reset { as_of, total: -7 }),
            amount: 5,
            once: vec![Once { id: id("request-7"), amount: -2 }],
        }),
        Change::Set(SetDelta {
            add: elements(&["a"]),
            remove: vec![Remove { elements: elements(&["b", "c"]), as_of }],
        }),
        Change::Register(RegisterDelta { value: Some(text("{}")), stamp_ms: 1_700_000_000_000, as_of }),
        Change::Flag(FlagDelta { on: true, as_of: None }),
        Change::Max(i64::MAX),
        Change::Min(-1),
        Change::Events(EventsDelta {
            append: vec![
                Append { payload: text("e"), id: Some(id("x")) },
                Append { payload: Value::Data(vec![0, 255]), id: None },
            ],
            trim_upto: Revision(200),
        }),
        Change::Presence(PresenceDelta { value: Some(text("here")) }),
        Change::Siblings(SiblingsDelta { value: Some(text("s")), as_of }),
        Change::GrowOnlySet(GrowOnlySetDelta { add: elements(&["a", "b"]) }),
        Change::RemoveWinsSet(RemoveWinsSetDelta {
            add: vec![GuardedAdd { elements: elements(&["a"]), as_of }],
            remove: elements(&["b"]),
        }),
        Change::DisableWinsFlag(FlagDelta { on: true, as_of }),
    ]
}

fn delta(change: Change) -> Delta {
    Delta { collection: "carts".parse().expect("valid"), key: "eu/42".parse().expect("valid"), change }
}

/// A row of that type as a chunk carries it.
fn row(kind: Type) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rows = RowWriter::new(&mut bytes, RowWriter::CHUNK);
    rows.key("carts", "eu/42", kind);
    let value = encode_value(&text("v"));
    match kind {
        Type::Counter => rows.counter(-3, 4),
        Type::Register => rows.register(Some(&value), 1_700_000_000_000),
        Type::Flag | Type::DisableWinsFlag => rows.flag(true),
        Type::Max | Type::Min => rows.number(Some(-5)),
        Type::Events => {
            rows.event(&encode_event(Revision(300), 1, &text("e"), Some(NodeId(7)), 1_700_000_000_123));
            rows.trimmed(Revision(200));
        }
        Type::Presence => rows.holder(NodeId(7), Incarnation(2), Some(&value)),
        Type::Siblings => rows.siblings([(Revision(300), &*value)].into_iter()),
        Type::Set | Type::RemoveWinsSet => {
            rows.element("a", true);
            rows.element("b", false);
        }
        Type::GrowOnlySet => rows.element("a", true),
    }
    rows.finish();
    bytes
}

/// The log's own form of a change, within a whole frame.
fn frame(change: Change) -> Vec<u8> {
    let header = FrameHeader { session: 1, counter: 2, stamp_ms: 3, ..FrameHeader::default() };
    let write = Write {
        namespace: "default".parse().expect("valid"),
        request_id: id("w"),
        deltas: vec![delta(change)],
    };
    Frame { header, records: vec![Record::Write(write)] }.encode()
}

fn vectors() -> BTreeMap<String, Vec<u8>> {
    let mut vectors = BTreeMap::new();
    for change in changes() {
        let kind = change.kind();
        let wire: v1::Delta = delta(change.clone()).into();
        vectors.insert(format!("delta {}", kind.name()), wire.encode_to_vec());
        vectors.insert(format!("row {}", kind.name()), row(kind));
        vectors.insert(format!("frame {}", kind.name()), frame(change));
    }
    vectors
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes everything");
        text
    })
}

fn place() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt")
}

fn golden() -> BTreeMap<String, String> {
    let lines = fs::read_to_string(place()).unwrap_or_default();
    let of = |line: &str| line.rsplit_once(' ').map(|(name, hex)| (name.to_owned(), hex.to_owned()));
    lines.lines().filter_map(of).collect()
}

#[test]
fn every_type_is_written_as_it_always_was() {
    let (mut kept, fresh) = (golden(), vectors());
    if std::env::var_os("DORMOUSE_REGENERATE").is_some() {
        for (name, bytes) in &fresh {
            kept.entry(name.clone()).or_insert_with(|| hex(bytes));
        }
        let lines = kept.iter().map(|(name, hex)| format!("{name} {hex}\n"));
        fs::write(place(), lines.collect::<String>()).expect("the file can be written");
    }
    assert_eq!(kept.len(), 3 * Type::ALL.len(), "three vectors for each type");
    for (name, bytes) in fresh {
        assert_eq!(kept.get(&name), Some(&hex(&bytes)), "{name}");
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[test]
fn every_golden_vector_reads_as_what_it_says() {
    let golden = golden();
    for change in changes() {
        let (kind, want) = (change.kind(), delta(change));
        let bytes = |what: &str| bytes_of(&golden[&format!("{what} {}", kind.name())]);
        let read = v1::Delta::decode(bytes("delta").as_slice()).expect("decodes");
        assert_eq!(deltas_from_wire(vec![read], "deltas").as_deref(), Ok(&[want.clone()][..]));
        let chunk = v1::Chunk::decode(bytes("row").as_slice()).expect("decodes");
        assert_eq!((chunk.keys.len(), chunk.keys[0].key.as_str()), (1, "eu/42"));
        assert!(chunk.keys[0].state.is_some(), "{}", kind.name());
        let frame = Frame::decode(&bytes("frame")).expect("reads");
        assert!(matches!(&frame.records[0], Record::Write(write) if write.deltas == [want]));
    }
}
