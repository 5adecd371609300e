//! Following and giving up while requests and answers are under way.

use super::*;

fn following(names: &[&str]) -> Replica {
    let follow = Follow::new(names.iter().map(|name| (*name).to_owned())).expect("names");
    Replica::new(follow, 1 << 20)
}

fn names(it: &mut Replica) -> Vec<String> {
    it.outgoing().pull.collections.to_vec()
}

/// A request is answered by everything as of that revision.
fn pull(it: &mut Replica, at: u64, keys: Vec<KeyRows>) -> Progress {
    it.outgoing();
    it.absorb_chunk(chunk(at, true, keys))
}

#[test]
fn a_collection_is_known_from_the_first_answer_that_was_asked_for_it() {
    let mut it = following(&["a"]);
    pull(&mut it, 5, vec![counter("a/c", 1, 1)]);
    it.outgoing();
    it.follow("b").expect("a name");
    let progress = it.absorb_chunk(chunk(6, true, vec![]));
    assert!(!progress.caught_up, "it was not asked for it");
    assert_eq!((it.barrier("a"), it.barrier("b")), (Revision(6), Revision(0)));
    assert_eq!(it.counter(&path("b/c")), None);
    assert_eq!(names(&mut it), ["a", "b"]);
    assert!(it.absorb_chunk(chunk(7, true, vec![counter("b/c", 2, 2)])).caught_up);
    assert_eq!((it.barrier("b"), it.counter(&path("b/c"))), (Revision(7), Some(2)));
}

#[test]
fn a_collection_that_is_given_up_loses_its_rows_and_what_is_under_way_is_ignored() {
    let mut it = following(&["a", "b"]);
    pull(&mut it, 5, vec![counter("a/c", 1, 1), counter("b/c", 1, 1)]);
    it.outgoing();
    assert!(it.unfollow("b") && !it.unfollow("b"));
    assert_eq!(it.counter(&path("b/c")), None);
    it.absorb_chunk(Chunk { caught_up_in: vec!["b".into()], ..chunk(6, false, vec![counter("b/c", 2, 2)]) });
    assert_eq!((it.counter(&path("b/c")), it.barrier("b")), (None, Revision(0)));
    assert_eq!(names(&mut it), ["a"]);
}

#[test]
fn who_follows_again_waits_until_the_token_has_no_place_of_it() {
    let mut it = following(&["a", "b"]);
    pull(&mut it, 5, vec![counter("b/c", 1, 1)]);
    it.unfollow("b");
    it.follow("b").expect("a name");
    // The token of 5 would go on with b from there, and its row would never come back.
    assert_eq!(names(&mut it), ["a"]);
    assert_eq!(it.counter(&path("b/c")), None);
    assert!(!it.absorb_chunk(chunk(6, true, vec![])).caught_up);
    assert_eq!(names(&mut it), ["a", "b"]);
    assert!(it.absorb_chunk(chunk(7, true, vec![counter("b/c", 1, 1)])).caught_up);
    assert_eq!(it.counter(&path("b/c")), Some(1));
}

#[test]
fn an_answer_to_a_request_that_still_named_it_does_not_end_the_waiting() {
    let mut it = following(&["a", "b"]);
    pull(&mut it, 5, vec![]);
    it.outgoing();
    it.unfollow("b");
    it.follow("b").expect("a name");
    it.absorb_chunk(chunk(6, true, vec![counter("b/c", 9, 9)]));
    assert_eq!(it.counter(&path("b/c")), None);
    assert_eq!(names(&mut it), ["a"], "its token has a place of b again");
    it.absorb_chunk(chunk(7, true, vec![]));
    assert_eq!(names(&mut it), ["a", "b"]);
}

#[test]
fn who_changes_its_mind_while_waiting_does_not_follow() {
    let mut it = following(&["a", "b"]);
    pull(&mut it, 5, vec![]);
    it.unfollow("b");
    it.follow("b").expect("a name");
    assert!(it.unfollow("b"));
    pull(&mut it, 6, vec![]);
    assert_eq!(names(&mut it), ["a"]);
}

#[test]
fn a_name_and_everything_wait_for_each_other() {
    let mut it = following(&["a", "b"]);
    pull(&mut it, 5, vec![counter("a/c", 1, 1)]);
    it.unfollow("b");
    it.follow("*").expect("a name");
    assert_eq!(names(&mut it), ["a"], "everything would include b");
    it.absorb_chunk(chunk(6, true, vec![]));
    assert_eq!(names(&mut it), ["a", "*"]);
    it.absorb_chunk(chunk(7, true, vec![counter("b/c", 2, 2)]));
    assert_eq!((it.barrier("other"), it.counter(&path("b/c"))), (Revision(7), Some(2)));

    assert!(it.unfollow("*"));
    assert_eq!((it.barrier("a"), it.barrier("b")), (Revision(7), Revision(0)));
    assert_eq!((it.counter(&path("a/c")), it.counter(&path("b/c"))), (Some(1), None));
    it.follow("b").expect("a name");
    assert_eq!(names(&mut it), ["a"], "b has a place in the token");
    it.absorb_chunk(chunk(8, true, vec![]));
    assert_eq!(names(&mut it), ["a", "b"]);
}

#[test]
fn a_name_that_everything_covers_is_known_at_once() {
    let mut it = following(&["*"]);
    pull(&mut it, 5, vec![counter("a/c", 1, 1)]);
    it.follow("a").expect("a name");
    assert_eq!(it.counter(&path("a/c")), Some(1));
    assert!(pull(&mut it, 6, vec![]).caught_up);
    it.unfollow("*");
    assert_eq!((it.counter(&path("a/c")), it.barrier("a")), (Some(1), Revision(6)));
    assert!(!it.unfollow("b"), "it was followed by no name of its own");
}

#[test]
fn what_is_held_of_a_collection_that_the_token_does_not_know_is_named() {
    let mut it = following(&["a"]);
    pull(&mut it, 5, vec![]);
    it.follow("b").expect("a name");
    assert_eq!(it.outgoing().pull.held_since, None);
    it.set_add(&path("b/s"), element("own")).expect("fits");
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 8, vec![]));
    it.absorb_read(Revision(9), &[path("b/t")], vec![set("b/t", &["x"], &[])]);
    let outgoing = it.outgoing();
    assert_eq!((outgoing.pull.held_since, outgoing.pull.token.is_empty()), (Some(Revision(8)), false));
    it.absorb_chunk(chunk(12, false, vec![]));
    assert_eq!(it.outgoing().pull.held_since, None, "its place is in the token now");
}

#[test]
fn what_was_fetched_before_is_forgotten() {
    let mut it = following(&["a"]);
    pull(&mut it, 5, vec![]);
    it.absorb_read(Revision(6), &[path("b/s")], vec![set("b/s", &["x"], &[])]);
    assert_eq!(it.set(&path("b/s")), Some(vec!["x"]));
    it.follow("b").expect("a name");
    // A relay skips rows that were dead when the pull began: had x been removed by then, nobody would say so.
    assert_eq!(it.set(&path("b/s")), None);
    assert_eq!(it.outgoing().pull.held_since, None);
    it.absorb_chunk(chunk(9, true, vec![]));
    assert_eq!(it.set(&path("b/s")), Some(vec![]));
}

#[test]
fn rows_that_came_with_an_acknowledgement_before_are_delivered() {
    let mut it = following(&["a"]);
    pull(&mut it, 5, vec![]);
    it.set_add(&path("b/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 6, vec![]));
    assert_eq!(it.outgoing().pull.acked, [Revision(6)]);
    it.follow("b").expect("a name");
    assert!(it.outgoing().pull.acked.is_empty(), "they were not held, so they must not be left out");
}

#[test]
fn a_restart_that_left_acknowledged_rows_out_is_not_taken_although_something_is_followed_since() {
    let mut it = following(&["a"]);
    pull(&mut it, 5, vec![]);
    it.set_add(&path("a/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 6, vec![]));
    it.outgoing(); // names 6 as acknowledged
    it.follow("b").expect("a name");
    it.absorb_chunk(restarting(Restart::Compacted, chunk(20, true, vec![])));
    assert_eq!(it.set(&path("a/s")), Some(vec!["own"]));
    assert_eq!(it.barrier("a"), Revision(5));
}

#[test]
fn without_a_token_everything_begins_again() {
    let mut it = following(&["a", "b"]);
    pull(&mut it, 50, vec![]);
    it.unfollow("b");
    it.follow("b").expect("a name");
    it.set_add(&path("a/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 51, vec![]));
    it.absorb_chunk(restarting(Restart::Lost, chunk(20, false, vec![])));
    assert_eq!(names(&mut it), ["a", "b"], "no token, no place in it");
    it.absorb_read(Revision(21), &[path("a/c")], vec![counter("a/c", 1, 1)]);
    assert_eq!(it.outgoing().pull.held_since, Some(Revision(21)));
}

#[test]
fn what_was_seen_of_an_own_write_is_said_although_its_rows_are_forgotten() {
    let mut it = following(&["a", "b"]);
    pull(&mut it, 5, vec![]);
    it.set_add(&path("b/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.set_remove(&path("b/s"), element("own")).expect("fits");
    it.absorb_ack(ack(push_no, 6, vec![]));
    it.unfollow("b");
    assert_eq!(remove_contexts(&send(&mut it).1[0]), [Some(6)]);
}

#[test]
fn members_are_followed_and_given_up_like_a_collection() {
    let member = |id| message::MemberRow {
        node: NodeId(id),
        incarnation: Incarnation(1),
        group: "ads".into(),
        gone: false,
    };
    let mut it = following(&["*"]);
    pull(&mut it, 5, vec![]);
    it.follow("@members").expect("a name");
    it.outgoing();
    it.absorb_chunk(Chunk { members: vec![member(1)], ..chunk(6, true, vec![]) });
    assert_eq!(it.members().map(Iterator::count), Some(1));
    it.outgoing();
    it.unfollow("@members");
    it.absorb_chunk(Chunk { members: vec![member(2)], ..chunk(7, true, vec![]) });
    assert!(it.members().is_none());
    it.follow("@members").expect("a name");
    assert_eq!(names(&mut it), ["*"], "its place is in the token");
    it.absorb_chunk(chunk(8, true, vec![]));
    assert_eq!(names(&mut it), ["*", "@members"]);
    assert_eq!(it.members().map(Iterator::count), Some(0), "who was known before is forgotten");
}

#[test]
fn names_are_checked_and_bounded() {
    let mut it = following(&[]);
    assert!(matches!(it.follow("Ads"), Err(WriteError::Malformed { .. })));
    for n in 0..64 {
        it.follow(&format!("c{n}")).expect("a name");
    }
    it.follow("c0").expect("it is followed already");
    let refused = it.follow("more").expect_err("too many").to_string();
    assert!(refused.contains("at most 64"), "{refused}");
}

#[test]
fn a_row_of_a_collection_that_is_followed_by_both_its_names_is_named_to_the_relay() {
    let mut it = following(&["*"]);
    it.follow("b").expect("a name");
    it.absorb_read(Revision(4), &[path("b/c")], vec![counter("b/c", 1, 1)]);
    // What dies after that must be told, although a pull of everything begins later.
    assert_eq!(it.outgoing().pull.held_since, Some(Revision(4)));
}

#[test]
fn a_context_that_was_left_open_is_taken_before_its_row_is_forgotten() {
    for follows in [true, false] {
        let mut it = following(if follows { &["a"] } else { &["a", "b"] });
        pull(&mut it, 2, vec![]);
        it.absorb_read(Revision(3), &[path("b/r")], vec![register("b/r", Some("1"), 1)]);
        it.register_set(&path("b/r"), Some(text("2")), 2).expect("fits");
        let (first, _) = send(&mut it);
        it.register_set(&path("b/r"), Some(text("3")), 3).expect("fits");
        it.absorb_ack(ack(first, 9, vec![]));
        if follows {
            it.follow("b").expect("a name");
        } else {
            it.unfollow("b");
        }
        let (_, deltas) = send(&mut it);
        let Change::Register(write) = only(&deltas) else { panic!("{deltas:?}") };
        assert_eq!(write.as_of, Some(Revision(9)), "its author has seen its own write");
    }
}
