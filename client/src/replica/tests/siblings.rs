//! Siblings.

use super::*;

fn siblings(at: &str, values: &[(u64, &str)]) -> KeyRows {
    let values = values.iter().map(|(at, value)| (Revision(*at), text(value))).collect();
    rows(at, Rows::Siblings { values })
}

fn shown(it: &Replica) -> Vec<String> {
    let values = it.siblings(&path("a/v")).expect("known");
    values
        .into_iter()
        .map(|value| if let Value::Text(text) = value { text.clone() } else { String::new() })
        .collect()
}

fn write(it: &mut Replica, value: Option<&str>) {
    it.siblings_set(&path("a/v"), value.map(text)).expect("fits");
}

/// What was written, and with which context.
fn pushed(deltas: &[Delta]) -> (Option<Value>, Option<u64>) {
    match only(deltas) {
        Change::Siblings(delta) => (delta.value.clone(), delta.as_of.map(|at| at.0)),
        other => panic!("{other:?} are no siblings"),
    }
}

#[test]
fn an_own_write_stands_alone_above_what_its_author_had_seen() {
    let mut it = caught_up(5, vec![siblings("a/v", &[(3, "b"), (4, "c")])]);
    assert_eq!(shown(&it), ["b", "c"]);
    assert_eq!(replica().siblings(&path("a/v")), None, "nothing was heard yet");
    write(&mut it, Some("own"));
    assert_eq!(shown(&it), ["own"]);
    it.absorb_chunk(chunk(8, true, vec![siblings("a/v", &[(3, "b"), (4, "c"), (7, "unseen")])]));
    for _ in 0..2 {
        assert_eq!(shown(&it), ["unseen", "own"]);
        it.seal(PushId(7));
    }
    let with: Vec<_> =
        it.siblings_with_revisions(&path("a/v")).expect("known").iter().map(|(at, _)| *at).collect();
    assert_eq!(with, [Some(Revision(7)), None]);
    assert_eq!(pushed(&send(&mut it).1), (Some(text("own")), Some(5)));
}

#[test]
fn a_delete_takes_away_what_was_seen_and_nothing_else() {
    let mut it = caught_up(5, vec![siblings("a/v", &[(3, "b")])]);
    write(&mut it, None);
    it.absorb_chunk(chunk(8, true, vec![siblings("a/v", &[(3, "b"), (7, "unseen")])]));
    assert_eq!(shown(&it), ["unseen"]);
}

#[test]
fn a_write_does_not_become_its_own_sibling() {
    let mut it = caught_up(5, vec![siblings("a/v", &[(3, "b")])]);
    write(&mut it, Some("first"));
    let (push_no, _) = send(&mut it);
    write(&mut it, Some("second"));
    assert_eq!(shown(&it), ["second"]);
    loses_the_answer(&mut it, push_no, 6, vec![siblings("a/v", &[(6, "first")])]);
    assert_eq!(shown(&it), ["second"]);
    assert_eq!(pushed(&send(&mut it).1), (Some(text("second")), Some(6)));
}

#[cfg(feature = "traps")]
#[test]
fn with_the_context_taken_at_the_call_it_does() {
    let mut it = caught_up(5, vec![]).with_traps(Traps::only(Trap::CallContext));
    write(&mut it, Some("first"));
    let (push_no, _) = send(&mut it);
    write(&mut it, Some("second"));
    loses_the_answer(&mut it, push_no, 6, vec![siblings("a/v", &[(6, "first")])]);
    assert_eq!(shown(&it), ["first", "second"]);
}

#[test]
fn an_acknowledgement_names_the_whole_row() {
    let mut it = caught_up(5, vec![siblings("a/v", &[(3, "b")])]);
    write(&mut it, Some("own"));
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 8, vec![siblings("a/v", &[(7, "unseen"), (8, "own")])]));
    assert_eq!(shown(&it), ["unseen", "own"]);
    write(&mut it, None);
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 9, vec![siblings("a/v", &[])]));
    it.absorb_chunk(chunk(9, true, vec![]));
    assert_eq!(shown(&it), [""; 0]);
    assert!(it.held.siblings(&path("a/v")).is_none(), "a dead row is dropped at the barrier");
}

#[test]
fn of_more_than_64_the_oldest_is_not_shown() {
    let values: Vec<(u64, String)> = (6..70).map(|at| (at, at.to_string())).collect();
    let values: Vec<(u64, &str)> = values.iter().map(|(at, value)| (*at, value.as_str())).collect();
    let mut it = caught_up(5, vec![]);
    write(&mut it, Some("own"));
    it.absorb_chunk(chunk(70, true, vec![siblings("a/v", &values)]));
    assert_eq!((shown(&it).len(), shown(&it)[0].as_str(), shown(&it)[63].as_str()), (64, "7", "own"));
}

#[test]
fn values_survive_a_stale_context_and_a_lost_history_and_deletes_do_not() {
    for lost in [false, true] {
        let mut it = caught_up(50, vec![siblings("a/v", &[(3, "b")]), siblings("a/gone", &[(4, "c")])]);
        write(&mut it, Some("own"));
        it.siblings_set(&path("a/gone"), None).expect("fits");
        if lost {
            it.absorb_chunk(restarting(Restart::Lost, chunk(30, false, vec![])));
        } else {
            send(&mut it);
            it.absorb_refusal(&refusal("STALE", Verdict::Stale, &[]));
        }
        assert_eq!(it.take_reports().len(), 1);
        assert_eq!(pushed(&send(&mut it).1), (Some(text("own")), Some(0)));
        assert_eq!(shown(&it), ["b", "own"], "it claims to have seen nothing");
    }
}
