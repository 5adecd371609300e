use super::*;

#[test]
fn a_row_is_replaced_only_by_one_that_is_not_older() {
    let mut it = replica();
    it.absorb_chunk(chunk(9, false, vec![counter("a/c", 9, 9), set("a/s", &["x"], &[])]));
    it.absorb_chunk(chunk(8, false, vec![counter("a/c", 8, 8), set("a/s", &["y"], &["x"])]));
    assert_eq!(it.counter(&path("a/c")), Some(9));
    assert_eq!(it.set(&path("a/s")), Some(vec!["x", "y"]));
}

#[test]
fn a_chunk_may_repeat_a_key_and_be_taken_in_twice() {
    let keys = vec![set("a/s", &["x"], &[]), set("a/s", &["y"], &[]), set("b/s", &["z"], &["w"])];
    let mut it = replica();
    for _ in 0..2 {
        it.absorb_chunk(chunk(9, true, keys.clone()));
        assert_eq!(it.set(&path("a/s")), Some(vec!["x", "y"]));
        assert_eq!(it.set(&path("b/s")), Some(vec!["z"]));
    }
}

#[test]
fn dead_rows_are_dropped_when_the_barrier_speaks_for_them() {
    let mut it = replica();
    it.absorb_chunk(chunk(9, false, vec![set("a/s", &["x"], &["y"]), register("a/r", None, 1)]));
    assert!(it.held.elements(&path("a/s"), Type::Set).is_some_and(|set| set.len() == 2));
    it.absorb_chunk(chunk(9, true, vec![]));
    assert!(it.held.elements(&path("a/s"), Type::Set).is_some_and(|set| set.len() == 1));
    assert!(it.held.register(&path("a/r")).is_none());
    assert_eq!(it.set_contains(&path("a/s"), "y"), Some(false));
}

#[test]
fn after_a_compaction_what_was_not_delivered_again_is_gone_at_the_barrier() {
    // C7: rows and contexts are kept until then.
    let mut it = caught_up(5, vec![set("a/s", &["kept", "dead"], &[]), counter("b/c", 1, 1)]);
    let restarted = Chunk {
        restarted: vec!["a".into()],
        ..restarting(Restart::Compacted, chunk(20, false, vec![set("a/s", &["kept"], &[])]))
    };
    it.absorb_chunk(restarted);
    assert_eq!(it.set(&path("a/s")), Some(vec!["dead", "kept"]));
    assert_eq!(it.barrier("a"), Revision(5));
    it.absorb_chunk(chunk(21, true, vec![]));
    assert_eq!(it.set(&path("a/s")), Some(vec!["kept"]));
    assert_eq!(it.counter(&path("b/c")), Some(1), "another collection did not start over");
}

#[test]
fn a_restart_is_taken_without_its_rows_when_some_were_left_out_as_acknowledged() {
    let mut it = caught_up(5, vec![]);
    it.set_add(&path("a/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 6, vec![]));
    let progress = it.absorb_chunk(restarting(Restart::Compacted, chunk(20, true, vec![])));
    assert!(!progress.caught_up);
    let pull = it.outgoing().pull;
    assert_eq!((pull.token, pull.acked.len()), (&5_u64.to_be_bytes()[..], 0));
    let complete = chunk(20, true, vec![set("a/s", &["own"], &[])]);
    assert!(it.absorb_chunk(restarting(Restart::Compacted, complete)).caught_up);
    assert_eq!(it.set(&path("a/s")), Some(vec!["own"]));
}

#[test]
fn a_relay_that_has_not_collected_yet_is_kept_out_after_a_restart_that_was_not_taken() {
    let mut it = caught_up(5, vec![]);
    it.set_add(&path("a/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 6, vec![]));
    it.absorb_chunk(restarting(Restart::Compacted, chunk(20, false, vec![])));
    // Below 20 a relay would go on with the old pull, and at its end what had come before would be dropped.
    assert_eq!(it.head(), Revision(20));
}

#[test]
fn nothing_of_a_lost_history_is_asked_for_after_a_restart_that_was_not_taken() {
    let mut it = caught_up(50, vec![]);
    it.set_add(&path("a/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 51, vec![]));
    it.absorb_chunk(restarting(Restart::Lost, chunk(20, false, vec![])));
    let outgoing = it.outgoing();
    // A token of revision 50 would be waited for, for ever: the history that is left need never come so far.
    assert_eq!((outgoing.pull.token, outgoing.head), (&[][..], Revision(20)));
    assert_eq!((outgoing.pull.acked.len(), outgoing.pull.held_since), (0, None));
}

#[test]
fn rows_of_a_lost_history_stay_visible_but_are_no_context() {
    // C8: what was removed or reset in view of them is reported, and the highest revision shown is the new history's.
    let mut it = caught_up(
        50,
        vec![set("a/s", &["x", "y"], &[]), counter("a/c", 3, 3), register("a/r", Some("1"), 1)],
    );
    it.set_remove(&path("a/s"), element("x")).expect("fits");
    it.set_add(&path("a/s"), element("z")).expect("fits");
    it.counter_reset(&path("a/c")).expect("fits");
    it.register_set(&path("a/r"), Some(text("2")), 2).expect("fits");
    it.absorb_chunk(restarting(Restart::Lost, chunk(30, false, vec![])));
    assert_eq!(it.head(), Revision(30));
    assert_eq!(it.take_reports().len(), 2);
    assert_eq!(it.set(&path("a/s")), Some(vec!["x", "y", "z"]));
    assert_eq!(it.counter(&path("a/c")), Some(3));
    it.set_remove(&path("a/s"), element("y")).expect("fits");
    it.counter_reset(&path("a/c")).expect("fits");
    let (_, deltas) = send(&mut it);
    for delta in &deltas {
        match &delta.change {
            Change::Set(_) => assert_eq!(remove_contexts(delta), [Some(0)]),
            Change::Register(register) => assert_eq!(register.as_of, Some(Revision::ZERO)),
            other => panic!("{other:?}: no total is known that a reset could name"),
        }
    }
    it.absorb_chunk(chunk(31, true, vec![set("a/s", &["y"], &[])]));
    assert_eq!(it.counter(&path("a/c")), Some(0), "it was not delivered again");
}

#[test]
fn a_fate_learned_from_a_lost_history_is_forgotten() {
    let mut it = caught_up(5, vec![counter("a/c", 1, 1)]);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_settled(settled(push_no, Some(9)));
    it.absorb_chunk(restarting(Restart::Lost, chunk(40, true, vec![counter("a/c", 1, 1)])));
    assert!(it.sealed().is_some());
    assert_eq!(it.counter(&path("a/c")), Some(2));
}

#[test]
fn a_bad_token_starts_everything_over_and_keeps_contexts() {
    let mut it = caught_up(5, vec![set("a/s", &["dead"], &[]), set("b/s", &["kept"], &[])]);
    it.absorb_chunk(restarting(Restart::BadToken, chunk(6, true, vec![set("b/s", &["kept"], &[])])));
    assert_eq!(it.set(&path("a/s")), Some(vec![]));
    assert_eq!(it.set(&path("b/s")), Some(vec!["kept"]));
}

#[test]
fn before_the_first_chunk_the_oldest_held_row_is_named() {
    let mut it = replica();
    assert_eq!(it.outgoing().pull.held_since, None);
    it.absorb_read(Revision(7), &[path("a/c")], vec![counter("a/c", 1, 1)]);
    it.absorb_read(Revision(9), &[path("a/d")], vec![counter("a/d", 1, 1)]);
    assert_eq!(it.outgoing().pull.held_since, Some(Revision(7)));
    it.absorb_chunk(chunk(10, false, vec![]));
    assert_eq!(it.outgoing().pull.held_since, None);
    assert_eq!(it.outgoing().head, Revision(10));
}

#[test]
fn members_are_held_and_end() {
    let follow = Follow::new(["*".to_owned(), "@members".to_owned()]).expect("names");
    let mut it = Replica::new(follow, 1 << 20);
    let member = |id, gone| message::MemberRow {
        node: NodeId(id),
        incarnation: Incarnation(1),
        group: "ads".into(),
        gone,
    };
    it.absorb_chunk(Chunk { members: vec![member(1, false), member(2, false)], ..chunk(5, true, vec![]) });
    it.absorb_chunk(Chunk { members: vec![member(1, true)], ..chunk(6, true, vec![]) });
    let ids: Vec<_> = it.members().expect("followed").map(|row| row.node).collect();
    assert_eq!(ids, [NodeId(2)]);
    assert!(replica().members().is_none());
}

#[test]
fn a_chunk_of_many_elements_is_taken_in_whole() {
    const ROWS: u32 = 60_000;
    let names: Vec<String> = (0..ROWS).map(|n| format!("element-{n}")).collect();
    let chunk = chunk(9, true, vec![rows("a/s", Rows::Set { present: names, removed: vec![] })]);
    let mut it = replica();
    it.absorb_chunk(chunk);
    assert_eq!(it.set(&path("a/s")).map(|elements| elements.len()), Some(ROWS as usize));
}
