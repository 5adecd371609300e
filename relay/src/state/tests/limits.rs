//! What a namespace may grow to.

use dormouse_proto::lattice::{PresenceDelta, SiblingsDelta};

use super::*;

fn quota(verdict: &PushVerdict) -> bool {
    matches!(verdict, PushVerdict::Refused(why) if why.reason == Reason::Quota)
}

fn write_to(story: &mut Story, namespace: &str, id: &str, deltas: Vec<Delta>) -> WriteVerdict {
    let namespace = namespace.parse().expect("valid");
    let write = Write { namespace, request_id: id.parse().expect("valid"), deltas };
    match story.say(Record::Write(write)) {
        Verdict::Write(verdict) => verdict,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_limits_of_a_namespace_stand_above_those_of_all() {
    let mut story = Story::default();
    story.policy(Policy { rows_max: Some(1), ..Policy::default() });
    let own = Policy { namespace: "large".parse().ok(), rows_max: Some(2), ..Policy::default() };
    story.policy(own);
    let two = || vec![count("a", 1), count("b", 1)];
    assert!(matches!(write_to(&mut story, "small", "1", two()), WriteVerdict::Refused(_)));
    assert!(matches!(write_to(&mut story, "large", "1", two()), WriteVerdict::Bound { .. }));
    // A later limit of all namespaces leaves the own one in place, in this life and the next.
    story.policy(Policy { rows_max: Some(5), ..Policy::default() });
    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    let mut restored = Story { fold: Fold::restore([&bytes]).expect("whole"), stamp_ms: 0 };
    assert_eq!(restored.fold.hash(), story.fold.hash());
    for it in [&mut story, &mut restored] {
        assert!(matches!(write_to(it, "small", "2", two()), WriteVerdict::Bound { .. }));
        assert!(matches!(write_to(it, "large", "2", vec![count("c", 1)]), WriteVerdict::Refused(_)));
    }
}

#[test]
fn a_value_that_grows_counts_and_one_that_shrinks_always_passes() {
    let mut story = Story { stamp_ms: 10, ..Story::default() };
    story.policy(Policy { bytes_max: Some(4_000), ..Policy::default() });
    story.join(1, 1, None);
    story.bound(1, 1, vec![set("r", Some("small"), 1, None)]);
    let large = "x".repeat(5_000);
    assert!(quota(&story.push(1, 2, vec![set("r", Some(&large), 2, None)])), "no new row, but many bytes");
    let medium = "x".repeat(3_500);
    story.bound(1, 3, vec![set("r", Some(&medium), 3, None)]);
    assert!(quota(&story.push(1, 4, vec![set("q", Some(&medium), 4, None)])));
    story.bound(1, 5, vec![set("r", Some("small"), 5, None)]);
    story.bound(1, 6, vec![set("q", Some(&medium), 6, None)]);
    let view = story.fold.namespace(&Namespace::default()).expect("there");
    assert!(view.bytes() <= 4_000);
}

#[test]
fn rows_count_exactly_and_removals_pass_when_all_is_full() {
    let mut story = Story::default();
    story.policy(Policy { rows_max: Some(3), ..Policy::default() });
    story.join(1, 1, None);
    story.bound(1, 1, vec![add("s", "a"), count("n", 1)]);
    // Two of these are there already, so that one row is added and not three.
    story.bound(1, 2, vec![add("s", "a"), count("n", 1), count("m", 1)]);
    assert!(quota(&story.push(1, 3, vec![add("s", "b")])));
    story.bound(1, 4, vec![remove("s", "a", None), count("n", 1)]);
    assert!(quota(&story.push(1, 5, vec![count("new", 1)])), "a dead row is a row");
}

#[test]
fn what_is_held_up_counts_when_it_grows() {
    let mut story = Story::default();
    story.policy(Policy { bytes_max: Some(2_000), ..Policy::default() });
    story.join(1, 1, None);
    let hold = |text: &str| {
        let value = Some(Value::Text(text.to_owned()));
        delta("p", Change::Presence(PresenceDelta { value }))
    };
    story.bound(1, 1, vec![hold("here")]);
    assert!(quota(&story.push(1, 2, vec![hold(&"x".repeat(5_000))])), "no new row, but many bytes");
    story.bound(1, 3, vec![hold("gone")]);
}

#[test]
fn taking_siblings_away_needs_no_room_even_where_none_are() {
    let mut story = Story::default();
    story.policy(Policy { rows_max: Some(1), ..Policy::default() });
    story.join(1, 1, None);
    story.bound(1, 1, vec![count("n", 1)]);
    let nothing = SiblingsDelta { value: None, as_of: None };
    let delta =
        Delta { key: "v".parse().expect("valid"), change: Change::Siblings(nothing), ..count("n", 1) };
    story.bound(1, 2, vec![delta]);
}

#[test]
fn the_first_element_of_a_set_takes_its_key_along() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.bound(1, 1, vec![add("s", "a")]);
    let bytes = |story: &Story| story.fold.namespace(&Namespace::default()).map_or(0, |it| it.bytes());
    // As much again is needed for another key, and not less.
    let needed = 2 * bytes(&story);
    story.policy(Policy { bytes_max: Some(needed - 1), ..Policy::default() });
    assert!(quota(&story.push(1, 2, vec![add("t", "a")])));
    story.policy(Policy { bytes_max: Some(needed), ..Policy::default() });
    story.bound(1, 3, vec![add("t", "a")]);
    assert_eq!(bytes(&story), needed);
}

#[test]
fn what_adds_nothing_passes_when_all_is_full() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.bound(1, 1, vec![count("a", 1)]);
    story.policy(Policy { rows_max: Some(1), ..Policy::default() });
    let change = CounterDelta { reset: Some(Reset { as_of: None, total: 0 }), ..CounterDelta::default() };
    story.bound(1, 2, vec![delta("not-there", Change::Counter(change))]);
}

#[test]
fn a_sibling_that_takes_the_place_of_a_larger_one_passes() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let write = |n: usize| {
        let change = SiblingsDelta { value: Some(Value::Text("x".repeat(n))), as_of: None };
        delta("s", Change::Siblings(change))
    };
    story.policy(Policy { bytes_max: Some(4_000), ..Policy::default() });
    story.bound(1, 1, vec![write(3_000)]);
    story.bound(1, 2, vec![write(1_000)]);
    assert!(quota(&story.push(1, 3, vec![write(9_000)])));
}
