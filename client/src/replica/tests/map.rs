//! Nested maps.

use super::*;
use crate::replica::Cleared;

fn cart() -> Replica {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    caught_up(
        5,
        vec![
            counter("carts/42/qty", 3, 9),
            counter("carts/42/none", 0, 4),
            set("carts/42/tags", &["x", "y"], &["z"]),
            register("carts/42/note", Some("1"), 7),
            rows("carts/42/gift", Rows::Flag { on: true }),
            rows("carts/42/open", Rows::DisableWinsFlag { on: true }),
            rows("carts/42/sub/address", Rows::Siblings { values: vec![(Revision(3), text("1"))] }),
            rows("carts/42/allowed", Rows::RemoveWinsSet { present: texts(&["a"]), removed: texts(&["b"]) }),
            counter("carts/421/qty", 8, 8),
            counter("carts/42", 5, 5),
        ],
    )
}

#[test]
fn the_leaves_of_a_map_are_the_live_keys_below_its_path() {
    let mut it = cart();
    let all = ["allowed", "gift", "note", "open", "qty", "sub/address", "tags"];
    assert_eq!(it.map_keys(&path("carts/42")), Some(all.map(str::to_owned).to_vec()));
    assert_eq!(it.map_keys(&path("carts/42/sub")), Some(vec!["address".into()]));
    assert_eq!(it.map_keys(&path("carts/7")), Some(vec![]));
    it.counter_add(&path("carts/7/qty"), 1).expect("fits");
    assert_eq!(it.map_keys(&path("carts/7")), Some(vec!["qty".into()]), "own writes are visible at once");
    assert_eq!(replica().map_keys(&path("carts/42")), None, "nothing was heard yet");
}

#[test]
fn a_clear_is_one_delta_for_each_leaf_that_is_shown_with_its_own_context() {
    let mut it = cart();
    it.absorb_chunk(chunk(8, false, vec![set("carts/42/tags", &["w"], &[])])); // in the middle of a pull
    let cleared = it.map_clear(&path("carts/42")).expect("fits");
    assert_eq!(cleared, Cleared { rows: 9, kept: vec![] });
    assert_eq!(it.map_keys(&path("carts/42")), Some(vec![]));
    assert_eq!((it.counter(&path("carts/42")), it.counter(&path("carts/421/qty"))), (Some(5), Some(8)));
    let (_, deltas) = send(&mut it);
    assert_eq!(deltas.len(), 7);
    for Delta { key, change, .. } in &deltas {
        match change {
            Change::Counter(delta) => {
                let reset = delta.reset.expect("a reset");
                assert_eq!((key.as_str(), reset.as_of, reset.total), ("42/qty", Some(Revision(5)), 9));
            }
            Change::Set(_) => {
                let tags = deltas.iter().find(|delta| delta.key == *key).expect("there");
                assert_eq!(remove_contexts(tags), [Some(5), Some(8)]);
            }
            Change::Register(delta) => assert_eq!((&delta.value, delta.as_of), (&None, Some(Revision(5)))),
            Change::Flag(delta) => assert_eq!((delta.on, delta.as_of), (false, Some(Revision(5)))),
            Change::DisableWinsFlag(delta) => assert_eq!((delta.on, delta.as_of), (false, None)),
            Change::Siblings(delta) => assert_eq!((&delta.value, delta.as_of), (&None, Some(Revision(5)))),
            Change::RemoveWinsSet(delta) => assert_eq!((delta.add.len(), delta.remove.len()), (0, 1)),
            other => panic!("{other:?} cannot be cleared"),
        }
    }
}

#[test]
fn a_clear_and_a_leaf_said_afterwards_are_one_delta_for_that_leaf() {
    // K2: the leaf's; a counter is reset and added to.
    let mut it = cart();
    let _ = it.map_clear(&path("carts/42")).expect("fits");
    it.register_set(&path("carts/42/note"), Some(text("2")), 9).expect("fits");
    it.counter_add(&path("carts/42/qty"), 4).expect("fits");
    it.set_add(&path("carts/42/tags"), element("x")).expect("fits");
    assert_eq!(it.map_keys(&path("carts/42")), Some(["note", "qty", "tags"].map(str::to_owned).to_vec()));
    assert_eq!(it.counter(&path("carts/42/qty")), Some(4));
    assert_eq!(send(&mut it).1.len(), 7);
}

#[test]
fn a_leaf_said_before_a_clear_is_cleared() {
    let mut it = cart();
    it.register_set(&path("carts/42/note"), Some(text("2")), 9).expect("fits");
    it.set_add(&path("carts/42/own"), element("x")).expect("fits");
    let _ = it.map_clear(&path("carts/42")).expect("fits");
    assert_eq!(it.map_keys(&path("carts/42")), Some(vec![]));
    let (_, deltas) = send(&mut it);
    let note = deltas.iter().find(|delta| delta.key.as_str() == "42/note").expect("there");
    assert!(matches!(&note.change, Change::Register(delta) if delta.value.is_none()));
}

#[test]
fn what_cannot_be_cleared_stays_and_is_named() {
    let mut it = cart();
    it.max_offer(&path("carts/42/top"), 3).expect("fits");
    it.min_offer(&path("carts/42/low"), 3).expect("fits");
    it.grow_only_set_add(&path("carts/42/ever"), element("x")).expect("fits");
    it.events_append(&path("carts/42/log"), text("1"), None).expect("fits");
    let cleared = it.map_clear(&path("carts/42")).expect("fits");
    assert_eq!(cleared.kept, ["carts/42/ever", "carts/42/log", "carts/42/low", "carts/42/top"]);
    assert_eq!(it.map_keys(&path("carts/42")).map(|keys| keys.len()), Some(4));
}

#[test]
fn a_clear_that_does_not_fit_clears_nothing() {
    let mut it = Replica::new(Follow::everything(), 200);
    it.absorb_chunk(chunk(5, true, (0..9).map(|n| counter(&format!("a/m/{n}"), 1, 1)).collect()));
    assert!(matches!(it.map_clear(&path("a/m")), Err(WriteError::OutboxFull { .. })));
    assert_eq!(it.map_keys(&path("a/m")).map(|keys| keys.len()), Some(9));
    assert_eq!(it.pending(), Pending::default());
}

#[test]
fn a_map_that_is_wider_than_a_push_is_cleared_with_several() {
    let mut it = caught_up(5, (0..1_500).map(|n| counter(&format!("a/m/{n}"), 1, 1)).collect());
    assert_eq!(it.map_clear(&path("a/m")).expect("fits").rows, 1_500);
    let (push_no, deltas) = send(&mut it);
    assert_eq!(deltas.len(), 1_024);
    it.absorb_ack(ack(push_no, 6, vec![]));
    assert_eq!(send(&mut it).1.len(), 476);
}

#[test]
fn a_clear_after_an_own_write_that_is_under_way_knows_of_it() {
    let mut it = caught_up(5, vec![]);
    it.set_add(&path("a/m/s"), element("x")).expect("fits");
    let (push_no, _) = send(&mut it);
    let _ = it.map_clear(&path("a/m")).expect("fits");
    it.absorb_ack(ack(push_no, 6, vec![]));
    assert_eq!(remove_contexts(&send(&mut it).1[0]), [Some(6)]);
}
