use super::*;
use crate::replica::message::Fate;

#[test]
fn a_removal_of_what_an_unanswered_push_added_removes_it() {
    // C2: the context is taken when the removal is sealed, after the fate of the add is known.
    let mut it = caught_up(5, vec![]);
    it.set_add(&path("a/s"), element("x")).expect("fits");
    let (first, _) = send(&mut it); // bound at 6, its answer is lost
    it.set_remove(&path("a/s"), element("x")).expect("fits");
    assert_eq!(it.set_contains(&path("a/s"), "x"), Some(false));
    let (again, _) = send(&mut it);
    assert_eq!(again, first);
    it.absorb_ack(ack(first, 6, vec![]));
    let (_, deltas) = send(&mut it);
    assert_eq!(remove_contexts(&deltas[0]), [Some(6)]);
}

#[cfg(feature = "traps")]
#[test]
fn with_the_context_taken_at_the_call_that_removal_misses_the_add() {
    let mut it = caught_up(5, vec![]).with_traps(Traps::only(Trap::CallContext));
    it.set_add(&path("a/s"), element("x")).expect("fits");
    let (first, _) = send(&mut it);
    it.set_remove(&path("a/s"), element("x")).expect("fits");
    it.absorb_ack(ack(first, 6, vec![]));
    let (_, deltas) = send(&mut it);
    assert_eq!(remove_contexts(&deltas[0]), [Some(5)]);
}

#[test]
fn a_context_is_taken_at_the_call_when_nothing_is_under_way() {
    let mut it = caught_up(5, vec![set("a/s", &["x"], &[])]);
    it.set_remove(&path("a/s"), element("x")).expect("fits");
    it.absorb_chunk(chunk(8, true, vec![set("a/s", &["x"], &[])])); // somebody added it again, unseen at the call
    let (_, deltas) = send(&mut it);
    assert_eq!(remove_contexts(&deltas[0]), [Some(5)]);
}

#[test]
fn a_sealed_push_never_changes() {
    let mut it = caught_up(5, vec![]);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let first = send(&mut it);
    it.counter_add(&path("a/c"), 1).expect("fits");
    it.seal(PushId(99));
    it.absorb_refusal(&refusal("BUSY", Verdict::Later, &[]));
    it.absorb_chunk(chunk(9, true, vec![]));
    let retried = it.outgoing().push.expect("still under way").retried;
    assert!(retried);
    assert_eq!(send(&mut it), first);
    assert_eq!(it.sealed().map(SealedPush::push_id), Some(PushId(7)));
    assert_eq!(it.counter(&path("a/c")), Some(2));
}

#[test]
fn a_push_is_settled_by_its_fate_and_a_barrier_and_not_by_a_cursor_alone() {
    let mut it = caught_up(5, vec![counter("a/c", 1, 1)]);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (push_no, _) = send(&mut it); // bound at 6, its answer is lost
    it.absorb_settled(settled(push_no, Some(6)));
    it.absorb_chunk(chunk(9, false, vec![]));
    assert!(it.sealed().is_some(), "the row may have moved up and still be on its way");
    assert_eq!(it.counter(&path("a/c")), Some(2));
    it.absorb_settled(settled(push_no, Some(6)));
    it.absorb_chunk(chunk(9, true, vec![counter("a/c", 12, 12)]));
    assert!(it.sealed().is_none());
    assert_eq!(it.counter(&path("a/c")), Some(12));
}

#[test]
fn a_fate_without_a_chunk_is_something_that_was_shown() {
    // T2: a relay without its log may tell of a push that the log has lost. Only a request that names that revision is
    // told so; a barrier of the new history would settle the push otherwise.
    let mut it = caught_up(5, vec![counter("a/c", 1, 1)]);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_refusal(&refusal("LOG_UNREACHABLE", Verdict::Later, &[]));
    it.absorb_settled(settled(push_no, Some(6)));
    assert_eq!(it.outgoing().head, Revision(6));
}

#[test]
fn a_row_that_contains_the_sealed_push_does_not_count_it_twice() {
    // C4, T6: `settled` is taken in before the rows are visible.
    let mut it = caught_up(5, vec![counter("a/c", 1, 1)]);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_settled(settled(push_no, Some(6)));
    it.absorb_chunk(chunk(7, false, vec![counter("a/c", 2, 2)]));
    assert!(it.sealed().is_some());
    assert_eq!(it.counter(&path("a/c")), Some(2));
}

#[test]
fn rows_that_an_acknowledgement_leaves_out_are_what_was_asked_for() {
    let mut it = caught_up(5, vec![set("a/s", &["old"], &[])]);
    it.set_add(&path("a/s"), element("new")).expect("fits");
    it.set_add(&path("a/s"), element("taken")).expect("fits");
    it.set_remove(&path("a/s"), element("old")).expect("fits");
    it.register_set(&path("a/r"), Some(text("1")), 3).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 8, vec![set("a/s", &[], &["taken"])]));
    assert_eq!(it.set(&path("a/s")), Some(vec!["new"]));
    assert_eq!(it.register(&path("a/r")), Some(Some(&text("1"))));
    assert_eq!(it.outgoing().pull.acked, [Revision(8)]);
    it.absorb_chunk(chunk(8, true, vec![]));
    assert!(it.outgoing().pull.acked.is_empty());
    assert_eq!(it.set(&path("a/s")), Some(vec!["new"]));
}

#[test]
fn named_deltas_are_dropped_and_reported_and_the_rest_is_sealed_under_the_next_number() {
    let mut it = caught_up(5, vec![]);
    it.counter_add(&path("a/good"), 1).expect("fits");
    it.counter_add(&path("a/bad"), 1).expect("fits");
    let (first, deltas) = send(&mut it);
    let bad = deltas.iter().position(|delta| delta.key.as_str() == "bad").expect("there");
    it.absorb_refusal(&refusal("FIELD_INVALID", Verdict::Invalid, &[bad]));
    assert_eq!(it.counter(&path("a/bad")), Some(0), "the overlay goes");
    let reports = it.take_reports();
    assert_eq!((reports.len(), reports[0].delta.key.as_str()), (1, "bad"));
    assert_eq!(reports[0].fate, Fate::Dropped { reason: "FIELD_INVALID".into() });
    assert!(it.take_reports().is_empty(), "told once");
    let (second, rest) = send(&mut it);
    assert_eq!((second.0, rest.len(), rest[0].key.as_str()), (first.0 + 1, 1, "good"));
}

#[test]
fn a_stale_push_says_its_values_again_without_context_and_reports_its_removals() {
    let mut it = caught_up(5, vec![counter("a/c", 4, 4), set("a/s", &["x"], &[])]);
    it.counter_reset(&path("a/c")).expect("fits");
    it.counter_add(&path("a/c"), 7).expect("fits");
    it.set_remove(&path("a/s"), element("x")).expect("fits");
    it.set_add(&path("a/s"), element("y")).expect("fits");
    it.register_set(&path("a/r"), Some(text("1")), 3).expect("fits");
    send(&mut it);
    it.absorb_refusal(&refusal("STALE", Verdict::Stale, &[]));
    assert_eq!(it.take_reports().len(), 2, "the reset and the removal");
    let (_, deltas) = send(&mut it);
    for delta in deltas {
        match delta.change {
            Change::Counter(counter) => assert_eq!((counter.reset, counter.amount), (None, 7)),
            Change::Set(set) => assert_eq!((set.add.len(), set.remove.len()), (1, 0)),
            Change::Register(register) => assert_eq!(register.as_of, Some(Revision::ZERO)),
            other => panic!("{other:?}"),
        }
    }
    it.absorb_refusal(&refusal("STALE", Verdict::Stale, &[2]));
    assert_eq!(it.take_reports().len(), 1, "what claims to have seen nothing cannot be said with less");
    let (_, deltas) = send(&mut it);
    assert_eq!(deltas.len(), 2);
}

#[test]
fn a_full_namespace_refuses_growth_and_keeps_removals() {
    let mut it = caught_up(5, vec![set("a/s", &["x"], &[])]);
    it.set_remove(&path("a/s"), element("x")).expect("fits");
    it.set_add(&path("a/s"), element("y")).expect("fits");
    send(&mut it);
    it.absorb_refusal(&refusal("QUOTA", Verdict::Quota, &[]));
    assert_eq!(it.set(&path("a/s")), Some(vec![]));
    assert_eq!(it.take_reports().len(), 1);
    assert_eq!(it.pending().deltas, 1);
}

#[test]
fn a_refusal_learned_from_settled_hides_the_push_until_its_details_are_known() {
    let mut it = caught_up(5, vec![]);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_settled(settled(push_no, None));
    assert_eq!(it.counter(&path("a/c")), Some(0));
    assert!(it.outgoing().push.expect("sent again").retried);
    it.absorb_refusal(&refusal("CONTEXT_INVALID", Verdict::Invalid, &[0]));
    assert_eq!(it.take_reports().len(), 1);
}

#[test]
fn a_forked_node_seals_its_push_anew() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (first, _) = send(&mut it);
    lease(&mut it, Admission::Forked, 2);
    assert!(it.sealed().is_none());
    assert_eq!(it.counter(&path("a/c")), Some(1), "it is certainly not bound, so it is still said");
    it.seal(PushId(8));
    let push = it.outgoing().push.expect("sealed anew");
    assert!((push.push_no, push.push_id) != (first, PushId(7)) && !push.retried);
}

#[test]
fn a_readmitted_node_sends_the_same_push_again() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    it.counter_add(&path("a/c"), 1).expect("fits");
    let first = send(&mut it);
    it.absorb_lease(Admission::Readmitted, NodeId(1), Incarnation(2));
    assert_eq!(send(&mut it), first);
    assert_eq!(it.node(), Some((NodeId(1), Incarnation(2))));
}

#[test]
fn a_forgotten_node_reports_what_it_had_sent_and_repeats_only_what_says_the_same_twice() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    it.counter_add(&path("a/c"), 1).expect("fits");
    it.set_add(&path("a/s"), element("x")).expect("fits");
    send(&mut it);
    send(&mut it);
    lease(&mut it, Admission::Forgotten, 2);
    let fates: Vec<_> =
        it.take_reports().into_iter().map(|report| (report.delta.key.to_string(), report.fate)).collect();
    assert_eq!(
        fates,
        [
            ("c".to_owned(), Fate::Unknown { repeated: false }),
            ("s".to_owned(), Fate::Unknown { repeated: true }),
        ]
    );
    assert_eq!(it.counter(&path("a/c")), Some(0));
    let (_, deltas) = send(&mut it);
    assert_eq!((deltas.len(), deltas[0].key.as_str()), (1, "s"));
}

#[test]
fn a_forgotten_node_loses_nothing_that_only_this_call_carried() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    it.counter_add(&path("a/c"), 1).expect("fits");
    send(&mut it);
    lease(&mut it, Admission::Forgotten, 2);
    assert!(it.take_reports().is_empty());
    assert_eq!(it.counter(&path("a/c")), Some(1));
    assert_eq!(send(&mut it).1.len(), 1);
}
