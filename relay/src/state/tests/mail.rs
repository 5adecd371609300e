//! Messages to one node.

use dormouse_proto::record::{Received, Send};

use super::*;
use crate::state::SendVerdict;

fn send(story: &mut Story, node: u64, id: &str, payload: &str) -> SendVerdict {
    let send = Send {
        namespace: Namespace::default(),
        node: NodeId(node),
        message_id: id.parse().expect("valid"),
        sender: "tests".to_owned(),
        payload: Value::Text(payload.to_owned()),
        ttl_ms: 10_000,
    };
    match story.say(Record::Send(send)) {
        Verdict::Send(verdict) => verdict,
        other => panic!("{other:?}"),
    }
}

fn accepted(verdict: SendVerdict) -> Revision {
    match verdict {
        SendVerdict::Accepted { revision, .. } => revision,
        other => panic!("{other:?}"),
    }
}

fn ids(chunk: &Chunk) -> Vec<&str> {
    chunk.inbox.iter().map(|mail| mail.message_id.as_str()).collect()
}

fn of_node(story: &Story, node: u64, token: Option<Token>, max_bytes: usize) -> Chunk {
    let token = token.map(Ok);
    story.pull(&Pull { node: Some(NodeId(node)), token, max_bytes, ..story.everything() })
}

fn counts(story: &Story) -> crate::state::MailCounts {
    story.fold.namespace(&Namespace::default()).expect("there").mail_counts()
}

#[test]
fn messages_come_in_order_before_all_rows_and_only_to_their_node() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.join(2, 1, None);
    story.bound(1, 1, vec![count("n", 1)]);
    for id in ["a", "b", "c"] {
        accepted(send(&mut story, 1, id, "hello"));
    }
    assert_eq!(ids(&of_node(&story, 1, None, 1 << 20)), ["a", "b", "c"]);
    assert!(of_node(&story, 2, None, 1 << 20).inbox.is_empty());
    let first = of_node(&story, 1, None, 150);
    assert_eq!((ids(&first), first.rows, first.caught_up), (vec!["a"], 0, false));
    let second = of_node(&story, 1, Some(first.token), 1 << 20);
    assert_eq!((ids(&second), second.caught_up), (vec!["b", "c"], true));
    assert!(
        of_node(&story, 1, Some(second.token), 1 << 20).inbox.is_empty(),
        "its token says that it has them"
    );
}

#[test]
fn a_repeated_message_is_one_message() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let revision = accepted(send(&mut story, 1, "a", "hello"));
    assert_eq!(send(&mut story, 1, "a", "hello"), SendVerdict::Accepted { revision, duplicate: true });
    assert_eq!(ids(&of_node(&story, 1, None, 1 << 20)), ["a"]);
}

#[test]
fn what_a_node_has_received_does_not_wait_any_more() {
    let mut story = Story::default();
    story.join(1, 1, None);
    let first = accepted(send(&mut story, 1, "a", "hello"));
    accepted(send(&mut story, 1, "b", "hello"));
    let received = Received { namespace: Namespace::default(), node: NodeId(1), upto: first };
    story.say(Record::Received(received));
    assert_eq!(ids(&of_node(&story, 1, None, 1 << 20)), ["b"]);
    assert_eq!((counts(&story).sent, counts(&story).received), (2, 1));
}

#[test]
fn nobody_who_is_no_member_is_sent_anything() {
    let mut story = Story::default();
    story.join(1, 1, None);
    assert_eq!(send(&mut story, 9, "a", "hello"), SendVerdict::Unknown);
    story.gone(1, 1, Cause::Left, 0);
    assert_eq!(send(&mut story, 1, "a", "hello"), SendVerdict::Gone);
    // Nothing was remembered of that: once the node is back the same message is accepted.
    story.join(1, 2, Some(1));
    accepted(send(&mut story, 1, "a", "hello"));
}

#[test]
fn a_full_inbox_refuses_until_its_node_has_received_something() {
    let mut story = Story::default();
    story.policy(Policy { inbox_max: Some(2), inbox_bytes_max: Some(1_000), ..Policy::default() });
    story.join(1, 1, None);
    let first = accepted(send(&mut story, 1, "a", "hello"));
    assert_eq!(send(&mut story, 1, "large", &"x".repeat(1_000)), SendVerdict::Full);
    accepted(send(&mut story, 1, "b", "hello"));
    assert_eq!(send(&mut story, 1, "c", "hello"), SendVerdict::Full);
    story.say(Record::Received(Received { namespace: Namespace::default(), node: NodeId(1), upto: first }));
    accepted(send(&mut story, 1, "c", "hello"));
}

#[test]
fn a_message_waits_for_its_time_and_for_its_node_and_is_counted_if_in_vain() {
    let mut story = Story::default();
    story.policy(Policy { tombstones_max: Some(1), ..Policy::default() });
    story.join(1, 1, None);
    accepted(send(&mut story, 1, "a", "hello"));
    for log_time_ms in [5_000, 10_000] {
        story.say(Record::Digest(Digest { log_time_ms, ..Digest::default() }));
    }
    assert_eq!(counts(&story).expired, 1);
    assert!(of_node(&story, 1, None, 1 << 20).inbox.is_empty());

    accepted(send(&mut story, 1, "b", "hello"));
    story.gone(1, 1, Cause::Expired, u64::MAX);
    story.join(1, 2, Some(1));
    assert_eq!(
        ids(&of_node(&story, 1, None, 1 << 20)),
        ["b"],
        "an inbox outlives the end as the tombstone does"
    );
    story.gone(1, 2, Cause::Left, 0);
    story.join(2, 1, None);
    story.gone(2, 1, Cause::Left, 0);
    assert_eq!(counts(&story).undelivered, 1, "the tombstone of node 1 was one too many");
    let view = story.fold.namespace(&Namespace::default()).expect("there");
    assert_eq!(view.mail_waiting(), (0, 0));
}

#[test]
fn inboxes_survive_a_snapshot() {
    let mut story = Story::default();
    story.join(1, 1, None);
    story.join(2, 1, None);
    for no in 0..10_u64 {
        accepted(send(&mut story, 1 + no % 2, &format!("m{no}"), "hello"));
    }
    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    let mut restored = Story { fold: Fold::restore(bytes.chunks(9)).expect("whole"), stamp_ms: 0 };
    assert_eq!(ids(&of_node(&restored, 1, None, 1 << 20)).len(), 5);
    for it in [&mut story, &mut restored] {
        it.say(Record::Digest(Digest { log_time_ms: 5_000, ..Digest::default() }));
        accepted(send(it, 1, "late", "hello"));
        it.say(Record::Digest(Digest { log_time_ms: 10_000, ..Digest::default() }));
    }
    assert_eq!(ids(&of_node(&restored, 1, None, 1 << 20)), ["late"]);
    assert_eq!(restored.fold.hash(), story.fold.hash());
}

#[test]
fn a_large_inbox_has_parts_of_a_snapshot_that_can_be_read() {
    let mut story = Story::default();
    story.policy(Policy { inbox_max: Some(10_000), inbox_bytes_max: Some(1 << 30), ..Policy::default() });
    story.join(1, 1, None);
    let payload = "x".repeat(64 << 10);
    for no in 0..300 {
        accepted(send(&mut story, 1, &format!("m{no}"), &payload));
    }
    let (mut largest, mut bytes) = (0, Vec::new());
    story.fold.write_snapshot(|piece| {
        largest = largest.max(piece.len());
        bytes.extend_from_slice(piece);
    });
    assert!(largest < 8 << 20, "{largest} bytes in one part");
    let restored = Story { fold: Fold::restore([&bytes]).expect("whole"), stamp_ms: 0 };
    assert_eq!(ids(&of_node(&restored, 1, None, usize::MAX)).len(), 300);
}
