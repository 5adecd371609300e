//! A log that has lost its tail, and is healed by whoever still holds it.

use dormouse_proto::{
    lattice::{Append, EventsDelta},
    record::{Reseed, Send, SnapshotName},
};

use super::*;
use crate::state::Seeded;

/// A log with a node that has pushed once, and the same log with a tail that will be lost.
struct Cut {
    /// What the log is left with.
    log: Story,
    /// What a relay has in its memory.
    memory: Story,
    safe: Revision,
}

fn cut() -> Cut {
    let mut log = Story::default();
    log.say(Record::Open { base: Revision(1_000) });
    log.join(1, 1, None);
    log.bound(1, 1, vec![count("n", 1), add("s", "old")]);
    let (safe, memory) = (log.fold.revision(), log.clone());
    Cut { log, memory, safe }
}

impl Cut {
    fn reseed(&self, base: u64) -> Reseed {
        Reseed {
            position: 3,
            record_id: (1, 3),
            safe: self.safe,
            snapshot: SnapshotName::default(),
            hash: self.memory.fold.hash().0,
            base: Revision(base),
        }
    }

    /// The record comes back from the log, and whoever applies it finds the snapshot.
    fn heal(&mut self, base: u64) -> Verdict {
        let reseed = Record::Reseed(self.reseed(base));
        self.log.fold.give(self.memory.fold.clone());
        self.log.say(reseed)
    }
}

fn events(append: &[&str]) -> Delta {
    let append =
        append.iter().map(|it| Append { payload: Value::Text((*it).to_owned()), id: None }).collect();
    delta("e", Change::Events(EventsDelta { append, trim_upto: Revision::ZERO }))
}

fn counter(chunk: &Chunk, key: &str) -> Option<i64> {
    keys(chunk).into_iter().find(|it| it.key == key).and_then(|it| match it.state {
        Some(v1::key_state::State::Counter(state)) => Some(state.value),
        _ => None,
    })
}

#[test]
fn what_the_log_has_lost_is_there_again() {
    let mut cut = cut();
    cut.memory.bound(1, 2, vec![count("n", 10)]);
    assert_eq!(cut.heal(1 << 40), Verdict::Reseed(Seeded::Healed));
    let chunk = cut.log.pull(&cut.log.everything());
    assert_eq!(counter(&chunk, "n"), Some(11));
    assert!(cut.log.fold.revision() > Revision(1 << 40), "the row was told anew behind the base");
    // Another relay that reads the log from its beginning comes to the same.
    let (mut other, reseed) = (super::reseed::cut().log, Record::Reseed(cut.reseed(1 << 40)));
    other.fold.give(cut.memory.fold.clone());
    other.say(reseed);
    assert_eq!(other.fold.hash(), cut.log.fold.hash());
}

#[test]
fn a_state_is_not_replaced_when_anything_took_effect_since_the_cut() {
    let mut cut = cut();
    cut.memory.bound(1, 2, vec![count("n", 10)]);
    cut.log.bound(1, 3, vec![count("n", 100)]);
    let before = cut.log.pull(&cut.log.everything());
    assert_eq!(cut.heal(1 << 40), Verdict::Reseed(Seeded::Void));
    assert!(cut.log.fold.revision() < Revision(1 << 40), "a void record takes one number");
    assert_eq!(counter(&before, "n"), Some(101));
    assert_eq!(counter(&cut.log.pull(&cut.log.everything()), "n"), Some(101));
}

#[test]
fn sessions_and_digests_between_do_not_stand_in_the_way() {
    let mut cut = cut();
    cut.memory.bound(1, 2, vec![count("n", 10)]);
    cut.log.say(Record::Open { base: Revision(1 << 41) });
    cut.log.say(Record::Digest(Digest { log_time_ms: 700, ..Digest::default() }));
    let between = cut.log.fold.revision();
    assert_eq!(cut.heal(1 << 40), Verdict::Reseed(Seeded::Healed));
    assert!(cut.log.fold.revision() > between, "a number is never given twice");
    assert!(!cut.log.fold.is_valid(between), "and what was given meanwhile is of no history");
    assert_eq!(cut.log.fold.log_time_ms(), 700, "time does not go back");
}

#[test]
fn the_second_of_two_is_void() {
    let mut cut = cut();
    let mut poorer = super::reseed::cut();
    poorer.memory.bound(1, 2, vec![count("n", 5)]);
    cut.memory.bound(1, 2, vec![count("n", 10)]);
    assert_eq!(cut.heal(1 << 40), Verdict::Reseed(Seeded::Healed));
    let healed = cut.log.fold.revision();
    cut.memory = poorer.memory;
    assert_eq!(cut.heal(1 << 41), Verdict::Reseed(Seeded::Void));
    assert_eq!(cut.log.fold.revision(), healed.next());
    assert_eq!(counter(&cut.log.pull(&cut.log.everything()), "n"), Some(11));
}

#[test]
fn tokens_up_to_the_cut_go_on_and_all_others_start_over() {
    let mut cut = cut();
    cut.log.bound(1, 2, vec![add("s", "quiet")]);
    (cut.safe, cut.memory) = (cut.log.fold.revision(), cut.log.clone());
    let old = cut.memory.pull(&cut.memory.everything()).token;
    cut.memory.bound(1, 3, vec![count("n", 10)]);
    let late = cut.memory.pull(&cut.memory.everything()).token;
    let (safe, shown) = (cut.safe, cut.memory.fold.revision());
    cut.heal(1 << 40);
    let chunk = cut.log.pull(&Pull { head: safe, ..cut.log.after(old) });
    assert_eq!((chunk.restart, chunk.rows), (None, 1), "it is sent what the tail had changed, and no more");
    assert_eq!(counter(&chunk, "n"), Some(11));
    assert_eq!(cut.log.pull(&cut.log.after(chunk.token)).restart, None, "its new token is valid");
    let chunk = cut.log.pull(&Pull { head: shown, ..cut.log.after(late) });
    assert_eq!((chunk.restart, chunk.rows), (Some(Lost::History), 3), "it is sent everything");
    assert_eq!(cut.log.pull(&cut.log.after(chunk.token)).restart, None);
}

#[test]
fn what_changed_in_the_tail_is_told_anew_in_the_same_order() {
    let mut cut = cut();
    cut.memory.bound(1, 2, vec![count("b", 1), count("c", 1)]);
    cut.memory.bound(1, 3, vec![count("a", 1)]);
    cut.memory.bound(1, 4, vec![add("never", "there"), remove("s", "old", None)]);
    let old_order = keys(&cut.memory.pull(&cut.memory.everything()));
    cut.heal(1 << 40);
    assert_eq!(keys(&cut.log.pull(&cut.log.everything())), old_order);
    let changed: Vec<_> = [1, 2, 3].map(|nth| Revision((1 << 40) + nth)).into();
    assert_eq!(cut.log.fold.revision(), changed[2], "three pushes, three revisions: equal ones stay equal");
    let restored = snapshot_and_back(&cut.log.fold);
    assert_eq!(restored.hash(), cut.log.fold.hash());
}

fn snapshot_and_back(fold: &Fold) -> Fold {
    let mut bytes = Vec::new();
    fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    Fold::restore([bytes]).expect("reads back")
}

#[test]
fn nodes_of_the_lost_tail_are_known_and_their_pushes_bind_once() {
    let mut cut = cut();
    cut.memory.join(2, 1, None);
    cut.memory.bound(2, 1, vec![count("n", 10)]);
    cut.heal(1 << 40);
    assert_eq!(cut.log.join(2, 1, None), JoinVerdict::Admitted { again: true });
    let again = cut.log.push(2, 1, vec![count("n", 10)]);
    assert!(matches!(again, PushVerdict::Bound { duplicate: true, .. }), "{again:?}");
    cut.log.bound(2, 2, vec![count("n", 100)]);
    assert_eq!(counter(&cut.log.pull(&cut.log.everything()), "n"), Some(111));
}

#[test]
fn messages_and_events_of_the_lost_tail_have_numbers_that_are_valid() {
    let mut cut = cut();
    cut.memory.bound(1, 2, vec![events(&["one", "two"])]);
    let message = Send {
        namespace: Namespace::default(),
        node: NodeId(1),
        message_id: "m".parse().expect("valid"),
        sender: String::new(),
        payload: Value::Text("hello".to_owned()),
        ttl_ms: 10_000,
    };
    cut.memory.say(Record::Send(message));
    cut.heal(1 << 40);
    let chunk = cut.log.pull(&Pull { node: Some(NodeId(1)), ..cut.log.everything() });
    assert!(cut.log.fold.is_valid(chunk.inbox[0].revision));
    let log = keys(&chunk).into_iter().find_map(|it| match it.state {
        Some(v1::key_state::State::Events(state)) => Some(state.events),
        _ => None,
    });
    let numbers: Vec<_> = log.expect("there").iter().map(|it| (it.revision, it.index)).collect();
    assert_eq!(numbers, [((1 << 40) + 1, 0), ((1 << 40) + 1, 1)]);
    let after = cut.log.pull(&Pull { node: Some(NodeId(1)), ..cut.log.after(chunk.token) });
    assert_eq!((after.restart, after.inbox.len()), (None, 0));
}

#[test]
fn an_empty_log_is_healed_from_its_beginning() {
    let cut = cut();
    let mut log = Story::default();
    log.say(Record::Open { base: Revision(5_000) });
    log.fold.give(cut.memory.fold.clone());
    let reseed = Reseed { position: 0, record_id: (0, 0), safe: Revision::ZERO, ..cut.reseed(1 << 40) };
    assert_eq!(log.say(Record::Reseed(reseed)), Verdict::Reseed(Seeded::Healed));
    let shown = cut.memory.pull(&cut.memory.everything());
    let chunk = log.pull(&Pull { head: cut.safe, ..log.after(shown.token) });
    assert_eq!((chunk.restart, counter(&chunk, "n")), (Some(Lost::History), Some(1)));
}

#[test]
fn who_does_not_look_ahead_is_told_that_its_state_is_not_that_of_the_log() {
    let mut cut = cut();
    cut.memory.bound(1, 2, vec![count("n", 10)]);
    let reseed = cut.reseed(1 << 40);
    let frame = Frame { header: FrameHeader::default(), records: vec![Record::Reseed(reseed.clone())] };
    assert_eq!(cut.log.fold.wants(&frame), Some(&reseed));
    assert_eq!(cut.log.clone().say(Record::Reseed(reseed)), Verdict::Reseed(Seeded::Missing));
    cut.log.bound(1, 3, vec![count("n", 100)]);
    assert_eq!(cut.log.fold.wants(&frame), None, "void");
}
