//! Messages to this node.

use super::*;
use crate::replica::message::InboxRow;

fn message(revision: u64, id: &str) -> InboxRow {
    InboxRow { revision: Revision(revision), message_id: id.into(), sender: "s".into(), payload: text("1") }
}

fn with(at: u64, inbox: Vec<InboxRow>) -> Chunk {
    Chunk { inbox, ..chunk(at, true, vec![]) }
}

fn taken(it: &mut Replica) -> Vec<String> {
    it.take_inbox().into_iter().map(|message| message.message_id).collect()
}

#[test]
fn messages_are_delivered_in_order_and_once() {
    let mut it = replica();
    it.absorb_chunk(with(5, vec![message(3, "a"), message(4, "b")]));
    it.absorb_chunk(with(6, vec![message(3, "a"), message(4, "b"), message(6, "c")]));
    assert_eq!(taken(&mut it), ["a", "b", "c"]);
    it.absorb_chunk(with(6, vec![message(4, "b"), message(6, "c")]));
    assert_eq!(taken(&mut it), [""; 0]);
}

#[test]
fn a_message_that_has_another_revision_in_the_history_that_is_left_is_not_delivered_again() {
    let mut it = replica();
    it.absorb_chunk(with(50, vec![message(49, "a")]));
    it.absorb_chunk(restarting(Restart::Lost, with(30, vec![message(20, "a"), message(25, "new")])));
    assert_eq!(taken(&mut it), ["a", "new"]);
}

#[test]
fn messages_of_an_answer_that_is_not_taken_are_delivered_with_the_next() {
    let mut it = caught_up(5, vec![]);
    it.set_add(&path("a/s"), element("own")).expect("fits");
    let (push_no, _) = send(&mut it);
    it.absorb_ack(ack(push_no, 6, vec![]));
    it.absorb_chunk(restarting(Restart::Compacted, with(20, vec![message(7, "a")])));
    assert_eq!(taken(&mut it), [""; 0]);
    it.outgoing();
    it.absorb_chunk(restarting(Restart::Compacted, with(20, vec![message(7, "a")])));
    assert_eq!(taken(&mut it), ["a"]);
}

#[test]
fn the_names_that_are_kept_are_bounded() {
    let mut it = replica();
    let many = (1..=3_000).map(|n| message(n, &n.to_string())).collect();
    it.absorb_chunk(with(3_000, many));
    assert_eq!(taken(&mut it).len(), 3_000);
    it.absorb_chunk(restarting(
        Restart::Lost,
        with(9, vec![message(8, "3000"), message(9, "1977"), message(9, "x")]),
    ));
    assert_eq!(taken(&mut it), ["x"]);
}
