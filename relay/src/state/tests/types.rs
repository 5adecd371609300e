//! The types beside counter, set and register.

use dormouse_proto::{
    lattice::{
        FlagDelta, GrowOnlySetDelta, GuardedAdd, PresenceDelta, RemoveWinsSetDelta, SiblingsDelta, Type,
    },
    wire::v1::key_state::State,
};

use super::*;

fn flag(key: &str, on: bool, as_of: Option<Revision>) -> Delta {
    delta(key, Change::Flag(FlagDelta { on, as_of }))
}

fn guarded_flag(key: &str, on: bool, as_of: Option<Revision>) -> Delta {
    delta(key, Change::DisableWinsFlag(FlagDelta { on, as_of }))
}

fn guard(key: &str, element: &str, as_of: Option<Revision>) -> Delta {
    let add = vec![GuardedAdd { elements: vec![element.parse().expect("valid")], as_of }];
    delta(key, Change::RemoveWinsSet(RemoveWinsSetDelta { add, remove: Vec::new() }))
}

fn unguard(key: &str, element: &str) -> Delta {
    let remove = vec![element.parse().expect("valid")];
    delta(key, Change::RemoveWinsSet(RemoveWinsSetDelta { add: Vec::new(), remove }))
}

fn grow(key: &str, element: &str) -> Delta {
    delta(key, Change::GrowOnlySet(GrowOnlySetDelta { add: vec![element.parse().expect("valid")] }))
}

fn sibling(key: &str, value: Option<&str>, as_of: Option<Revision>) -> Delta {
    let value = value.map(|text| Value::Text(text.to_owned()));
    delta(key, Change::Siblings(SiblingsDelta { value, as_of }))
}

fn hold(key: &str, value: Option<&str>) -> Delta {
    let value = value.map(|text| Value::Text(text.to_owned()));
    delta(key, Change::Presence(PresenceDelta { value }))
}

/// The state of a key, as a reader who asks for it is told.
fn state_of(story: &Story, key: &str) -> State {
    let chunk = story.pull(&story.everything());
    let found = keys(&chunk).into_iter().find(|it| it.key == key).and_then(|it| it.state);
    found.unwrap_or_else(|| panic!("{key} is not there"))
}

fn members() -> Story {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.join(2, 1, None);
    story
}

const fn stale(verdict: &PushVerdict) -> bool {
    matches!(verdict, PushVerdict::Refused(why) if matches!(why.reason, Reason::Stale))
}

#[test]
fn an_on_wins_over_an_off_that_had_not_seen_it_and_loses_where_off_wins() {
    let mut story = members();
    let seen = story.bound(1, 1, vec![flag("f", true, None), guarded_flag("g", true, None)]);
    // Node 2 switches both on again; node 1 switches both off without having seen that.
    story.bound(2, 1, vec![flag("f", true, None), guarded_flag("g", true, Some(seen))]);
    story.bound(1, 2, vec![flag("f", false, Some(seen)), guarded_flag("g", false, None)]);
    assert_eq!(state_of(&story, "f"), State::Flag(v1::FlagState { on: true }));
    // Off is dead, so a first pull does not show it: a later on must have seen the off.
    story.bound(2, 2, vec![guarded_flag("g", true, Some(seen))]);
    assert!(keys(&story.pull(&story.everything())).iter().all(|it| it.key != "g"));
    story.bound(2, 3, vec![guarded_flag("g", true, None)]);
    assert_eq!(state_of(&story, "g"), State::DisableWinsFlag(v1::FlagState { on: true }));
}

#[test]
fn a_remove_wins_over_an_add_that_had_not_seen_it_even_where_nothing_was() {
    let mut story = members();
    let before = story.bound(1, 1, vec![count("n", 1)]);
    story.bound(1, 2, vec![unguard("s", "x")]);
    story.bound(2, 1, vec![guard("s", "x", Some(before))]);
    assert!(keys(&story.pull(&story.everything())).iter().all(|it| it.key != "s"), "the remove won");
    story.bound(2, 2, vec![guard("s", "x", None)]);
    let present = v1::SetState { present: vec!["x".into()], removed: Vec::new() };
    assert_eq!(state_of(&story, "s"), State::RemoveWinsSet(present));
}

#[test]
fn a_remove_that_was_dropped_leaves_a_mark() {
    let mut story = members();
    story.policy(Policy { dead_rows_min: Some(1), ..Policy::default() });
    let before = story.bound(1, 1, vec![guard("s", "x", None), guarded_flag("g", true, None)]);
    story.bound(1, 2, vec![unguard("s", "x"), guarded_flag("g", false, None)]);
    let after = story.bound(1, 3, vec![unguard("s", "y")]);
    story.bound(1, 4, vec![unguard("s", "z")]);
    assert!(stale(&story.push(2, 1, vec![guard("s", "x", Some(before))])), "x was removed and forgotten");
    assert!(stale(&story.push(2, 2, vec![guarded_flag("g", true, Some(before))])));
    story.bound(2, 3, vec![guard("s", "x", Some(after))]);
}

#[test]
fn the_best_offer_stays_and_a_worse_one_is_told_to_nobody() {
    let mut story = members();
    story.bound(1, 1, vec![delta("high", Change::Max(5)), delta("low", Change::Min(5))]);
    let token = story.pull(&story.everything()).token;
    story.bound(2, 1, vec![delta("high", Change::Max(-7)), delta("low", Change::Min(9))]);
    assert_eq!(story.pull(&story.after(token.clone())).rows, 0);
    story.bound(2, 2, vec![delta("high", Change::Max(6)), delta("low", Change::Min(-1))]);
    assert_eq!(story.pull(&story.after(token)).rows, 2);
    assert_eq!(state_of(&story, "high"), State::Max(v1::NumberState { value: Some(6) }));
    assert_eq!(state_of(&story, "low"), State::Min(v1::NumberState { value: Some(-1) }));
}

#[test]
fn a_set_that_only_grows_keeps_everything() {
    let mut story = members();
    story.bound(1, 1, vec![grow("s", "a")]);
    let token = story.pull(&story.everything()).token;
    story.bound(2, 1, vec![grow("s", "a")]);
    assert_eq!(story.pull(&story.after(token)).rows, 0, "it was there");
    let state = v1::SetState { present: vec!["a".into()], removed: Vec::new() };
    assert_eq!(state_of(&story, "s"), State::GrowOnlySet(state));
}

#[test]
fn siblings_stand_side_by_side_until_somebody_has_seen_them() {
    let mut story = members();
    let values = |story: &Story| match state_of(story, "s") {
        State::Siblings(state) => state.siblings.len(),
        other => panic!("{other:?}"),
    };
    let first = story.bound(1, 1, vec![sibling("s", Some("a"), None)]);
    story.bound(2, 1, vec![sibling("s", Some("b"), Some(Revision(1)))]);
    assert_eq!(values(&story), 2);
    story.bound(2, 2, vec![sibling("s", None, Some(first))]);
    assert_eq!(values(&story), 1, "only a was seen");
    story.bound(1, 2, vec![sibling("s", Some("c"), None)]);
    assert_eq!(values(&story), 1);
}

#[test]
fn of_65_siblings_the_oldest_goes_and_is_counted() {
    let mut story = members();
    for no in 1..=65 {
        story.bound(1, no, vec![sibling("s", Some("v"), Some(Revision::ZERO))]);
    }
    let view = story.fold.namespace(&Namespace::default()).expect("there");
    assert_eq!(view.collapsed().siblings, 1);
}

#[test]
fn presence_ends_in_the_record_that_ends_its_node() {
    let mut story = members();
    story.bound(1, 1, vec![hold("room", Some("one"))]);
    story.bound(2, 1, vec![hold("room", Some("two"))]);
    let holders = |story: &Story| match state_of(story, "room") {
        State::Presence(state) => state.holders.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(holders(&story), 2);
    let token = story.pull(&story.everything()).token;
    assert!(story.gone(1, 1, Cause::Expired, 1));
    let chunk = story.pull(&story.after(token));
    let ended = v1::presence_state::Holder { node_id: NodeId(1).to_string(), incarnation: 1, value: None };
    let state = Some(State::Presence(v1::PresenceState { holders: vec![ended] }));
    assert_eq!(keys(&chunk).into_iter().map(|it| it.state).collect::<Vec<_>>(), [state]);
    assert_eq!(holders(&story), 1);
}

#[test]
fn a_node_holds_up_64_things_at_the_most_and_only_a_node_does() {
    let mut story = members();
    let all: Vec<Delta> = (0..64).map(|n| hold(&format!("k{n}"), Some("v"))).collect();
    story.bound(1, 1, all);
    story.bound(1, 2, vec![hold("k0", Some("w"))]);
    let refused = story.push(1, 3, vec![hold("one-more", Some("v"))]);
    assert!(matches!(refused, PushVerdict::Refused(why) if why.reason == Reason::Quota));
    // Only what is too much is named, so that the rest of the push need not be lost.
    let refused = story.push(1, 4, vec![count("n", 1), hold("one-more", Some("v"))]);
    assert!(matches!(refused, PushVerdict::Refused(why) if why.deltas == [1]));
    story.bound(1, 5, vec![hold("k1", None), hold("one-more", Some("v"))]);
    let write = Write {
        namespace: Namespace::default(),
        request_id: "w".parse().expect("valid"),
        deltas: vec![hold("k", Some("v"))],
    };
    assert!(matches!(story.say(Record::Write(write)), Verdict::Write(WriteVerdict::Refused(_))));
}

/// A snapshot in the middle of everything that there is; both go on alike.
#[test]
fn every_type_survives_a_snapshot() {
    let mut story = members();
    story.policy(Policy { dead_rows_min: Some(3), ..Policy::default() });
    let step = |story: &mut Story, no: u64| {
        let (key, element) = (format!("k{}", no % 5), format!("e{}", no % 3));
        let seen = Some(Revision(story.fold.revision().0.saturating_sub(no % 4)));
        let number = i64::try_from(no % 11).expect("small");
        story.push(
            1 + no % 2,
            no,
            vec![
                flag(&key, !no.is_multiple_of(3), seen),
                guarded_flag(&key, !no.is_multiple_of(4), seen),
                if no.is_multiple_of(3) { unguard(&key, &element) } else { guard(&key, &element, seen) },
                grow(&key, &element),
                sibling(&key, (!no.is_multiple_of(6)).then_some("v"), seen),
                hold(&key, (!no.is_multiple_of(5)).then_some("here")),
                delta(&key, Change::Max(number)),
                delta(&key, Change::Min(number)),
            ],
        );
        if no.is_multiple_of(13) {
            story.gone(1, 1, Cause::Left, 0);
            story.join(1, 2, Some(1));
        }
    };
    (1..=60).for_each(|no| step(&mut story, no));
    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    let mut restored = Story { fold: Fold::restore(bytes.chunks(11)).expect("whole"), stamp_ms: 0 };
    for no in 61..=120 {
        assert_eq!(restored.fold.hash(), story.fold.hash(), "before push {no}");
        step(&mut story, no);
        step(&mut restored, no);
    }
    let told = keys(&story.pull(&story.everything())).len();
    assert!(told >= Type::ALL.len() - 5, "{told} keys of the eight types are there");
}

#[test]
fn siblings_stay_small_enough_for_an_answer() {
    let mut story = members();
    let half = "x".repeat(Value::MAX_BYTES / 2 - 16);
    for no in 1..=3 {
        story.bound(1, no, vec![sibling("s", Some(&half), Some(Revision::ZERO))]);
    }
    let State::Siblings(state) = state_of(&story, "s") else { panic!("siblings") };
    assert_eq!(state.siblings.len(), 2, "the oldest made room");
    for no in 4..=20 {
        story.bound(1, no, vec![sibling(&format!("s{no}"), Some(&half), None)]);
    }
    let all = (4..=20).map(|no| sibling(&format!("s{no}"), Some("y"), Some(Revision::ZERO))).collect();
    let refused = story.push(1, 21, all);
    assert!(
        matches!(refused, PushVerdict::Refused(why) if why.reason == Reason::Quota && !why.deltas.is_empty())
    );
}

#[test]
fn a_snapshot_of_large_rows_has_parts_that_can_be_read() {
    let mut story = members();
    let value = "x".repeat(Value::MAX_BYTES);
    for no in 1..=600 {
        story.bound(1, no, vec![set(&format!("r{no}"), Some(&value), no, None)]);
    }
    let (mut largest, mut bytes) = (0, Vec::new());
    story.fold.write_snapshot(|piece| {
        largest = largest.max(piece.len());
        bytes.extend_from_slice(piece);
    });
    assert!(largest < 2 << 20, "{largest} bytes in one part");
    assert_eq!(Fold::restore([&bytes]).expect("whole").hash(), story.fold.hash());
}
