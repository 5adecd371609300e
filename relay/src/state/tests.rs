//! Rules of the fold that a short story tells better than a random history.

mod events;
mod limits;
mod mail;
mod reseed;
mod types;

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::{Beat, BootId, Incarnation, Namespace, NodeId, PushId, PushNo, Revision},
    lattice::{Change, CounterDelta, Delta, RegisterDelta, Remove, Reset, SetDelta, Value},
    record::{Cause, Contact, Digest, Frame, FrameHeader, Gone, Join, Policy, Push, Record, Write},
    wire::v1,
};
use prost::Message as _;

use super::{
    Chunk, Fold, JoinVerdict, Lost, Pull, PullError, PushVerdict, Reason, Token, Verdict, WriteVerdict,
};

const LOG: u64 = 9;

/// A fold and what a test says to it.
#[derive(Clone, Default)]
struct Story {
    fold: Fold,
    stamp_ms: u64,
}

impl Story {
    fn say(&mut self, record: Record) -> Verdict {
        let mut verdicts = Vec::new();
        let header = FrameHeader { session: 1, stamp_ms: self.stamp_ms, ..FrameHeader::default() };
        self.fold
            .apply_frame(&Frame { header, records: vec![record] }, |_, _, _, verdict| verdicts.push(verdict));
        verdicts.remove(0)
    }

    fn join(&mut self, node: u64, incarnation: u64, previous: Option<u64>) -> JoinVerdict {
        let join = Join {
            namespace: Namespace::default(),
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            previous: previous.map(Incarnation),
            boot_id: BootId([u8::try_from(node).expect("small"); 16]),
            group: "g".parse().expect("valid"),
            tags: BTreeMap::new(),
            contact: None,
        };
        match self.say(Record::Join(join)) {
            Verdict::Join(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    fn push(&mut self, node: u64, no: u64, deltas: Vec<Delta>) -> PushVerdict {
        self.push_as(node, 1, no, no, deltas)
    }

    fn push_as(&mut self, node: u64, incarnation: u64, no: u64, id: u64, deltas: Vec<Delta>) -> PushVerdict {
        let contact = Contact { beat: Beat(no), asleep: false, lease_ms: 3_000, awake_ms: 0 };
        let push = Push {
            namespace: Namespace::default(),
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            push_no: PushNo(no),
            push_id: PushId(id),
            deltas,
            contact: Some(contact),
        };
        match self.say(Record::Push(push)) {
            Verdict::Push(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    fn bound(&mut self, node: u64, no: u64, deltas: Vec<Delta>) -> Revision {
        match self.push(node, no, deltas) {
            PushVerdict::Bound { revision, .. } => revision,
            other => panic!("{other:?}"),
        }
    }

    fn gone(&mut self, node: u64, incarnation: u64, cause: Cause, beat: u64) -> bool {
        let (node, incarnation) = (NodeId(node), Incarnation(incarnation));
        let namespace = Namespace::default();
        let gone = Gone { namespace, node, incarnation, cause, beat: Beat(beat), reason: String::new() };
        self.say(Record::Gone(gone)) == Verdict::Gone(true)
    }

    fn policy(&mut self, policy: Policy) {
        self.say(Record::Policy(policy));
    }

    fn pull(&self, pull: &Pull<'_>) -> Chunk {
        self.fold.pull(LOG, &Namespace::default(), pull).expect("not behind")
    }

    fn everything(&self) -> Pull<'static> {
        Pull { all: true, max_bytes: 1 << 20, head: self.fold.revision(), ..Pull::default() }
    }

    fn after(&self, token: Token) -> Pull<'static> {
        Pull { token: Some(Ok(token)), ..self.everything() }
    }
}

fn delta(key: &str, change: Change) -> Delta {
    Delta { collection: "c".parse().expect("valid"), key: key.parse().expect("valid"), change }
}

fn count(key: &str, amount: i64) -> Delta {
    delta(key, Change::Counter(CounterDelta { amount, ..CounterDelta::default() }))
}

fn reset(key: &str, as_of: Revision, total: i64) -> Delta {
    let reset = Some(Reset { as_of: Some(as_of), total });
    delta(key, Change::Counter(CounterDelta { reset, ..CounterDelta::default() }))
}

fn add(key: &str, element: &str) -> Delta {
    delta(key, Change::Set(SetDelta { add: vec![element.parse().expect("valid")], remove: Vec::new() }))
}

fn remove(key: &str, element: &str, as_of: Option<Revision>) -> Delta {
    let remove = vec![Remove { elements: vec![element.parse().expect("valid")], as_of }];
    delta(key, Change::Set(SetDelta { add: Vec::new(), remove }))
}

fn set(key: &str, value: Option<&str>, stamp_ms: u64, as_of: Option<Revision>) -> Delta {
    let value = value.map(|text| Value::Text(text.to_owned()));
    delta(key, Change::Register(RegisterDelta { value, stamp_ms, as_of }))
}

fn keys(chunk: &Chunk) -> Vec<v1::KeyState> {
    v1::Chunk::decode(chunk.keys.as_slice()).expect("decodes").keys
}

fn register_value(chunk: &Chunk, key: &str) -> Option<String> {
    keys(chunk).into_iter().find(|it| it.key == key).and_then(|it| match it.state {
        Some(v1::key_state::State::Register(state)) => match state.value?.kind? {
            v1::value::Kind::Text(text) => Some(text),
            v1::value::Kind::Data(_) => None,
        },
        _ => None,
    })
}

#[test]
fn a_row_that_changes_often_is_missed_once() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let token = story.pull(&story.everything()).token;
    for no in 1..=500 {
        story.push(1, no, vec![count("n", 1)]);
    }
    let chunk = story.pull(&story.after(token));
    assert_eq!((chunk.rows, chunk.caught_up), (1, true));
}

#[test]
fn a_push_that_changes_nothing_observable_is_told_to_nobody() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.bound(1, 1, vec![add("s", "x")]);
    let token = story.pull(&story.everything()).token;
    story.bound(1, 2, vec![add("s", "x"), remove("s2", "y", None)]);
    assert_eq!(story.pull(&story.after(token)).rows, 0);
}

#[test]
fn a_total_that_changes_is_told_even_if_the_value_does_not() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let seen = story.bound(1, 1, vec![count("n", 5)]);
    let token = story.pull(&story.everything()).token;
    let change =
        CounterDelta { reset: Some(Reset { as_of: Some(seen), total: 5 }), amount: 5, once: Vec::new() };
    story.bound(1, 2, vec![delta("n", Change::Counter(change))]);
    assert_eq!(story.pull(&story.after(token)).rows, 1, "a later reset must name the new total");
}

#[test]
fn a_refused_push_has_used_up_its_number() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let future = Revision(1 << 50);
    let refused = story.push(1, 1, vec![count("n", 1), remove("s", "x", Some(future))]);
    let PushVerdict::Refused(why) = refused.clone() else { panic!("{refused:?}") };
    assert_eq!((why.reason, why.deltas), (Reason::ContextInvalid, vec![1]));
    assert_eq!(story.push(1, 1, vec![count("n", 1)]), refused, "a late copy must not bind");
    assert_eq!(story.push_as(1, 1, 1, 99, vec![count("n", 1)]), PushVerdict::Fork);
    story.bound(1, 2, vec![count("n", 1)]);
    assert_eq!(story.push(1, 1, vec![count("n", 1)]), PushVerdict::Old);
}

#[test]
fn an_id_is_revived_with_its_memory_or_not_at_all() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let revision = story.bound(1, 1, vec![count("n", 1)]);
    assert!(story.gone(1, 1, Cause::Expired, 1));
    assert_eq!(story.push(1, 2, vec![count("n", 1)]), PushVerdict::Unknown);
    assert_eq!(story.join(1, 2, Some(1)), JoinVerdict::Admitted { again: false });
    let again = story.push_as(1, 2, 1, 1, vec![count("n", 1)]);
    assert_eq!(again, PushVerdict::Bound { revision, duplicate: true });

    story.policy(Policy { tombstones_max: Some(1), ..Policy::default() });
    story.join(2, 1, None);
    assert!(story.gone(1, 2, Cause::Left, 0) && story.gone(2, 1, Cause::Left, 0));
    assert_eq!(story.join(1, 3, Some(2)), JoinVerdict::Forgotten);
}

#[test]
fn a_gone_is_void_when_something_newer_is_known() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.push(1, 5, vec![count("n", 1)]);
    assert!(!story.gone(1, 1, Cause::Expired, 4), "beat 5 was heard");
    assert!(!story.gone(1, 7, Cause::Left, 0), "another incarnation");
    assert!(story.gone(1, 1, Cause::Expired, 5));
}

#[test]
fn a_tombstone_lives_for_an_hour_of_log_time() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.gone(1, 1, Cause::Left, 0);
    for step in 0..721 {
        assert!(
            story
                .fold
                .namespace(&Namespace::default())
                .is_some_and(|view| view.tombstone(NodeId(1)).is_some()),
            "{step}"
        );
        // A clock that runs away moves log time by five seconds at the most.
        story.say(Record::Digest(Digest { log_time_ms: u64::MAX, ..Digest::default() }));
    }
    assert!(
        story.fold.namespace(&Namespace::default()).is_some_and(|view| view.tombstone(NodeId(1)).is_none())
    );
}

#[test]
fn an_idempotency_id_counts_once_per_counter_whoever_repeats_it() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.join(2, 1, None);
    let once = |key: &str| {
        let once = vec![dormouse_proto::lattice::Once { id: "request-7".parse().expect("valid"), amount: 1 }];
        delta(key, Change::Counter(CounterDelta { once, ..CounterDelta::default() }))
    };
    story.bound(1, 1, vec![once("shown"), once("clicks")]);
    story.bound(2, 1, vec![once("shown")]);
    let chunk = story.pull(&story.everything());
    let values: Vec<_> = keys(&chunk).into_iter().map(|it| it.state).collect();
    let counted = Some(v1::key_state::State::Counter(v1::CounterState { value: 1, total: 1 }));
    assert_eq!(values, [counted.clone(), counted]);
}

#[test]
fn a_write_of_the_register_that_saw_the_winner_wins_and_a_clock_ahead_is_clamped() {
    let mut story = Story { stamp_ms: 1_000_000, ..Story::default() };
    story.join(1, 1, None);
    let seen = story.bound(1, 1, vec![set("r", Some("a"), u64::MAX, None)]);
    story.bound(1, 2, vec![set("r", Some("b"), 5, Some(Revision(0)))]);
    assert_eq!(register_value(&story.pull(&story.everything()), "r").as_deref(), Some("a"));
    story.bound(1, 3, vec![set("r", Some("c"), 5, Some(seen))]);
    assert_eq!(register_value(&story.pull(&story.everything()), "r").as_deref(), Some("c"));
}

#[test]
fn what_was_collected_does_not_come_back() {
    let mut story = Story { stamp_ms: 10, ..Story::default() };
    story.policy(Policy { dead_rows_min: Some(1), ..Policy::default() });
    story.join(1, 1, None);
    let laggard = story.pull(&story.everything()).token;
    let born = story.bound(1, 1, vec![count("n", 3), set("r", Some("a"), 10, None), add("s", "x")]);
    story.bound(1, 2, vec![count("n", -3), set("r", None, 10, None), remove("s", "x", None)]);
    story.bound(1, 3, vec![add("s", "y")]);
    story.bound(1, 4, vec![remove("s", "y", None)]);
    let stale =
        |verdict: &PushVerdict| matches!(verdict, PushVerdict::Refused(why) if why.reason == Reason::Stale);
    assert!(stale(&story.push(1, 5, vec![reset("n", born, 3)])));
    assert!(stale(&story.push(1, 6, vec![set("r", Some("old"), 1, Some(Revision(0)))])));
    let chunk = story.pull(&story.after(laggard));
    assert_eq!(chunk.restart, Some(Lost::Compacted));
    assert_eq!(chunk.restarted, ["c"]);
}

#[test]
fn a_number_of_a_lost_tail_restarts_the_reader() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.bound(1, 1, vec![count("n", 1)]);
    let mut lost = Story::default();
    lost.join(1, 1, None);
    for no in 1..=10 {
        lost.bound(1, no, vec![count("n", 1)]);
    }
    let token = lost.pull(&lost.everything()).token;
    let head = lost.fold.revision();
    let behind = Pull { head, ..story.after(token.clone()) };
    let answer = story.fold.pull(LOG, &Namespace::default(), &behind);
    assert_eq!(answer.expect_err("it was shown more"), PullError::Behind(head));
    story.say(Record::Open { base: Revision(1_000) });
    let chunk = story.pull(&Pull { head, ..story.after(token) });
    assert_eq!((chunk.restart, chunk.rows), (Some(Lost::History), 1));
}

#[test]
fn who_starts_over_gets_what_was_acknowledged_too() {
    let mut story = Story::default();
    story.policy(Policy { dead_rows_min: Some(1), ..Policy::default() });
    story.join(1, 1, None);
    let laggard = story.pull(&story.everything()).token;
    for no in 1..=4 {
        story.bound(1, no * 2, vec![add("s", &format!("x{no}"))]);
        story.bound(1, no * 2 + 1, vec![remove("s", &format!("x{no}"), None)]);
    }
    let own = story.bound(1, 20, vec![count("n", 1)]);
    let chunk = story.pull(&Pull { acked: &[own], ..story.after(laggard) });
    assert_eq!(chunk.restart, Some(Lost::Compacted));
    assert!(keys(&chunk).iter().any(|it| it.key == "n"), "it drops what is not delivered from here on");
}

#[test]
fn a_first_pull_tells_of_rows_that_died_since_the_oldest_one_held() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let held = story.bound(1, 1, vec![add("s", "x")]);
    story.bound(1, 2, vec![remove("s", "x", None)]);
    let cold = story.pull(&story.everything());
    assert_eq!(cold.rows, 0, "who holds nothing need not hear of the dead");
    let holding = story.pull(&Pull { held_since: Some(held), ..story.everything() });
    assert_eq!(holding.rows, 1);
}

#[test]
fn rows_of_one_revision_are_never_split() {
    let mut story = Story::default();
    story.join(1, 1, None);
    for no in 1..=3 {
        story.bound(1, no, (0..100).map(|n| count(&format!("key-{no}-{n:03}"), 1)).collect());
    }
    let (mut token, mut sizes) = (None, Vec::new());
    loop {
        let chunk = story.pull(&Pull { token: token.map(Ok), max_bytes: 100, ..story.everything() });
        sizes.push(chunk.rows);
        token = Some(chunk.token);
        if chunk.caught_up {
            break;
        }
    }
    assert_eq!(sizes, [100, 100, 100]);
}

#[test]
fn a_snapshot_holds_the_whole_state() {
    let mut story = Story { stamp_ms: 77, ..Story::default() };
    story.policy(Policy { dead_rows_min: Some(2), ..Policy::default() });
    for node in 1..=5 {
        story.join(node, 1, None);
    }
    for no in 1..=40_u64 {
        let element = format!("e{}", no % 7);
        let change = if no % 3 == 0 { remove("s", &element, None) } else { add("s", &element) };
        let amount = if no % 2 == 0 { 1 } else { -1 };
        let value = (no % 5 > 0).then_some("v");
        let node = 1 + no % 5;
        story.push(
            node,
            no,
            vec![
                change,
                count(&format!("n{}", no % 4), amount),
                set(&format!("r{}", no % 6), value, no, None),
            ],
        );
        let deltas = vec![count("w", 1)];
        let write = Write {
            namespace: "other".parse().expect("valid"),
            request_id: format!("w{no}").parse().expect("valid"),
            deltas,
        };
        assert!(matches!(story.say(Record::Write(write)), Verdict::Write(WriteVerdict::Bound { .. })));
    }
    story.gone(2, 1, Cause::Left, 0);
    story.gone(3, 1, Cause::Evicted, 0);
    story.say(Record::Open { base: Revision(1 << 40) });

    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    let mut restored = Story { fold: Fold::restore(bytes.chunks(7)).expect("whole"), stamp_ms: 78 };
    assert_eq!(restored.fold.hash(), story.fold.hash());
    // And it goes on alike.
    story.stamp_ms = 78;
    for no in 41..=80_u64 {
        for it in [&mut story, &mut restored] {
            it.push(
                1,
                no,
                vec![add("s", &format!("e{}", no % 9)), set("r1", None, no, None), count("n1", 2)],
            );
            it.join(2, 2, Some(1));
        }
        assert_eq!(restored.fold.hash(), story.fold.hash(), "after push {no}");
    }
    bytes[40] ^= 1;
    assert!(Fold::restore([&bytes]).is_err());
    assert!(Fold::restore([&bytes[..bytes.len() - 1]]).is_err());
}
