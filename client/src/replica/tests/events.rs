//! Logs of events.

use dormouse_proto::{ids::OnceId, lattice::Append};

use super::*;
use crate::replica::message::{EventRow, Fate};

fn entry(revision: u64, index: u32, payload: &str) -> EventRow {
    EventRow {
        revision: Revision(revision),
        index,
        payload: text(payload),
        node: Some(NodeId(1)),
        accepted_at_ms: 9,
    }
}

fn log(trimmed_upto: u64, events: Vec<EventRow>) -> KeyRows {
    rows("a/e", Rows::Events { events, trimmed_upto: Revision(trimmed_upto) })
}

/// What is shown, and of how many of them the place is known.
fn shown(it: &Replica) -> (Vec<String>, usize) {
    let events = it.events(&path("a/e")).expect("known");
    let payload = |value: &Value| if let Value::Text(text) = value { text.clone() } else { String::new() };
    let bound = events.iter().filter(|event| event.at.is_some()).count();
    (events.iter().map(|event| payload(event.payload)).collect(), bound)
}

fn append(it: &mut Replica, payload: &str, id: Option<&str>) {
    let id = id.map(|id| id.parse::<OnceId>().expect("an id"));
    it.events_append(&path("a/e"), text(payload), id).expect("fits");
}

fn pushed(deltas: &[Delta]) -> (Vec<String>, u64) {
    match only(deltas) {
        Change::Events(delta) => {
            let payload =
                |it: &Append| if let Value::Text(text) = &it.payload { text.clone() } else { String::new() };
            (delta.append.iter().map(payload).collect(), delta.trim_upto.0)
        }
        other => panic!("{other:?} is no log of events"),
    }
}

#[test]
fn entries_stand_in_the_log_s_order_and_own_ones_after_them() {
    let mut it = replica();
    assert_eq!(it.events(&path("a/e")), None, "nothing was heard yet");
    it.absorb_chunk(chunk(9, true, vec![log(0, vec![entry(7, 1, "c"), entry(3, 0, "a"), entry(7, 0, "b")])]));
    append(&mut it, "sent", None);
    it.seal(PushId(7));
    append(&mut it, "waits", None);
    append(&mut it, "again", None);
    assert_eq!(shown(&it), (["a", "b", "c", "sent", "waits", "again"].map(str::to_owned).to_vec(), 3));
    assert_eq!(it.events(&path("a/none")), Some(vec![]));
}

#[test]
fn an_entry_is_never_replaced_and_never_shown_twice() {
    let mut it = caught_up(5, vec![log(0, vec![entry(3, 0, "a")])]);
    it.absorb_chunk(chunk(8, true, vec![log(0, vec![entry(3, 0, "other"), entry(6, 0, "b")])]));
    assert_eq!(shown(&it).0, ["a", "b"]);
}

#[test]
fn an_acknowledgement_names_the_entries_and_takes_over() {
    let mut it = caught_up(5, vec![]);
    append(&mut it, "a", None);
    append(&mut it, "b", None);
    let (push_no, deltas) = send(&mut it);
    assert_eq!(pushed(&deltas), (vec!["a".to_owned(), "b".to_owned()], 0));
    it.absorb_ack(ack(push_no, 8, vec![log(0, vec![entry(8, 0, "a"), entry(8, 1, "b")])]));
    assert_eq!(shown(&it), (vec!["a".to_owned(), "b".to_owned()], 2));
}

#[test]
fn a_row_of_the_sealed_push_stands_for_all_of_it() {
    let mut it = caught_up(5, vec![]);
    append(&mut it, "a", None);
    let (push_no, _) = send(&mut it); // bound at 6, its answer is lost
    it.absorb_settled(settled(push_no, Some(6)));
    it.absorb_chunk(chunk(9, false, vec![]));
    assert_eq!(shown(&it), (vec!["a".to_owned()], 0), "its row may still be on its way");
    it.absorb_chunk(chunk(9, false, vec![log(0, vec![entry(6, 0, "a")])]));
    assert_eq!(shown(&it), (vec!["a".to_owned()], 1));
    it.absorb_chunk(chunk(9, true, vec![log(7, vec![])]));
    assert_eq!(shown(&it), (vec![], 0));
}

#[test]
fn an_id_is_appended_once() {
    let mut it = caught_up(5, vec![]);
    append(&mut it, "a", Some("one"));
    append(&mut it, "a", Some("one"));
    it.seal(PushId(7));
    append(&mut it, "a", Some("one"));
    append(&mut it, "b", Some("two"));
    assert_eq!(shown(&it).0, ["a", "b"]);
}

#[test]
fn a_trim_is_shown_at_once_and_never_goes_back() {
    let mut it = caught_up(9, vec![log(0, vec![entry(3, 0, "a"), entry(5, 0, "b"), entry(7, 0, "c")])]);
    it.events_trim(&path("a/e"), Revision(5)).expect("fits");
    it.events_trim(&path("a/e"), Revision(3)).expect("fits");
    assert_eq!(shown(&it).0, ["c"]);
    let (push_no, deltas) = send(&mut it);
    assert_eq!(pushed(&deltas), (vec![], 5));
    it.absorb_ack(ack(push_no, 10, vec![log(5, vec![])]));
    assert_eq!((shown(&it).0, it.events_trimmed_upto(&path("a/e"))), (vec!["c".to_owned()], Revision(5)));
    it.absorb_chunk(chunk(8, false, vec![log(0, vec![entry(3, 0, "a")])]));
    assert_eq!(shown(&it).0, ["c"], "a late chunk brings nothing back");
    assert_eq!(it.take_events_missed(&path("a/e")), None, "everything had been seen");
}

#[test]
fn a_trim_beyond_what_was_seen_is_reported_once() {
    let mut it = caught_up(9, vec![log(2, vec![entry(3, 0, "a")])]);
    assert_eq!(it.take_events_missed(&path("a/e")), None, "it was trimmed before it was followed");
    it.absorb_chunk(chunk(20, false, vec![log(0, vec![entry(12, 0, "b")])]));
    it.absorb_chunk(chunk(21, false, vec![log(12, vec![])]));
    assert_eq!(it.take_events_missed(&path("a/e")), None, "the backlog had come so far");
    it.absorb_chunk(chunk(30, true, vec![log(25, vec![])]));
    let missed = Missed { after: Revision(12), upto: Revision(25) };
    assert_eq!(it.take_events_missed(&path("a/e")), Some(missed));
    assert_eq!(it.take_events_missed(&path("a/e")), None);
}

#[test]
fn an_own_entry_that_was_acknowledged_does_not_say_that_those_before_it_were_seen() {
    let mut it = caught_up(5, vec![]);
    append(&mut it, "own", None);
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 8, vec![log(0, vec![entry(8, 0, "own")])]));
    it.absorb_chunk(chunk(9, true, vec![log(7, vec![])]));
    assert!(it.take_events_missed(&path("a/e")).is_some(), "an entry of 7 may have been there");
}

#[test]
fn after_a_restart_what_was_not_delivered_again_is_dropped_at_the_barrier() {
    let mut it = caught_up(5, vec![log(0, vec![entry(3, 0, "a"), entry(4, 0, "b")])]);
    it.absorb_chunk(restarting(Restart::Compacted, chunk(9, false, vec![log(0, vec![entry(4, 0, "b")])])));
    assert_eq!(shown(&it).0, ["a", "b"]);
    it.absorb_chunk(chunk(9, true, vec![]));
    assert_eq!(shown(&it).0, ["b"]);
}

#[test]
fn a_trim_of_a_lost_history_hides_nothing_of_the_one_that_is_left() {
    let mut it = caught_up(50, vec![log(40, vec![entry(45, 0, "lost")])]);
    append(&mut it, "own", None);
    it.events_trim(&path("a/e"), Revision(45)).expect("fits");
    it.absorb_chunk(restarting(Restart::Lost, chunk(30, true, vec![log(0, vec![entry(20, 0, "a")])])));
    assert_eq!(it.take_reports().len(), 1, "the trim");
    assert_eq!(shown(&it).0, ["a", "own"]);
    assert_eq!(it.take_events_missed(&path("a/e")), None);
}

#[test]
fn only_entries_with_an_id_are_said_again_when_nobody_knows() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    append(&mut it, "plain", None);
    append(&mut it, "named", Some("one"));
    send(&mut it);
    send(&mut it);
    lease(&mut it, Admission::Forgotten, 2);
    let fates: Vec<_> = it.take_reports().into_iter().map(|report| report.fate).collect();
    assert_eq!(fates, [Fate::Unknown { repeated: false }, Fate::Unknown { repeated: true }]);
    assert_eq!(pushed(&send(&mut it).1).0, ["named"]);
}

#[test]
fn a_full_namespace_refuses_entries_and_takes_trims() {
    let mut it = caught_up(5, vec![log(0, vec![entry(3, 0, "a")])]);
    append(&mut it, "b", None);
    it.events_trim(&path("a/e"), Revision(3)).expect("fits");
    send(&mut it);
    it.absorb_refusal(&refusal("QUOTA", Verdict::Quota, &[]));
    assert_eq!(it.take_reports().len(), 1);
    assert_eq!(pushed(&send(&mut it).1), (vec![], 3));
}

#[test]
fn one_delta_appends_at_most_500_and_the_rest_follows_in_order() {
    let mut it = caught_up(5, vec![]);
    it.events_trim(&path("a/e"), Revision(4)).expect("fits");
    for n in 0..1_200 {
        append(&mut it, &n.to_string(), None);
    }
    it.counter_add(&path("a/c"), 1).expect("fits");
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    while it.pending().deltas > 0 {
        let (push_no, deltas) = send(&mut it);
        let (entries, trim) = pushed(&deltas[..1]);
        sizes.push((entries.len(), trim, deltas.len()));
        all.extend(entries);
        it.absorb_ack(ack(push_no, push_no.0 + 5, vec![]));
    }
    assert_eq!(sizes, [(500, 4, 2), (500, 0, 1), (200, 0, 1)]);
    assert_eq!(all, (0..1_200).map(|n| n.to_string()).collect::<Vec<_>>());
}
