//! Flags of either kind.

use dormouse_proto::lattice::FlagDelta;

use super::*;

fn flag(at: &str, on: bool) -> KeyRows {
    rows(at, Rows::Flag { on })
}

fn disable_wins(at: &str, on: bool) -> KeyRows {
    rows(at, Rows::DisableWinsFlag { on })
}

/// What was pushed of a flag of either kind.
fn pushed(deltas: &[Delta]) -> (bool, Option<u64>) {
    match only(deltas) {
        Change::Flag(FlagDelta { on, as_of }) | Change::DisableWinsFlag(FlagDelta { on, as_of }) => {
            (*on, as_of.map(|at| at.0))
        }
        other => panic!("{other:?} is no flag"),
    }
}

#[test]
fn a_flag_is_its_row_and_the_last_own_word() {
    let mut it = caught_up(5, vec![flag("a/f", true), disable_wins("a/f", false)]);
    assert_eq!((it.flag(&path("a/f")), it.disable_wins_flag(&path("a/f"))), (Some(true), Some(false)));
    assert_eq!(it.flag(&path("a/none")), Some(false));
    assert_eq!(replica().flag(&path("a/f")), None, "nothing was heard yet");
    it.flag_set(&path("a/f"), false).expect("fits");
    it.disable_wins_flag_set(&path("a/f"), true).expect("fits");
    it.disable_wins_flag_set(&path("a/f"), false).expect("fits");
    it.disable_wins_flag_set(&path("a/f"), true).expect("fits");
    for _ in 0..2 {
        assert_eq!((it.flag(&path("a/f")), it.disable_wins_flag(&path("a/f"))), (Some(false), Some(true)));
        assert_eq!(it.pending().deltas, 2);
        it.seal(PushId(7));
    }
}

#[test]
fn only_the_word_that_may_lose_says_what_its_author_had_seen() {
    let mut it = caught_up(5, vec![]);
    for (on, of_flag, of_disable_wins) in [(true, None, Some(5)), (false, Some(5), None)] {
        it.flag_set(&path("a/f"), on).expect("fits");
        let (push_no, deltas) = send(&mut it);
        assert_eq!(pushed(&deltas), (on, of_flag));
        it.absorb_ack(ack(push_no, 5, vec![]));
        it.disable_wins_flag_set(&path("a/f"), on).expect("fits");
        let (push_no, deltas) = send(&mut it);
        assert_eq!(pushed(&deltas), (on, of_disable_wins));
        it.absorb_ack(ack(push_no, 5, vec![]));
    }
}

#[test]
fn an_off_after_an_own_on_whose_answer_was_lost_knows_of_it() {
    let mut it = caught_up(5, vec![]);
    it.flag_set(&path("a/f"), true).expect("fits");
    let (push_no, _) = send(&mut it);
    it.flag_set(&path("a/f"), false).expect("fits");
    loses_the_answer(&mut it, push_no, 6, vec![flag("a/f", true)]);
    assert_eq!(it.flag(&path("a/f")), Some(false));
    assert_eq!(pushed(&send(&mut it).1), (false, Some(6)));
}

#[test]
fn an_on_after_an_own_off_whose_answer_was_lost_knows_of_it() {
    let mut it = caught_up(5, vec![disable_wins("a/f", true)]);
    it.disable_wins_flag_set(&path("a/f"), false).expect("fits");
    let (push_no, _) = send(&mut it);
    it.disable_wins_flag_set(&path("a/f"), true).expect("fits");
    loses_the_answer(&mut it, push_no, 6, vec![disable_wins("a/f", false)]);
    assert_eq!(pushed(&send(&mut it).1), (true, Some(6)));
}

#[test]
fn a_context_is_that_of_the_call_when_nothing_is_under_way() {
    let mut it = caught_up(5, vec![flag("a/f", true)]);
    it.flag_set(&path("a/f"), false).expect("fits");
    it.absorb_chunk(chunk(8, true, vec![flag("a/f", true)]));
    assert_eq!(pushed(&send(&mut it).1), (false, Some(5)), "the on of 8 was not seen at the call");
}

#[test]
fn what_an_acknowledgement_leaves_out_is_as_it_was_asked_for_and_what_it_names_wins() {
    let mut it = caught_up(5, vec![]);
    it.flag_set(&path("a/f"), true).expect("fits");
    it.disable_wins_flag_set(&path("a/f"), true).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 6, vec![disable_wins("a/f", false)]));
    assert_eq!((it.flag(&path("a/f")), it.disable_wins_flag(&path("a/f"))), (Some(true), Some(false)));
}

#[test]
fn a_flag_that_is_off_is_dropped_when_the_barrier_speaks_for_it() {
    let mut it = replica();
    it.absorb_chunk(chunk(9, false, vec![flag("a/f", false), disable_wins("a/g", false)]));
    assert_eq!(it.flag(&path("a/f")), Some(false));
    it.absorb_chunk(chunk(9, true, vec![]));
    assert!(it.held.switch(&path("a/f"), Type::Flag).is_none());
    assert!(it.held.switch(&path("a/g"), Type::DisableWinsFlag).is_none());
    assert_eq!(it.flag(&path("a/f")), Some(false));
}

#[test]
fn when_it_is_stale_the_word_that_may_lose_is_dropped_and_reported() {
    let mut it = caught_up(5, vec![]);
    it.flag_set(&path("a/off"), false).expect("fits");
    it.flag_set(&path("a/on"), true).expect("fits");
    it.disable_wins_flag_set(&path("a/off"), false).expect("fits");
    it.disable_wins_flag_set(&path("a/on"), true).expect("fits");
    send(&mut it);
    it.absorb_refusal(&refusal("STALE", Verdict::Stale, &[]));
    let dropped: Vec<bool> =
        it.take_reports().iter().map(|it| matches!(it.delta.change, Change::Flag(_))).collect();
    assert_eq!(dropped, [true, false], "an off of the one, an on of the other");
    let (_, deltas) = send(&mut it);
    assert_eq!(deltas.len(), 2);
}

#[test]
fn when_history_is_lost_an_off_is_dropped_and_an_on_forgets_what_it_had_seen() {
    let mut it = caught_up(50, vec![]);
    it.flag_set(&path("a/f"), false).expect("fits");
    it.disable_wins_flag_set(&path("a/f"), true).expect("fits");
    it.absorb_chunk(restarting(Restart::Lost, chunk(30, false, vec![])));
    assert_eq!(it.take_reports().len(), 1);
    assert_eq!(pushed(&send(&mut it).1), (true, Some(0)));
}
