//! Presence.

use super::*;
use crate::replica::message::HolderRow;

fn holders(rows_of: &[(u64, Option<&str>)]) -> KeyRows {
    let holder = |(node, value): &(u64, Option<&str>)| HolderRow {
        node: NodeId(*node),
        incarnation: Incarnation(1),
        value: value.map(text),
    };
    rows("a/p", Rows::Presence { holders: rows_of.iter().map(holder).collect() })
}

fn shown(it: &Replica) -> Vec<(u64, String)> {
    let shown = |(node, value): (NodeId, &Value)| {
        (node.0, if let Value::Text(text) = value { text.clone() } else { String::new() })
    };
    it.presence(&path("a/p")).expect("known").into_iter().map(shown).collect()
}

fn hold_up(it: &mut Replica, value: Option<&str>) {
    it.presence_set(&path("a/p"), value.map(text)).expect("fits");
}

/// What waits to be pushed again.
fn said_again(it: &mut Replica) -> Option<Value> {
    it.seal(PushId(7));
    let push = it.outgoing().push?;
    match only(push.deltas) {
        Change::Presence(delta) => delta.value.clone(),
        other => panic!("{other:?} is no presence"),
    }
}

/// A node with the id 1 that holds something up, and everybody knows it.
fn holding() -> Replica {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    hold_up(&mut it, Some("mine"));
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 6, vec![]));
    it.absorb_chunk(chunk(6, true, vec![]));
    it
}

#[test]
fn holders_are_shown_with_the_own_word_on_top() {
    let mut it = caught_up(5, vec![holders(&[(1, Some("old")), (2, Some("b")), (3, None)])]);
    assert_eq!(shown(&it), [(1, "old".into()), (2, "b".into())]);
    hold_up(&mut it, Some("new"));
    assert_eq!(shown(&it), [(1, "old".into()), (2, "b".into())], "it has no id yet");
    lease(&mut it, Admission::Joined, 1);
    for _ in 0..2 {
        assert_eq!(shown(&it), [(1, "new".into()), (2, "b".into())]);
        it.seal(PushId(7));
    }
    hold_up(&mut it, None);
    assert_eq!(shown(&it), [(2, "b".into())]);
    assert_eq!(replica().presence(&path("a/p")), None, "nothing was heard yet");
}

#[test]
fn what_an_acknowledgement_leaves_out_is_held_up() {
    let mut it = holding();
    assert_eq!((shown(&it), it.pending().deltas), (vec![(1, "mine".into())], 0));
    hold_up(&mut it, None);
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 7, vec![]));
    it.absorb_chunk(chunk(7, true, vec![holders(&[(1, None)])]));
    assert_eq!((shown(&it), it.pending().deltas), (vec![], 0));
    assert!(it.held.presence(&path("a/p")).is_none_or(std::collections::BTreeMap::is_empty));
}

#[test]
fn what_stands_is_said_again_after_the_membership_ended() {
    for (admission, node) in [(Admission::Readmitted, 1), (Admission::Forked, 2), (Admission::Forgotten, 2)] {
        let mut it = holding();
        lease(&mut it, admission, node);
        assert!(it.says_again());
        assert_eq!(said_again(&mut it), Some(text("mine")), "{admission:?}");
        assert!(!it.says_again(), "it is under way");
    }
    let mut it = holding();
    lease(&mut it, Admission::Renewed, 1);
    assert_eq!(it.pending().deltas, 0);
    it.absorb_chunk(restarting(Restart::Lost, chunk(9, true, vec![])));
    assert_eq!(
        said_again(&mut it),
        Some(text("mine")),
        "the history that is left may never have heard of it"
    );
}

#[test]
fn what_was_withdrawn_is_not_said_again() {
    let mut it = holding();
    hold_up(&mut it, None);
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 7, vec![]));
    lease(&mut it, Admission::Forked, 2);
    assert_eq!(it.pending().deltas, 0);
}

#[test]
fn what_the_relay_took_away_although_it_stands_is_said_again() {
    let mut it = holding();
    it.absorb_chunk(chunk(5, false, vec![holders(&[(1, None)])]));
    assert_eq!(it.pending().deltas, 0, "an old row says nothing");
    it.absorb_chunk(chunk(9, true, vec![holders(&[(1, None)])]));
    assert_eq!(said_again(&mut it), Some(text("mine")));
    assert_eq!(shown(&it), [(1, "mine".into())]);
    it.absorb_chunk(chunk(10, true, vec![holders(&[(1, None)])]));
    assert_eq!(it.pending().deltas, 1, "it is under way already");
}

#[test]
fn what_is_refused_is_not_held_up_any_more() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    hold_up(&mut it, Some("mine"));
    send(&mut it);
    it.absorb_refusal(&refusal("QUOTA", Verdict::Quota, &[]));
    assert_eq!(it.take_reports().len(), 1);
    lease(&mut it, Admission::Readmitted, 1);
    assert_eq!(it.pending().deltas, 0);
}

#[test]
fn a_node_holds_up_64_at_the_most() {
    let mut it = replica();
    for n in 0..64 {
        it.presence_set(&path(&format!("a/{n}")), Some(text("1"))).expect("fits");
    }
    assert_eq!(it.presence_set(&path("a/65"), Some(text("1"))), Err(WriteError::TooManyPresences));
    it.presence_set(&path("a/0"), Some(text("2"))).expect("it is held up already");
    it.presence_set(&path("a/1"), None).expect("fits");
    it.presence_set(&path("a/65"), Some(text("1"))).expect("there is room again");
}

#[test]
fn what_is_held_up_is_said_again_when_the_log_has_lost_it() {
    let mut it = caught_up(5, vec![]);
    lease(&mut it, Admission::Joined, 1);
    it.presence_set(&path("a/p"), Some(text("here"))).expect("fits");
    let (first, _) = send(&mut it);
    it.absorb_ack(ack(first, 6, vec![]));
    it.outgoing();
    it.absorb_chunk(chunk(6, true, vec![]));
    it.outgoing();
    it.absorb_chunk(restarting(Restart::Lost, chunk(90, true, vec![])));
    let (_, deltas) = send(&mut it);
    assert!(matches!(only(&deltas), Change::Presence(_)), "{deltas:?}");
}
