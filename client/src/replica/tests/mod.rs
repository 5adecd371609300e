mod events;
mod flags;
mod guarded;
mod inbox;
mod interest;
mod map;
mod model;
mod numbers;
mod presence;
mod pulling;
mod pushing;
mod siblings;
mod writing;

use dormouse_proto::{
    ids::{Incarnation, NodeId, PushId, PushNo, Revision},
    lattice::{Change, Delta, Type, Value},
};

use super::{
    message::{Ack, Admission, Chunk, KeyRows, Refusal, Restart, Rows, Settled, Verdict},
    *,
};

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

fn element(text: &str) -> dormouse_proto::ids::Element {
    text.parse().expect("an element")
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn replica() -> Replica {
    Replica::new(Follow::everything(), 1 << 20)
}

/// A replica that is caught up as of `at`, with these rows.
fn caught_up(at: u64, keys: Vec<KeyRows>) -> Replica {
    let mut replica = replica();
    replica.absorb_chunk(chunk(at, true, keys));
    replica
}

fn chunk(at: u64, caught_up: bool, keys: Vec<KeyRows>) -> Chunk {
    Chunk { as_of: Revision(at), caught_up, token: at.to_be_bytes().to_vec(), keys, ..Chunk::default() }
}

fn restarting(restart: Restart, chunk: Chunk) -> Chunk {
    Chunk { restart: Some(restart), ..chunk }
}

fn rows(at: &str, rows: Rows) -> KeyRows {
    let path = path(at);
    KeyRows { collection: path.collection.into(), key: path.key.into(), rows }
}

fn counter(at: &str, value: i64, total: i64) -> KeyRows {
    rows(at, Rows::Counter { value, total })
}

fn set(at: &str, present: &[&str], removed: &[&str]) -> KeyRows {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    rows(at, Rows::Set { present: owned(present), removed: owned(removed) })
}

fn register(at: &str, value: Option<&str>, stamp_ms: u64) -> KeyRows {
    let value = value.map(text);
    rows(at, Rows::Register { value, stamp_ms })
}

/// Seals and sends, once.
fn send(replica: &mut Replica) -> (PushNo, Vec<Delta>) {
    replica.seal(PushId(7));
    let outgoing = replica.outgoing();
    let push = outgoing.push.expect("something to push");
    (push.push_no, push.deltas.to_vec())
}

fn ack(push_no: PushNo, revision: u64, keys: Vec<KeyRows>) -> Ack {
    Ack { push_no, revision: Revision(revision), as_of: Revision(revision), keys }
}

fn refusal(reason: &str, verdict: Verdict, deltas: &[usize]) -> Refusal {
    Refusal { reason: reason.to_owned(), verdict, deltas: deltas.to_vec() }
}

fn settled(push_no: PushNo, bound: Option<u64>) -> Settled {
    Settled { push_no, push_id: PushId(7), bound: bound.map(Revision) }
}

fn lease(replica: &mut Replica, admission: Admission, node: u64) {
    replica.absorb_lease(admission, NodeId(node), Incarnation(1));
}

/// The only delta of a push.
fn only(deltas: &[Delta]) -> &Change {
    let [Delta { change, .. }] = deltas else { panic!("{deltas:?}") };
    change
}

/// Binds the push under way at that revision, its answer lost; then the next chunk is everything as of there.
fn loses_the_answer(it: &mut Replica, push_no: PushNo, at: u64, keys: Vec<KeyRows>) {
    it.absorb_settled(settled(push_no, Some(at)));
    it.absorb_chunk(chunk(at, true, keys));
}

/// The contexts of the removes in a delta.
fn remove_contexts(delta: &Delta) -> Vec<Option<u64>> {
    match &delta.change {
        Change::Set(set) => set.remove.iter().map(|it| it.as_of.map(|at| at.0)).collect(),
        other => panic!("{other:?} is no set"),
    }
}
