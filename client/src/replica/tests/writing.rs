use proptest::prelude::*;

use super::*;

#[test]
fn own_writes_are_visible_at_once() {
    let mut it =
        caught_up(5, vec![counter("a/c", 3, 3), set("a/s", &["x"], &[]), register("a/r", Some("1"), 9)]);
    it.counter_add(&path("a/c"), 2).expect("fits");
    it.set_add(&path("a/s"), element("y")).expect("fits");
    it.set_remove(&path("a/s"), element("x")).expect("fits");
    it.register_set(&path("a/r"), Some(text("2")), 10).expect("fits");
    for _ in 0..2 {
        assert_eq!(it.counter(&path("a/c")), Some(5));
        assert!(it.reached(&path("a/c"), 5) && !it.reached(&path("a/c"), 6));
        assert_eq!(it.set(&path("a/s")), Some(vec!["y"]));
        assert_eq!(it.set_contains(&path("a/s"), "x"), Some(false));
        assert_eq!(it.register(&path("a/r")), Some(Some(&text("2"))));
        it.seal(PushId(1)); // and just the same once they are under way
    }
}

#[test]
fn a_key_that_is_not_followed_or_was_never_heard_of_reads_as_nothing() {
    let follow = Follow::new(["a".to_owned()]).expect("a collection");
    let mut it = Replica::new(follow, 1 << 20);
    assert_eq!(it.counter(&path("a/c")), None, "nothing was heard yet");
    it.absorb_chunk(chunk(5, true, vec![]));
    assert_eq!(it.counter(&path("a/c")), Some(0));
    assert_eq!(it.set_contains(&path("a/s"), "x"), Some(false));
    assert_eq!(it.register(&path("a/r")), Some(None));
    it.counter_add(&path("b/c"), 3).expect("fits");
    it.set_add(&path("b/s"), element("x")).expect("fits");
    assert_eq!(it.counter(&path("b/c")), None);
    assert_eq!(it.set(&path("b/s")), None);
    assert_eq!(it.set_contains(&path("b/s"), "x"), None);
    assert_eq!(it.register(&path("b/r")), None);
    assert!(!it.reached(&path("b/c"), 0));
}

#[test]
fn a_key_that_was_fetched_is_known_without_being_followed() {
    let mut it = Replica::new(Follow::new([]).expect("nothing"), 1 << 20);
    let names = [path("b/c"), path("b/s"), path("b/none")];
    it.absorb_read(Revision(4), &names, vec![counter("b/c", 2, 2), set("b/s", &["x", "y"], &[])]);
    assert_eq!(it.counter(&path("b/c")), Some(2));
    assert_eq!(it.counter(&path("b/none")), Some(0));
    it.absorb_read(Revision(5), &names, vec![set("b/s", &["y"], &[])]);
    assert_eq!(it.set(&path("b/s")), Some(vec!["y"]), "it was read as a whole");
}

#[test]
fn writes_of_one_row_coalesce_into_one_delta() {
    let mut it = caught_up(5, vec![counter("a/c", 3, 9)]);
    for _ in 0..10 {
        it.counter_add(&path("a/c"), 2).expect("fits");
        it.counter_add(&path("a/c"), -1).expect("fits");
        it.set_add(&path("a/s"), element("x")).expect("fits");
        it.set_remove(&path("a/s"), element("x")).expect("fits");
        it.set_add(&path("a/s"), element("y")).expect("fits");
        it.register_set(&path("a/r"), Some(text("2")), 10).expect("fits");
        let id = "once".parse().expect("an id");
        it.counter_add_once(&path("a/c"), id, 100).expect("fits");
    }
    assert_eq!(it.counter(&path("a/c")), Some(113));
    assert_eq!(it.pending().deltas, 4);
    let (_, deltas) = send(&mut it);
    assert_eq!(deltas.len(), 3);
    assert_eq!(it.pending().deltas, 4, "what is under way still waits for its fate");
}

#[test]
fn a_reset_takes_away_what_is_seen_and_what_waits() {
    let mut it = caught_up(5, vec![counter("a/c", 3, 9)]);
    it.counter_add(&path("a/c"), 2).expect("fits");
    it.counter_reset(&path("a/c")).expect("fits");
    it.counter_add(&path("a/c"), 1).expect("fits");
    assert_eq!(it.counter(&path("a/c")), Some(1));
    it.counter_add(&path("a/own"), 1).expect("fits");
    it.counter_reset(&path("a/own")).expect("fits");
    let (_, deltas) = send(&mut it);
    let Change::Counter(change) = &deltas[0].change else { panic!("a counter") };
    let reset = change.reset.expect("a reset");
    assert_eq!((reset.as_of, reset.total, change.amount), (Some(Revision(5)), 9, 1));
    assert_eq!(deltas.len(), 1, "a reset of what was never sent says nothing");
}

#[test]
fn a_full_outbox_refuses_with_its_limit_and_drops_nothing() {
    let mut it = Replica::new(Follow::everything(), 200);
    it.counter_add(&path("a/c"), 1).expect("fits");
    it.seal(PushId(1));
    it.set_add(&path("a/s"), element("x")).expect("fits");
    let before = it.pending();
    let refused = it.set_add(&path("a/s"), element(&"y".repeat(100)));
    let message = refused.expect_err("full").to_string();
    assert!(message.contains("the limit is 200"), "{message}");
    assert_eq!(it.pending(), before);
    it.set_remove(&path("a/s"), element("x")).expect("coalesces, so it needs no room");
}

#[test]
fn what_no_push_could_carry_is_refused_at_the_call() {
    let mut it = replica();
    assert!(it.counter_add(&path("a/c"), (1 << 48) + 1).is_err());
    let large = Value::Data(vec![0; Value::MAX_BYTES + 1]);
    assert!(it.register_set(&path("a/r"), Some(large), 1).is_err());
    assert_eq!(it.pending(), Pending::default());
    for malformed in ["", "a", "/k", "@members/k", "A/k", "a/"] {
        assert!(malformed.parse::<Path>().is_err(), "{malformed}");
    }
}

#[test]
fn what_one_push_cannot_hold_goes_with_the_next() {
    let mut it = replica();
    for n in 0..1_500 {
        it.set_add(&path("a/s"), element(&n.to_string())).expect("fits");
    }
    it.counter_add(&path("a/c"), 1 << 48).expect("fits");
    it.counter_add(&path("a/c"), 5).expect("fits");
    let mut sizes = Vec::new();
    while it.pending().deltas > 0 {
        let (push_no, deltas) = send(&mut it);
        let rows: usize = deltas
            .iter()
            .map(|delta| match &delta.change {
                Change::Set(set) => set.add.len(),
                _ => 1,
            })
            .sum();
        sizes.push(rows);
        let at = push_no.0;
        it.absorb_ack(ack(push_no, at, vec![]));
    }
    assert_eq!(sizes, [1_024, 477, 1]);
}

proptest! {
    #[test]
    fn a_push_stays_within_the_bounds_of_the_contract(
        names in prop::collection::vec(("[a-z]{1,64}", "[a-z]{1,512}"), 1..40),
        sizes in prop::collection::vec(0..100_000_usize, 1..40),
    ) {
        use prost::Message as _;
        let mut it = Replica::new(Follow::everything(), 1 << 26);
        for (nth, ((collection, key), size)) in names.iter().zip(&sizes).enumerate() {
            let path = path(&format!("{collection}/{key}"));
            it.register_set(&path, Some(text(&"x".repeat(*size))), u64::MAX).expect("fits");
            it.counter_add(&path, -(1 << 48)).expect("fits");
            it.set_remove(&path, element(&"e".repeat(nth * 20))).expect("fits");
            it.set_add(&path, element(&"f".repeat(nth * 20))).expect("fits");
            it.remove_wins_set_add(&path, element(&"e".repeat(nth * 20))).expect("fits");
            it.remove_wins_set_remove(&path, element(&"f".repeat(nth * 20))).expect("fits");
            it.grow_only_set_add(&path, element(&"e".repeat(nth * 20))).expect("fits");
            it.siblings_set(&path, Some(text(&"x".repeat(*size)))).expect("fits");
            it.presence_set(&path, Some(text(&"x".repeat(*size)))).expect("fits");
            it.flag_set(&path, false).expect("fits");
            it.disable_wins_flag_set(&path, true).expect("fits");
            it.max_offer(&path, i64::MIN).expect("fits");
            it.min_offer(&path, i64::MAX).expect("fits");
            for id in ["one".to_owned(), "x".repeat(64)] {
                it.events_append(&path, text(&"x".repeat(*size)), Some(id.parse().expect("an id"))).expect("fits");
            }
            it.events_trim(&path, Revision(u64::MAX)).expect("fits");
        }
        while it.pending().deltas > 0 {
            let (push_no, deltas) = send(&mut it);
            let wire: Vec<dormouse_proto::wire::v1::Delta> = deltas.into_iter().map(Into::into).collect();
            let push = dormouse_proto::wire::v1::Push { push_no: push_no.0, deltas: wire, push_id: vec![0; 8].into(), retried: true };
            prop_assert!(push.encoded_len() <= dormouse_proto::convert::bounds::PUSH_BYTES);
            prop_assert!(dormouse_proto::convert::PushRequest::try_from(push).is_ok());
            it.absorb_ack(ack(push_no, push_no.0, vec![]));
        }
    }
}

#[test]
fn a_reset_of_own_amounts_alone_does_not_hide_what_others_add() {
    let mut it = caught_up(5, vec![]);
    it.counter_add(&path("a/c"), 7).expect("fits");
    it.counter_reset(&path("a/c")).expect("fits");
    it.counter_add(&path("a/c"), 1).expect("fits");
    assert_eq!(it.counter(&path("a/c")), Some(1));
    send(&mut it);
    it.absorb_chunk(chunk(9, true, vec![counter("a/c", -4, -4)]));
    // The push adds 1 and resets nothing, so this is what everybody will see once it is bound.
    assert_eq!(it.counter(&path("a/c")), Some(-3));
}
