//! Sets in which a remove wins, and sets that only grow.

use dormouse_proto::lattice::GuardedAdd;

use super::*;

fn guarded(at: &str, present: &[&str], removed: &[&str]) -> KeyRows {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    rows(at, Rows::RemoveWinsSet { present: owned(present), removed: owned(removed) })
}

fn grown(at: &str, present: &[&str]) -> KeyRows {
    let present = present.iter().map(|name| (*name).to_owned()).collect();
    rows(at, Rows::GrowOnlySet { present, removed: Vec::new() })
}

/// The contexts of the adds in a push's only delta, and how many removes it has.
fn pushed(deltas: &[Delta]) -> (Vec<Option<u64>>, usize) {
    match only(deltas) {
        Change::RemoveWinsSet(set) => {
            let context = |GuardedAdd { as_of, .. }: &GuardedAdd| as_of.map(|at| at.0);
            (set.add.iter().map(context).collect(), set.remove.len())
        }
        other => panic!("{other:?} is no set in which a remove wins"),
    }
}

#[test]
fn sets_of_every_kind_are_their_rows_and_the_last_own_words() {
    let mut it =
        caught_up(5, vec![guarded("a/s", &["x", "y"], &[]), grown("a/s", &["x"]), set("a/s", &["z"], &[])]);
    it.remove_wins_set_remove(&path("a/s"), element("x")).expect("fits");
    it.remove_wins_set_add(&path("a/s"), element("w")).expect("fits");
    it.grow_only_set_add(&path("a/s"), element("y")).expect("fits");
    for _ in 0..2 {
        assert_eq!(it.remove_wins_set(&path("a/s")), Some(vec!["w", "y"]));
        assert_eq!(it.remove_wins_set_contains(&path("a/s"), "x"), Some(false));
        assert_eq!(it.grow_only_set(&path("a/s")), Some(vec!["x", "y"]));
        assert_eq!(it.grow_only_set_contains(&path("a/s"), "y"), Some(true));
        assert_eq!(it.set(&path("a/s")), Some(vec!["z"]), "the type is part of the name");
        it.seal(PushId(7));
    }
}

#[test]
fn an_add_says_what_its_author_had_seen_and_a_remove_does_not() {
    let mut it = caught_up(5, vec![guarded("a/s", &["x"], &[])]);
    it.remove_wins_set_add(&path("a/s"), element("y")).expect("fits");
    it.remove_wins_set_remove(&path("a/s"), element("x")).expect("fits");
    it.absorb_chunk(chunk(8, true, vec![guarded("a/s", &[], &["y"])]));
    assert_eq!(pushed(&send(&mut it).1), (vec![Some(5)], 1), "the remove of 8 was not seen at the call");
}

#[test]
fn an_add_after_an_own_remove_whose_answer_was_lost_knows_of_it() {
    // C2: with the context of the call the element would be lost.
    let mut it = caught_up(5, vec![guarded("a/s", &["x", "y"], &[])]);
    it.remove_wins_set_remove(&path("a/s"), element("x")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.remove_wins_set_add(&path("a/s"), element("x")).expect("fits");
    it.remove_wins_set_add(&path("a/s"), element("z")).expect("fits");
    assert_eq!(it.remove_wins_set(&path("a/s")), Some(vec!["x", "y", "z"]));
    loses_the_answer(&mut it, push_no, 6, vec![guarded("a/s", &[], &["x"])]);
    assert_eq!(it.remove_wins_set(&path("a/s")), Some(vec!["x", "y", "z"]));
    assert_eq!(pushed(&send(&mut it).1), (vec![Some(5), Some(6)], 0));
}

#[test]
fn what_an_acknowledgement_leaves_out_is_as_it_was_asked_for() {
    let mut it = caught_up(5, vec![guarded("a/s", &["old"], &[])]);
    for name in ["new", "lost"] {
        it.remove_wins_set_add(&path("a/s"), element(name)).expect("fits");
    }
    it.remove_wins_set_remove(&path("a/s"), element("old")).expect("fits");
    it.grow_only_set_add(&path("a/g"), element("x")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 8, vec![guarded("a/s", &[], &["lost"])]));
    it.absorb_chunk(chunk(8, true, vec![]));
    assert_eq!(it.remove_wins_set(&path("a/s")), Some(vec!["new"]));
    assert_eq!(it.grow_only_set(&path("a/g")), Some(vec!["x"]));
    let held = it.held.elements(&path("a/s"), Type::RemoveWinsSet).expect("held");
    assert_eq!(held.len(), 1, "what was removed is dropped at the barrier");
}

#[test]
fn a_stale_push_loses_its_adds_where_a_remove_wins() {
    let mut it = caught_up(5, vec![]);
    it.remove_wins_set_add(&path("a/s"), element("x")).expect("fits");
    it.remove_wins_set_remove(&path("a/s"), element("y")).expect("fits");
    it.grow_only_set_add(&path("a/g"), element("x")).expect("fits");
    send(&mut it);
    it.absorb_refusal(&refusal("STALE", Verdict::Stale, &[0]));
    assert_eq!(it.take_reports().len(), 1);
    assert_eq!(it.remove_wins_set(&path("a/s")), Some(vec![]));
    let (_, deltas) = send(&mut it);
    assert_eq!(pushed(&deltas[..1]), (vec![], 1));
    assert_eq!(deltas.len(), 2);
}

#[test]
fn adds_survive_a_lost_history_without_what_they_had_seen() {
    let mut it = caught_up(50, vec![guarded("a/s", &["x"], &[]), grown("a/g", &["x"])]);
    it.remove_wins_set_add(&path("a/s"), element("y")).expect("fits");
    it.absorb_chunk(restarting(Restart::Lost, chunk(30, false, vec![])));
    assert!(it.take_reports().is_empty());
    assert_eq!(it.remove_wins_set(&path("a/s")), Some(vec!["x", "y"]), "rows stay visible");
    assert_eq!(pushed(&send(&mut it).1), (vec![Some(0)], 0));
    it.absorb_chunk(chunk(31, true, vec![]));
    assert_eq!(it.grow_only_set(&path("a/g")), Some(vec![]), "it was not delivered again");
}

#[test]
fn what_one_push_cannot_hold_goes_with_the_next() {
    let mut it = replica();
    for n in 0..700 {
        it.remove_wins_set_add(&path("a/s"), element(&n.to_string())).expect("fits");
        it.grow_only_set_add(&path("a/g"), element(&n.to_string())).expect("fits");
    }
    let mut sizes = Vec::new();
    while it.pending().deltas > 0 {
        let (push_no, deltas) = send(&mut it);
        sizes.push(deltas.iter().map(|delta| delta.change.rows()).sum::<usize>());
        it.absorb_ack(ack(push_no, push_no.0, vec![]));
    }
    assert_eq!(sizes, [1_024, 376]);
}
